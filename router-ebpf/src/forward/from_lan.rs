//! LAN to tunnel.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use bytemuck::Pod;
use router_common::{
    gre::Format,
    map::{TunnelEgress, egress_flag, interface_flag},
    net::Ethernet,
    packet::Packet as _,
};

use super::{
    Outcome, leave,
    passenger::{self, Arrival, Passenger},
    route::{self, Hop},
};
use crate::{
    frame::Frame,
    maps,
    outer::{self, Room},
};

/// Forwards what a host of the LAN sends into a tunnel.
#[inline(never)]
pub(super) fn forward(ctx: *mut xdp_md) -> Outcome {
    let ctx = XdpContext::new(ctx);
    match find(&ctx) {
        Some(way) => send(&ctx, &way),
        None => Outcome::NotTaken,
    }
}

struct Way {
    passenger: Passenger,
    egress: &'static TunnelEgress,
    hop: Hop,
    /// See [`router_common::map::Interface`].
    protected_by: u16,
}

/// The way of the packet, which is not changed; `None` if it is the stack's.
#[inline(always)]
fn find(ctx: &XdpContext) -> Option<Way> {
    let frame = Frame(ctx);
    let ifindex = ctx.ingress_ifindex() as u32;
    let interface = maps::interface(ifindex)?;
    if interface.flags & interface_flag::LAN == 0 {
        return None;
    }
    let ethernet: Ethernet = frame.read(0)?;
    if ethernet.destination != interface.mac {
        return None;
    }
    let arrival = Arrival {
        ifindex,
        strict_reverse_path: interface.flags & interface_flag::STRICT_REVERSE_PATH != 0,
        protocol: ethernet.ether_type(),
        offset: Ethernet::LEN,
        room: frame.len() - Ethernet::LEN,
    };
    let query = route::query()?;
    let passenger = passenger::examine(ctx, &arrival, query)?;
    if !query.leads_on(ctx) {
        return None;
    }
    let egress = maps::egress(query.ifindex)?;
    if !takes(egress, &passenger) {
        return None;
    }
    let length = passenger
        .length
        .checked_add(egress.format.outer_length() as u16)?;
    let hop = query.outer_hop(ctx, egress, outer::tos(egress, &passenger.header), length)?;
    let underlay = maps::interface(hop.ifindex)?;
    (underlay.flags & interface_flag::TRANSMIT != 0).then_some(Way {
        passenger,
        egress,
        hop,
        protected_by: interface.protected_by,
    })
}

/// Whether the tunnel needs nothing of the stack for this packet.
#[inline(always)]
fn takes(egress: &TunnelEgress, passenger: &Passenger) -> bool {
    let clamps = egress.mss_ipv4 | egress.mss_ipv6 != 0;
    let needs_it = egress.format.has(Format::CHECKSUM)
        || egress.format.has(Format::LAYER2)
        || (clamps && passenger.is_syn);
    egress.flags & egress_flag::TRANSIT != 0 && !needs_it
}

#[inline(always)]
fn send(ctx: &XdpContext, way: &Way) -> Outcome {
    let Way {
        ref passenger,
        egress,
        ref hop,
        protected_by,
    } = *way;
    let added = egress.format.outer_length();
    // SAFETY: the context of this very call; no pointer into the packet is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(added as i32)) } != 0 {
        return Outcome::NotTaken;
    }
    let length = u32::from(passenger.length);
    if put_headers(ctx, passenger, egress, added).is_none() {
        return Outcome::Broken;
    }
    let outcome = leave(ctx, hop, outer::ether_type(egress), protected_by);
    if let Outcome::Forwarded = outcome {
        maps::count_sent(egress.index, u64::from(length));
        maps::count(egress.index, |counters| counters.tx_transit += 1);
    }
    outcome
}

#[inline(always)]
fn put_headers(
    ctx: &XdpContext,
    passenger: &Passenger,
    egress: &TunnelEgress,
    added: usize,
) -> Option<()> {
    let frame = Frame(ctx);
    let header = &passenger.header;
    passenger::age(frame, header.protocol, Ethernet::LEN + added)?;
    let room = Outgoing(frame);
    let length = u32::from(passenger.length);
    outer::put(&room, egress, header, header.protocol, length).map(drop)
}

/// A frame with room for outer headers.
struct Outgoing<'a>(Frame<'a>);

impl Room for Outgoing<'_> {
    #[inline(always)]
    fn put<T: Pod>(&self, offset: usize, value: &T) -> Option<()> {
        self.0.store(offset, value)
    }
}
