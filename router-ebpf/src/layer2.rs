//! Underlay to a layer-2 tunnel. Decapsulated by TC: in XDP there is no place left for the mark
//! that tells where the frame belongs, all of its headers being the inner host's.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::bpf_xdp_adjust_tail,
    programs::{TcContext, XdpContext},
};
use router_common::{
    gre::{self, Format, Gre, NotFast},
    map::TunnelIngress,
    net::{ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet, Ipv4, Ipv6},
    packet::Packet as _,
};

use crate::{decap, deliver, epoch, frame::Frame, lookup, maps, skb::Skb, verdict::Refusal};

/// The shortest frame of Ethernet, in bytes without the check sequence (IEEE 802.3 §4.2.3.3).
pub const SHORTEST_FRAME: u32 = 60;

/// Fills up, in XDP, the inner frame to the length that Ethernet asks for. Ours is never that
/// short, but not every sender pads. The kernel takes nothing off a packet if what is left is
/// shorter than the outer IP header, as ARP in IPv6 is; and TC may not lengthen a packet that a
/// network card, or a sender on this machine, told the kernel is encapsulated.
#[inline(always)]
pub fn fill_up(ctx: &XdpContext, gre: &Gre) {
    let shortest = gre.inner_offset + SHORTEST_FRAME as usize;
    let length = Frame(ctx).len();
    if length < shortest {
        // Where there is no room behind it, it stays as it is.
        // SAFETY: the context of this very call; no pointer into the packet is kept.
        unsafe { bpf_xdp_adjust_tail(ctx.ctx, (shortest - length) as i32) };
    }
}

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
    // Once more, for an interface may be without XDP for a while. Lengths are not looked at: the stack may have merged
    // frames.
    decap::admit(&gre, tunnel)?;
    epoch::admit(&gre, tunnel)?;
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
    // The sizes of segments stay what their sender made them.
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
    ctx.adjust_room(-removed, BPF_ADJ_ROOM_MAC, flags)
        .map_err(|_| Refusal::Malformed { index })?;
    skb.write(0, &inner).ok_or(Refusal::Malformed { index })?;
    take_over_congestion(ctx, gre, index)?;
    maps::count_received(index, gre.inner_length as u64);
    let device = maps::DEVICES.get(index).copied().unwrap_or_default();
    Ok(deliver::into(ctx, &device))
}

/// What the outer header says of congestion goes to an IP packet in the frame, as sending took it
/// from there (RFC 6040 §4.2).
#[inline(always)]
fn take_over_congestion(ctx: &TcContext, gre: &Gre, index: u32) -> Result<(), Refusal> {
    let skb = Skb(ctx);
    let malformed = Refusal::Malformed { index };
    let link = gre::link(&skb).ok_or(malformed)?;
    match link.ether_type {
        ETH_P_IPV4 => {
            let Some(header) = skb.read::<Ipv4>(link.offset) else {
                return Ok(());
            };
            match decap::congestion(gre, header.tos, index)? {
                None => Ok(()),
                Some(tos) => skb
                    .write(link.offset, &header.with_tos(tos))
                    .ok_or(malformed),
            }
        }
        ETH_P_IPV6 => {
            let Some(start) = skb.read::<[u8; 2]>(link.offset) else {
                return Ok(());
            };
            match decap::congestion(gre, Ipv6::class_of(start), index)? {
                None => Ok(()),
                Some(class) => {
                    let start = Ipv6::start_with_class(start, class);
                    // No checksum of IPv6's own makes up for the change.
                    ctx.store(link.offset, &start, u64::from(BPF_F_RECOMPUTE_CSUM))
                        .map_err(|_| malformed)
                }
            }
        }
        _ => Ok(()),
    }
}
