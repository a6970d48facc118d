//! Tunnel to underlay.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_INGRESS, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{
        bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head,
        bpf_skb_change_tail, bpf_skb_vlan_pop,
    },
    programs::TcContext,
};
use bytemuck::Pod;
use router_common::{
    gre::{Format, GreBase},
    map::TunnelEgress,
    net::{ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet, Ipv4, Ipv6},
    packet::Packet as _,
};

use crate::{
    checksum,
    layer2::SHORTEST_FRAME,
    maps, mss,
    outer::{self, Inner, Room},
    skb::Skb,
    verdict::SendRefusal,
};

/// asm-generic/errno.h, as helpers return it.
const EALREADY: i64 = -114;

/// Outer TTL where it is to be inherited from what has none.
const DEFAULT_TTL: u8 = 64;

#[inline(always)]
pub fn send(ctx: &TcContext) -> Result<i32, SendRefusal> {
    let skb = Skb(ctx);
    let egress = maps::egress(skb.ifindex()).ok_or(SendRefusal::NoEgress)?;
    let index = egress.index;
    let mark = maps::settings().encapsulated_mark;
    if mark != 0 && skb.mark() == mark {
        return Ok(forward(ctx, egress));
    }
    if egress.format.has(Format::LAYER2) {
        return send_frame(ctx, egress);
    }
    if skb.vlan().is_some() {
        // It would be put before the outer header.
        return Err(SendRefusal::Unsupported { index });
    }
    let mut inner = inner(ctx).ok_or(SendRefusal::Unsupported { index })?;
    if egress.format.has(Format::UDP) {
        // Before there are outer headers, which the kernel would take it from.
        // SAFETY: the context of this very call.
        inner.hash = unsafe { bpf_get_hash_recalc(ctx.skb.skb) };
    }
    mss::clamp(ctx, egress.mss_ipv4, egress.mss_ipv6);
    let inner_length = ctx.len().saturating_sub(Ethernet::LEN as u32);
    let onward = make_room(ctx, egress, 0, true)?;
    put_headers(ctx, egress, &inner, inner.protocol, inner_length)?;
    Ok(onward.verdict(ctx, egress))
}

/// How a packet with its outer headers leaves.
#[derive(Clone, Copy)]
enum Onward {
    Forward,
    ComeAgain,
}

impl Onward {
    #[inline(always)]
    fn verdict(self, ctx: &TcContext, egress: &TunnelEgress) -> i32 {
        match self {
            Self::Forward => forward(ctx, egress),
            Self::ComeAgain => come_again(ctx),
        }
    }
}

/// Puts outer headers before a whole Ethernet frame.
#[inline(always)]
fn send_frame(ctx: &TcContext, egress: &TunnelEgress) -> Result<i32, SendRefusal> {
    let skb = Skb(ctx);
    let index = egress.index;
    let no_room = SendRefusal::NoRoom { index };
    let mut tags = [[0_u8; 4]; 2];
    let mut tag_count = 0;
    // What the kernel keeps apart from the packet belongs to the inner frame. Taking one tag off
    // brings the next one out.
    for slot in &mut tags {
        if let Some((tpid, tci)) = skb.vlan() {
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
            *slot = [a, b, c, d];
            tag_count += 1;
            // SAFETY: the context of this very call.
            if unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
                return Err(no_room);
            }
        }
    }
    if skb.vlan().is_some() {
        return Err(SendRefusal::Unsupported { index });
    }
    // The type is read from the frame: of one with a length there (IEEE 802.3), such as a bridge's
    // BPDU, the kernel says something else.
    let addresses: [u8; 12] = skb.read(0).ok_or(no_room)?;
    let ether_type: [u8; 2] = skb.read(addresses.len()).ok_or(no_room)?;
    if ctx.len() < SHORTEST_FRAME {
        // SAFETY: the context of this very call.
        let result = unsafe { bpf_skb_change_tail(ctx.skb.skb, SHORTEST_FRAME, 0) };
        if result != 0 {
            return Err(no_room);
        }
    }
    let tags_length = 4 * tag_count;
    let header_length = Ethernet::LEN + tags_length;
    let payload_length = ctx.len().saturating_sub(Ethernet::LEN as u32);
    let inner_length = payload_length + header_length as u32;
    let found = inner(ctx);
    let is_ip = found.is_some();
    // VERIFIER: "R1 !read_ok" where this came after the room was made.
    let inner = found.unwrap_or(Inner {
        protocol: u16::from_be_bytes(ether_type),
        tos: 0,
        ttl: DEFAULT_TTL,
        flow_label: 0,
        hash: 0,
    });
    let onward = make_room(ctx, egress, header_length, is_ip)?;
    let frame = Ethernet::LEN + egress.format.outer_length();
    skb.write(frame, &addresses).ok_or(no_room)?;
    let mut offset = frame + addresses.len();
    if tag_count > 0 {
        skb.write(offset, &tags[0]).ok_or(no_room)?;
        offset += 4;
    }
    if tag_count > 1 {
        skb.write(offset, &tags[1]).ok_or(no_room)?;
        offset += 4;
    }
    skb.write(offset, &ether_type).ok_or(no_room)?;
    put_headers(ctx, egress, &inner, ETH_P_TEB, inner_length)?;
    Ok(onward.verdict(ctx, egress))
}

