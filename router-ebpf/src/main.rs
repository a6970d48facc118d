//! The programs in the kernel. Each entry point is a thin door; what is behind it reads downward:
//! parse → tunnel → heartbeat or decapsulation → verdict.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers take lengths and offsets of packets as i32 and u32; a packet is far shorter"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the entry macros hand the context over by value"
)]

#[cfg(feature = "bench")]
mod bench;
mod checksum;
mod decap;
mod deliver;
mod encap;
mod epoch;
mod fence;
mod forward;
mod frame;
mod heartbeat;
mod keepalive;
mod layer2;
mod log;
mod lookup;
mod maps;
mod mss;
mod outer;
mod skb;
mod verdict;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::{
    decap::Step,
    verdict::{Action, Refusal},
};

/// On the underlay, before the stack: takes GRE packets of our tunnels. All else it treats as
/// `lan` does, for an underlay may be a LAN as well.
#[xdp(frags)]
pub fn underlay(ctx: XdpContext) -> u32 {
    on_underlay(&ctx)
}

/// All of [`underlay`] but its door, so that it can be measured.
#[inline(always)]
fn on_underlay(ctx: &XdpContext) -> u32 {
    let mut arrived = None;
    let step = decap::receive(ctx.ctx, &mut arrived);
    match (step, &arrived) {
        (Step::Arrived, Some(arrived)) => verdict::of_xdp(ctx.ctx, decap::pass_on(ctx, arrived)),
        (Step::NotOurs, _) => verdict::of_xdp(ctx.ctx, from_lan(ctx)),
        (Step::Arrived, None) | (Step::Pass, _) => XDP_PASS,
        (Step::Answer, _) => XDP_TX,
        (Step::Drop, _) => XDP_DROP,
    }
}

/// On a LAN that is no underlay: forwards into tunnels what it can, leaves all else.
#[xdp(frags)]
pub fn lan(ctx: XdpContext) -> u32 {
    verdict::of_xdp(ctx.ctx, from_lan(&ctx))
}

#[inline(always)]
fn from_lan(ctx: &XdpContext) -> Result<Action, Refusal> {
    forward::from_lan(ctx).unwrap_or(Ok(Action::ToStack))
}

/// On the underlay, TC ingress: moves what XDP decapsulated into its tunnel device, and
/// decapsulates for layer-2 tunnels. The packet goes by way of an sk_buff because that keeps
/// offload state such as a partial checksum, which a redirect from XDP would lose.
#[classifier]
pub fn underlay_handover(ctx: TcContext) -> i32 {
    deliver::hand_over(&ctx)
}

/// On a tunnel's dataplane end, TC ingress: puts the outer headers before what the stack sent.
#[classifier]
pub fn tunnel_egress(ctx: TcContext) -> i32 {
    verdict::of_tc(&ctx, encap::send(&ctx))
}

/// On an interface that a group protects, TC ingress, behind [`underlay_handover`]: forwards nothing
/// without authority.
#[classifier]
pub fn fence_in(ctx: TcContext) -> i32 {
    verdict::of_fence(&ctx, fence::inbound(&ctx))
}

/// On an interface that a group protects, TC egress: as [`fence_in`].
#[classifier]
pub fn fence_out(ctx: TcContext) -> i32 {
    verdict::of_fence(&ctx, fence::outbound(&ctx))
}

/// Does nothing. A veth hands `XDP_TX` and redirected frames to its peer only if the peer runs an
/// XDP program too.
#[xdp(frags)]
pub fn pass(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
