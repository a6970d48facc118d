//! Underlay to tunnel.

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_meta},
    programs::{TcContext, XdpContext},
};
use router_common::{
    gre::{self, Gre},
    map::{Handover, TunnelIngress},
    net::{self, ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, Mac},
    packet::Packet as _,
};

use crate::{
    frame::Frame,
    heartbeat, maps,
    verdict::{Action, Refusal},
};

const HANDOVER_LEN: i32 = size_of::<Handover>() as i32;

#[inline(always)]
pub fn receive(ctx: &XdpContext) -> Result<Action, Refusal> {
    let frame = Frame(ctx);
    let gre = gre::parse(&frame).map_err(Refusal::NotFast)?;
    // SAFETY: an element may be replaced while we read it, as any hash map's; its parts are
    // integers and a tunnel's parts do not change while its key stays.
    let tunnel = unsafe { maps::TUNNELS.get(gre.tunnel) }.ok_or(Refusal::NoTunnel)?;
    if gre.inner_offset + gre.inner_length > frame.len() {
        return Err(Refusal::Malformed {
            index: tunnel.index,
        });
    }
    match gre.inner_protocol {
        ETH_P_IPV4 => {
            let inner: Ipv4 = frame.read(gre.inner_offset).ok_or(Refusal::Malformed {
                index: tunnel.index,
            })?;
            if let Some(udp) = heartbeat::recognise(frame, &gre, tunnel, &inner) {
                heartbeat::receive(frame, &gre, tunnel, &inner, &udp)
            } else {
                let mac = net::mac_for_ipv4(inner.destination, tunnel.user_mac);
                decapsulate(ctx, &gre, tunnel, mac)
            }
        }
        ETH_P_IPV6 => {
            let (first, last) =
                ipv6_destination_ends(frame, gre.inner_offset).ok_or(Refusal::Malformed {
                    index: tunnel.index,
                })?;
            let mac = net::mac_for_ipv6(first, last, tunnel.user_mac);
            decapsulate(ctx, &gre, tunnel, mac)
        }
        _ => Err(Refusal::Unsupported {
            index: tunnel.index,
        }),
    }
}

/// First and last four bytes of the IPv6 destination (RFC 8200 §3: bytes 24 to 39).
#[inline(always)]
fn ipv6_destination_ends(frame: Frame<'_>, offset: usize) -> Option<(u8, [u8; 4])> {
    Some((frame.read(offset + 24)?, frame.read(offset + 36)?))
}

/// Takes the outer headers off, puts an Ethernet header on, and notes where the packet belongs.
#[inline(always)]
fn decapsulate(
    ctx: &XdpContext,
    gre: &Gre,
    tunnel: &TunnelIngress,
    destination: Mac,
) -> Result<Action, Refusal> {
    let removed = (gre.inner_offset - Ethernet::LEN) as i32;
    // Metadata first: it moves along with the packet's start, and a driver without it refuses
    // before anything has changed.
    // SAFETY: `ctx.ctx` is the context that this program was called with.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -HANDOVER_LEN) } != 0 {
        return Err(Refusal::NoHeadroom);
    }
    // SAFETY: as above; no pointer into the packet is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, removed) } != 0 {
        return Err(Refusal::NoHeadroom);
    }
    let ethernet = Ethernet::new(destination, tunnel.dataplane_mac, gre.inner_protocol);
    Frame(ctx).write(0, &ethernet).ok_or(Refusal::NoHeadroom)?;

    let metadata = ctx.metadata();
    if metadata + size_of::<Handover>() > ctx.data() {
        return Err(Refusal::NoHeadroom);
    }
    // SAFETY: the metadata area was just made and measured; any alignment will do.
    unsafe {
        (metadata as *mut Handover).write_unaligned(Handover::to(tunnel.dataplane_ifindex));
    };

    maps::count(tunnel.index, |counters| {
        counters.rx_packets += 1;
        counters.rx_bytes += gre.inner_length as u64;
    });
    Ok(Action::Deliver)
}

/// Sends a packet that [`decapsulate`] marked out of its tunnel's dataplane end, by which it
/// enters the tunnel device. Any other packet goes on its way.
#[inline(always)]
pub fn hand_over(ctx: &TcContext) -> i32 {
    // SAFETY: the context of this very call.
    let (metadata, data) = unsafe {
        let skb = ctx.skb.skb;
        ((*skb).data_meta as usize, (*skb).data as usize)
    };
    if metadata + size_of::<Handover>() > data {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: measured just before.
    let handover = unsafe { (metadata as *const Handover).read_unaligned() };
    if !handover.is_ours() {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: a helper without memory arguments.
    unsafe { bpf_redirect(handover.dataplane_ifindex, 0) as i32 }
}
