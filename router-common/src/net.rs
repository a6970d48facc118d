//! Ethernet, VLAN, IPv4, IPv6 and UDP headers as they lie in a packet: byte arrays only, so that any byte
//! string of the right length is a value and alignment never matters.

use core::net::Ipv4Addr;

use bytemuck::{Pod, Zeroable};

use crate::checksum;

pub const ETH_P_IPV4: u16 = 0x0800;
pub const ETH_P_IPV6: u16 = 0x86dd;
/// A VLAN tag follows (IEEE 802.1Q).
pub const ETH_P_8021Q: u16 = 0x8100;
/// A service tag follows, and mostly another tag (IEEE 802.1ad).
pub const ETH_P_8021AD: u16 = 0x88a8;
/// Transparent Ethernet bridging: GRE with an Ethernet frame inside (RFC 7637 §3.2).
pub const ETH_P_TEB: u16 = 0x6558;
pub const PROTO_ICMP: u8 = 1;
pub const PROTO_TCP: u8 = 6;
pub const PROTO_UDP: u8 = 17;
pub const PROTO_GRE: u8 = 47;
/// RFC 8200 §4.5.
pub const PROTO_FRAGMENT: u8 = 44;
/// RFC 8200 §4.6.
pub const PROTO_DESTINATION_OPTIONS: u8 = 60;
/// What every IPv6 link carries (RFC 8200 §5), in bytes. The kernel takes IPv6 off a device with less.
pub const IPV6_MINIMUM_MTU: u32 = 1280;
/// Destination port of GRE in UDP (RFC 8086 §3.1).
pub const GRE_UDP_PORT: u16 = 4754;

pub type Mac = [u8; 6];

/// Ethernet II, 14 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ethernet {
    pub destination: Mac,
    pub source: Mac,
    ether_type: [u8; 2],
}

impl Ethernet {
    pub const LEN: usize = size_of::<Self>();

    #[inline(always)]
    pub const fn new(destination: Mac, source: Mac, ether_type: u16) -> Self {
        Self {
            destination,
            source,
            ether_type: ether_type.to_be_bytes(),
        }
    }

    #[inline(always)]
    pub const fn ether_type(&self) -> u16 {
        u16::from_be_bytes(self.ether_type)
    }

    /// The same header with the directions exchanged.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            destination: self.source,
            source: self.destination,
            ..self
        }
    }
}

/// What follows an Ethernet header of type [`ETH_P_8021Q`] or [`ETH_P_8021AD`], 4 bytes: the tag,
/// and the type of what comes next.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Vlan {
    tag_control: [u8; 2],
    ether_type: [u8; 2],
}

impl Vlan {
    pub const LEN: usize = size_of::<Self>();
    const ID_MASK: u16 = 0x0fff;

    /// A tag of priority 0; of `id`, the low 12 bits.
    #[inline(always)]
    pub const fn new(id: u16, ether_type: u16) -> Self {
        Self {
            tag_control: (id & Self::ID_MASK).to_be_bytes(),
            ether_type: ether_type.to_be_bytes(),
        }
    }

    #[inline(always)]
    pub const fn id(&self) -> u16 {
        u16::from_be_bytes(self.tag_control) & Self::ID_MASK
    }

    /// Whether a frame with this tag control may be taken for one of VLAN `id`: it is of that VLAN, or
    /// tells a priority alone.
    #[inline(always)]
    pub const fn is_of(tag_control: u16, id: u16) -> bool {
        let stated = tag_control & Self::ID_MASK;
        stated == 0 || stated == id
    }

    #[inline(always)]
    pub const fn ether_type(&self) -> u16 {
        u16::from_be_bytes(self.ether_type)
    }
}

/// IPv4 without options (RFC 791), 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv4 {
    version_ihl: u8,
    pub tos: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    flags_offset: [u8; 2],
    pub ttl: u8,
    pub protocol: u8,
    checksum: [u8; 2],
    pub source: [u8; 4],
    pub destination: [u8; 4],
}

impl Ipv4 {
    pub const LEN: usize = size_of::<Self>();
    const VERSION_4_IHL_5: u8 = 0x45;
    const DONT_FRAGMENT: u16 = 0x4000;
    /// "More fragments" and the fragment offset.
    const FRAGMENT_MASK: u16 = 0x3fff;

    /// A header with DF set and a valid checksum.
    #[inline(always)]
    pub fn new(
        protocol: u8,
        source: [u8; 4],
        destination: [u8; 4],
        tos: u8,
        ttl: u8,
        total_length: u16,
    ) -> Self {
        Self {
            version_ihl: Self::VERSION_4_IHL_5,
            tos,
            total_length: total_length.to_be_bytes(),
            identification: [0; 2],
            flags_offset: Self::DONT_FRAGMENT.to_be_bytes(),
            ttl,
            protocol,
            checksum: [0; 2],
            source,
            destination,
        }
        .with_checksum()
    }

