//! GRE (RFC 2784, RFC 2890) over IPv4, over IPv6 (RFC 7676) and in UDP (RFC 8086): what an underlay
//! packet is, and how long the headers are that go before an inner packet.

use bytemuck::{Pod, Zeroable};

use crate::{
    net::{
        ETH_P_8021AD, ETH_P_8021Q, ETH_P_IPV4, ETH_P_IPV6, Ethernet, GRE_UDP_PORT, Ipv4, Ipv6,
        PROTO_DESTINATION_OPTIONS, PROTO_FRAGMENT, PROTO_GRE, PROTO_UDP, Udp, Vlan,
    },
    packet::Packet,
};

/// The four bytes every GRE header starts with (RFC 2784 §2.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct GreBase {
    bits: [u8; 2],
    protocol: [u8; 2],
}

/// The first 16 bits of the GRE header.
pub mod bit {
    pub const CHECKSUM: u16 = 0x8000;
    /// RFC 1701's; a packet with it is discarded (RFC 2784 §2.3).
    pub const ROUTING: u16 = 0x4000;
    pub const KEY: u16 = 0x2000;
    pub const SEQUENCE: u16 = 0x1000;
    /// Bits 1, 4 and 5: a packet with any of them is discarded. The reserved bits after them are
    /// ignored (RFC 2784 §2.3).
    pub const ILLEGAL: u16 = ROUTING | 0x0c00;
    pub const VERSION: u16 = 0x0007;
}

impl GreBase {
    pub const LEN: usize = size_of::<Self>();

    #[inline(always)]
    pub const fn new(bits: u16, protocol: u16) -> Self {
        Self {
            bits: bits.to_be_bytes(),
            protocol: protocol.to_be_bytes(),
        }
    }

    /// EtherType of what follows.
    #[inline(always)]
    pub const fn protocol(&self) -> u16 {
        u16::from_be_bytes(self.protocol)
    }
}

/// What of the wire format a tunnel uses.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Format(pub u32);

impl Format {
    pub const KEY: Self = Self(1);
    pub const CHECKSUM: Self = Self(1 << 1);
    pub const SEQUENCE: Self = Self(1 << 2);
    /// GRE in UDP.
    pub const UDP: Self = Self(1 << 3);
    /// The outer header is IPv6.
    pub const IPV6: Self = Self(1 << 4);
    /// Carries Ethernet frames ("transparent Ethernet bridging").
    pub const LAYER2: Self = Self(1 << 5);

    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn with(self, other: Self, yes: bool) -> Self {
        if yes { Self(self.0 | other.0) } else { self }
    }

    /// The bits of the GRE header.
    #[inline(always)]
    pub const fn bits(self) -> u16 {
        let mut bits = 0;
        if self.has(Self::KEY) {
            bits |= bit::KEY;
        }
        if self.has(Self::CHECKSUM) {
            bits |= bit::CHECKSUM;
        }
        if self.has(Self::SEQUENCE) {
            bits |= bit::SEQUENCE;
        }
        bits
    }

    /// Bytes of the outer IP header.
    #[inline(always)]
    pub const fn ip_length(self) -> usize {
        if self.has(Self::IPV6) {
            Ipv6::LEN
        } else {
            Ipv4::LEN
        }
    }

    /// Bytes of the outer headers: IP, UDP if any, GRE (RFC 2890 §2).
    #[inline(always)]
    pub const fn outer_length(self) -> usize {
        let mut length = self.ip_length() + GreBase::LEN;
        if self.has(Self::UDP) {
            length += Udp::LEN;
        }
        length + optional_length(self.bits())
    }

    /// By how many bytes the tunnel's MTU is smaller than the path's.
    pub const fn overhead(self) -> usize {
        if self.has(Self::LAYER2) {
            self.outer_length() + Ethernet::LEN
        } else {
            self.outer_length()
        }
    }
}

