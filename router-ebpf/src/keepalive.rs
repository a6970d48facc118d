//! Keepalives as Cisco's routers send them: a GRE packet with a GRE packet in it that leads back to
//! its sender. Who decapsulates it and sends on what is inside has answered.

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use router_common::{
    gre::Gre,
    map::TunnelIngress,
    net::{Ethernet, Ipv4, Vlan},
    own,
    packet::Packet as _,
};

use crate::{
    frame::Frame,
    maps,
    verdict::{Action, Refusal},
};

/// Whether the inner packet is GRE from the address at which we are back to where it came from.
#[inline(always)]
pub fn is_for_us_to_return(frame: Frame<'_>, gre: &Gre, inner: &Ipv4) -> bool {
    if !own::is_keepalive(&frame, gre.inner_offset, inner) {
        return false;
    }
    let Some(outer) = frame.read::<Ipv4>(gre.outer_offset) else {
        return false;
    };
    outer.version() == 4 && inner.source == outer.destination && inner.destination == outer.source
}

/// Takes the outer headers off and sends the rest back by where it came.
// VERIFIER: Linux 6.1 says "invalid zero-sized read" to a length that was compared before it was
// spilled; so the tags are copied one by one.
#[inline(always)]
pub fn give_back(ctx: &XdpContext, gre: &Gre, tunnel: &TunnelIngress) -> Result<Action, Refusal> {
    let index = tunnel.index;
    let malformed = Refusal::Malformed { index };
    let frame = Frame(ctx);
    let link_length = gre.outer_offset;
    let ethernet: Ethernet = frame.load(0).ok_or(malformed)?;
    let [outer_tag, inner_tag]: [[u8; 4]; 2] = frame.load(Ethernet::LEN).ok_or(malformed)?;
    let removed = (gre.inner_offset - link_length) as i32;
    // SAFETY: the context of this very call; no pointer into the packet is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, removed) } != 0 {
        return Err(Refusal::NoHeadroom);
    }
    frame
        .store(0, &ethernet.reversed())
        .ok_or(Refusal::NoHeadroom)?;
    if link_length > Ethernet::LEN {
        frame
            .store(Ethernet::LEN, &outer_tag)
            .ok_or(Refusal::NoHeadroom)?;
    }
    if link_length > Ethernet::LEN + Vlan::LEN {
        frame
            .store(Ethernet::LEN + Vlan::LEN, &inner_tag)
            .ok_or(Refusal::NoHeadroom)?;
    }
    maps::count(index, |counters| counters.keepalives_answered += 1);
    Ok(Action::Answer)
}