/// The kernel finds a neighbour only for what it takes for IP. What it does not, although the outer
/// header is now one, enters the dataplane end once more, where it is looked at anew.
#[inline(always)]
fn come_again(ctx: &TcContext) -> i32 {
    ctx.set_mark(maps::settings().encapsulated_mark);
    // SAFETY: a helper without memory arguments.
    unsafe { bpf_redirect(Skb(ctx).ifindex(), u64::from(BPF_F_INGRESS)) as i32 }
}

/// Finds route and neighbour by the outer header and resolves the neighbour if it must.
#[inline(always)]
fn forward(ctx: &TcContext, egress: &TunnelEgress) -> i32 {
    ctx.set_mark(0);
    // SAFETY: a null pointer with length zero asks for that lookup.
    unsafe { bpf_redirect_neigh(egress.underlay_ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Makes room for the outer headers and `frame_header` bytes of an inner Ethernet header. What was before
/// it is to be written anew.
///
/// GSO packets stay whole: the segment size is kept, because the tunnel's MTU already leaves room.
#[inline(always)]
fn make_room(
    ctx: &TcContext,
    egress: &TunnelEgress,
    frame_header: usize,
    is_ip: bool,
) -> Result<Onward, SendRefusal> {
    /// `BPF_F_ADJ_ROOM_ENCAP_L2(len)` of linux/bpf.h.
    const INNER_LENGTH_SHIFT: u32 = 56;
    let mut flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
    flags |= u64::from(if egress.format.has(Format::IPV6) {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    });
    flags |= u64::from(if egress.format.has(Format::UDP) {
        BPF_F_ADJ_ROOM_ENCAP_L4_UDP
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L4_GRE
    });
    if frame_header != 0 {
        flags |= u64::from(BPF_F_ADJ_ROOM_ENCAP_L2_ETH);
        flags |= (frame_header as u64) << INNER_LENGTH_SHIFT;
    }
    let added = egress.format.outer_length() + frame_header;
    let no_room = SendRefusal::NoRoom {
        index: egress.index,
    };
    // The kernel does it in IP packets, and of one tunnel only: a packet is marked as encapsulated by the one
    // that it is in, and stays so behind one that it came out of. None of those is to be cut later: the device
    // does it first, see `CUT_BEFORE` of the agent.
    if is_ip {
        match ctx.adjust_room(added as i32, BPF_ADJ_ROOM_MAC, flags) {
            Ok(()) => return Ok(Onward::Forward),
            Err(EALREADY) if !Skb(ctx).is_gso() => {}
            Err(_) => return Err(no_room),
        }
    }
    // SAFETY: the context of this very call.
    if unsafe { bpf_skb_change_head(ctx.skb.skb, added as u32, 0) } != 0 {
        return Err(no_room);
    }
    Ok(Onward::ComeAgain)
}

/// Writes the outer headers, for which there is room, and counts the packet.
#[inline(always)]
fn put_headers(
    ctx: &TcContext,
    egress: &TunnelEgress,
    inner: &Inner,
    gre_protocol: u16,
    inner_length: u32,
) -> Result<(), SendRefusal> {
    let skb = Skb(ctx);
    let index = egress.index;
    let no_room = SendRefusal::NoRoom { index };
    // The redirect drops frames to group addresses; it writes the addresses anew in any case.
    let ethernet = Ethernet::new([0; 6], [0; 6], outer::ether_type(egress));
    skb.write(0, &ethernet).ok_or(no_room)?;
    let gre_offset = outer::put(&skb, egress, inner, gre_protocol, inner_length).ok_or(no_room)?;
    if egress.format.has(Format::CHECKSUM) {
        let sum = checksum::of(ctx, gre_offset).ok_or(no_room)?;
        skb.write(gre_offset + GreBase::LEN, &sum).ok_or(no_room)?;
    }
    maps::count_sent(index, u64::from(inner_length));
    Ok(())
}

impl Room for Skb<'_> {
    #[inline(always)]
    fn put<T: Pod>(&self, offset: usize, value: &T) -> Option<()> {
        self.write(offset, value)
    }
}

/// `None` if the packet is not IP.
#[inline(always)]
fn inner(ctx: &TcContext) -> Option<Inner> {
    let skb = Skb(ctx);
    match skb.protocol() {
        ETH_P_IPV4 => {
            let header: Ipv4 = skb.read(Ethernet::LEN)?;
            Some(Inner {
                protocol: ETH_P_IPV4,
                tos: header.tos,
                ttl: header.ttl,
                flow_label: 0,
                hash: 0,
            })
        }
        ETH_P_IPV6 => {
            // RFC 8200 §3.
            let start: [u8; 8] = skb.read(Ethernet::LEN)?;
            Some(Inner {
                protocol: ETH_P_IPV6,
                tos: Ipv6::class_of([start[0], start[1]]),
                ttl: start[7],
                flow_label: u32::from_be_bytes([0, start[1] & 0x0f, start[2], start[3]]),
                hash: 0,
            })
        }
        _ => None,
    }
}