/// Bytes of the fields that the bits announce. Checksum and offset come together, for either of
/// the bits (RFC 1701).
#[inline(always)]
const fn optional_length(bits: u16) -> usize {
    let mut length = 0;
    if bits & (bit::CHECKSUM | bit::ROUTING) != 0 {
        length += 4;
    }
    if bits & bit::KEY != 0 {
        length += 4;
    }
    if bits & bit::SEQUENCE != 0 {
        length += 4;
    }
    length
}

/// What tells tunnels between the same addresses from each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Label {
    /// In network order, as in the packet.
    key: [u8; 4],
    kind: u32,
}

impl Label {
    /// A keyed tunnel takes only its key; key 0 is a key.
    const KEYED: u32 = 1;
    const UDP: u32 = 2;

    #[inline(always)]
    pub fn new(key: Option<u32>, udp: bool) -> Self {
        let keyed = if key.is_some() { Self::KEYED } else { 0 };
        Self {
            key: key.unwrap_or(0).to_be_bytes(),
            kind: keyed | if udp { Self::UDP } else { 0 },
        }
    }

    pub const fn key(&self) -> Option<u32> {
        if self.kind & Self::KEYED == 0 {
            None
        } else {
            Some(u32::from_be_bytes(self.key))
        }
    }

    pub const fn is_udp(&self) -> bool {
        self.kind & Self::UDP != 0
    }
}

/// What tells one tunnel over IPv4 from another, seen from the receiving side.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct TunnelKey {
    pub local: [u8; 4],
    pub remote: [u8; 4],
    pub label: Label,
}

/// As [`TunnelKey`], over IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct TunnelKey6 {
    pub addresses: Addresses6,
    pub label: Label,
}

/// The addresses of an arriving packet in the order of its header (RFC 8200 §3).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Addresses6 {
    pub remote: [u8; 16],
    pub local: [u8; 16],
}

const _: () = assert!(size_of::<TunnelKey>() == 16 && size_of::<TunnelKey6>() == 40);

impl TunnelKey {
    /// The key of a packet that arrives with its IPv4 header at `outer_offset`.
    #[inline(always)]
    pub fn of<P: Packet + ?Sized>(frame: &P, outer_offset: usize, label: Label) -> Option<Self> {
        // RFC 791 §3.1.
        Some(Self {
            remote: frame.read(outer_offset + 12)?,
            local: frame.read(outer_offset + 16)?,
            label,
        })
    }
}

impl TunnelKey6 {
    /// As [`TunnelKey::of`], for IPv6.
    #[inline(always)]
    pub fn of<P: Packet + ?Sized>(frame: &P, outer_offset: usize, label: Label) -> Option<Self> {
        // RFC 8200 §3.
        let addresses: Addresses6 = frame.read(outer_offset + 8)?;
        Some(Self { addresses, label })
    }
}

/// Either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AnyKey {
    Ipv4(TunnelKey),
    Ipv6(TunnelKey6),
}

/// A GRE header (RFC 2784 §2, RFC 2890 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bits: u16,
    /// EtherType of the inner packet.
    pub protocol: u16,
    /// In network order; zero if there is none.
    key: [u8; 4],
    /// Zero if there is none.
    pub sequence: u32,
    /// Bytes, with all fields.
    pub length: usize,
}

impl Header {
    /// The header at `offset` bytes.
    #[inline(always)]
    pub fn read<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<Self, NotFast> {
        let base: GreBase = packet.read(offset).ok_or(NotFast::Truncated)?;
        let bits = u16::from_be_bytes(base.bits);
        if bits & bit::VERSION != 0 {
            return Err(NotFast::Version);
        }
        let mut length = GreBase::LEN;
        let mut key = [0; 4];
        let mut sequence = 0;
        if bits & (bit::CHECKSUM | bit::ROUTING) != 0 {
            length += 4;
        }
        if bits & bit::KEY != 0 {
            key = packet.read(offset + length).ok_or(NotFast::Truncated)?;
            length += 4;
        }
        if bits & bit::SEQUENCE != 0 {
            let field = packet.read(offset + length).ok_or(NotFast::Truncated)?;
            sequence = u32::from_be_bytes(field);
            length += 4;
        }
        Ok(Self {
            bits,
            protocol: base.protocol(),
            key,
            sequence,
            length,
        })
    }

