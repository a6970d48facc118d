//! From the underlay's stack side into the tunnel device.

use aya_ebpf::{
    bindings::{BPF_CSUM_LEVEL_RESET, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_csum_level, bpf_redirect, bpf_skb_vlan_pop},
    programs::TcContext,
};
use router_common::{
    map::{Reason, TunnelDevice},
    net::{Ethernet, Vlan},
    packet::Packet as _,
};

use crate::{layer2, maps, mss, skb::Skb, verdict};

/// Moves what XDP decapsulated and marked into its tunnel device, and decapsulates what is for a
/// layer-2 tunnel. Any other packet goes on its way.
#[inline(always)]
pub fn hand_over(ctx: &TcContext) -> i32 {
    let Some(ethernet) = Skb(ctx).read::<Ethernet>(0) else {
        return TC_ACT_UNSPEC;
    };
    match maps::settings().index_of(ethernet.source) {
        Some(index) => marked(ctx, index),
        None => verdict::of_layer2(ctx, layer2::receive(ctx)),
    }
}

#[inline(always)]
fn marked(ctx: &TcContext, index: u32) -> i32 {
    let device = maps::DEVICES.get(index).copied().unwrap_or_default();
    if let Some((_, tag)) = Skb(ctx).vlan() {
        // The network card took the tag off the outer frame, so XDP did not see it.
        if !Vlan::is_of(tag, device.vlan) {
            maps::count_reason(Reason::NoTunnel);
            return TC_ACT_SHOT;
        }
        // It is not the inner packet's.
        // SAFETY: the context of this very call.
        unsafe { bpf_skb_vlan_pop(ctx.skb.skb) };
    }
    // What the network card has found of a checksum was the outer packet's. Of what the stack has merged meanwhile,
    // the stack itself has found it.
    if !Skb(ctx).is_gso() {
        // SAFETY: the context of this very call.
        unsafe { bpf_csum_level(ctx.skb.skb, u64::from(BPF_CSUM_LEVEL_RESET)) };
    }
    mss::clamp(ctx, device.mss_ipv4, device.mss_ipv6);
    into(ctx, &device)
}

/// Into the tunnel device: by its dataplane end, so that the device counts the packet; what is
/// longer than the device's MTU, which the far end need not know, straight.
#[inline(always)]
pub fn into(ctx: &TcContext, device: &TunnelDevice) -> i32 {
    if device.user_ifindex == 0 {
        maps::count_reason(Reason::NoEgress);
        return TC_ACT_SHOT;
    }
    let fits = ctx.len() <= device.mtu + Ethernet::LEN as u32 || Skb(ctx).is_gso();
    let verdict = if fits {
        // SAFETY: a helper without memory arguments.
        unsafe { bpf_redirect(device.dataplane_ifindex, 0) }
    } else {
        // SAFETY: as above.
        unsafe { bpf_redirect(device.user_ifindex, u64::from(BPF_F_INGRESS)) }
    };
    verdict as i32
}
