//! Underlay to tunnel, before the stack.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use router_common::{
    ecn,
    gre::{self, Format, Gre, Inadmissible, NotFast},
    map::{TunnelIngress, ingress_flag},
    net::{self, ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, Ipv6, Mac},
    own,
    packet::Packet as _,
};

use crate::{
    epoch, forward,
    frame::Frame,
    heartbeat, keepalive, layer2, lookup, maps,
    verdict::{self, Action, Refusal},
};

/// A packet that came by a tunnel, its outer headers still before it.
#[derive(Clone, Copy)]
pub struct Arrived {
    pub tunnel: &'static TunnelIngress,
    /// As in [`Gre`].
    pub outer_offset: usize,
    pub inner_offset: usize,
    pub inner_length: usize,
    /// EtherType of the inner packet.
    pub protocol: u16,
    /// 1 for a heartbeat. No `bool`: the compiler would use it to tell `None`, too.
    // VERIFIER: "R7 invalid mem access 'scalar'": it must be the pointer that tells.
    heartbeat: u16,
}

impl Arrived {
    #[inline(always)]
    fn new(gre: &Gre, tunnel: &'static TunnelIngress, is_heartbeat: bool) -> Self {
        Self {
            tunnel,
            outer_offset: gre.outer_offset,
            inner_offset: gre.inner_offset,
            inner_length: gre.inner_length,
            protocol: gre.header.protocol,
            heartbeat: u16::from(is_heartbeat),
        }
    }
}

/// To where it belongs.
#[inline(always)]
pub fn pass_on(ctx: &XdpContext, arrived: &Arrived) -> Result<Action, Refusal> {
    if arrived.heartbeat != 0 {
        heartbeat::receive(ctx, arrived)
    } else if arrived.tunnel.flags & ingress_flag::TRANSIT != 0 {
        forward::to_lan(ctx, arrived).unwrap_or_else(|| decapsulate(ctx, arrived))
    } else {
        decapsulate(ctx, arrived)
    }
}

/// What is to be done with a frame. Refusals are counted.
// VERIFIER: before Linux 6.3 "R6 pointer arithmetic with <<= operator prohibited": a result that
// crosses a call must have no part that some of its variants leave undefined, for LLVM shifts what
// the register happens to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// There is a packet to be passed on.
    Arrived,
    /// It has nothing to do with a tunnel of ours.
    NotOurs,
    Pass,
    Answer,
    Drop,
}

/// What a frame is. A packet that is to be passed on is left in `arrived`.
// In a frame of its own, so that its stack is free again when a packet is forwarded.
// VERIFIER: "R4 !read_ok", "R7 invalid mem access 'scalar'": as part of the result the packet was
// copied on ways that have none, and its pointer forgotten.
#[inline(never)]
pub fn receive(ctx: *mut xdp_md, arrived: &mut Option<Arrived>) -> Step {
    match examine(&XdpContext::new(ctx), arrived) {
        Ok(_) if arrived.is_some() => Step::Arrived,
        Err(refusal) if refusal.is_not_ours() => {
            verdict::of_xdp(ctx, Err(refusal));
            Step::NotOurs
        }
        result => match verdict::of_xdp(ctx, result) {
            xdp_action::XDP_PASS => Step::Pass,
            xdp_action::XDP_TX => Step::Answer,
            _ => Step::Drop,
        },
    }
}