    #[inline(always)]
    pub const fn has_checksum(&self) -> bool {
        self.bits & bit::CHECKSUM != 0
    }

    #[inline(always)]
    pub const fn has_sequence(&self) -> bool {
        self.bits & bit::SEQUENCE != 0
    }

    /// Whether it must be discarded (RFC 2784 §2.3).
    #[inline(always)]
    pub const fn is_illegal(&self) -> bool {
        self.bits & bit::ILLEGAL != 0
    }

    #[inline(always)]
    pub const fn label(&self, udp: bool) -> Label {
        let keyed = if self.bits & bit::KEY != 0 {
            Label::KEYED
        } else {
            0
        };
        Label {
            key: self.key,
            kind: keyed | if udp { Label::UDP } else { 0 },
        }
    }
}

/// A GRE packet whose outer headers are such that the fast path can take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gre {
    pub header: Header,
    pub label: Label,
    /// Where the outer IP header starts, in bytes from the start of the frame.
    pub outer_offset: usize,
    /// Type of service or traffic class of the outer header.
    pub outer_tos: u8,
    /// Where the inner packet starts, in bytes from the start of the frame.
    pub inner_offset: usize,
    /// Length of the inner packet in bytes, by the outer headers.
    pub inner_length: usize,
}

/// Why a frame is not for the fast path. None of these is an error of ours: the stack gets the
/// frame as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFast {
    /// Neither GRE nor GRE in UDP, or shorter than its headers.
    NotGre,
    /// IPv4 options before GRE.
    OuterOptions,
    /// A fragment of what may be a GRE packet.
    OuterFragment,
    /// A GRE version other than 0, such as PPTP's 1 (RFC 2637).
    Version,
    /// GRE in UDP with a UDP checksum, which the stack verifies.
    UdpChecksum,
    /// Lengths that contradict each other.
    Truncated,
}

/// What is below the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// That of the IP header, behind the tags.
    pub ether_type: u16,
    /// Where the IP header starts, in bytes from the start of the frame.
    pub offset: usize,
    /// VLAN of the innermost tag; zero without.
    pub vlan: u16,
}

/// Reads an Ethernet header and up to two VLAN tags (IEEE 802.1Q, 802.1ad).
#[inline(always)]
pub fn link<P: Packet + ?Sized>(frame: &P) -> Option<Link> {
    let ethernet: Ethernet = frame.read(0)?;
    let mut link = Link {
        ether_type: ethernet.ether_type(),
        offset: Ethernet::LEN,
        vlan: 0,
    };
    if link.ether_type == ETH_P_8021Q || link.ether_type == ETH_P_8021AD {
        link = tagged(frame, link)?;
        if link.ether_type == ETH_P_8021Q {
            link = tagged(frame, link)?;
        }
    }
    Some(link)
}

#[inline(always)]
fn tagged<P: Packet + ?Sized>(frame: &P, before: Link) -> Option<Link> {
    let tag: Vlan = frame.read(before.offset)?;
    Some(Link {
        ether_type: tag.ether_type(),
        offset: before.offset + Vlan::LEN,
        vlan: tag.id(),
    })
}

/// Reads the outer headers of a packet whose IPv4 header is at `offset`.
#[inline(always)]
pub fn over_ipv4<P: Packet + ?Sized>(frame: &P, offset: usize) -> Result<Gre, NotFast> {
    let outer: Ipv4 = frame.read(offset).ok_or(NotFast::NotGre)?;
    let is_gre = outer.protocol == PROTO_GRE;
    if outer.version() != 4 || !(is_gre || outer.protocol == PROTO_UDP) {
        return Err(NotFast::NotGre);
    }
    if outer.has_options() {
        return Err(if is_gre {
            NotFast::OuterOptions
        } else {
            NotFast::NotGre
        });
    }
    if outer.is_fragment() {
        return Err(if is_gre {
            NotFast::OuterFragment
        } else {
            NotFast::NotGre
        });
    }
    let payload_length = usize::from(outer.total_length())
        .checked_sub(Ipv4::LEN)
        .ok_or(NotFast::Truncated)?;
    let payload = offset + Ipv4::LEN;
    behind_ip(frame, offset, payload, payload_length, is_gre, outer.tos)
}

