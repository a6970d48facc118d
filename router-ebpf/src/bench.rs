//! Programs that `cargo xtask bench` measures, built with feature `bench` only.
//!
//! The kernel's test run does not give a frame back its first shape between two runs. So
//! [`bench_decapsulate`] does that itself, and [`bench_restore`] does nothing else: what the first
//! takes longer, decapsulation takes, but for the one move of the packet's start that the second
//! makes too. What that costs [`bench_adjust_head`] tells, which makes two.
//!
//! A heartbeat is refused the second time. So [`bench_heartbeat`] has the session forget its number
//! and gives the frame, which may have become the reply, its bytes back; [`bench_heartbeat_again`]
//! does nothing else.

use aya_ebpf::{
    bindings::{
        TC_ACT_UNSPEC,
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_REDIRECT},
    },
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head},
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray},
    programs::{TcContext, XdpContext},
};
use router_common::{
    bench::{Arrivals, Bench, BenchHeartbeat},
    net::{Ethernet, Ipv4},
    packet::Packet as _,
};

use crate::{frame::Frame, from_lan, maps, on_underlay, verdict};

#[map]
static BENCH: Array<Bench> = Array::with_max_entries(1, 0);

#[map]
static ARRIVALS: PerCpuArray<Arrivals> = PerCpuArray::with_max_entries(1, 0);

#[xdp]
pub fn bench_decapsulate(ctx: XdpContext) -> u32 {
    let verdict = on_underlay(&ctx);
    if verdict != XDP_PASS {
        return verdict;
    }
    restore(&ctx, true)
}

/// As [`bench_decapsulate`], for what the router forwards to a LAN without the stack.
#[xdp]
pub fn bench_to_lan(ctx: XdpContext) -> u32 {
    if on_underlay(&ctx) != XDP_REDIRECT {
        return XDP_ABORTED;
    }
    restore(&ctx, true)
}

/// As [`bench_to_lan`], for what comes from a LAN and goes into a tunnel, which moves the packet's
/// start the other way.
#[xdp]
pub fn bench_from_lan(ctx: XdpContext) -> u32 {
    if verdict::of_xdp(ctx.ctx, from_lan(&ctx)) != XDP_REDIRECT {
        return XDP_ABORTED;
    }
    restore(&ctx, true)
}

#[xdp]
pub fn bench_restore(ctx: XdpContext) -> u32 {
    let Some(bench) = BENCH.get(0) else {
        return XDP_ABORTED;
    };
    if !move_start(&ctx, bench.removed) {
        return XDP_ABORTED;
    }
    restore(&ctx, true)
}

#[xdp]
pub fn bench_adjust_head(ctx: XdpContext) -> u32 {
    let Some(bench) = BENCH.get(0) else {
        return XDP_ABORTED;
    };
    let removed = bench.removed;
    if move_start(&ctx, removed) && move_start(&ctx, -removed) {
        XDP_PASS
    } else {
        XDP_ABORTED
    }
}

#[map]
static BENCH_HEARTBEAT: Array<BenchHeartbeat> = Array::with_max_entries(1, 0);

#[xdp]
pub fn bench_heartbeat(ctx: XdpContext) -> u32 {
    let verdict = on_underlay(&ctx);
    if again(&ctx).is_none() {
        return XDP_ABORTED;
    }
    verdict
}

#[xdp]
pub fn bench_heartbeat_again(ctx: XdpContext) -> u32 {
    if again(&ctx).is_none() {
        return XDP_ABORTED;
    }
    XDP_PASS
}

/// Makes the heartbeat new to its session.
#[inline(always)]
fn again(ctx: &XdpContext) -> Option<()> {
    let bench = BENCH_HEARTBEAT.get(0)?;
    let state = maps::SESSIONS.get_ptr_mut(bench.session)?;
    // SAFETY: an array element; the measuring process alone runs these programs, on one CPU.
    unsafe {
        (*state).probe_sequence = 0;
        (*state).reply_sequence = 0;
    }
    Frame(ctx).store(0, &bench.frame)
}

/// Sends the frame out of an interface, with the headers that it shall have: the memory of a live
/// frame comes back as its last receiver left it.
#[xdp]
pub fn bench_send(ctx: XdpContext) -> u32 {
    if restore(&ctx, false) != XDP_PASS {
        return XDP_ABORTED;
    }
    let Some(bench) = BENCH.get(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: a helper without memory arguments.
    let verdict = unsafe { bpf_redirect(bench.ifindex, 0) };
    u32::try_from(verdict).unwrap_or(XDP_ABORTED)
}

/// Counts the packets that are to arrive, as IPv4 with a right header, and ends their way.
#[xdp]
pub fn bench_count(ctx: XdpContext) -> u32 {
    let (Some(header), Some(arrivals)) = (
        Frame(&ctx).read::<Ipv4>(Ethernet::LEN),
        ARRIVALS.get_ptr_mut(0),
    ) else {
        return XDP_PASS;
    };
    // SAFETY: this CPU's own element, which no other program changes.
    let arrivals = unsafe { &mut *arrivals };
    if header.destination != arrivals.destination || !header.checksum_is_valid() {
        return XDP_PASS;
    }
    arrivals.packets += 1;
    XDP_DROP
}

/// Does nothing, for what a TC program costs beside it.
#[classifier]
pub fn bench_pass_tc(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Writes the headers, the number in them being the next.
#[inline(always)]
fn restore(ctx: &XdpContext, move_back: bool) -> u32 {
    let Some(bench) = BENCH.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: an array element; the measuring process alone runs these programs, on one CPU.
    let bench = unsafe { &mut *bench };
    if move_back && !move_start(ctx, -bench.removed) {
        return XDP_ABORTED;
    }
    bench.next += bench.step;
    if bench.next >= bench.end {
        bench.next -= bench.end - bench.first;
    }
    let frame = Frame(ctx);
    if frame.store(0, &bench.headers).is_none() {
        return XDP_ABORTED;
    }
    if bench.number_offset != 0
        && frame
            .store(bench.number_offset as usize, &bench.next.to_be_bytes())
            .is_none()
    {
        return XDP_ABORTED;
    }
    XDP_PASS
}

#[inline(always)]
fn move_start(ctx: &XdpContext, by: i32) -> bool {
    // SAFETY: the context of this very call; no pointer into the packet is alive.
    unsafe { bpf_xdp_adjust_head(ctx.ctx, by) == 0 }
}
