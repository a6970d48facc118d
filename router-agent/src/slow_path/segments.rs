//! TCP segments that the stack has merged, or that are longer than the tunnel device takes for now: handed over as
//! the stack hands over its own, to be cut where they must be. So is what another stack of this machine has left to be
//! summed. Knows no socket.

use bytemuck::{Pod, Zeroable, bytes_of};
use router_common::{
    checksum::{self, fold},
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, Ipv6, PROTO_TCP, PROTO_UDP, Udp},
    packet::Packet as _,
};

/// Of TCP's header, in bytes (RFC 9293 §3.1).
const DATA_OFFSET: usize = 12;
const CHECKSUM: u16 = 16;
const SHORTEST: usize = 20;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// `struct virtio_net_hdr` of linux/virtio_net.h, for packet(7)'s `PACKET_VNET_HDR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Offload {
    flags: u8,
    kind: u8,
    header_length: u16,
    segment_size: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

const _: () = assert!(size_of::<Offload>() == 10);

impl Offload {
    const NEEDS_CHECKSUM: u8 = 1;
    const NO_SEGMENTS: u8 = 0;
    const TCP_OVER_IPV4: u8 = 1;
    const TCP_OVER_IPV6: u8 = 4;
    /// Only the first of the parts is to say that the window was reduced (RFC 3168 §6.1.2).
    const ECN: u8 = 0x80;
}

/// A TCP segment or UDP datagram in a frame.
struct Segment {
    /// Of its header in the frame.
    start: usize,
    header_length: usize,
    /// Of the checksum in its header.
    checksum: u16,
    /// How the kernel may cut it; `None` if nobody may.
    cut: Option<u8>,
    /// The pseudo-header's part of the sum.
    pseudo: u16,
    /// Whether the field has the whole sum; else what is missing is the segment's part.
    is_complete: bool,
}

