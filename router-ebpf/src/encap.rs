//! Tunnel to underlay.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_FIXED_GSO,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::bpf_redirect_neigh,
    programs::TcContext,
};
use router_common::{
    gre::{self, GreBase},
    map::{TunnelEgress, egress_flag},
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, PROTO_GRE},
};

use crate::{maps, verdict::SendRefusal};

/// GSO packets stay whole: the segment size is kept, because the tunnel's MTU already leaves room
/// for the outer headers.
const ROOM_FLAGS: u64 =
    (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_GRE) as u64;

#[inline(always)]
pub fn send(ctx: &TcContext) -> Result<i32, SendRefusal> {
    // SAFETY: the context of this very call.
    let (ifindex, protocol) = unsafe {
        let skb = ctx.skb.skb;
        ((*skb).ifindex, u16::from_be((*skb).protocol as u16))
    };
    // SAFETY: an element may be replaced while we read it; its parts are integers and change only
    // with the tunnel's configuration.
    let egress = unsafe { maps::EGRESS.get(ifindex) }.ok_or(SendRefusal::NoEgress)?;
    let index = egress.index;
    let (tos, ttl) = match protocol {
        ETH_P_IPV4 => inner_ipv4_bytes(ctx),
        ETH_P_IPV6 => inner_ipv6_bytes(ctx),
        _ => return Err(SendRefusal::Unsupported { index }),
    }
    .ok_or(SendRefusal::NoRoom { index })?;

    let has_key = egress.flags & egress_flag::HAS_KEY != 0;
    let overhead = gre::overhead(has_key);
    let inner_length = ctx.len().saturating_sub(Ethernet::LEN as u32);
    // A GSO packet may be longer than its header can say; segmentation writes the true lengths.
    let total_length = (inner_length + overhead as u32).min(u32::from(u16::MAX)) as u16;

    ctx.adjust_room(overhead as i32, BPF_ADJ_ROOM_MAC, ROOM_FLAGS)
        .map_err(|_| SendRefusal::NoRoom { index })?;
    let outer = Ipv4::new(
        PROTO_GRE,
        egress.local,
        egress.remote,
        inherited(egress, egress_flag::TOS_INHERIT, tos, egress.tos),
        inherited(egress, egress_flag::TTL_INHERIT, ttl, egress.ttl),
        total_length,
    );
    // The redirect drops frames to group addresses; it writes the addresses anew in any case.
    ctx.store(0, &Ethernet::new([0; 6], [0; 6], ETH_P_IPV4), 0)
        .and_then(|()| ctx.store(Ethernet::LEN, &outer, 0))
        .and_then(|()| {
            let base = GreBase::new(protocol, has_key);
            ctx.store(Ethernet::LEN + Ipv4::LEN, &base, 0)
        })
        .and_then(|()| {
            if has_key {
                ctx.store(Ethernet::LEN + Ipv4::LEN + GreBase::LEN, &egress.key, 0)
            } else {
                Ok(())
            }
        })
        .map_err(|_| SendRefusal::NoRoom { index })?;

    maps::count(index, |counters| {
        counters.tx_packets += 1;
        counters.tx_bytes += u64::from(inner_length);
    });
    // Finds route and neighbour by the outer header and resolves the neighbour if it must.
    // SAFETY: a null pointer with length zero asks for that lookup.
    Ok(unsafe { bpf_redirect_neigh(egress.underlay_ifindex, core::ptr::null_mut(), 0, 0) } as i32)
}

#[inline(always)]
fn inherited(egress: &TunnelEgress, flag: u32, inner: u8, fixed: u8) -> u8 {
    if egress.flags & flag != 0 {
        inner
    } else {
        fixed
    }
}

/// (type of service, TTL) of the inner packet.
#[inline(always)]
fn inner_ipv4_bytes(ctx: &TcContext) -> Option<(u8, u8)> {
    let header: Ipv4 = ctx.load(Ethernet::LEN).ok()?;
    Some((header.tos, header.ttl))
}

/// (traffic class, hop limit) of the inner packet (RFC 8200 §3).
#[inline(always)]
fn inner_ipv6_bytes(ctx: &TcContext) -> Option<(u8, u8)> {
    let start: [u8; 8] = ctx.load(Ethernet::LEN).ok()?;
    Some(((start[0] << 4) | (start[1] >> 4), start[7]))
}
