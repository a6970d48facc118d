//! Ethernet, IPv4 and UDP headers as they lie in a packet: byte arrays only, so that any byte
//! string of the right length is a value and alignment never matters.

use core::net::Ipv4Addr;

use bytemuck::{Pod, Zeroable};

pub const ETH_P_IPV4: u16 = 0x0800;
pub const ETH_P_IPV6: u16 = 0x86dd;
pub const PROTO_UDP: u8 = 17;
pub const PROTO_GRE: u8 = 47;

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

    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    #[inline(always)]
    pub const fn has_options(&self) -> bool {
        self.version_ihl != Self::VERSION_4_IHL_5
    }

    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.flags_offset) & Self::FRAGMENT_MASK != 0
    }

    #[inline(always)]
    pub const fn total_length(&self) -> u16 {
        u16::from_be_bytes(self.total_length)
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
    #[expect(clippy::cast_possible_truncation, reason = "the carries are folded")]
    fn sum(&self) -> u16 {
        let bytes: &[u8; Self::LEN] = bytemuck::must_cast_ref(self);
        let (words, _) = bytes.as_chunks::<2>();
        let mut sum = 0_u32;
        for word in words {
            sum += u32::from(u16::from_be_bytes(*word));
        }
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum as u16
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

const _: () = assert!(Ethernet::LEN == 14 && Ipv4::LEN == 20 && Udp::LEN == 8);

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
