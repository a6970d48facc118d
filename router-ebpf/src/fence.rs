//! The fence: packets that a group protects are forwarded by authority that ends by itself. Local
//! traffic is never fenced.

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_ktime_get_boot_ns, programs::TcContext};
use router_common::{
    lease::{self, Gate},
    map::FenceCounters,
    net::{ETH_P_8021AD, ETH_P_8021Q, ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4},
    packet::Packet as _,
    time::BootTime,
};

use crate::{forward::Query, maps, skb::Skb, verdict::Fenced};

/// Of no group: what should be protected and is not known to be is closed.
const NO_GROUP: u32 = u32::MAX;

/// What came by a protected interface, at its TC ingress. It passes, or is dropped if the stack would
/// forward it.
#[inline(always)]
pub fn inbound(ctx: &TcContext) -> Result<(), Fenced> {
    let skb = Skb(ctx);
    if is_of_a_vlan(skb) {
        return Ok(());
    }
    let group = group_of(skb.ifindex());
    let gate = Passage::of(group);
    if gate.is_open() && gate.is_stamped() {
        return Ok(());
    }
    if !is_transit(ctx) {
        return Ok(());
    }
    gate.pass(|counters| counters.dropped_in += 1)
}

/// What is about to leave by a protected interface, at its TC egress. What the stack forwards has an
/// interface by which it came, unless it was cut.
#[inline(always)]
pub fn outbound(ctx: &TcContext) -> Result<(), Fenced> {
    let skb = Skb(ctx);
    let came_by = skb.ingress_ifindex();
    if is_of_a_vlan(skb) || (came_by == 0 && !may_be_cut_transit(skb)) {
        return Ok(());
    }
    let gate = Passage::of(group_of(skb.ifindex()));
    if !gate.is_open() && is_dataplane_end(came_by) {
        return Ok(());
    }
    gate.pass(|counters| counters.dropped_out += 1)
}

/// What passes by the stack between a tunnel and a LAN that is `protected_by` a group, as in
/// [`Interface`](router_common::map::Interface).
#[inline(always)]
pub fn transit(protected_by: u16) -> Result<(), Fenced> {
    if protected_by == 0 {
        return Ok(());
    }
    Passage::of(u32::from(protected_by) - 1).pass(|counters| counters.dropped_transit += 1)
}

#[inline(always)]
fn group_of(ifindex: u32) -> u32 {
    // SAFETY: the value is one integer.
    unsafe { maps::PROTECTED.get(ifindex) }
        .copied()
        .unwrap_or(NO_GROUP)
}

/// The gate of a group for one packet.
struct Passage {
    group: u32,
    gate: Gate,
    opened_ns: u64,
    now: BootTime,
}

impl Passage {
    #[inline(always)]
    fn of(group: u32) -> Self {
        // SAFETY: a helper without arguments.
        let now = BootTime::from_ns(unsafe { bpf_ktime_get_boot_ns() });
        let (gate, opened_ns) = match (maps::FENCES.get(group), maps::LEASES.get(group)) {
            (Some(fence), Some(lease)) => (lease::gate(fence, lease, now), fence.opened_ns),
            _ => (Gate::Closed, 0),
        };
        Self {
            group,
            gate,
            opened_ns,
            now,
        }
    }

    #[inline(always)]
    fn is_open(&self) -> bool {
        matches!(self.gate, Gate::Open)
    }

    /// Whether a packet has passed since the fence was opened.
    #[inline(always)]
    fn is_stamped(&self) -> bool {
        let lease = maps::LEASES.get(self.group);
        lease.is_some_and(|lease| lease.first_passed_ns >= self.opened_ns)
    }

    /// Lets a packet that is protected pass, or counts it as dropped.
    #[inline(always)]
    fn pass(&self, dropped: impl FnOnce(&mut FenceCounters)) -> Result<(), Fenced> {
        if self.is_open() {
            if !self.is_stamped()
                && let Some(lease) = maps::LEASES.get_ptr_mut(self.group)
            {
                // SAFETY: an array element, never freed while the program runs. Two first packets
                // are as good as one.
                unsafe { (*lease).first_passed_ns = self.now.as_ns() };
            }
            return Ok(());
        }
        if let Some(counters) = maps::FENCE_COUNTERS.get_ptr_mut(self.group) {
            // SAFETY: a per-CPU value; this program is the only one to write it on this CPU.
            dropped(unsafe { &mut *counters });
        }
        Err(Fenced { group: self.group })
    }
}

