//! Keepalives as Cisco's routers send them: a GRE packet with a GRE packet in it that leads back to
//! its sender. Who decapsulates it and sends on what is inside has answered.

use aya_ebpf::{
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use router_common::{
    gre::{Gre, GreBase},
    map::TunnelIngress,
    net::{Ethernet, Ipv4, PROTO_GRE, Vlan},
    packet::Packet as _,
};

use crate::{
    frame::Frame,
    maps,
    verdict::{Action, Refusal},
};

/// Protocol type of what comes back: no payload follows.
pub const PROTOCOL: u16 = 0;

/// An Ethernet header with two tags.
const LONGEST_LINK: usize = Ethernet::LEN + 2 * Vlan::LEN;

/// Whether the inner packet is GRE from the address at which we are back to where it came from.
#[inline(always)]
pub fn is_for_us_to_return(frame: Frame<'_>, gre: &Gre, inner: &Ipv4) -> bool {
    if inner.protocol != PROTO_GRE || inner.has_options() {
        return false;
    }
    let Some(outer) = frame.read::<Ipv4>(gre.outer_offset) else {
        return false;
    };
    let Some(base) = frame.read::<GreBase>(gre.inner_offset + Ipv4::LEN) else {
        return false;
    };
    outer.version() == 4
        && inner.source == outer.destination
        && inner.destination == outer.source
        && base.protocol() == PROTOCOL
}

/// Takes the outer headers off and sends the rest back by where it came.
#[inline(always)]
pub fn give_back(ctx: &XdpContext, gre: &Gre, tunnel: &TunnelIngress) -> Result<Action, Refusal> {
    let index = tunnel.index;
    let link_length = gre.outer_offset;
    if !(Ethernet::LEN..=LONGEST_LINK).contains(&link_length) {
        return Err(Refusal::Malformed { index });
    }
    let mut link = [0_u8; LONGEST_LINK];
    // SAFETY: `link` is good for `link_length` bytes, by the check above.
    let loaded =
        unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, link.as_mut_ptr().cast(), link_length as u32) };
    if loaded != 0 {
        return Err(Refusal::Malformed { index });
    }
    for byte in 0..6 {
        link.swap(byte, 6 + byte);
    }
    let removed = (gre.inner_offset - link_length) as i32;
    // SAFETY: the context of this very call; no pointer into the packet is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, removed) } != 0 {
        return Err(Refusal::NoHeadroom);
    }
    // SAFETY: as for the load.
    let stored =
        unsafe { bpf_xdp_store_bytes(ctx.ctx, 0, link.as_mut_ptr().cast(), link_length as u32) };
    if stored != 0 {
        return Err(Refusal::NoHeadroom);
    }
    maps::count(index, |counters| counters.keepalives_answered += 1);
    Ok(Action::Answer)
}
