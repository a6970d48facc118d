//! Inner packets that are for the tunnel's end itself, and not for whom they seem to be sent to.

use crate::{
    gre::GreBase,
    map::TunnelIngress,
    net::{Ipv4, PROTO_GRE, PROTO_UDP, Udp},
    packet::Packet,
};

/// Protocol type of a keepalive that has come back: no payload follows.
pub const KEEPALIVE: u16 = 0;

/// Whether the inner packet, whose header `inner` is at `offset`, is for us on the tunnel's
/// heartbeat port; others' packets to that port are theirs.
#[inline(always)]
pub fn is_heartbeat<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    inner: &Ipv4,
    tunnel: &TunnelIngress,
) -> bool {
    if inner.protocol != PROTO_UDP || inner.has_options() || inner.is_fragment() {
        return false;
    }
    let [first, ..] = inner.destination;
    if inner.destination != tunnel.heartbeat_address && first & 0xf0 != 0xe0 {
        return false;
    }
    let Some(udp) = packet.read::<Udp>(offset + Ipv4::LEN) else {
        return false;
    };
    tunnel.heartbeat_port != 0 && udp.destination() == tunnel.heartbeat_port
}

/// Whether the inner packet is what Cisco's routers put into a keepalive: the GRE packet that is to
/// come back. It is ours to return if it leads from the address at which we are to where it came
/// from.
#[inline(always)]
pub fn is_keepalive<P: Packet + ?Sized>(packet: &P, offset: usize, inner: &Ipv4) -> bool {
    if inner.protocol != PROTO_GRE || inner.has_options() {
        return false;
    }
    let base: Option<GreBase> = packet.read(offset + Ipv4::LEN);
    base.is_some_and(|base| base.protocol() == KEEPALIVE)
}