    /// As [`Ipv4::new`] with DF clear. Packets that may be on their way at the same time need
    /// different identifications (RFC 6864 §4.2).
    #[inline(always)]
    pub fn fragmentable(
        protocol: u8,
        source: [u8; 4],
        destination: [u8; 4],
        tos: u8,
        ttl: u8,
        total_length: u16,
        identification: u16,
    ) -> Self {
        Self {
            identification: identification.to_be_bytes(),
            flags_offset: [0; 2],
            ..Self::new(protocol, source, destination, tos, ttl, total_length)
        }
        .with_checksum()
    }

    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    #[inline(always)]
    pub const fn has_options(&self) -> bool {
        self.version_ihl != Self::VERSION_4_IHL_5
    }

    /// Bytes of the header with its options.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        (self.version_ihl & 0xf) as usize * 4
    }

    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_offset) & Self::FRAGMENT_MASK != 0
    }

    #[inline(always)]
    pub const fn dont_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_offset) & Self::DONT_FRAGMENT != 0
    }

    #[inline(always)]
    pub const fn total_length(&self) -> u16 {
        u16::from_be_bytes(self.total_length)
    }

    /// The same header with another type of service. The checksum follows the change: right stays
    /// right and wrong stays wrong, as a router must have it (RFC 1624).
    #[inline(always)]
    #[must_use]
    pub const fn with_tos(mut self, tos: u8) -> Self {
        self.checksum = checksum::update_u16(
            self.checksum,
            [self.version_ihl, self.tos],
            [self.version_ihl, tos],
        );
        self.tos = tos;
        self
    }

    /// The same header with another time to live; the checksum as in [`Ipv4::with_tos`].
    #[inline(always)]
    #[must_use]
    pub const fn with_ttl(mut self, ttl: u8) -> Self {
        self.checksum = checksum::update_u16(
            self.checksum,
            [self.ttl, self.protocol],
            [ttl, self.protocol],
        );
        self.ttl = ttl;
        self
    }

    /// The same header with the directions exchanged, which leaves the checksum as it is.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ..self
        }
    }

    /// The same header with the checksum made right.
    #[inline(always)]
    #[must_use]
    pub fn with_checksum(mut self) -> Self {
        self.checksum = [0; 2];
        self.checksum = (!self.sum()).to_be_bytes();
        self
    }

    #[inline(always)]
    pub fn checksum_is_valid(&self) -> bool {
        self.sum() == 0xffff
    }

    /// The one's complement sum of the header's ten words (RFC 1071).
    #[inline(always)]
    fn sum(&self) -> u16 {
        let bytes: &[u8; Self::LEN] = bytemuck::must_cast_ref(self);
        let (words, _) = bytes.as_chunks::<2>();
        let mut sum = 0_u32;
        for word in words {
            sum += u32::from(u16::from_be_bytes(*word));
        }
        checksum::fold(sum)
    }
}

/// IPv6's fixed header (RFC 8200 §3), 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv6 {
    version_class_flow: [u8; 4],
    payload_length: [u8; 2],
    pub next_header: u8,
    pub hop_limit: u8,
    pub source: [u8; 16],
    pub destination: [u8; 16],
}

impl Ipv6 {
    pub const LEN: usize = size_of::<Self>();
    const VERSION_6: u32 = 0x6000_0000;
    const CLASS_SHIFT: u32 = 20;
    const FLOW_MASK: u32 = 0x000f_ffff;

    /// Of `flow_label`, the low 20 bits. `payload_length` is in bytes, without this header.
    #[inline(always)]
    pub const fn new(
        next_header: u8,
        source: [u8; 16],
        destination: [u8; 16],
        traffic_class: u8,
        flow_label: u32,
        hop_limit: u8,
        payload_length: u16,
    ) -> Self {
        let class = (traffic_class as u32) << Self::CLASS_SHIFT;
        let flow = flow_label & Self::FLOW_MASK;
        Self {
            version_class_flow: (Self::VERSION_6 | class | flow).to_be_bytes(),
            payload_length: payload_length.to_be_bytes(),
            next_header,
            hop_limit,
            source,
            destination,
        }
    }

    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_class_flow[0] >> 4
    }

    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        let [first, second, ..] = self.version_class_flow;
        Self::class_of([first, second])
    }

    /// The traffic class by the first two bytes of a header.
    #[inline(always)]
    pub const fn class_of([first, second]: [u8; 2]) -> u8 {
        (first << 4) | (second >> 4)
    }

    /// The first two bytes of a header with another traffic class.
    #[inline(always)]
    pub const fn start_with_class([first, second]: [u8; 2], class: u8) -> [u8; 2] {
        [
            (first & 0xf0) | (class >> 4),
            (class << 4) | (second & 0x0f),
        ]
    }

    #[inline(always)]
    pub const fn flow_label(&self) -> u32 {
        self.first_word() & Self::FLOW_MASK
    }

    /// Bytes after this header.
    #[inline(always)]
    pub const fn payload_length(&self) -> u16 {
        u16::from_be_bytes(self.payload_length)
    }

    /// The same header with the directions exchanged.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ..self
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn with_traffic_class(mut self, traffic_class: u8) -> Self {
        let [first, second, rest @ ..] = self.version_class_flow;
        let [first, second] = Self::start_with_class([first, second], traffic_class);
        let [third, fourth] = rest;
        self.version_class_flow = [first, second, third, fourth];
        self
    }

    #[inline(always)]
    #[must_use]
    pub const fn with_hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    #[inline(always)]
    const fn first_word(&self) -> u32 {
        u32::from_be_bytes(self.version_class_flow)
    }
}

