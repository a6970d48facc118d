//! What a packet must be like to be forwarded without the stack.

use aya_ebpf::programs::XdpContext;
use router_common::{
    checksum,
    martian::{
        is_martian_ipv4_destination, is_martian_ipv4_source, is_martian_ipv6_destination,
        is_martian_ipv6_source,
    },
    net::{ETH_P_IPV4, ETH_P_IPV6, Ipv4, Ipv6, PROTO_TCP, PROTO_UDP},
    packet::Packet as _,
};

use super::route::Query;
use crate::{frame::Frame, outer::Inner};

/// Next header of hop-by-hop options, which every router must look at (RFC 8200 §4.3).
const HOP_BY_HOP: u8 = 0;

/// How a packet got here.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub ifindex: u32,
    /// See [`router_common::map::interface_flag::STRICT_REVERSE_PATH`].
    pub strict_reverse_path: bool,
    /// EtherType.
    pub protocol: u16,
    /// Bytes from the start of the frame to its IP header.
    pub offset: usize,
    /// Bytes that there are from its IP header on.
    pub room: usize,
}

/// A packet that may be forwarded, if there is a way.
#[derive(Clone, Copy)]
pub struct Passenger {
    /// Bytes from its IP header on, padding not counted.
    pub length: u16,
    pub header: Inner,
    /// It opens a TCP connection.
    pub is_syn: bool,
}

/// `None` if it is the stack's. Else `query` is ready to be asked for its way.
#[inline(always)]
pub fn examine(ctx: &XdpContext, arrival: &Arrival, query: &mut Query) -> Option<Passenger> {
    query.ifindex = arrival.ifindex;
    match arrival.protocol {
        ETH_P_IPV4 => ipv4(ctx, arrival, query),
        ETH_P_IPV6 => ipv6(ctx, arrival, query),
        _ => None,
    }
}

#[inline(always)]
fn ipv4(ctx: &XdpContext, arrival: &Arrival, query: &mut Query) -> Option<Passenger> {
    let frame = Frame(ctx);
    let header: Ipv4 = frame.read(arrival.offset)?;
    let length = header.total_length();
    if header.has_options()
        || !header.checksum_is_valid()
        || !(Ipv4::LEN..=arrival.room).contains(&usize::from(length))
        || header.ttl <= 1
        || is_martian_ipv4_source(header.source)
        || is_martian_ipv4_destination(header.destination)
        || is_group(header.destination)
    {
        return None;
    }
    query.family = Query::IPV4;
    query.protocol = header.protocol;
    query.flow = [header.tos, 0, 0, 0];
    if !comes_from_where_it_should(ctx, arrival, &header, query) {
        return None;
    }
    let transport = if header.is_fragment() {
        Transport::default()
    } else {
        Transport::read(frame, arrival.offset + Ipv4::LEN, header.protocol)?
    };
    set_ipv4(query, header.source, header.destination);
    query.ports = transport.ports;
    query.length = length;
    query.ifindex = arrival.ifindex;
    // The first question was answered in its place, with the metric.
    query.flow = [header.tos, 0, 0, 0];
    let [[source, ..], [destination, ..]] = query.addresses;
    Some(Passenger {
        length,
        header: Inner {
            protocol: ETH_P_IPV4,
            tos: header.tos,
            ttl: header.ttl - 1,
            flow_label: 0,
            hash: mixed(mixed(transport.hash(), source), destination),
        },
        is_syn: transport.is_syn,
    })
}

#[inline(always)]
fn is_group(destination: [u8; 4]) -> bool {
    destination[0] >> 4 == 0xe
}

/// Whether packets to its source would be forwarded too, and if that is asked for, by the
/// interface that it came by. Also without that check the stack takes none from an address of its
/// own, to which nothing is forwarded.
#[inline(always)]
fn comes_from_where_it_should(
    ctx: &XdpContext,
    arrival: &Arrival,
    header: &Ipv4,
    query: &mut Query,
) -> bool {
    set_ipv4(query, header.destination, header.source);
    query.ports = [0; 4];
    query.length = 0;
    query.leads_on(ctx) && (!arrival.strict_reverse_path || query.ifindex == arrival.ifindex)
}

