//! Which tunnel a packet belongs to: the one that has its addresses and key, or else, if it is keyed,
//! the one between its addresses whose key is an epoch.

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use router_common::{
    gre::{Gre, Label, TunnelKey, TunnelKey6},
    map::TunnelIngress,
    packet::Packet,
    slot::{Slot as _, TunnelSlot, TunnelSlot6},
};

use crate::{frame::Frame, maps, skb::Skb};

type Tunnel = Option<&'static TunnelIngress>;

#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P, gre: &Gre) -> Tunnel {
    let mut key = TunnelKey::of(packet, gre.outer_offset, gre.label)?;
    if let Some(tunnel) = maps::SLOTS
        .get(TunnelSlot::number(&key))
        .and_then(|slot| slot.get(&key))
    {
        return Some(tunnel);
    }
    // SAFETY: the agent writes no element whose memory a running program may still read.
    let tunnel = unsafe { maps::TUNNELS.get(key) };
    if tunnel.is_some() || !key.label.is_keyed() {
        return tunnel;
    }
    key.label = Label::epoch(key.label.is_udp());
    // SAFETY: as above.
    unsafe { maps::TUNNELS.get(key) }
}

#[inline(always)]
pub fn ipv6_in_frame(ctx: &XdpContext, gre: &Gre) -> Tunnel {
    frame_ipv6(ctx.ctx, gre.outer_offset, gre.label)
}

#[inline(always)]
pub fn ipv6_in_skb(ctx: &TcContext, gre: &Gre) -> Tunnel {
    skb_ipv6(ctx.skb.skb, gre.outer_offset, gre.label)
}

// LLVM: "Looks like the BPF stack limit is exceeded": it gives each long key a place of its own, so
// these two live in frames of their own.
#[inline(never)]
fn frame_ipv6(ctx: *mut xdp_md, outer_offset: usize, label: Label) -> Tunnel {
    let mut ctx = ctx;
    // VERIFIER: "R1 invalid mem access 'scalar'": LLVM would pass the packet's bounds instead of the
    // context, and cut them to 32 bits on the other side.
    // SAFETY: changes nothing.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) ctx) };
    let ctx = XdpContext::new(ctx);
    // RFC 8200 §3.
    let addresses = Frame(&ctx).words(outer_offset + 8)?;
    ipv6(TunnelKey6 {
        addresses: bytemuck::must_cast(addresses),
        label,
    })
}

#[inline(never)]
fn skb_ipv6(ctx: *mut __sk_buff, outer_offset: usize, label: Label) -> Tunnel {
    let ctx = TcContext::new(ctx);
    ipv6(TunnelKey6::of(&Skb(&ctx), outer_offset, label)?)
}

#[inline(always)]
fn ipv6(mut key: TunnelKey6) -> Tunnel {
    if let Some(tunnel) = maps::SLOTS6
        .get(TunnelSlot6::number(&key))
        .and_then(|slot| slot.get(&key))
    {
        return Some(tunnel);
    }
    // SAFETY: as for IPv4.
    let tunnel = unsafe { maps::TUNNELS6.get(key) };
    if tunnel.is_some() || !key.label.is_keyed() {
        return tunnel;
    }
    key.label = Label::epoch(key.label.is_udp());
    // SAFETY: as for IPv4.
    unsafe { maps::TUNNELS6.get(key) }
}