#[inline(always)]
fn examine(ctx: &XdpContext, arrived: &mut Option<Arrived>) -> Result<Action, Refusal> {
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
    if gre.inner_length < gre.shortest_inner()
        || !frame.reaches(gre.inner_offset + gre.inner_length)
    {
        return Err(Refusal::Malformed {
            index: tunnel.index,
        });
    }
    if let Err(refusal) = admit(&gre, tunnel) {
        if matches!(refusal, Refusal::Slow { .. }) {
            keep_apart(ctx);
        }
        return Err(refusal);
    }
    epoch::admit(&gre, tunnel)?;
    if tunnel.format.has(Format::LAYER2) {
        layer2::fill_up(ctx, &gre);
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
    layer3(ctx, &gre, tunnel, arrived)
}

/// Keeps the stack from merging the packet with others of its flow (GRO): the GRE checksum of the
/// first would be wrong for all of them together, and what a raw socket gets does not say how to
/// cut it again. Linux merges only what ends where IP's length says (`inet_gro_receive`,
/// `ipv6_gro_receive`), and takes off what is more, as it does with Ethernet's padding.
#[inline(always)]
fn keep_apart(ctx: &XdpContext) {
    // Where there is no room behind it, it stays as it is.
    // SAFETY: the context of this very call; no pointer into the packet is kept.
    unsafe { bpf_xdp_adjust_tail(ctx.ctx, 1) };
}

/// What the fast path takes of what the tunnel admits.
#[inline(always)]
pub fn admit(gre: &Gre, tunnel: &TunnelIngress) -> Result<(), Refusal> {
    let index = tunnel.index;
    match gre.header.admit(tunnel.format) {
        Err(Inadmissible::Illegal) => Err(Refusal::Malformed { index }),
        Err(Inadmissible::Checksum) => Err(Refusal::Checksum { index }),
        Ok(()) if gre.header.has_checksum() => Err(Refusal::Slow { index }),
        Ok(()) => Ok(()),
    }
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
fn layer3(
    ctx: &XdpContext,
    gre: &Gre,
    tunnel: &'static TunnelIngress,
    arrived: &mut Option<Arrived>,
) -> Result<Action, Refusal> {
    let frame = Frame(ctx);
    let index = tunnel.index;
    match gre.header.protocol {
        ETH_P_IPV4 => {
            let inner: Ipv4 = frame
                .read(gre.inner_offset)
                .ok_or(Refusal::Malformed { index })?;
            if own::is_heartbeat(&frame, gre.inner_offset, &inner, tunnel) {
                *arrived = Some(Arrived::new(gre, tunnel, true));
                return Ok(Action::Consume);
            }
            if keepalive::is_for_us_to_return(frame, gre, &inner) {
                return keepalive::give_back(ctx, gre, tunnel);
            }
            if let Some(tos) = congestion(gre, inner.tos, index)? {
                frame
                    .write(gre.inner_offset, &inner.with_tos(tos))
                    .ok_or(Refusal::Malformed { index })?;
            }
        }
        ETH_P_IPV6 => {
            let start: [u8; 2] = frame
                .read(gre.inner_offset)
                .ok_or(Refusal::Malformed { index })?;
            if let Some(class) = congestion(gre, Ipv6::class_of(start), index)? {
                frame
                    .write(gre.inner_offset, &Ipv6::start_with_class(start, class))
                    .ok_or(Refusal::Malformed { index })?;
            }
        }
        own::KEEPALIVE if gre.inner_length == 0 => {
            maps::count(index, |counters| counters.keepalives_heard += 1);
            return Ok(Action::Consume);
        }
        _ => return Err(Refusal::Unsupported { index }),
    }
    *arrived = Some(Arrived::new(gre, tunnel, false));
    Ok(Action::ToStack)
}

/// The inner type of service or traffic class, if it must change (RFC 6040 §4.2).
#[inline(always)]
pub fn congestion(gre: &Gre, inner: u8, index: u32) -> Result<Option<u8>, Refusal> {
    match ecn::decapsulate(gre.outer_tos, inner) {
        Some(tos) if tos == inner => Ok(None),
        Some(tos) => Ok(Some(tos)),
        None => Err(Refusal::Congestion { index }),
    }
}

/// Takes the outer headers off and puts an Ethernet header on, whose source says to
/// [`crate::deliver`] where the packet belongs.
#[inline(always)]
fn decapsulate(ctx: &XdpContext, arrived: &Arrived) -> Result<Action, Refusal> {
    let index = arrived.tunnel.index;
    let destination =
        ethernet_destination(Frame(ctx), arrived).ok_or(Refusal::Malformed { index })?;
    let source = maps::settings().marked(index).ok_or(Refusal::NoTunnel)?;
    let removed = (arrived.inner_offset - Ethernet::LEN) as i32;
    // SAFETY: `ctx.ctx` is the context that this program was called with; no pointer into the
    // packet is alive.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, removed) } != 0 {
        return Err(Refusal::NoHeadroom);
    }
    let ethernet = Ethernet::new(destination, source, arrived.protocol);
    Frame(ctx).write(0, &ethernet).ok_or(Refusal::NoHeadroom)?;
    maps::count_received(index, arrived.inner_length as u64);
    Ok(Action::ToStack)
}

/// What the tunnel's device expects of a packet to the inner destination.
#[inline(always)]
fn ethernet_destination(frame: Frame<'_>, arrived: &Arrived) -> Option<Mac> {
    let offset = arrived.inner_offset;
    let user_mac = arrived.tunnel.user_mac;
    if arrived.protocol == ETH_P_IPV4 {
        // RFC 791 §3.1.
        Some(net::mac_for_ipv4(frame.read(offset + 16)?, user_mac))
    } else {
        // RFC 8200 §3: the destination's first byte and its last four.
        let first = frame.read(offset + 24)?;
        Some(net::mac_for_ipv6(first, frame.read(offset + 36)?, user_mac))
    }
}
