//! The maximum segment size that a TCP SYN announces (RFC 9293 §3.7.1), for routers that clamp it.

use crate::{
    checksum,
    net::{ETH_P_IPV4, ETH_P_IPV6, Ipv4, Ipv6, PROTO_TCP},
    packet::Packet,
};

const TCP_LEN: usize = 20;
/// Data offset in the high half of its byte, flags in the next.
const OFFSET_AND_FLAGS: usize = 12;
const CHECKSUM: usize = 16;
const SYN: u8 = 0x02;
/// How many options are looked at, padding included. Stacks put the MSS first.
// VERIFIER: follows every way through the list; for the 40 that are possible 300,000 instructions.
const OPTIONS_SEEN: usize = 10;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: usize = 4;

/// An MSS option; offsets in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MssOption {
    /// In bytes, TCP's header not counted.
    pub value: u16,
    pub value_offset: usize,
    /// Of the checksum of TCP.
    pub checksum_offset: usize,
}

impl MssOption {
    /// TCP's checksum once `value` is written in place of what was found. For checksums that are
    /// in the packet, not for those left to the device to fill in.
    #[inline(always)]
    pub const fn updated_checksum(&self, checksum: [u8; 2], value: u16) -> [u8; 2] {
        checksum::update_u16(checksum, self.summed(self.value), self.summed(value))
    }