/// Reads the outer headers of a packet whose IPv6 header is at `offset`. A tunnel encapsulation
/// limit (RFC 2473 §4.1.1), which Linux sends by default, is skipped.
#[inline(always)]
pub fn over_ipv6<P: Packet + ?Sized>(frame: &P, offset: usize) -> Result<Gre, NotFast> {
    // Of the forty bytes these alone, to save a program's stack (RFC 8200 §3).
    let start: [u8; 8] = frame.read(offset).ok_or(NotFast::NotGre)?;
    if start[0] >> 4 != 6 {
        return Err(NotFast::NotGre);
    }
    let tos = (start[0] << 4) | (start[1] >> 4);
    let mut next_header = start[6];
    let mut payload = offset + Ipv6::LEN;
    let mut payload_length = usize::from(u16::from_be_bytes([start[4], start[5]]));
    if next_header == PROTO_DESTINATION_OPTIONS {
        let options: [u8; 8] = frame.read(payload).ok_or(NotFast::NotGre)?;
        if options[1] != 0 {
            return Err(NotFast::NotGre);
        }
        next_header = options[0];
        payload += options.len();
        payload_length = payload_length
            .checked_sub(options.len())
            .ok_or(NotFast::Truncated)?;
    }
    let is_gre = next_header == PROTO_GRE;
    if next_header == PROTO_FRAGMENT {
        return Err(NotFast::OuterFragment);
    }
    if !(is_gre || next_header == PROTO_UDP) {
        return Err(NotFast::NotGre);
    }
    behind_ip(frame, offset, payload, payload_length, is_gre, tos)
}

/// Reads what is behind the outer IP header: GRE, or UDP and GRE.
#[inline(always)]
fn behind_ip<P: Packet + ?Sized>(
    frame: &P,
    outer_offset: usize,
    payload: usize,
    payload_length: usize,
    is_gre: bool,
    outer_tos: u8,
) -> Result<Gre, NotFast> {
    let mut gre_offset = payload;
    let mut gre_length = payload_length;
    if !is_gre {
        let udp: Udp = frame.read(payload).ok_or(NotFast::NotGre)?;
        if udp.destination() != GRE_UDP_PORT {
            return Err(NotFast::NotGre);
        }
        if udp.has_checksum() {
            return Err(NotFast::UdpChecksum);
        }
        if usize::from(udp.length()) != payload_length {
            return Err(NotFast::Truncated);
        }
        gre_offset += Udp::LEN;
        gre_length = payload_length
            .checked_sub(Udp::LEN)
            .ok_or(NotFast::Truncated)?;
    }
    let header = Header::read(frame, gre_offset)?;
    Ok(Gre {
        header,
        label: header.label(!is_gre),
        outer_offset,
        outer_tos,
        inner_offset: gre_offset + header.length,
        inner_length: gre_length
            .checked_sub(header.length)
            .ok_or(NotFast::Truncated)?,
    })
}

/// Reads the outer headers of an Ethernet frame.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(frame: &P) -> Result<(AnyKey, Gre), NotFast> {
    let link = link(frame).ok_or(NotFast::NotGre)?;
    match link.ether_type {
        ETH_P_IPV4 => {
            let gre = over_ipv4(frame, link.offset)?;
            let key = TunnelKey::of(frame, link.offset, gre.label).ok_or(NotFast::NotGre)?;
            Ok((AnyKey::Ipv4(key), gre))
        }
        ETH_P_IPV6 => {
            let gre = over_ipv6(frame, link.offset)?;
            let key = TunnelKey6::of(frame, link.offset, gre.label).ok_or(NotFast::NotGre)?;
            Ok((AnyKey::Ipv6(key), gre))
        }
        _ => Err(NotFast::NotGre),
    }
}