#[inline(always)]
fn set_ipv4(query: &mut Query, source: [u8; 4], destination: [u8; 4]) {
    let [from, to] = &mut query.addresses;
    from[0] = u32::from_ne_bytes(source);
    to[0] = u32::from_ne_bytes(destination);
}

/// The kernel has no reverse path check of its own for IPv6.
#[inline(always)]
fn ipv6(ctx: &XdpContext, arrival: &Arrival, query: &mut Query) -> Option<Passenger> {
    let frame = Frame(ctx);
    // RFC 8200 §3.
    let [a, b, c, d]: [u8; 4] = frame.read(arrival.offset)?;
    let [high, low, next_header, hop_limit]: [u8; 4] = frame.read(arrival.offset + 4)?;
    let length = usize::from(u16::from_be_bytes([high, low])) + Ipv6::LEN;
    if a >> 4 != 6 || length > arrival.room || hop_limit <= 1 || next_header == HOP_BY_HOP {
        return None;
    }
    // RFC 8200 §3: source, destination.
    // SAFETY: a field of the query.
    unsafe { frame.load_into(arrival.offset + 8, &raw mut query.addresses) }?;
    let [source, destination]: [[u8; 16]; 2] = bytemuck::cast(query.addresses);
    if is_martian_ipv6_source(source)
        || is_martian_ipv6_destination(destination)
        || destination[0] == 0xff
    {
        return None;
    }
    let transport = Transport::read(frame, arrival.offset + Ipv6::LEN, next_header)?;
    query.family = Query::IPV6;
    query.protocol = next_header;
    query.flow = [a & 0x0f, b, c, d];
    query.ports = transport.ports;
    query.length = length as u16;
    let mut hash = transport.hash();
    for word in query.addresses.as_flattened() {
        hash = mixed(hash, *word);
    }
    Some(Passenger {
        length: length as u16,
        header: Inner {
            protocol: ETH_P_IPV6,
            tos: Ipv6::class_of([a, b]),
            ttl: hop_limit - 1,
            flow_label: u32::from_be_bytes([0, b & 0x0f, c, d]),
            hash,
        },
        is_syn: transport.is_syn,
    })
}

/// What is read of TCP and UDP.
#[derive(Clone, Copy, Default)]
struct Transport {
    ports: [u8; 4],
    is_syn: bool,
}

impl Transport {
    /// `None` if it is cut.
    #[inline(always)]
    fn read(frame: Frame<'_>, offset: usize, protocol: u8) -> Option<Self> {
        /// RFC 9293 §3.1.
        const FLAGS_OFFSET: usize = 13;
        const SYN: u8 = 0x02;
        let is_tcp = protocol == PROTO_TCP;
        if !is_tcp && protocol != PROTO_UDP {
            return Some(Self::default());
        }
        let ports = frame.read(offset)?;
        let is_syn = is_tcp && frame.read::<u8>(offset + FLAGS_OFFSET)? & SYN != 0;
        Some(Self { ports, is_syn })
    }

    #[inline(always)]
    fn hash(self) -> u32 {
        mixed(0, u32::from_ne_bytes(self.ports))
    }
}

/// Multiplicative hashing: the high bits depend on all that went in.
#[inline(always)]
fn mixed(hash: u32, word: u32) -> u32 {
    const GOLDEN_RATIO: u32 = 0x9e37_79b1;
    (hash.rotate_left(5) ^ word).wrapping_mul(GOLDEN_RATIO)
}

/// Takes one off the TTL or hop limit of the packet at `offset`, and corrects the checksum.
#[inline(always)]
pub fn age(frame: Frame<'_>, protocol: u16, offset: usize) -> Option<()> {
    if protocol == ETH_P_IPV4 {
        // RFC 791 §3.1.
        const TTL_OFFSET: usize = 8;
        let [ttl, above, high, low]: [u8; 4] = frame.read(offset + TTL_OFFSET)?;
        let aged = ttl.wrapping_sub(1);
        let [high, low] = checksum::update_u16([high, low], [ttl, above], [aged, above]);
        frame.write(offset + TTL_OFFSET, &[aged, above, high, low])
    } else {
        // RFC 8200 §3.
        const HOP_LIMIT_OFFSET: usize = 7;
        let hop_limit: u8 = frame.read(offset + HOP_LIMIT_OFFSET)?;
        frame.write(offset + HOP_LIMIT_OFFSET, &hop_limit.wrapping_sub(1))
    }
}