/// UDP (RFC 768), 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Udp {
    source: [u8; 2],
    destination: [u8; 2],
    length: [u8; 2],
    checksum: [u8; 2],
}

impl Udp {
    pub const LEN: usize = size_of::<Self>();

    /// A header without a checksum, as IPv4 allows; what it carries has a MAC of its own.
    #[inline(always)]
    pub const fn without_checksum(source: u16, destination: u16, length: u16) -> Self {
        Self {
            source: source.to_be_bytes(),
            destination: destination.to_be_bytes(),
            length: length.to_be_bytes(),
            checksum: [0; 2],
        }
    }

    /// A source port that tells flows apart (RFC 8086 §3.2.1): in the range of ephemeral ports.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
    pub const fn entropy_port(hash: u32) -> u16 {
        ((hash >> 16) as u16 ^ hash as u16) | 0xc000
    }

    #[inline(always)]
    pub const fn has_checksum(&self) -> bool {
        let [high, low] = self.checksum;
        high | low != 0
    }

    #[inline(always)]
    pub const fn source(&self) -> u16 {
        u16::from_be_bytes(self.source)
    }

    #[inline(always)]
    pub const fn destination(&self) -> u16 {
        u16::from_be_bytes(self.destination)
    }

    #[inline(always)]
    pub const fn length(&self) -> u16 {
        u16::from_be_bytes(self.length)
    }
}

const _: () = {
    assert!(Ethernet::LEN == 14 && Vlan::LEN == 4);
    assert!(Ipv4::LEN == 20 && Ipv6::LEN == 40 && Udp::LEN == 8);
};

/// The Ethernet destination that a host expects for a packet to the IPv4 address `destination`:
/// the group address for multicast (RFC 1112 §6.4), broadcast for broadcast, else `host`.
#[inline(always)]
pub const fn mac_for_ipv4(destination: [u8; 4], host: Mac) -> Mac {
    let [a, b, c, d] = destination;
    if a & 0xf0 == 0xe0 {
        [0x01, 0x00, 0x5e, b & 0x7f, c, d]
    } else if a == 0xff && b == 0xff && c == 0xff && d == 0xff {
        [0xff; 6]
    } else {
        host
    }
}

/// As [`mac_for_ipv4`], for IPv6 (RFC 2464 §7); the address is given by its first and last four
/// bytes.
#[inline(always)]
pub const fn mac_for_ipv6(first: u8, last: [u8; 4], host: Mac) -> Mac {
    if first == 0xff {
        let [a, b, c, d] = last;
        [0x33, 0x33, a, b, c, d]
    } else {
        host
    }
}

/// The address in a word as maps keep it: its four octets in network order, in the low half.
pub const fn ipv4_to_word(address: Ipv4Addr) -> u64 {
    u32::from_ne_bytes(address.octets()) as u64
}

