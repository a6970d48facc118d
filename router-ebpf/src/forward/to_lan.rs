//! Tunnel to LAN.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use router_common::{
    map::{TunnelIngress, ingress_flag, interface_flag},
    net::Ethernet,
};

use super::{
    Outcome, leave,
    passenger::{self, Arrival},
    route::{self, Hop},
};
use crate::{decap::Arrived, frame::Frame, maps};

/// Forwards what came for a tunnel to a host of the LAN.
#[inline(never)]
pub(super) fn forward(ctx: *mut xdp_md, arrived: &Arrived) -> Outcome {
    let ctx = XdpContext::new(ctx);
    let Arrived {
        tunnel,
        protocol,
        inner_offset,
        inner_length,
        ..
    } = *arrived;
    // Not every device sends what lies in several buffers.
    if Frame(&ctx).len() != Frame(&ctx).whole_len() {
        return Outcome::NotTaken;
    }
    let arrival = Arrival {
        ifindex: tunnel.user_ifindex,
        strict_reverse_path: tunnel.flags & ingress_flag::STRICT_REVERSE_PATH != 0,
        protocol,
        offset: inner_offset,
        room: inner_length,
    };
    let Some(way) = find(&ctx, &arrival, tunnel) else {
        return Outcome::NotTaken;
    };
    let removed = (inner_offset - Ethernet::LEN) as i32;
    // SAFETY: the context of this very call; no pointer into the packet is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, removed) } != 0 {
        return Outcome::NotTaken;
    }
    if passenger::age(Frame(&ctx), protocol, Ethernet::LEN).is_none() {
        return Outcome::Broken;
    }
    let outcome = leave(&ctx, &way.hop, protocol, way.protected_by);
    if let Outcome::Forwarded = outcome {
        maps::count_received(tunnel.index, inner_length as u64);
        maps::count(tunnel.index, |counters| counters.rx_transit += 1);
    }
    outcome
}

struct Way {
    hop: Hop,
    /// See [`router_common::map::Interface`].
    protected_by: u16,
}

/// The way of the packet, which is not changed; `None` if it is the stack's.
#[inline(always)]
fn find(ctx: &XdpContext, arrival: &Arrival, tunnel: &TunnelIngress) -> Option<Way> {
    const LAN: u32 = interface_flag::LAN | interface_flag::TRANSMIT;
    let query = route::query()?;
    let passenger = passenger::examine(ctx, arrival, query)?;
    if tunnel.flags & ingress_flag::ADJUST_MSS != 0 && passenger.is_syn {
        return None;
    }
    let hop = query.hop(ctx)?;
    let lan = maps::interface(hop.ifindex)?;
    (lan.flags & LAN == LAN).then_some(Way {
        hop,
        protected_by: lan.protected_by,
    })
}