/// What the kernel is to be told of `frame` to take it where `mtu` bytes of IP fit: nothing if it takes it as it is.
/// `Err` if it is too long, and no TCP segment that may be cut and whose checksum is right.
pub fn offload(frame: &mut [u8], mtu: usize) -> Result<Option<Offload>, TooLong> {
    let fits = frame.len() <= mtu.saturating_add(Ethernet::LEN);
    let Some(segment) = segment(frame) else {
        return if fits { Ok(None) } else { Err(TooLong) };
    };
    if fits && segment.is_complete {
        return Ok(None);
    }
    let to_payload = segment.start + segment.header_length;
    let (kind, segment_size) = if fits {
        (Offload::NO_SEGMENTS, Some(0))
    } else {
        let kind = segment.cut.ok_or(TooLong)?;
        let size = mtu.checked_sub(to_payload - Ethernet::LEN);
        let size = size.and_then(|size| u16::try_from(size).ok());
        (kind, size.filter(|size| *size > 0))
    };
    let lengths = (
        u16::try_from(to_payload),
        u16::try_from(segment.start),
        segment_size,
    );
    let (Ok(header_length), Ok(checksum_start), Some(segment_size)) = lengths else {
        return Err(TooLong);
    };
    let field = &mut frame[segment.start + usize::from(segment.checksum)..][..2];
    field.copy_from_slice(&segment.pseudo.to_be_bytes());
    Ok(Some(Offload {
        flags: Offload::NEEDS_CHECKSUM,
        kind,
        header_length,
        segment_size,
        checksum_start,
        checksum_offset: segment.checksum,
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Whether `frame` is a segment or datagram of whose checksum the kernel is to compute its part.
pub fn is_partial(frame: &[u8]) -> bool {
    segment(frame).is_some_and(|segment| !segment.is_complete)
}

/// The segment or datagram whose checksum is right as far as it is there; `None` for anything else: fragments,
/// options, extension headers, VLAN tags.
fn segment(frame: &[u8]) -> Option<Segment> {
    let ethernet: Ethernet = frame.read(0)?;
    let (ipv6, protocol, start, addresses, end) = match ethernet.ether_type() {
        ETH_P_IPV4 => {
            let header: Ipv4 = frame.read(Ethernet::LEN)?;
            if header.has_options() || header.is_fragment() || !header.checksum_is_valid() {
                return None;
            }
            let addresses = [header.source, header.destination].concat();
            let end = Ethernet::LEN + usize::from(header.total_length());
            let start = Ethernet::LEN + Ipv4::LEN;
            (false, header.protocol, start, addresses, end)
        }
        ETH_P_IPV6 => {
            let header: Ipv6 = frame.read(Ethernet::LEN)?;
            if header.version() != 6 {
                return None;
            }
            let start = Ethernet::LEN + Ipv6::LEN;
            let addresses = [header.source, header.destination].concat();
            let end = start + usize::from(header.payload_length());
            (true, header.next_header, start, addresses, end)
        }
        _ => return None,
    };
    // The kernel would take what is behind it for a part of it.
    let bytes = frame.get(start..end).filter(|_| end == frame.len())?;
    let (header_length, checksum, cut) = match protocol {
        PROTO_TCP => tcp(bytes, ipv6)?,
        PROTO_UDP => udp(bytes)?,
        _ => return None,
    };
    let length = u16::try_from(bytes.len()).ok()?.to_be_bytes();
    let pseudo = checksum::sum(&[&addresses[..], &[0, protocol], &length].concat());
    let field: [u8; 2] = bytes.read(usize::from(checksum))?;
    let is_complete = fold(u32::from(pseudo) + u32::from(checksum::sum(bytes))) == 0xffff;
    (is_complete || u16::from_be_bytes(field) == pseudo).then_some(Segment {
        start,
        header_length,
        checksum,
        cut,
        pseudo,
        is_complete,
    })
}

/// The header's length, where its checksum is, and how it may be cut.
fn tcp(segment: &[u8], ipv6: bool) -> Option<(usize, u16, Option<u8>)> {
    let [data_offset, flags]: [u8; 2] = segment.read(DATA_OFFSET)?;
    let header_length = usize::from(data_offset >> 4) * 4;
    if header_length < SHORTEST || header_length > segment.len() {
        return None;
    }
    let kind = if ipv6 {
        Offload::TCP_OVER_IPV6
    } else {
        Offload::TCP_OVER_IPV4
    };
    let ecn = if flags & CWR == 0 { 0 } else { Offload::ECN };
    // An urgent pointer points into one of the parts, and a connection is opened or reset once.
    let may_be_cut = flags & (SYN | RST | URG) == 0;
    Some((header_length, CHECKSUM, may_be_cut.then_some(kind | ecn)))
}

/// As of [`tcp`]; `None` without a checksum.
fn udp(datagram: &[u8]) -> Option<(usize, u16, Option<u8>)> {
    /// RFC 768.
    const CHECKSUM: u16 = 6;
    let header: Udp = datagram.read(0)?;
    let is_whole = usize::from(header.length()) == datagram.len();
    (is_whole && header.has_checksum()).then_some((Udp::LEN, CHECKSUM, None))
}

/// `frame` behind what is to be told of it.
pub fn with_offload(offload: &Offload, frame: &[u8]) -> Vec<u8> {
    [bytes_of(offload), frame].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: usize = 1300;

    /// A TCP segment with a right checksum, or with the pseudo-header's part of it.
    fn frame(ipv6: bool, payload: usize, is_complete: bool) -> Vec<u8> {
        let mut tcp = vec![0; 32];
        tcp[DATA_OFFSET] = 0x80;
        tcp.extend((0..payload).map(|at| at.to_be_bytes()[7]));
        let length = u16::try_from(tcp.len()).unwrap();
        let (ether_type, ip, addresses) = if ipv6 {
            let ip = Ipv6::new(PROTO_TCP, [0xfd; 16], [0xfe; 16], 0, 0, 64, length);
            (
                ETH_P_IPV6,
                bytes_of(&ip).to_vec(),
                [[0xfd; 16], [0xfe; 16]].concat(),
            )
        } else {
            let ip = Ipv4::new(PROTO_TCP, [10, 0, 0, 1], [10, 0, 0, 2], 0, 64, 20 + length);
            (
                ETH_P_IPV4,
                bytes_of(&ip).to_vec(),
                vec![10, 0, 0, 1, 10, 0, 0, 2],
            )
        };
        let pseudo = [&addresses[..], &[0, PROTO_TCP], &length.to_be_bytes()].concat();
        let sum = if is_complete {
            !checksum::sum(&[&pseudo[..], &tcp].concat())
        } else {
            checksum::sum(&pseudo)
        };
        tcp[usize::from(CHECKSUM)..][..2].copy_from_slice(&sum.to_be_bytes());
        let ethernet = Ethernet::new([2; 6], [4; 6], ether_type);
        [bytes_of(&ethernet), &ip, &tcp].concat()
    }

    #[test]
    fn what_fits_and_is_whole_is_left_alone() {
        for ipv6 in [false, true] {
            let mut packet = frame(ipv6, 1000, true);
            let before = packet.clone();
            assert_eq!(offload(&mut packet, MTU), Ok(None));
            assert_eq!(packet, before);
        }
    }

    #[test]
    fn what_is_too_long_is_to_be_cut() {
        for ipv6 in [false, true] {
            for is_complete in [false, true] {
                let mut packet = frame(ipv6, 1400, is_complete);
                let told = offload(&mut packet, MTU).unwrap().unwrap();
                let ip = if ipv6 { Ipv6::LEN } else { Ipv4::LEN };
                assert_eq!(usize::from(told.segment_size), MTU - ip - 32);
                assert_eq!(usize::from(told.header_length), Ethernet::LEN + ip + 32);
                assert_eq!(usize::from(told.checksum_start), Ethernet::LEN + ip);
                assert_eq!(told.kind, if ipv6 { 4 } else { 1 });
                // Either way the field has what the kernel adds the segment's part to.
                assert_eq!(packet, frame(ipv6, 1400, false));
            }
        }
    }

    #[test]
    fn of_what_was_merged_and_fits_the_checksum_is_missing() {
        let mut packet = frame(false, 100, false);
        let told = offload(&mut packet, MTU).unwrap().unwrap();
        assert_eq!((told.flags, told.kind, told.segment_size), (1, 0, 0));
    }

    #[test]
    fn a_wrong_checksum_is_not_made_right() {
        for payload in [100, 1400] {
            let mut packet = frame(false, payload, true);
            *packet.last_mut().unwrap() ^= 1;
            let before = packet.clone();
            let expected = if payload == 100 {
                Ok(None)
            } else {
                Err(TooLong)
            };
            assert_eq!(offload(&mut packet, MTU), expected);
            assert_eq!(packet, before);
        }
    }

    /// `frame` with a byte of TCP's header changed, whose checksum is right nevertheless.
    fn with_flags(ipv6: bool, payload: usize, flags: u8) -> Vec<u8> {
        let mut packet = frame(ipv6, payload, false);
        let tcp = Ethernet::LEN + if ipv6 { Ipv6::LEN } else { Ipv4::LEN };
        packet[tcp + DATA_OFFSET + 1] = flags;
        let sum = !checksum::sum(&packet[tcp..]);
        packet[tcp + usize::from(CHECKSUM)..][..2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    #[test]
    fn a_reduced_window_is_told_once() {
        const ACK_AND_CWR: u8 = 0x90;
        for ipv6 in [false, true] {
            let told = |payload, is_complete: bool| {
                let mut packet = with_flags(ipv6, payload, ACK_AND_CWR);
                if !is_complete {
                    offload(&mut packet, 100).unwrap();
                }
                offload(&mut packet, MTU).unwrap()
            };
            let kind = if ipv6 { 0x84 } else { 0x81 };
            assert_eq!(told(1400, true).unwrap().kind, kind);
            assert_eq!(told(1400, false).unwrap().kind, kind);
            assert_eq!(told(100, true), None);
            assert_eq!(told(100, false).unwrap().kind, 0);
        }
    }

    #[test]
    fn what_cannot_be_said_in_parts_is_not_cut() {
        for flags in [0x12, 0x14, 0x30] {
            let mut packet = with_flags(false, 1400, flags);
            let before = packet.clone();
            assert_eq!(offload(&mut packet, MTU), Err(TooLong), "{flags:#x}");
            assert_eq!(packet, before);
            assert_eq!(offload(&mut with_flags(false, 100, flags), MTU), Ok(None));
        }
    }

    #[test]
    fn a_wrong_header_is_not_made_right() {
        // The version of each, and IPv4's checksum. TCP's checksum is right.
        for (ipv6, at) in [(false, 14), (false, 24), (true, 14)] {
            let mut packet = frame(ipv6, 1400, true);
            packet[at] ^= 0x10;
            let before = packet.clone();
            assert_eq!(offload(&mut packet, MTU), Err(TooLong), "{ipv6} {at}");
            assert_eq!(packet, before);
        }
    }

    /// A UDP datagram with such a checksum.
    fn datagram(payload: usize, sum: impl Fn(&[u8], &[u8]) -> u16) -> Vec<u8> {
        let length = u16::try_from(Udp::LEN + payload).unwrap();
        let mut udp = bytes_of(&Udp::without_checksum(5, 5, length)).to_vec();
        udp.extend((0..payload).map(|at| at.to_be_bytes()[7]));
        let pseudo = [
            &[0xfd; 16][..],
            &[0xfe; 16],
            &[0, PROTO_UDP],
            &length.to_be_bytes(),
        ];
        let sum = sum(&pseudo.concat(), &udp);
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        let ip = Ipv6::new(PROTO_UDP, [0xfd; 16], [0xfe; 16], 0, 0, 64, length);
        let ethernet = Ethernet::new([2; 6], [4; 6], ETH_P_IPV6);
        [bytes_of(&ethernet), bytes_of(&ip), &udp].concat()
    }

    #[test]
    fn datagrams_may_be_summed_and_not_cut() {
        let partial = |pseudo: &[u8], _: &[u8]| checksum::sum(pseudo);
        let whole = |pseudo: &[u8], udp: &[u8]| !checksum::sum(&[pseudo, udp].concat());
        let told = offload(&mut datagram(100, partial), MTU).unwrap().unwrap();
        let expected = Offload {
            flags: 1,
            kind: 0,
            header_length: 14 + 40 + 8,
            segment_size: 0,
            checksum_start: 14 + 40,
            checksum_offset: 6,
        };
        assert_eq!(told, expected);
        let wrong = |_: &[u8], _: &[u8]| 0x1234;
        for mut other in [
            datagram(100, whole),
            datagram(100, wrong),
            datagram(100, |_, _| 0),
        ] {
            let before = other.clone();
            assert_eq!(offload(&mut other, MTU), Ok(None));
            assert_eq!(other, before);
        }
        for mut long in [datagram(1400, partial), datagram(1400, whole)] {
            assert_eq!(offload(&mut long, MTU), Err(TooLong));
        }
        // Its own length is another than IP's.
        let mut padded = datagram(100, partial);
        padded[14 + 40 + 5] -= 1;
        assert_eq!(offload(&mut padded, MTU), Ok(None));
    }

    #[test]
    fn what_is_behind_a_segment_is_no_part_of_it() {
        for (payload, padding) in [(100, 1400), (1400, 1)] {
            let mut packet = frame(false, payload, true);
            packet.extend(vec![0; padding]);
            assert_eq!(offload(&mut packet, MTU), Err(TooLong));
        }
        let mut packet = frame(false, 100, false);
        packet.push(0);
        assert_eq!(offload(&mut packet, MTU), Ok(None));
    }

    #[test]
    fn other_packets_are_too_long() {
        for (byte, value) in [
            (23, 17),
            (14, 0x46),
            (20, 0x20),
            (46, 0x10),
            (46, 0xf0),
            (17, 0),
        ] {
            let mut packet = frame(false, 1400, true);
            packet[byte] = value;
            assert_eq!(offload(&mut packet, MTU), Err(TooLong), "byte {byte}");
        }
    }
}
