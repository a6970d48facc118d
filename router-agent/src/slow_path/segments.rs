//! TCP segments that the stack has merged, or that are longer than the tunnel device takes for now: handed over as
//! the stack hands over its own, to be cut where they must be. Knows no socket.

use bytemuck::{Pod, Zeroable, bytes_of};
use router_common::{
    checksum::{self, fold},
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet, Ipv4, Ipv6, PROTO_TCP},
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

/// A TCP segment in a frame.
struct Segment {
    ipv6: bool,
    /// Of the TCP header in the frame.
    start: usize,
    header_length: usize,
    flags: u8,
    /// The pseudo-header's part of the sum.
    pseudo: u16,
    /// Whether the field has the whole sum; else what is missing is the segment's part.
    is_complete: bool,
}

impl Segment {
    /// Whether its parts say together what it says: an urgent pointer points into one of them, and a connection is
    /// opened or reset once.
    const fn may_be_cut(&self) -> bool {
        self.flags & (SYN | RST | URG) == 0
    }

    /// How the kernel is to cut it.
    const fn kind(&self) -> u8 {
        let kind = if self.ipv6 {
            Offload::TCP_OVER_IPV6
        } else {
            Offload::TCP_OVER_IPV4
        };
        if self.flags & CWR == 0 {
            kind
        } else {
            kind | Offload::ECN
        }
    }
}

/// What the kernel is to be told of `frame` to take it where `mtu` bytes of IP fit: nothing if it takes it as it is.
/// `Err` if it is too long, and no TCP segment whose checksum is right.
pub fn offload(frame: &mut [u8], mtu: usize) -> Result<Option<Offload>, TooLong> {
    let fits = frame.len() <= mtu.saturating_add(Ethernet::LEN);
    let Some(segment) = segment(frame) else {
        return if fits { Ok(None) } else { Err(TooLong) };
    };
    if fits && segment.is_complete {
        return Ok(None);
    }
    if !(fits || segment.may_be_cut()) {
        return Err(TooLong);
    }
    let to_payload = segment.start + segment.header_length;
    let lengths = (
        u16::try_from(to_payload),
        u16::try_from(segment.start),
        mtu.checked_sub(to_payload - Ethernet::LEN)
            .and_then(|size| u16::try_from(size).ok())
            .filter(|size| *size > 0),
    );
    let (Ok(header_length), Ok(checksum_start), Some(segment_size)) = lengths else {
        return Err(TooLong);
    };
    let field = &mut frame[segment.start + usize::from(CHECKSUM)..][..2];
    field.copy_from_slice(&segment.pseudo.to_be_bytes());
    let (kind, segment_size) = if fits {
        (Offload::NO_SEGMENTS, 0)
    } else {
        (segment.kind(), segment_size)
    };
    Ok(Some(Offload {
        flags: Offload::NEEDS_CHECKSUM,
        kind,
        header_length,
        segment_size,
        checksum_start,
        checksum_offset: CHECKSUM,
    }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Whether `frame` is a TCP segment of whose checksum the kernel is to compute the segment's part.
pub fn is_partial(frame: &[u8]) -> bool {
    segment(frame).is_some_and(|segment| !segment.is_complete)
}

/// The segment whose checksum is right as far as it is there; `None` for anything else: fragments, options,
/// extension headers, VLAN tags.
fn segment(frame: &[u8]) -> Option<Segment> {
    let ethernet: Ethernet = frame.read(0)?;
    let (ipv6, start, addresses, end) = match ethernet.ether_type() {
        ETH_P_IPV4 => {
            let header: Ipv4 = frame.read(Ethernet::LEN)?;
            let is_whole = !(header.has_options() || header.is_fragment());
            if !is_whole || header.protocol != PROTO_TCP || !header.checksum_is_valid() {
                return None;
            }
            let addresses = [header.source, header.destination].concat();
            let end = Ethernet::LEN + usize::from(header.total_length());
            (false, Ethernet::LEN + Ipv4::LEN, addresses, end)
        }
        ETH_P_IPV6 => {
            let header: Ipv6 = frame.read(Ethernet::LEN)?;
            if header.version() != 6 || header.next_header != PROTO_TCP {
                return None;
            }
            let start = Ethernet::LEN + Ipv6::LEN;
            let addresses = [header.source, header.destination].concat();
            let end = start + usize::from(header.payload_length());
            (true, start, addresses, end)
        }
        _ => return None,
    };
    // The kernel would take what is behind it for a part of it.
    let tcp = frame.get(start..end).filter(|_| end == frame.len())?;
    let [data_offset, flags]: [u8; 2] = tcp.read(DATA_OFFSET)?;
    let header_length = usize::from(data_offset >> 4) * 4;
    if header_length < SHORTEST || header_length > tcp.len() {
        return None;
    }
    let length = u16::try_from(tcp.len()).ok()?.to_be_bytes();
    let pseudo = checksum::sum(&[&addresses[..], &[0, PROTO_TCP], &length].concat());
    let field: [u8; 2] = tcp.read(usize::from(CHECKSUM))?;
    let is_complete = fold(u32::from(pseudo) + u32::from(checksum::sum(tcp))) == 0xffff;
    (is_complete || u16::from_be_bytes(field) == pseudo).then_some(Segment {
        ipv6,
        start,
        header_length,
        flags,
        pseudo,
        is_complete,
    })
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