    /// `value` as the sum has it, where it may straddle two words.
    #[inline(always)]
    pub const fn summed(&self, value: u16) -> [u8; 2] {
        if (self.value_offset - self.checksum_offset).is_multiple_of(2) {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

/// The value to write for one that exceeds `limit`; `None` if it may stay.
#[inline(always)]
pub const fn clamp(value: u16, limit: u16) -> Option<u16> {
    if value > limit { Some(limit) } else { None }
}

/// The MSS option of the packet that starts at `l3_offset` and is of EtherType `protocol`. `None`
/// if it is no TCP SYN, has none, or contradicts itself; also for what is left alone: IPv4 with
/// options or in fragments, IPv6 with extension headers.
#[inline(always)]
pub fn find<P: Packet + ?Sized>(packet: &P, l3_offset: usize, protocol: u16) -> Option<MssOption> {
    let (tcp, segment_length) = match protocol {
        ETH_P_IPV4 => {
            let header: Ipv4 = packet.read(l3_offset)?;
            if header.has_options() || header.is_fragment() || header.protocol != PROTO_TCP {
                return None;
            }
            let length = usize::from(header.total_length()).checked_sub(Ipv4::LEN)?;
            (l3_offset + Ipv4::LEN, length)
        }
        ETH_P_IPV6 => {
            let header: Ipv6 = packet.read(l3_offset)?;
            if header.version() != 6 || header.next_header != PROTO_TCP {
                return None;
            }
            (l3_offset + Ipv6::LEN, usize::from(header.payload_length()))
        }
        _ => return None,
    };
    let [data_offset, flags]: [u8; 2] = packet.read(tcp + OFFSET_AND_FLAGS)?;
    let header_length = usize::from(data_offset >> 4) * 4;
    if flags & SYN == 0 || header_length > segment_length {
        return None;
    }
    let options_length = header_length.checked_sub(TCP_LEN)?;
    let (value, at) = in_options(packet, tcp + TCP_LEN, options_length)?;
    Some(MssOption {
        value,
        value_offset: at,
        checksum_offset: tcp + CHECKSUM,
    })
}

/// The option's value and where it is, if it is among the first options.
#[inline(always)]
fn in_options<P: Packet + ?Sized>(
    packet: &P,
    options: usize,
    options_length: usize,
) -> Option<(u16, usize)> {
    let mut cursor = 0;
    for _ in 0..OPTIONS_SEEN {
        if cursor + MSS_LEN > options_length {
            return None;
        }
        // As much as an MSS option at once: where that does not fit, there is none.
        let [kind, length, value @ ..]: [u8; MSS_LEN] = packet.load(options + cursor)?;
        let length = usize::from(length);
        match kind {
            NO_OPERATION => cursor += 1,
            MSS if length == MSS_LEN => {
                return Some((u16::from_be_bytes(value), options + cursor + 2));
            }
            END | MSS => return None,
            _ if length < 2 || cursor + length > options_length => return None,
            _ => cursor += length,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const L3: usize = 14;
    /// What a data offset of 15 words leaves.
    const MAX_OPTIONS: usize = 40;
    const SACK_PERMITTED: [u8; 2] = [4, 2];
    const TIMESTAMPS: [u8; 10] = [8, 10, 1, 2, 3, 4, 0, 0, 0, 0];

    fn tcp(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut tcp = [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0].to_vec();
        let words = u8::try_from((TCP_LEN + options.len()).div_ceil(4)).unwrap();
        tcp.extend_from_slice(&[words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(options);
        tcp.resize(usize::from(words) * 4, END);
        tcp
    }

    fn over_ipv4(segment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(Ipv4::LEN + segment.len()).unwrap();
        let header = Ipv4::new(PROTO_TCP, [10, 0, 0, 1], [10, 0, 0, 2], 0, 64, length);
        [&[0; L3], bytemuck::bytes_of(&header), segment].concat()
    }

    fn over_ipv6(segment: &[u8]) -> Vec<u8> {
        let length = u16::try_from(segment.len()).unwrap();
        let header = Ipv6::new(PROTO_TCP, [1; 16], [2; 16], 0, 0, 64, length);
        [&[0; L3], bytemuck::bytes_of(&header), segment].concat()
    }

    fn value(options: &[u8]) -> Option<u16> {
        let packet = over_ipv4(&tcp(SYN, options));
        find(packet.as_slice(), L3, ETH_P_IPV4).map(|option| option.value)
    }

    #[test]
    fn found_in_both_families() {
        // As Linux sends it.
        let options = [
            &[2, 4, 0x05, 0xb4][..],
            &SACK_PERMITTED,
            &TIMESTAMPS,
            &[1, 3, 3, 7],
        ]
        .concat();
        let segment = tcp(SYN, &options);
        for (packet, protocol, l4) in [
            (over_ipv4(&segment), ETH_P_IPV4, L3 + Ipv4::LEN),
            (over_ipv6(&segment), ETH_P_IPV6, L3 + Ipv6::LEN),
        ] {
            let found = find(packet.as_slice(), L3, protocol);
            let expected = MssOption {
                value: 1460,
                value_offset: l4 + 22,
                checksum_offset: l4 + 16,
            };
            assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn found_wherever_it_stands() {
        let mss = [2, 4, 0x23, 0x28];
        assert_eq!(value(&[&SACK_PERMITTED[..], &mss].concat()), Some(9000));
        assert_eq!(value(&[&[1][..], &mss].concat()), Some(9000));
        assert_eq!(value(&[&[1; 9][..], &mss].concat()), Some(9000));
        assert_eq!(value(&[&[1; 10][..], &mss].concat()), None);
        let unknown = [&[254, 36][..], &[0xff; 34], &mss].concat();
        assert_eq!(value(&unknown), Some(9000));
    }

    #[test]
    fn malformed_options_give_nothing() {
        for options in [
            &[0, 2, 4, 5, 0xb4][..],
            &[2, 3, 5, 0xb4],
            &[2, 5, 5, 0xb4, 0, 0, 0, 0],
            &[2, 0, 5, 0xb4],
            &[1, 1, 2, 4],
            &[3, 0, 2, 4, 5, 0xb4, 0, 0],
            &[3, 1, 2, 4, 5, 0xb4, 0, 0],
            &[3, 255, 2, 4, 5, 0xb4, 0, 0],
            &[1, 1, 1, 2],
            &[1; 40],
            &[],
        ] {
            assert_eq!(value(options), None, "{options:?}");
        }
    }

    #[test]
    fn what_is_left_alone() {
        let options = [2, 4, 5, 0xb4];
        let syn = over_ipv4(&tcp(SYN, &options));
        let found = |packet: &[u8], protocol| find(packet, L3, protocol).is_some();
        assert!(found(&syn, ETH_P_IPV4));
        // SYN with ACK is a SYN, ACK alone is none.
        assert!(found(&over_ipv4(&tcp(0x12, &options)), ETH_P_IPV4));
        assert!(!found(&over_ipv4(&tcp(0x10, &options)), ETH_P_IPV4));
        assert!(!found(&syn, ETH_P_IPV6));
        assert!(!found(&syn, 0x0806));
        // IPv4: options, more fragments, UDP, a length that ends within the options.
        let changed = |at: usize, byte: u8| {
            let mut packet = syn.clone();
            packet[L3 + at] = byte;
            packet
        };
        for (at, byte) in [(0, 0x46), (6, 0x20), (7, 1), (9, 17), (3, 43), (3, 19)] {
            assert!(!found(&changed(at, byte), ETH_P_IPV4), "{at}: {byte}");
        }
        // A data offset within the fixed header, and one beyond the packet.
        for words in [0, 4, 7, 15] {
            assert!(!found(&changed(32, words << 4), ETH_P_IPV4), "{words}");
        }
        // IPv6: an extension header, a wrong version, a short length.
        let syn = over_ipv6(&tcp(SYN, &options));
        for (at, byte) in [(6, 0), (0, 0x40), (5, 23)] {
            let mut packet = syn.clone();
            packet[L3 + at] = byte;
            assert!(!found(&packet, ETH_P_IPV6), "{at}: {byte}");
        }
    }

    #[test]
    fn clamped_only_downwards() {
        assert_eq!(clamp(1460, 1436), Some(1436));
        assert_eq!(clamp(1436, 1436), None);
        assert_eq!(clamp(536, 1436), None);
    }

    /// Bytes after a fixed start that makes a SYN likely.
    fn nearly_a_syn() -> impl Strategy<Value = Vec<u8>> {
        let options = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..=MAX_OPTIONS),
            prop::collection::vec(0_u8..6, 0..=MAX_OPTIONS),
        ];
        (options, any::<bool>()).prop_map(|(options, ipv4)| {
            let segment = tcp(SYN, &options);
            if ipv4 {
                over_ipv4(&segment)
            } else {
                over_ipv6(&segment)
            }
        })
    }

    proptest! {
        #[test]
        fn any_bytes_at_any_offset(bytes: Vec<u8>, l3_offset in 0_usize..80) {
            for protocol in [ETH_P_IPV4, ETH_P_IPV6, 0] {
                let _ = find(bytes.as_slice(), l3_offset, protocol);
            }
        }

        #[test]
        fn what_is_found_lies_in_the_packet(
            mut packet in nearly_a_syn(),
            lies in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut: prop::sample::Index,
        ) {
            for (at, byte) in lies {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            packet.truncate(cut.index(packet.len() + 1));
            for protocol in [ETH_P_IPV4, ETH_P_IPV6] {
                if let Some(option) = find(packet.as_slice(), L3, protocol) {
                    let read = packet.as_slice().read(option.value_offset);
                    prop_assert_eq!(read.map(u16::from_be_bytes), Some(option.value));
                    prop_assert!(option.checksum_offset + 2 <= option.value_offset);
                    prop_assert_eq!(&packet[option.value_offset - 2..][..2], &[2, 4]);
                }
            }
        }

        #[test]
        fn a_clamped_packet_keeps_a_right_checksum(
            padding in 0_usize..8,
            announced: u16,
            limit: u16,
        ) {
            let options = [&[NO_OPERATION; 8][..padding], &[2, 4], &announced.to_be_bytes()].concat();
            let mut segment = tcp(SYN, &options);
            let checksum = !checksum::sum(&segment);
            segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
            let mut packet = over_ipv4(&segment);
            let option = find(packet.as_slice(), L3, ETH_P_IPV4).unwrap();
            prop_assert_eq!(option.value, announced);
            let value = clamp(announced, limit).unwrap_or(announced);
            let after = option.updated_checksum(checksum.to_be_bytes(), value);
            packet[option.value_offset..][..2].copy_from_slice(&value.to_be_bytes());
            packet[option.checksum_offset..][..2].copy_from_slice(&after);
            prop_assert_eq!(checksum::sum(&packet[L3 + Ipv4::LEN..]), 0xffff);
        }
    }
}
