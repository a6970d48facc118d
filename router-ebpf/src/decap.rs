//! Underlay to tunnel, before the stack.

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, programs::XdpContext};
use router_common::{
    ecn,
    gre::{self, Format, Gre, NotFast},
    map::TunnelIngress,
    net::{self, ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, Mac},
    packet::Packet as _,
};

use crate::{
    frame::Frame,
    heartbeat, keepalive, lookup, maps,
    verdict::{Action, Refusal},
};

#[inline(always)]
pub fn receive(ctx: &XdpContext) -> Result<Action, Refusal> {
    let frame = Frame(ctx);
    let ethernet: Ethernet = frame.read(0).ok_or(Refusal::NotFast(NotFast::NotGre))?;
    if maps::settings().index_of(ethernet.source).is_some() {
        return Err(Refusal::Impostor);
    }
    let link = gre::link(&frame).ok_or(Refusal::NotFast(NotFast::NotGre))?;
    let (tunnel, gre) = match link.ether_type {
        ETH_P_IPV4 => {
            let gre = gre::over_ipv4(&frame, link.offset).map_err(Refusal::NotFast)?;
            (lookup::ipv4(&frame, &gre), gre)
        }
        ETH_P_IPV6 => {
            let gre = gre::over_ipv6(&frame, link.offset).map_err(Refusal::NotFast)?;
            (lookup::ipv6_in_frame(ctx, &gre), gre)
        }
        _ => return Err(Refusal::NotFast(NotFast::NotGre)),
    };
    let tunnel = tunnel.ok_or(Refusal::NoTunnel)?;
    if link.vlan != 0 && link.vlan != tunnel.vlan {
        return Err(Refusal::NoTunnel);
    }
    if gre.inner_length < gre.shortest_inner() || gre.inner_offset + gre.inner_length > frame.len()
    {
        return Err(Refusal::Malformed {
            index: tunnel.index,
        });
    }
    admit(&gre, tunnel)?;
    if tunnel.format.has(Format::LAYER2) {
        return Ok(Action::ToStack);
    }
    in_order(&gre, tunnel)?;
    let [outer_offset, inner_offset] = maps::forgotten([gre.outer_offset, gre.inner_offset])
        .ok_or(Refusal::Malformed {
            index: tunnel.index,
        })?;
    let gre = Gre {
        outer_offset,
        inner_offset,
        ..gre
    };
    layer3(ctx, &gre, tunnel)
}

/// What RFC 2784 §2.3 and the tunnel's configuration say of the GRE header, as Linux reads them.
#[inline(always)]
pub fn admit(gre: &Gre, tunnel: &TunnelIngress) -> Result<(), Refusal> {
    let index = tunnel.index;
    if gre.header.is_illegal() {
        return Err(Refusal::Malformed { index });
    }
    if gre.header.has_checksum() != tunnel.format.has(Format::CHECKSUM) {
        return Err(Refusal::Checksum { index });
    }
    if gre.header.has_checksum() {
        return Err(Refusal::Slow { index });
    }
    Ok(())
}

/// A tunnel with sequence numbers takes none that is older than what it has (RFC 2890 §2.2).
#[inline(always)]
pub fn in_order(gre: &Gre, tunnel: &TunnelIngress) -> Result<(), Refusal> {
    let index = tunnel.index;
    if !tunnel.format.has(Format::SEQUENCE)
        || (gre.header.has_sequence() && maps::accept_sequence(index, gre.header.sequence))
    {
        Ok(())
    } else {
        Err(Refusal::Sequence { index })
    }
}

#[inline(always)]
fn layer3(ctx: &XdpContext, gre: &Gre, tunnel: &TunnelIngress) -> Result<Action, Refusal> {
    let frame = Frame(ctx);
    let index = tunnel.index;
    match gre.header.protocol {
        ETH_P_IPV4 => {
            let inner: Ipv4 = frame
                .read(gre.inner_offset)
                .ok_or(Refusal::Malformed { index })?;
            if let Some(udp) = heartbeat::recognise(frame, gre, tunnel, &inner) {
                return heartbeat::receive(frame, gre, tunnel, &inner, &udp);
            }
            if keepalive::is_for_us_to_return(frame, gre, &inner) {
                return keepalive::give_back(ctx, gre, tunnel);
            }
            if let Some(tos) = congestion(gre, inner.tos, index)? {
                frame
                    .write(gre.inner_offset, &inner.with_tos(tos))
                    .ok_or(Refusal::Malformed { index })?;
            }
            let mac = net::mac_for_ipv4(inner.destination, tunnel.user_mac);
            decapsulate(ctx, gre, tunnel, mac)
        }
        ETH_P_IPV6 => {
            let (first, last) = ipv6_destination_ends(frame, gre.inner_offset)
                .ok_or(Refusal::Malformed { index })?;
            let start: [u8; 2] = frame
                .read(gre.inner_offset)
                .ok_or(Refusal::Malformed { index })?;
            let class = (start[0] << 4) | (start[1] >> 4);
            if let Some(class) = congestion(gre, class, index)? {
                let start = [
                    (start[0] & 0xf0) | (class >> 4),
                    (class << 4) | (start[1] & 0x0f),
                ];
                frame
                    .write(gre.inner_offset, &start)
                    .ok_or(Refusal::Malformed { index })?;
            }
            let mac = net::mac_for_ipv6(first, last, tunnel.user_mac);
            decapsulate(ctx, gre, tunnel, mac)
        }
        keepalive::PROTOCOL if gre.inner_length == 0 => {
            maps::count(index, |counters| counters.keepalives_heard += 1);
            Ok(Action::Consume)
        }
        _ => Err(Refusal::Unsupported { index }),
    }
}

/// The inner type of service or traffic class, if it must change (RFC 6040 §4.2).
#[inline(always)]
fn congestion(gre: &Gre, inner: u8, index: u32) -> Result<Option<u8>, Refusal> {
    match ecn::decapsulate(gre.outer_tos, inner) {
        Some(tos) if tos == inner => Ok(None),
        Some(tos) => Ok(Some(tos)),
        None => Err(Refusal::Congestion { index }),
    }
}

/// First and last four bytes of the IPv6 destination (RFC 8200 §3: bytes 24 to 39).
#[inline(always)]
fn ipv6_destination_ends(frame: Frame<'_>, offset: usize) -> Option<(u8, [u8; 4])> {
    Some((frame.read(offset + 24)?, frame.read(offset + 36)?))
}

/// Takes the outer headers off and puts an Ethernet header on, whose source says to
/// [`crate::deliver`] where the packet belongs.
#[inline(always)]
fn decapsulate(
    ctx: &XdpContext,
    gre: &Gre,
    tunnel: &TunnelIngress,
    destination: Mac,
) -> Result<Action, Refusal> {
    let removed = (gre.inner_offset - Ethernet::LEN) as i32;
    // SAFETY: `ctx.ctx` is the context that this program was called with; no pointer into the
    // packet is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, removed) } != 0 {
        return Err(Refusal::NoHeadroom);
    }
    let source = maps::settings().marked(tunnel.index);
    let ethernet = Ethernet::new(destination, source, gre.header.protocol);
    Frame(ctx).write(0, &ethernet).ok_or(Refusal::NoHeadroom)?;
    maps::count(tunnel.index, |counters| {
        counters.rx_packets += 1;
        counters.rx_bytes += gre.inner_length as u64;
    });
    Ok(Action::ToStack)
}
