//! Underlay to a layer-2 tunnel. Decapsulated by TC: in XDP there is no place left for the mark
//! that tells where the frame belongs, all of its headers being the inner host's.

use aya_ebpf::{bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, programs::TcContext};
use router_common::{
    gre::{self, Format, Gre, NotFast},
    map::TunnelIngress,
    net::{ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet},
    packet::Packet as _,
};

use crate::{decap, deliver, lookup, maps, skb::Skb, verdict::Refusal};

/// The verdict of a redirect into the tunnel device.
#[inline(always)]
pub fn receive(ctx: &TcContext) -> Result<i32, Refusal> {
    let skb = Skb(ctx);
    if skb.vlan().is_some() {
        // It will come by the VLAN's own device.
        return Err(Refusal::NotFast(NotFast::NotGre));
    }
    let (tunnel, gre) = match skb.protocol() {
        ETH_P_IPV4 => {
            let gre = gre::over_ipv4(&skb, Ethernet::LEN).map_err(Refusal::NotFast)?;
            (lookup::ipv4(&skb, &gre), gre)
        }
        ETH_P_IPV6 => {
            let gre = gre::over_ipv6(&skb, Ethernet::LEN).map_err(Refusal::NotFast)?;
            (lookup::ipv6_in_skb(ctx, &gre), gre)
        }
        _ => return Err(Refusal::NotFast(NotFast::NotGre)),
    };
    let tunnel = tunnel.ok_or(Refusal::NoTunnel)?;
    if !tunnel.format.has(Format::LAYER2) {
        // Not one that XDP saw: that lets no other come here.
        return Err(Refusal::NotFast(NotFast::NotGre));
    }
    // XDP has admitted it; what the stack merged is taken as it is.
    if gre.header.has_checksum() {
        return Err(Refusal::NotFast(NotFast::NotGre));
    }
    decap::in_order(&gre, tunnel)?;
    decapsulate(ctx, &gre, tunnel)
}

#[inline(always)]
fn decapsulate(ctx: &TcContext, gre: &Gre, tunnel: &TunnelIngress) -> Result<i32, Refusal> {
    let skb = Skb(ctx);
    let index = tunnel.index;
    if gre.header.protocol != ETH_P_TEB {
        return Err(Refusal::Unsupported { index });
    }
    let inner: Ethernet = skb
        .read(gre.inner_offset)
        .ok_or(Refusal::Malformed { index })?;
    // All from the outer IP header to the inner Ethernet header, whose place the outer Ethernet
    // header takes, and gives up.
    let removed = gre.inner_offset as i32;
    ctx.adjust_room(-removed, BPF_ADJ_ROOM_MAC, 0)
        .map_err(|_| Refusal::Malformed { index })?;
    skb.write(0, &inner).ok_or(Refusal::Malformed { index })?;
    maps::count(index, |counters| {
        counters.rx_packets += 1;
        counters.rx_bytes += gre.inner_length as u64;
    });
    let device = maps::DEVICES.get(index).copied().unwrap_or_default();
    Ok(deliver::into(ctx, &device))
}
