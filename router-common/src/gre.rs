//! GRE (RFC 2784, RFC 2890) over IPv4, over IPv6 (RFC 7676) and in UDP (RFC 8086): what an underlay
//! packet is, and how long the headers are that go before an inner packet.

use bytemuck::{Pod, Zeroable};

use crate::{
    net::{
        ETH_P_8021AD, ETH_P_8021Q, ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet, GRE_UDP_PORT, Ipv4,
        Ipv6, PROTO_DESTINATION_OPTIONS, PROTO_FRAGMENT, PROTO_GRE, PROTO_UDP, Udp, Vlan,
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
    kind: u32,
    /// In network order, as in the packet.
    key: [u8; 4],
}

impl Label {
    /// A keyed tunnel takes only its key; key 0 is a key.
    const KEYED: u32 = 1;
    const UDP: u32 = 2;
    /// Of a tunnel whose key is an epoch, and so any.
    const EPOCH: u32 = 4;

    #[inline(always)]
    pub fn new(key: Option<u32>, udp: bool) -> Self {
        let keyed = if key.is_some() { Self::KEYED } else { 0 };
        Self {
            key: key.unwrap_or(0).to_be_bytes(),
            kind: keyed | if udp { Self::UDP } else { 0 },
        }
    }

    /// Of the tunnel that takes the keyed packets which no other takes: those with an epoch.
    #[inline(always)]
    pub const fn epoch(udp: bool) -> Self {
        Self {
            key: [0; 4],
            kind: Self::EPOCH | if udp { Self::UDP } else { 0 },
        }
    }

    #[inline(always)]
    pub const fn is_keyed(&self) -> bool {
        self.kind & Self::KEYED != 0
    }

    pub const fn is_epoch(&self) -> bool {
        self.kind & Self::EPOCH != 0
    }

    /// The key that a packet brings; zero if it brings none.
    #[inline(always)]
    pub const fn number(&self) -> u32 {
        u32::from_be_bytes(self.key)
    }

    pub const fn key(&self) -> Option<u32> {
        if self.is_keyed() {
            Some(self.number())
        } else {
            None
        }
    }

    #[inline(always)]
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

impl AnyKey {
    /// The tunnel that takes a packet of this key if no tunnel has the key itself; `None` if the
    /// packet is not keyed.
    pub fn of_epoch(self) -> Option<Self> {
        let label = |label: Label| label.is_keyed().then(|| Label::epoch(label.is_udp()));
        Some(match self {
            Self::Ipv4(key) => Self::Ipv4(TunnelKey {
                label: label(key.label)?,
                ..key
            }),
            Self::Ipv6(key) => Self::Ipv6(TunnelKey6 {
                label: label(key.label)?,
                ..key
            }),
        })
    }
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

/// Why a tunnel does not take a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inadmissible {
    /// A bit that must be zero.
    Illegal,
    /// A checksum that the tunnel does not have, or none where it has one.
    Checksum,
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
    const fn is_illegal(&self) -> bool {
        self.bits & bit::ILLEGAL != 0
    }

    /// What RFC 2784 §2.3 and a tunnel's configuration say of the header, as Linux reads them. Of
    /// sequence numbers and epochs, which are compared with others, it says nothing.
    #[inline(always)]
    pub const fn admit(&self, format: Format) -> Result<(), Inadmissible> {
        if self.is_illegal() {
            return Err(Inadmissible::Illegal);
        }
        if self.has_checksum() != format.has(Format::CHECKSUM) {
            return Err(Inadmissible::Checksum);
        }
        Ok(())
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

impl Gre {
    /// Bytes of the header that an inner packet of this protocol begins with. What is shorter by
    /// the outer headers is not made whole by what follows them in the frame.
    #[inline(always)]
    pub const fn shortest_inner(&self) -> usize {
        match self.header.protocol {
            ETH_P_IPV4 => Ipv4::LEN,
            ETH_P_IPV6 => Ipv6::LEN,
            ETH_P_TEB => Ethernet::LEN,
            _ => 0,
        }
    }
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
    /// VLAN; zero if there is no tag, or one that only tells a priority.
    pub vlan: u16,
}

/// Behind a tag of another VLAN: none of ours, whatever the inner tag says.
const NO_VLAN: u16 = 0xffff;

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
            let outer = link.vlan;
            link = tagged(frame, link)?;
            if outer != 0 {
                link.vlan = NO_VLAN;
            }
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
    let tos = Ipv6::class_of([start[0], start[1]]);
    let mut next_header = start[6];
    let mut payload = offset + Ipv6::LEN;
    let mut payload_length = usize::from(u16::from_be_bytes([start[4], start[5]]));
    if next_header == PROTO_DESTINATION_OPTIONS {
        let options: [u8; 8] = frame.read(payload).ok_or(NotFast::NotGre)?;
        // RFC 2473 §4.1.1: type 4, length 1; behind it PadN or Pad1 (RFC 8200 §4.2). The stack knows what
        // to do about others, which may ask for the packet to be dropped.
        if !matches!(options, [_, 0, 4, 1, _, 1, 1, _] | [_, 0, 4, 1, _, 0, 0, 0]) {
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

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const IPV4: [[u8; 4]; 2] = [[10, 0, 2, 10], [10, 0, 1, 10]];
    const IPV6: [[u8; 16]; 2] = [[0x20; 16], [0x21; 16]];

    /// What a packet is built of, field by field.
    #[expect(
        clippy::struct_excessive_bools,
        reason = "each is a field that is there or not"
    )]
    #[derive(Clone, Debug)]
    struct Parts {
        /// TPID and TCI of each tag, outermost first.
        tags: Vec<[u16; 2]>,
        ipv6: bool,
        /// A tunnel encapsulation limit before GRE over IPv6.
        limit: bool,
        udp: bool,
        tos: u8,
        checksum: bool,
        key: Option<u32>,
        sequence: Option<u32>,
        /// Of the bits that are ignored (RFC 2784 §2.3).
        reserved: u16,
        protocol: u16,
        inner: Vec<u8>,
        /// Bytes behind the outer packet, as Ethernet pads short frames.
        padding: usize,
    }

    const PLAIN: Parts = Parts {
        tags: Vec::new(),
        ipv6: false,
        limit: false,
        udp: false,
        tos: 0,
        checksum: false,
        key: None,
        sequence: None,
        reserved: 0,
        protocol: ETH_P_IPV4,
        inner: Vec::new(),
        padding: 0,
    };

    impl Parts {
        fn bits(&self) -> u16 {
            let mut bits = self.reserved;
            bits |= if self.checksum { 0x8000 } else { 0 };
            bits |= if self.key.is_some() { 0x2000 } else { 0 };
            bits | if self.sequence.is_some() { 0x1000 } else { 0 }
        }

        fn gre(&self) -> Vec<u8> {
            let mut gre = Vec::new();
            gre.extend(self.bits().to_be_bytes());
            gre.extend(self.protocol.to_be_bytes());
            if self.checksum {
                gre.extend([0xab, 0xcd, 0, 0]);
            }
            gre.extend(self.key.into_iter().flat_map(u32::to_be_bytes));
            gre.extend(self.sequence.into_iter().flat_map(u32::to_be_bytes));
            gre
        }

        fn link(&self) -> Vec<u8> {
            let ether_type: u16 = if self.ipv6 { 0x86dd } else { 0x0800 };
            let mut link = [7; 12].to_vec();
            link.extend(
                self.tags
                    .iter()
                    .flatten()
                    .copied()
                    .flat_map(u16::to_be_bytes),
            );
            link.extend(ether_type.to_be_bytes());
            link
        }

        fn outer(&self) -> Vec<u8> {
            let mut payload = Vec::new();
            let gre_length = self.gre().len() + self.inner.len();
            if self.udp {
                let length = u16::try_from(8 + gre_length).unwrap();
                payload.extend([0xc0, 1, 0x12, 0x92]);
                payload.extend(length.to_be_bytes());
                payload.extend([0, 0]);
            }
            let protocol = if self.udp { 17 } else { 47 };
            let length = payload.len() + gre_length;
            let mut outer = Vec::new();
            if self.ipv6 {
                let options = if self.limit { 8 } else { 0 };
                let length = u16::try_from(length + options).unwrap();
                outer.extend([0x60 | (self.tos >> 4), self.tos << 4, 0, 0]);
                outer.extend(length.to_be_bytes());
                outer.extend([if self.limit { 60 } else { protocol }, 64]);
                outer.extend(IPV6.as_flattened());
                if self.limit {
                    outer.extend([protocol, 0, 4, 1, 4, 1, 1, 0]);
                }
            } else {
                let length = u16::try_from(20 + length).unwrap();
                outer.extend([0x45, self.tos]);
                outer.extend(length.to_be_bytes());
                outer.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
                outer.extend(IPV4.as_flattened());
            }
            outer.extend(payload);
            outer
        }

        fn headers(&self) -> Vec<u8> {
            [self.link(), self.outer(), self.gre()].concat()
        }

        fn frame(&self) -> Vec<u8> {
            let padding = std::vec![0x55; self.padding];
            [self.headers(), self.inner.clone(), padding].concat()
        }

        fn format(&self) -> Format {
            Format::default()
                .with(Format::KEY, self.key.is_some())
                .with(Format::CHECKSUM, self.checksum)
                .with(Format::SEQUENCE, self.sequence.is_some())
                .with(Format::UDP, self.udp)
                .with(Format::IPV6, self.ipv6)
        }

        fn expected(&self) -> (AnyKey, Gre) {
            let label = Label::new(self.key, self.udp);
            let key = if self.ipv6 {
                let [remote, local] = IPV6;
                let addresses = Addresses6 { remote, local };
                AnyKey::Ipv6(TunnelKey6 { addresses, label })
            } else {
                let [remote, local] = IPV4;
                AnyKey::Ipv4(TunnelKey {
                    local,
                    remote,
                    label,
                })
            };
            let header = Header {
                bits: self.bits(),
                protocol: self.protocol,
                key: self.key.unwrap_or(0).to_be_bytes(),
                sequence: self.sequence.unwrap_or(0),
                length: self.gre().len(),
            };
            let gre = Gre {
                header,
                label,
                outer_offset: self.link().len(),
                outer_tos: self.tos,
                inner_offset: self.headers().len(),
                inner_length: self.inner.len(),
            };
            (key, gre)
        }
    }

    /// Frames that the fast path takes, of every format.
    fn parts() -> impl Strategy<Value = Parts> {
        let tag = |tpid| any::<u16>().prop_map(move |tci| [tpid, tci]);
        let tags = prop_oneof![
            Just(Vec::new()),
            tag(0x8100).prop_map(|tag| [tag].to_vec()),
            tag(0x88a8).prop_map(|tag| [tag].to_vec()),
            (tag(0x88a8), tag(0x8100)).prop_map(|(outer, inner)| [outer, inner].to_vec()),
            (tag(0x8100), tag(0x8100)).prop_map(|(outer, inner)| [outer, inner].to_vec()),
        ];
        let inner = prop::collection::vec(any::<u8>(), 0..80);
        let switches: [BoxedStrategy<bool>; 4] = std::array::from_fn(|_| any::<bool>().boxed());
        let fields = (any::<Option<u32>>(), any::<Option<u32>>(), 0_u16..0x80);
        let rest = (any::<u8>(), any::<u16>(), 0_usize..20);
        (tags, inner, switches, fields, rest).prop_map(
            |(tags, inner, switches, (key, sequence, reserved), (tos, protocol, padding))| {
                let [ipv6, limit, udp, checksum] = switches;
                Parts {
                    tags,
                    ipv6,
                    limit,
                    udp,
                    tos,
                    checksum,
                    key,
                    sequence,
                    reserved: reserved << 3,
                    protocol,
                    inner,
                    padding,
                }
            },
        )
    }

    #[test]
    fn plain_and_with_every_field() {
        let full = Parts {
            tags: [[0x88a8, 0x2005], [0x8100, 0xe123]].to_vec(),
            ipv6: true,
            limit: true,
            udp: true,
            tos: 0xb9,
            checksum: true,
            key: Some(0x0102_0304),
            sequence: Some(u32::MAX),
            inner: [1, 2, 3].to_vec(),
            ..PLAIN
        };
        for parts in [PLAIN, full] {
            assert_eq!(parse(parts.frame().as_slice()), Ok(parts.expected()));
        }
    }

    #[test]
    fn key_zero_is_not_no_key() {
        let keyed = Label::new(Some(0), false);
        assert_ne!(keyed, Label::new(None, false));
        assert_eq!(keyed.key(), Some(0));
        assert_ne!(keyed, Label::new(Some(0), true));
        assert!(Label::new(Some(0), true).is_udp());
    }

    #[test]
    fn a_vlan_is_told_by_one_tag_alone() {
        for (tags, vlan) in [
            (&[][..], 0),
            (&[[0x8100, 0xf005]], 5),
            (&[[0x88a8, 0x0006]], 6),
            (&[[0x8100, 0]], 0),
            (&[[0x88a8, 0xe000], [0x8100, 0xe006]], 6),
            (&[[0x88a8, 5], [0x8100, 0xe006]], NO_VLAN),
            (&[[0x8100, 5], [0x8100, 0]], NO_VLAN),
        ] {
            let parts = Parts {
                tags: tags.to_vec(),
                ..PLAIN
            };
            let link = link(parts.frame().as_slice()).unwrap();
            assert_eq!((link.vlan, link.ether_type), (vlan, ETH_P_IPV4));
            assert_eq!(link.offset, Ethernet::LEN + 4 * tags.len());
        }
        let three = Parts {
            tags: [[0x8100, 1]; 3].to_vec(),
            ..PLAIN
        };
        assert_eq!(parse(three.frame().as_slice()), Err(NotFast::NotGre));
    }

    #[test]
    fn bits_of_the_header() {
        let with = |bits: u16| {
            let mut frame = PLAIN.frame();
            frame.extend([0; 12]);
            frame[34..36].copy_from_slice(&bits.to_be_bytes());
            // The bits may announce up to three fields.
            frame[16..18].copy_from_slice(&36_u16.to_be_bytes());
            parse(frame.as_slice()).map(|(_, gre)| gre)
        };
        for number in 0..16 {
            let bit = 0x8000_u16 >> number;
            let header = with(bit).map(|gre| (gre.header.is_illegal(), gre.header.length));
            let expected = match number {
                0 | 2 | 3 => Ok((false, 8)),
                1 => Ok((true, 8)),
                4 | 5 => Ok((true, 4)),
                6..=12 => Ok((false, 4)),
                _ => Err(NotFast::Version),
            };
            assert_eq!(header, expected, "bit {number}");
        }
        assert_eq!(with(0xb000).unwrap().header.length, 16);
    }

    /// Changes of single bytes that say what is not for the fast path.
    #[test]
    fn what_is_not_for_the_fast_path() {
        let ipv4 = Parts {
            inner: [0; 20].to_vec(),
            ..PLAIN
        };
        let udp = Parts {
            udp: true,
            ..ipv4.clone()
        };
        let ipv6 = Parts {
            ipv6: true,
            ..ipv4.clone()
        };
        let limited = Parts {
            limit: true,
            ..ipv6.clone()
        };
        for (description, parts, at, byte, expected) in [
            ("ARP", &ipv4, 13, 6, NotFast::NotGre),
            ("another protocol", &ipv4, 23, 4, NotFast::NotGre),
            ("IPv6 in IPv4's place", &ipv4, 14, 0x65, NotFast::NotGre),
            ("options", &ipv4, 14, 0x46, NotFast::OuterOptions),
            (
                "a header of four words",
                &ipv4,
                14,
                0x44,
                NotFast::OuterOptions,
            ),
            ("first fragment", &ipv4, 20, 0x20, NotFast::OuterFragment),
            ("later fragment", &ipv4, 21, 1, NotFast::OuterFragment),
            ("shorter than IPv4", &ipv4, 17, 19, NotFast::Truncated),
            ("shorter than GRE", &ipv4, 17, 23, NotFast::Truncated),
            ("options before UDP", &udp, 14, 0x46, NotFast::NotGre),
            ("a fragment of UDP", &udp, 20, 0x20, NotFast::NotGre),
            ("another port", &udp, 37, 0, NotFast::NotGre),
            ("a UDP checksum", &udp, 41, 1, NotFast::UdpChecksum),
            (
                "UDP shorter than IPv4 says",
                &udp,
                39,
                31,
                NotFast::Truncated,
            ),
            (
                "UDP longer than IPv4 says",
                &udp,
                39,
                33,
                NotFast::Truncated,
            ),
            ("IPv4 in IPv6's place", &ipv6, 14, 0x45, NotFast::NotGre),
            ("hop-by-hop options", &ipv6, 20, 0, NotFast::NotGre),
            ("a fragment header", &ipv6, 20, 44, NotFast::OuterFragment),
            (
                "shorter than GRE over IPv6",
                &ipv6,
                19,
                3,
                NotFast::Truncated,
            ),
            ("long options", &limited, 55, 1, NotFast::NotGre),
            (
                "a fragment behind options",
                &limited,
                54,
                44,
                NotFast::OuterFragment,
            ),
            (
                "shorter than its options",
                &limited,
                19,
                7,
                NotFast::Truncated,
            ),
        ] {
            let mut frame = parts.frame();
            frame[at] = byte;
            assert_eq!(parse(frame.as_slice()), Err(expected), "{description}");
        }
    }

    #[test]
    fn lengths_of_the_headers() {
        for (format, outer, overhead) in [
            (Format::default(), 24, 24),
            (Format::KEY, 28, 28),
            (Format::CHECKSUM, 28, 28),
            (Format::SEQUENCE, 28, 28),
            (Format::UDP, 32, 32),
            (Format::IPV6, 44, 44),
            (Format::LAYER2, 24, 38),
            (Format(0x3f), 64, 78),
        ] {
            assert_eq!(format.outer_length(), outer, "{format:?}");
            assert_eq!(format.overhead(), overhead, "{format:?}");
        }
    }

    proptest! {
        #[test]
        fn a_packet_is_what_it_was_built_of(parts in parts()) {
            let frame = parts.frame();
            prop_assert_eq!(parse(frame.as_slice()), Ok(parts.expected()));
            let inner = &frame[parts.headers().len()..][..parts.inner.len()];
            prop_assert_eq!(inner, parts.inner);
        }

        #[test]
        fn a_format_is_as_long_as_its_headers(parts in parts()) {
            let limit = if parts.ipv6 && parts.limit { 8 } else { 0 };
            let headers = parts.headers().len() - parts.link().len() - limit;
            prop_assert_eq!(parts.format().outer_length(), headers);
            prop_assert_eq!(parts.format().bits(), parts.bits() & 0xb000);
        }

        #[test]
        fn cut_at_every_byte(parts in parts()) {
            let frame = parts.frame();
            let headers = parts.headers().len();
            for cut in 0..frame.len() {
                match parse(&frame[..cut]) {
                    // The checksum is skipped, not read.
                    Ok(found) => {
                        prop_assert!(cut >= headers || (parts.checksum && cut + 4 >= headers));
                        prop_assert_eq!(found, parts.expected());
                    }
                    Err(error) => {
                        prop_assert!(cut < headers);
                        prop_assert!(matches!(error, NotFast::NotGre | NotFast::Truncated));
                    }
                }
            }
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = parse(bytes.as_slice());
        }

        /// Bytes in which some lie; what is taken lies within what the outer header says.
        #[test]
        fn lies(
            parts in parts(),
            lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut frame = parts.frame();
            for (at, byte) in lies {
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            if let Ok((key, gre)) = parse(frame.as_slice()) {
                let length: [u8; 2] = match key {
                    AnyKey::Ipv4(_) => frame.as_slice().read(gre.outer_offset + 2),
                    AnyKey::Ipv6(_) => frame.as_slice().read(gre.outer_offset + 4),
                }.unwrap();
                let end = gre.outer_offset + usize::from(u16::from_be_bytes(length))
                    + if matches!(key, AnyKey::Ipv6(_)) { 40 } else { 0 };
                prop_assert_eq!(gre.inner_offset + gre.inner_length, end);
                prop_assert_eq!(gre.label.key().is_some(), gre.header.bits & 0x2000 != 0);
            }
        }
    }
}