/// The address of [`ipv4_to_word`]; `None` for zero, which stands for "not known".
#[expect(
    clippy::cast_possible_truncation,
    reason = "the word holds 32 bits of address"
)]
pub const fn ipv4_from_word(word: u64) -> Option<Ipv4Addr> {
    if word == 0 {
        return None;
    }
    let [a, b, c, d] = (word as u32).to_ne_bytes();
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn checksum_of_a_known_header() {
        // The header worked through in RFC 1071 literature: 45 00 00 73 … checksum b8 61.
        let bytes = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        let header: Ipv4 = bytemuck::pod_read_unaligned(&bytes);
        assert!(header.checksum_is_valid());
        let made = Ipv4::new(17, [192, 168, 0, 1], [192, 168, 0, 199], 0, 0x40, 0x73);
        assert_eq!(made, header);
    }

    #[test]
    fn a_flipped_bit_breaks_the_checksum() {
        let mut header = Ipv4::new(47, [10, 0, 1, 10], [10, 0, 2, 10], 0, 255, 100);
        header.ttl ^= 1;
        assert!(!header.checksum_is_valid());
    }

    #[test]
    fn fragmentation_is_allowed_or_forbidden() {
        let fixed = Ipv4::new(47, [10, 0, 1, 10], [10, 0, 2, 10], 0, 255, 100);
        assert!(fixed.dont_fragment() && !fixed.is_fragment());
        let free = Ipv4::fragmentable(47, [10, 0, 1, 10], [10, 0, 2, 10], 0, 255, 100, 0x1234);
        assert!(!free.dont_fragment() && !free.is_fragment() && free.checksum_is_valid());
        assert_eq!(bytemuck::bytes_of(&free)[4..8], [0x12, 0x34, 0, 0]);
    }

    #[test]
    fn vlan_tag_with_priority() {
        // Priority 5, drop eligible, VLAN 291, then IPv6.
        let tag: Vlan = bytemuck::pod_read_unaligned(&[0xb1, 0x23, 0x86, 0xdd]);
        assert_eq!((tag.id(), tag.ether_type()), (0x123, ETH_P_IPV6));
        let made = Vlan::new(0xf123, ETH_P_IPV6);
        assert_eq!(bytemuck::bytes_of(&made), [0x01, 0x23, 0x86, 0xdd]);
    }

    #[test]
    fn ipv6_fields_are_where_rfc_8200_has_them() {
        let header = Ipv6::new(PROTO_GRE, [1; 16], [2; 16], 0xab, 0xffff_1234, 64, 0x102);
        let bytes = bytemuck::bytes_of(&header);
        assert_eq!(bytes[..8], [0x6a, 0xbf, 0x12, 0x34, 0x01, 0x02, 47, 64]);
        assert_eq!(bytes[8..24], [1; 16]);
        assert_eq!(bytes[24..], [2; 16]);
    }

    proptest! {
        #[test]
        fn a_changed_ipv4_header_keeps_a_right_checksum(
            addresses: [[u8; 4]; 2],
            protocol: u8,
            length: u16,
            before: [u8; 2],
            after: [u8; 2],
        ) {
            let [source, destination] = addresses;
            let make = |[tos, ttl]: [u8; 2]| {
                Ipv4::new(protocol, source, destination, tos, ttl, length)
            };
            let changed = make(before).with_tos(after[0]).with_ttl(after[1]);
            prop_assert_eq!(changed, make(after));
        }

        #[test]
        fn a_wrong_ipv4_checksum_is_not_repaired(tos: u8, ttl: u8) {
            let mut wrong = Ipv4::new(47, [10, 0, 1, 10], [10, 0, 2, 10], 0, 255, 100);
            wrong.destination[3] ^= 1;
            prop_assert!(!wrong.with_tos(tos).with_ttl(ttl).checksum_is_valid());
        }

        #[test]
        fn ipv6_fields_do_not_touch_each_other(
            class: u8, flow in 0_u32..1 << 20, length: u16, new_class: u8, hop_limit: u8,
        ) {
            let header = Ipv6::new(PROTO_UDP, [1; 16], [2; 16], class, flow, 64, length);
            prop_assert_eq!(header.version(), 6);
            prop_assert_eq!(header.traffic_class(), class);
            prop_assert_eq!(header.flow_label(), flow);
            prop_assert_eq!(header.payload_length(), length);
            prop_assert_eq!(
                header.with_traffic_class(new_class).with_hop_limit(hop_limit),
                Ipv6::new(PROTO_UDP, [1; 16], [2; 16], new_class, flow, hop_limit, length)
            );
        }
    }

    #[test]
    fn group_addresses_map_to_group_macs() {
        let host = [2, 0, 0, 0, 0, 1];
        assert_eq!(
            mac_for_ipv4([239, 251, 252, 253], host),
            [1, 0, 0x5e, 123, 252, 253]
        );
        assert_eq!(mac_for_ipv4([255; 4], host), [0xff; 6]);
        assert_eq!(mac_for_ipv4([169, 254, 0, 2], host), host);
        assert_eq!(
            mac_for_ipv6(0xff, [0, 0, 0, 1], host),
            [0x33, 0x33, 0, 0, 0, 1]
        );
        assert_eq!(mac_for_ipv6(0xfe, [0, 0, 0, 1], host), host);
    }

    #[test]
    fn addresses_survive_their_word() {
        let address = Ipv4Addr::new(169, 254, 0, 2);
        assert_eq!(ipv4_from_word(ipv4_to_word(address)), Some(address));
        assert_eq!(ipv4_from_word(0), None);
    }
}