/// Whether it is a fragment over IPv6 that no socket sends. Connection tracking puts together what came in
/// fragments, and if the stack cuts it anew (`ip6_fragment`), those do not have the interface by which it
/// came, unlike those over IPv4.
#[inline(always)]
fn may_be_cut_transit(skb: Skb<'_>) -> bool {
    /// RFC 8200 §4.5.
    const FRAGMENT: u8 = 44;
    const NEXT_HEADER: usize = 6;
    skb.protocol() == ETH_P_IPV6
        && skb.read_ip::<u8>(NEXT_HEADER) == Some(FRAGMENT)
        && !skb.has_socket()
}

/// Whether what came by it are the outer packets of a tunnel, which this host makes. What a tunnel
/// delivers comes by the other end of its device.
#[inline(always)]
fn is_dataplane_end(ifindex: u32) -> bool {
    let device = maps::tunnel_of(ifindex).and_then(|index| maps::DEVICES.get(index));
    device.is_some_and(|device| device.dataplane_ifindex == ifindex)
}

/// Frames of a VLAN belong to another interface, which is protected by itself; those that have but a
/// priority (VLAN 0, IEEE 802.1Q clause 9.6) do not, however often they have it.
#[inline(always)]
fn is_of_a_vlan(skb: Skb<'_>) -> bool {
    const VLAN_ID: u16 = 0x0fff;
    let names_one = |tag: u16| tag & VLAN_ID != 0;
    if skb.vlan().is_some_and(|(_, tag)| names_one(tag)) {
        return true;
    }
    is_tagged(skb.protocol())
        && skb
            .read::<[u8; 2]>(Ethernet::LEN)
            .is_some_and(|tag| names_one(u16::from_be_bytes(tag)))
}

#[inline(always)]
fn is_tagged(protocol: u16) -> bool {
    matches!(protocol, ETH_P_8021Q | ETH_P_8021AD)
}

/// Whether the stack would forward the packet: what it takes for itself, and what is no IP, is none
/// of the fence's business. What cannot be read is transit.
#[inline(always)]
fn is_transit(ctx: &TcContext) -> bool {
    match Skb(ctx).protocol() {
        ETH_P_IPV4 => ipv4_is_transit(ctx),
        ETH_P_IPV6 => ipv6_is_transit(ctx),
        // Behind one tag of VLAN 0 another: the stack takes off both.
        protocol => is_tagged(protocol),
    }
}

#[inline(always)]
fn ipv4_is_transit(ctx: &TcContext) -> bool {
    /// RFC 9776.
    const IGMP: u8 = 2;
    let skb = Skb(ctx);
    let Some(header) = skb.read_ip::<Ipv4>(0) else {
        return true;
    };
    let [first, second, third, _] = header.destination;
    if first & 0xf0 == 0xe0 {
        // RFC 5771 §4: what routers never forward. Other groups a multicast routing daemon may.
        return [first, second, third] != [224, 0, 0] && header.protocol != IGMP;
    }
    let Some(query) = Query::blank() else {
        return true;
    };
    query.family = Query::IPV4;
    query.protocol = header.protocol;
    query.flow = [header.tos, 0, 0, 0];
    query.ifindex = skb.ifindex();
    query.addresses[0][0] = u32::from_ne_bytes(header.source);
    query.addresses[1][0] = u32::from_ne_bytes(header.destination);
    query.would_be_forwarded(ctx.as_ptr())
}

#[inline(always)]
fn ipv6_is_transit(ctx: &TcContext) -> bool {
    let skb = Skb(ctx);
    // RFC 8200 §3: next header, source, destination.
    let (Some([_, _, next_header, _]), Some(addresses)) =
        (skb.read_ip::<[u8; 4]>(4), skb.read_ip::<[[u32; 4]; 2]>(8))
    else {
        return true;
    };
    let [first, second, ..] = addresses[1][0].to_ne_bytes();
    if first == 0xff {
        // RFC 4291 §2.7: the scope, of which an interface's and a link's are never forwarded.
        return second & 0x0f > 2;
    }
    let Some(query) = Query::blank() else {
        return true;
    };
    query.family = Query::IPV6;
    query.protocol = next_header;
    query.ifindex = skb.ifindex();
    query.addresses = addresses;
    query.would_be_forwarded(ctx.as_ptr())
}
