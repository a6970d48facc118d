//! The headers that go before an inner packet, the same whoever makes room for them.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use bytemuck::Pod;
use router_common::{
    ecn,
    gre::{Format, GreBase},
    map::{TunnelEgress, egress_flag},
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet, GRE_UDP_PORT, Ipv4, Ipv6, PROTO_GRE, PROTO_UDP, Udp},
};

use crate::{epoch, maps};

/// What the outer header takes from the inner packet.
#[derive(Clone, Copy)]
pub struct Inner {
    pub protocol: u16,
    pub tos: u8,
    pub ttl: u8,
    pub flow_label: u32,
    /// Tells its flow from others, where GRE goes in UDP.
    pub hash: u32,
}

/// A packet with room for the outer headers behind its Ethernet header.
pub trait Room {
    /// Writes `value` at `offset` bytes from the packet's start.
    fn put<T: Pod>(&self, offset: usize, value: &T) -> Option<()>;
}

/// EtherType of a tunnel's outer packets.
#[inline(always)]
pub fn ether_type(egress: &TunnelEgress) -> u16 {
    if egress.format.has(Format::IPV6) {
        ETH_P_IPV6
    } else {
        ETH_P_IPV4
    }
}

/// What follows the outer IP header.
#[inline(always)]
pub fn protocol(egress: &TunnelEgress) -> u8 {
    if egress.format.has(Format::UDP) {
        PROTO_UDP
    } else {
        PROTO_GRE
    }
}

/// Outer type of service or traffic class.
#[inline(always)]
pub fn tos(egress: &TunnelEgress, inner: &Inner) -> u8 {
    let tos = inherited(egress, egress_flag::TOS_INHERIT, inner.tos, egress.tos);
    ecn::encapsulate(tos, inner.tos)
}

/// Writes the outer headers from IP on; where the GRE header is. Its checksum is left zero.
#[inline(always)]
pub fn put<R: Room>(
    room: &R,
    egress: &TunnelEgress,
    inner: &Inner,
    gre_protocol: u16,
    inner_length: u32,
) -> Option<usize> {
    let format = egress.format;
    // A GSO packet may be longer than its header can say; segmentation writes the true lengths.
    let total_length =
        (inner_length + format.outer_length() as u32).min(u32::from(u16::MAX)) as u16;
    let payload_length = total_length - format.ip_length() as u16;
    let protocol = protocol(egress);
    let ttl = inherited(egress, egress_flag::TTL_INHERIT, inner.ttl, egress.ttl);
    let tos = tos(egress, inner);
    if format.has(Format::IPV6) {
        let flow_label = if egress.flags & egress_flag::FLOW_LABEL_INHERIT != 0 {
            inner.flow_label
        } else {
            egress.flow_label
        };
        let outer = Ipv6::new(
            protocol,
            egress.local,
            egress.remote,
            tos,
            flow_label,
            ttl,
            payload_length,
        );
        room.put(Ethernet::LEN, &outer)?;
    } else {
        let (local, remote) = (first_four(&egress.local), first_four(&egress.remote));
        let outer = if egress.flags & egress_flag::MAY_FRAGMENT != 0 {
            // SAFETY: a helper without arguments.
            let identification = unsafe { bpf_get_prandom_u32() } as u16;
            Ipv4::fragmentable(
                protocol,
                local,
                remote,
                tos,
                ttl,
                total_length,
                identification,
            )
        } else {
            Ipv4::new(protocol, local, remote, tos, ttl, total_length)
        };
        room.put(Ethernet::LEN, &outer)?;
    }
    let mut offset = Ethernet::LEN + format.ip_length();
    if format.has(Format::UDP) {
        // What is numbered stays one flow, which nobody on the way puts out of order.
        let is_one_flow = format.has(Format::SEQUENCE);
        let source = Udp::entropy_port(if is_one_flow { 0 } else { inner.hash });
        let udp = Udp::without_checksum(source, GRE_UDP_PORT, payload_length);
        room.put(offset, &udp)?;
        offset += Udp::LEN;
    }
    let gre_offset = offset;
    let base = GreBase::new(format.bits(), gre_protocol);
    room.put(offset, &base)?;
    offset += GreBase::LEN;
    if format.has(Format::CHECKSUM) {
        room.put(offset, &[0_u8; 4])?;
        offset += 4;
    }
    if format.has(Format::KEY) {
        room.put(offset, &epoch::key(egress)?)?;
        offset += 4;
    }
    if format.has(Format::SEQUENCE) {
        let sequence = maps::next_sequence(egress.index)?;
        room.put(offset, &sequence.to_be_bytes())?;
    }
    Some(gre_offset)
}

#[inline(always)]
fn inherited(egress: &TunnelEgress, flag: u32, inner: u8, fixed: u8) -> u8 {
    if egress.flags & flag != 0 {
        inner
    } else {
        fixed
    }
}

/// The IPv4 address in the place of an IPv6 one.
#[inline(always)]
pub fn first_four(address: &[u8; 16]) -> [u8; 4] {
    [address[0], address[1], address[2], address[3]]
}
