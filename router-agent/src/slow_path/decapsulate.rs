//! From what a socket received to what goes into the tunnel device. Knows no socket.

use bytemuck::bytes_of;
use router_common::{
    checksum, ecn,
    gre::{self, Addresses6, AnyKey, Format, Header, Inadmissible, TunnelKey, TunnelKey6},
    identity::Epoch,
    map::{Sequence, TunnelIngress, ingress_flag},
    mss,
    net::{self, ETH_P_8021Q, ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet, Ipv4, Ipv6, Mac, Vlan},
    own::{self, KEEPALIVE},
    packet::Packet as _,
};

use super::segments::{self, Offload, TooLong};
use crate::tunnel::Entries;

/// The Ethernet source of what goes into a layer 3 tunnel's device, where nobody looks at it:
/// locally administered.
const SOURCE: Mac = [2, 0, 0, 0, 0, 0];

/// A GRE packet that the kernel has reassembled, and whose options it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub addresses: Addresses,
    /// Type of service or traffic class of the outer header; of one that was in fragments, what
    /// the kernel made of theirs.
    pub tos: u8,
    /// Whether it was in UDP.
    pub udp: bool,
    /// From the GRE header on.
    pub gre: &'a [u8],
}

/// Where a datagram came to and where from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    Ipv4 { local: [u8; 4], remote: [u8; 4] },
    Ipv6(Addresses6),
}

/// What to do with a datagram that is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// To be sent by the dataplane end of the tunnel's device, from which it arrives at the user's.
    Deliver {
        dataplane_ifindex: u32,
        /// With its Ethernet header.
        frame: Vec<u8>,
        /// Length of the inner packet.
        inner_length: usize,
        /// What the kernel is to do to the frame, if anything.
        offload: Option<Offload>,
    },
    /// The far end's keepalive: an IPv4 packet, to be sent as it is.
    GiveBack {
        packet: &'a [u8],
        destination: [u8; 4],
    },
    /// Our own keepalive, come back.
    KeepaliveHeard,
}

/// Why a datagram of a tunnel was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Malformed,
    Checksum,
    Sequence,
    /// Older than one that came before.
    Epoch,
    Unsupported,
    /// RFC 6040 §4.2.
    Congestion,
    /// The tunnel device would not take it, and nobody may cut it.
    TooLong,
    /// Only the programs answer it: what they did not see is not to make a node look alive.
    Heartbeat,
}

impl<'a> Datagram<'a> {
    /// Of a whole IPv4 packet, as a raw socket gives it; `None` if its lengths are wrong.
    pub fn in_ipv4(packet: &'a [u8]) -> Option<Self> {
        let outer: Ipv4 = packet.read(0)?;
        let header_length = outer.header_length();
        if outer.version() != 4 || header_length < Ipv4::LEN {
            return None;
        }
        Some(Self {
            addresses: Addresses::Ipv4 {
                local: outer.destination,
                remote: outer.source,
            },
            tos: outer.tos,
            udp: false,
            gre: packet.get(header_length..usize::from(outer.total_length()))?,
        })
    }

    /// The GRE header, and the key by which the datagram's tunnel is found if it is ours; `None` for what is no GRE of a version that tunnels use.
    pub fn header(&self) -> Option<(Header, AnyKey)> {
        let header = Header::read(self.gre, 0).ok()?;
        let label = header.label(self.udp);
        let key = match self.addresses {
            Addresses::Ipv4 { local, remote } => AnyKey::Ipv4(TunnelKey {
                local,
                remote,
                label,
            }),
            Addresses::Ipv6(addresses) => AnyKey::Ipv6(TunnelKey6 { addresses, label }),
        };
        Some((header, key))
    }
}

/// Decapsulates a datagram of the tunnel that `entries` describes, by the rules of the fast path
/// (RFC 2784 §2.3, RFC 2890 §2.2 as Linux reads them).
///
/// `sequence` is used only if all packets of the tunnel come here, or may, as of a sender that sums in UDP. Else the
/// programs have the numbers, and what was in fragments is late by nature. `raise` is told an epoch, and tells the newest
/// that came before.
pub fn decapsulate<'a>(
    datagram: &Datagram<'a>,
    header: &Header,
    entries: &Entries,
    sequence: &mut Sequence,
    raise: impl FnOnce(Epoch) -> Epoch,
) -> Result<Outcome<'a>, Refusal> {
    let tunnel = &entries.ingress;
    admit(datagram, header, tunnel, sequence, raise)?;
    let inner = datagram
        .gre
        .get(header.length..)
        .ok_or(Refusal::Malformed)?;
    if tunnel.format.has(Format::LAYER2) {
        return layer2(datagram.tos, header.protocol, inner, entries);
    }
    match header.protocol {
        ETH_P_IPV4 => ipv4(datagram, inner, entries),
        ETH_P_IPV6 => ipv6(datagram.tos, inner, entries),
        KEEPALIVE if inner.is_empty() => Ok(Outcome::KeepaliveHeard),
        _ => Err(Refusal::Unsupported),
    }
}

fn admit(
    datagram: &Datagram<'_>,
    header: &Header,
    tunnel: &TunnelIngress,
    sequence: &mut Sequence,
    raise: impl FnOnce(Epoch) -> Epoch,
) -> Result<(), Refusal> {
    let format = tunnel.format;
    header.admit(format).map_err(|reason| match reason {
        Inadmissible::Illegal => Refusal::Malformed,
        Inadmissible::Checksum => Refusal::Checksum,
    })?;
    if header.has_checksum() && checksum::sum(datagram.gre) != 0xffff {
        return Err(Refusal::Checksum);
    }
    if tunnel.flags & ingress_flag::EPOCH != 0 {
        let epoch = Epoch(header.label(datagram.udp).number());
        if raise(epoch) > epoch {
            return Err(Refusal::Epoch);
        }
    }
    if format.has(Format::SEQUENCE) {
        let all_may_come_here = format.has(Format::CHECKSUM) || datagram.udp;
        if !header.has_sequence() || (all_may_come_here && !sequence.accept(header.sequence)) {
            return Err(Refusal::Sequence);
        }
    }
    Ok(())
}

fn layer2<'a>(
    outer_tos: u8,
    protocol: u16,
    inner: &[u8],
    entries: &Entries,
) -> Result<Outcome<'a>, Refusal> {
    if protocol != ETH_P_TEB {
        return Err(Refusal::Unsupported);
    }
    let ethernet: Ethernet = inner.read(0).ok_or(Refusal::Malformed)?;
    // A tag is not counted against the MTU.
    let tag = if ethernet.ether_type() == ETH_P_8021Q {
        Vlan::LEN
    } else {
        0
    };
    let mut frame = inner.to_vec();
    take_over_congestion(outer_tos, &mut frame)?;
    deliver(frame, inner.len(), tag, entries)
}

/// To an IP packet in the frame, as the fast path does it.
fn take_over_congestion(outer_tos: u8, frame: &mut [u8]) -> Result<(), Refusal> {
    let link = gre::link(&*frame).ok_or(Refusal::Malformed)?;
    let packet = frame.get_mut(link.offset..).ok_or(Refusal::Malformed)?;
    let decapsulated = |inner| ecn::decapsulate(outer_tos, inner).ok_or(Refusal::Congestion);
    match link.ether_type {
        ETH_P_IPV4 => {
            if let Some(header) = (*packet).read::<Ipv4>(0) {
                let header = header.with_tos(decapsulated(header.tos)?);
                packet[..Ipv4::LEN].copy_from_slice(bytes_of(&header));
            }
        }
        ETH_P_IPV6 => {
            if let Some(header) = (*packet).read::<Ipv6>(0) {
                let header = header.with_traffic_class(decapsulated(header.traffic_class())?);
                packet[..Ipv6::LEN].copy_from_slice(bytes_of(&header));
            }
        }
        _ => {}
    }
    Ok(())
}

fn ipv4<'a>(
    datagram: &Datagram<'a>,
    inner: &'a [u8],
    entries: &Entries,
) -> Result<Outcome<'a>, Refusal> {
    let header: Ipv4 = inner.read(0).ok_or(Refusal::Malformed)?;
    if own::is_heartbeat(inner, 0, &header, &entries.ingress) {
        return Err(Refusal::Heartbeat);
    }
    if is_for_us_to_return(datagram, inner, &header) {
        let packet = inner
            .get(..usize::from(header.total_length()))
            .ok_or(Refusal::Malformed)?;
        return Ok(Outcome::GiveBack {
            packet,
            destination: header.destination,
        });
    }
    let tos = ecn::decapsulate(datagram.tos, header.tos).ok_or(Refusal::Congestion)?;
    let mac = net::mac_for_ipv4(header.destination, entries.ingress.user_mac);
    let mut frame = framed(mac, ETH_P_IPV4, inner);
    frame[Ethernet::LEN..][..Ipv4::LEN].copy_from_slice(bytes_of(&header.with_tos(tos)));
    clamp(&mut frame, ETH_P_IPV4, entries.device.mss_ipv4);
    deliver(frame, inner.len(), 0, entries)
}

fn ipv6<'a>(outer_class: u8, inner: &[u8], entries: &Entries) -> Result<Outcome<'a>, Refusal> {
    let header: Ipv6 = inner.read(0).ok_or(Refusal::Malformed)?;
    let class = ecn::decapsulate(outer_class, header.traffic_class()).ok_or(Refusal::Congestion)?;
    let [first, .., a, b, c, d] = header.destination;
    let mac = net::mac_for_ipv6(first, [a, b, c, d], entries.ingress.user_mac);
    let mut frame = framed(mac, ETH_P_IPV6, inner);
    let header = header.with_traffic_class(class);
    frame[Ethernet::LEN..][..Ipv6::LEN].copy_from_slice(bytes_of(&header));
    clamp(&mut frame, ETH_P_IPV6, entries.device.mss_ipv6);
    deliver(frame, inner.len(), 0, entries)
}

/// Whether the inner packet is GRE from the address at which we are back to where it came from.
fn is_for_us_to_return(datagram: &Datagram<'_>, inner: &[u8], header: &Ipv4) -> bool {
    let back = Addresses::Ipv4 {
        local: header.source,
        remote: header.destination,
    };
    datagram.addresses == back && own::is_keepalive(inner, 0, header)
}

fn framed(destination: Mac, ether_type: u16, inner: &[u8]) -> Vec<u8> {
    let ethernet = Ethernet::new(destination, SOURCE, ether_type);
    [bytes_of(&ethernet), inner].concat()
}

/// Lowers the segment size that a SYN announces; `limit` zero leaves it.
fn clamp(frame: &mut [u8], protocol: u16, limit: u16) {
    if limit == 0 {
        return;
    }
    let Some(option) = mss::find(&*frame, Ethernet::LEN, protocol) else {
        return;
    };
    let Some(value) = mss::clamp(option.value, limit) else {
        return;
    };
    let Some(before) = (*frame).read(option.checksum_offset) else {
        return;
    };
    // Both lie within: they were read there.
    if !segments::is_partial(frame) {
        let after = option.updated_checksum(before, value);
        frame[option.checksum_offset..][..2].copy_from_slice(&after);
    }
    frame[option.value_offset..][..2].copy_from_slice(&value.to_be_bytes());
}

fn deliver<'a>(
    mut frame: Vec<u8>,
    inner_length: usize,
    tag: usize,
    entries: &Entries,
) -> Result<Outcome<'a>, Refusal> {
    let longest = (entries.device.mtu as usize).saturating_add(tag);
    let offload = segments::offload(&mut frame, longest).map_err(|TooLong| Refusal::TooLong)?;
    Ok(Outcome::Deliver {
        dataplane_ifindex: entries.device.dataplane_ifindex,
        frame,
        inner_length,
        offload,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use router_common::{
        gre::{GreBase, Label, bit},
        net::{PROTO_DESTINATION_OPTIONS, PROTO_GRE, PROTO_TCP, PROTO_UDP},
    };

    use super::{
        super::fixture::{
            self, DATAPLANE_IFINDEX, HEARTBEAT_PORT, INNER_LOCAL, LOCAL, MSS, REMOTE, USER_MAC,
            datagram, entries, gre, udp,
        },
        *,
    };

    const PLAIN: Format = Format(0);
    const GROUP: [u8; 4] = [239, 251, 252, 253];

    fn format(parts: &[Format]) -> Format {
        parts
            .iter()
            .fold(PLAIN, |format, part| format.with(*part, true))
    }

    fn none_before(_: Epoch) -> Epoch {
        Epoch::default()
    }

    /// As for the first packet of a tunnel, which must be the datagram's.
    fn run<'a>(datagram: &Datagram<'a>, format: Format) -> Result<Outcome<'a>, Refusal> {
        let entries = entries(format);
        let (header, key) = datagram.header().unwrap();
        assert_eq!(key, entries.key);
        decapsulate(
            datagram,
            &header,
            &entries,
            &mut Sequence::default(),
            none_before,
        )
    }

    /// The frame that is delivered.
    fn frame(gre: &[u8], format: Format) -> Result<Vec<u8>, Refusal> {
        match run(&datagram(gre), format)? {
            Outcome::Deliver {
                dataplane_ifindex,
                frame,
                inner_length,
                offload: None,
            } => {
                assert_eq!(dataplane_ifindex, DATAPLANE_IFINDEX);
                let ethernet = if format.has(Format::LAYER2) {
                    0
                } else {
                    Ethernet::LEN
                };
                assert_eq!(frame.len(), ethernet + inner_length);
                Ok(frame)
            }
            other => panic!("{other:?}"),
        }
    }

    fn inner_ipv6(next_header: u8, destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let header = Ipv6::new(next_header, [0xfd; 16], destination, 0, 7, 64, length);
        [bytes_of(&header), payload].concat()
    }

    #[test]
    fn an_epoch_that_has_passed_is_refused() {
        let mut entries = entries(Format::KEY);
        entries.ingress.flags = ingress_flag::EPOCH;
        let gre = gre(Format::KEY, 0, ETH_P_IPV4, &udp(INNER_LOCAL, 9));
        let datagram = datagram(&gre);
        let (header, key) = datagram.header().unwrap();
        let by_the_epoch = AnyKey::Ipv4(TunnelKey {
            local: LOCAL,
            remote: REMOTE,
            label: Label::epoch(false),
        });
        assert_eq!(key.of_epoch(), Some(by_the_epoch));
        for (newest, taken) in [
            (0, true),
            (fixture::KEY, true),
            (fixture::KEY + 1, false),
            (u32::MAX, false),
        ] {
            let mut told = None;
            let raise = |epoch| {
                told = Some(epoch);
                Epoch(newest)
            };
            let result = decapsulate(
                &datagram,
                &header,
                &entries,
                &mut Sequence::default(),
                raise,
            );
            assert_eq!(result.is_ok(), taken, "{newest}");
            assert_eq!(told, Some(Epoch(fixture::KEY)));
            if !taken {
                assert_eq!(result, Err(Refusal::Epoch));
            }
        }
    }

    #[test]
    fn each_format_arrives_as_it_was() {
        let inner = udp(INNER_LOCAL, 9);
        for bits in 0..8 {
            let format = Format(bits);
            let packet = gre(format, 1, ETH_P_IPV4, &inner);
            assert_eq!(
                frame(&packet, format),
                Ok(framed(USER_MAC, ETH_P_IPV4, &inner)),
                "{format:?}"
            );
        }
        let inner = inner_ipv6(PROTO_UDP, [0xfd; 16], &[1, 2, 3]);
        let packet = gre(PLAIN, 0, ETH_P_IPV6, &inner);
        assert_eq!(
            frame(&packet, PLAIN),
            Ok(framed(USER_MAC, ETH_P_IPV6, &inner))
        );
    }

    #[test]
    fn groups_have_their_ethernet_addresses() {
        let inner = udp(GROUP, 9);
        let packet = gre(PLAIN, 0, ETH_P_IPV4, &inner);
        let group = [1, 0, 0x5e, 123, 252, 253];
        assert_eq!(frame(&packet, PLAIN), Ok(framed(group, ETH_P_IPV4, &inner)));
        let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let inner = inner_ipv6(59, all_nodes, &[]);
        let packet = gre(PLAIN, 0, ETH_P_IPV6, &inner);
        let group = [0x33, 0x33, 0, 0, 0, 1];
        assert_eq!(frame(&packet, PLAIN), Ok(framed(group, ETH_P_IPV6, &inner)));
    }

    #[test]
    fn options_and_trailing_bytes_of_an_ipv4_packet_are_no_part_of_gre() {
        let packet = gre(PLAIN, 0, ETH_P_IPV4, &udp(INNER_LOCAL, 9));
        let length = u16::try_from(Ipv4::LEN + 4 + packet.len()).unwrap();
        let outer = Ipv4::new(PROTO_GRE, REMOTE, LOCAL, 0xb8, 64, length);
        let mut whole = [bytes_of(&outer), &[0x94, 4, 0, 0], &packet, &[9, 9]].concat();
        whole[0] = 0x46;
        let expected = Datagram {
            tos: 0xb8,
            ..datagram(&packet)
        };
        assert_eq!(Datagram::in_ipv4(&whole), Some(expected));
        // Shorter than it says, of another version, with a header that ends in itself.
        assert_eq!(Datagram::in_ipv4(&whole[..whole.len() - 3]), None);
        for start in [0x66, 0x44] {
            whole[0] = start;
            assert_eq!(Datagram::in_ipv4(&whole), None, "{start:#x}");
        }
    }

    #[test]
    fn keys_name_the_tunnel() {
        let key = |datagram: Datagram<'_>| datagram.header().unwrap().1;
        let keyed = gre(Format::KEY, 0, ETH_P_IPV4, &[]);
        assert_eq!(key(datagram(&keyed)), entries(Format::KEY).key);
        let plain = gre(PLAIN, 0, ETH_P_IPV4, &[]);
        assert_eq!(key(datagram(&plain)), entries(PLAIN).key);
        let in_udp = Datagram {
            udp: true,
            ..datagram(&plain)
        };
        assert_eq!(key(in_udp), entries(Format::UDP).key);
        let addresses = Addresses6 {
            remote: [1; 16],
            local: [2; 16],
        };
        let over_ipv6 = Datagram {
            addresses: Addresses::Ipv6(addresses),
            ..datagram(&keyed)
        };
        let AnyKey::Ipv6(key) = key(over_ipv6) else {
            panic!("not IPv6");
        };
        assert_eq!(
            (key.addresses, key.label.key()),
            (addresses, Some(fixture::KEY))
        );
        // PPTP's version, and a key that is cut off.
        assert_eq!(datagram(&[0x30, 1, 0x88, 0x0b, 0, 0, 0, 0]).header(), None);
        assert_eq!(datagram(&keyed[..7]).header(), None);
    }

    #[test]
    fn bits_that_nobody_may_send() {
        for bits in [bit::ROUTING, 0x0800, 0x0400] {
            let base = GreBase::new(bits, ETH_P_IPV4);
            let packet = [bytes_of(&base), &[0; 4], &udp(INNER_LOCAL, 9)].concat();
            assert_eq!(frame(&packet, PLAIN), Err(Refusal::Malformed), "{bits:#x}");
        }
        // Reserved bits that are to be ignored.
        let base = GreBase::new(0x03f8, ETH_P_IPV4);
        let packet = [bytes_of(&base), &udp(INNER_LOCAL, 9)[..]].concat();
        assert!(frame(&packet, PLAIN).is_ok());
    }

    #[test]
    fn checksums_are_there_if_configured_and_only_then() {
        let inner = udp(INNER_LOCAL, 9);
        let with = gre(Format::CHECKSUM, 0, ETH_P_IPV4, &inner);
        let without = gre(PLAIN, 0, ETH_P_IPV4, &inner);
        assert_eq!(frame(&with, PLAIN), Err(Refusal::Checksum));
        assert_eq!(frame(&without, Format::CHECKSUM), Err(Refusal::Checksum));
        // Of which changes of a header and payload it tells; the rest makes another tunnel's.
        for at in 4..with.len() {
            let mut wrong = with.clone();
            wrong[at] ^= 0x10;
            assert_eq!(
                frame(&wrong, Format::CHECKSUM),
                Err(Refusal::Checksum),
                "byte {at}"
            );
        }
    }

    #[test]
    fn sequence_numbers_are_ours_where_all_packets_come_here() {
        let inner = udp(INNER_LOCAL, 9);
        for (format, repeated) in [
            (
                format(&[Format::SEQUENCE, Format::CHECKSUM]),
                Err(Refusal::Sequence),
            ),
            (
                format(&[Format::SEQUENCE, Format::UDP]),
                Err(Refusal::Sequence),
            ),
            (Format::SEQUENCE, Ok(())),
        ] {
            let entries = entries(format);
            let mut sequence = Sequence::default();
            let mut number = |number| {
                let packet = gre(format, number, ETH_P_IPV4, &inner);
                let datagram = Datagram {
                    udp: format.has(Format::UDP),
                    ..datagram(&packet)
                };
                let (header, _) = datagram.header().unwrap();
                decapsulate(&datagram, &header, &entries, &mut sequence, none_before).map(drop)
            };
            assert_eq!(number(5), Ok(()));
            assert_eq!(number(6), Ok(()));
            assert_eq!(number(5), repeated);
            let missing = gre(
                Format(format.0 & !Format::SEQUENCE.0),
                0,
                ETH_P_IPV4,
                &inner,
            );
            let missing = Datagram {
                udp: format.has(Format::UDP),
                ..datagram(&missing)
            };
            assert_eq!(run(&missing, format), Err(Refusal::Sequence));
        }
        // Nobody asked for it.
        let packet = gre(Format::SEQUENCE, 1, ETH_P_IPV4, &inner);
        assert!(frame(&packet, PLAIN).is_ok());
    }

    #[test]
    fn a_wrong_checksum_leaves_the_sequence_alone() {
        let format = format(&[Format::SEQUENCE, Format::CHECKSUM]);
        let mut packet = gre(format, 9, ETH_P_IPV4, &udp(INNER_LOCAL, 9));
        packet[4] ^= 1;
        let datagram = datagram(&packet);
        let (header, _) = datagram.header().unwrap();
        let mut sequence = Sequence::default();
        let result = decapsulate(
            &datagram,
            &header,
            &entries(format),
            &mut sequence,
            none_before,
        );
        assert_eq!(result, Err(Refusal::Checksum));
        assert_eq!(sequence, Sequence::default());
    }

    #[test]
    fn protocols_by_layer() {
        let inner = udp(INNER_LOCAL, 9);
        for (protocol, layer3, layer2) in [
            (ETH_P_IPV4, true, false),
            (ETH_P_TEB, false, true),
            (0x0806, false, false),
            (KEEPALIVE, false, false),
        ] {
            let packet = gre(PLAIN, 0, protocol, &inner);
            for (format, taken) in [(PLAIN, layer3), (Format::LAYER2, layer2)] {
                let result = frame(&packet, format);
                if taken {
                    assert!(result.is_ok(), "{protocol:#x}");
                } else {
                    assert_eq!(result, Err(Refusal::Unsupported), "{protocol:#x}");
                }
            }
        }
    }

    #[test]
    fn layer_2_frames_stay_as_they_are() {
        let inner = framed([7; 6], 0x0806, &[1, 2, 3]);
        let packet = gre(Format::LAYER2, 0, ETH_P_TEB, &inner);
        assert_eq!(frame(&packet, Format::LAYER2), Ok(inner));
        let short = gre(Format::LAYER2, 0, ETH_P_TEB, &[0; 13]);
        assert_eq!(frame(&short, Format::LAYER2), Err(Refusal::Malformed));
    }

    #[test]
    fn congestion_is_told_inside() {
        let cases = [
            (0b00, 0b11, Err(Refusal::Congestion)),
            (0b10, 0b11, Ok(0b11)),
            (0b10, 0b01, Ok(0b01)),
            (0b10, 0b00, Ok(0b10)),
        ];
        for (inner_ecn, outer_ecn, expected) in cases {
            let dscp = 0xb8;
            let decapsulated = |format, protocol, inner: &[u8]| {
                let packet = gre(format, 0, protocol, inner);
                let datagram = Datagram {
                    tos: outer_ecn,
                    ..datagram(&packet)
                };
                run(&datagram, format).map(|outcome| match outcome {
                    Outcome::Deliver { frame, .. } => frame,
                    other => panic!("{other:?}"),
                })
            };
            let over = |protocol, inner: &[u8]| {
                let alone = decapsulated(PLAIN, protocol, inner);
                let framed = framed(USER_MAC, protocol, inner);
                // In a frame it comes out the same.
                let in_frame = decapsulated(Format::LAYER2, ETH_P_TEB, &framed);
                assert_eq!(in_frame, alone);
                alone
            };
            let inner = fixture::ipv4(PROTO_UDP, dscp | inner_ecn, INNER_LOCAL, &[0; 8]);
            let tos = over(ETH_P_IPV4, &inner).map(|frame| {
                let header: Ipv4 = frame.as_slice().read(Ethernet::LEN).unwrap();
                assert!(header.checksum_is_valid());
                header.tos
            });
            assert_eq!(tos, expected.map(|ecn| dscp | ecn));
            let header = Ipv6::new(59, [0xfd; 16], [0xfd; 16], dscp | inner_ecn, 7, 64, 0);
            let class = over(ETH_P_IPV6, bytes_of(&header)).map(|frame| {
                let header: Ipv6 = frame.as_slice().read(Ethernet::LEN).unwrap();
                assert_eq!(header.flow_label(), 7);
                header.traffic_class()
            });
            assert_eq!(class, expected.map(|ecn| dscp | ecn));
        }
    }

    /// SYN with an MSS of 1460, behind a no-operation: at an odd offset.
    fn syn() -> Vec<u8> {
        let mut tcp = [
            0,
            9,
            0,
            9,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            7 << 4,
            2,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]
        .to_vec();
        tcp.extend([1, 2, 4, 0x05, 0xb4, 0, 0, 0]);
        tcp
    }

    #[test]
    fn segment_sizes_are_lowered() {
        let mut tcp = syn();
        let checksum = !checksum::sum(&tcp);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        for (protocol, inner, header) in [
            (
                ETH_P_IPV4,
                fixture::ipv4(PROTO_TCP, 0, INNER_LOCAL, &tcp),
                Ipv4::LEN,
            ),
            (
                ETH_P_IPV6,
                inner_ipv6(PROTO_TCP, [0xfd; 16], &tcp),
                Ipv6::LEN,
            ),
        ] {
            let frame = frame(&gre(PLAIN, 0, protocol, &inner), PLAIN).unwrap();
            let tcp = &frame[Ethernet::LEN + header..];
            assert_eq!(tcp[20..25], [&[1, 2, 4], &MSS.to_be_bytes()[..]].concat());
            assert_eq!(checksum::sum(tcp), 0xffff);
        }
    }

    /// The kernel adds the segment's part to what is there, the lowered size included.
    #[test]
    fn a_checksum_that_is_to_be_completed_stays() {
        let mut tcp = syn();
        let length = u16::try_from(tcp.len()).unwrap();
        let ends = [[0xfd; 16]; 2].concat();
        let pseudo = checksum::sum(&[&ends, &[0, PROTO_TCP][..], &length.to_be_bytes()].concat());
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        let inner = inner_ipv6(PROTO_TCP, [0xfd; 16], &tcp);
        let packet = gre(PLAIN, 0, ETH_P_IPV6, &inner);
        let outcome = run(&datagram(&packet), PLAIN).unwrap();
        let Outcome::Deliver { frame, offload, .. } = outcome else {
            panic!("{outcome:?}");
        };
        let delivered = &frame[Ethernet::LEN + Ipv6::LEN..];
        assert_eq!(delivered[16..18], pseudo.to_be_bytes());
        assert_eq!(delivered[23..25], MSS.to_be_bytes());
        assert!(offload.is_some());
    }

    #[test]
    fn heartbeats_are_for_the_programs() {
        for (destination, port, heartbeat) in [
            (INNER_LOCAL, HEARTBEAT_PORT, true),
            (GROUP, HEARTBEAT_PORT, true),
            (INNER_LOCAL, HEARTBEAT_PORT + 1, false),
            ([169, 254, 0, 9], HEARTBEAT_PORT, false),
        ] {
            let packet = gre(PLAIN, 0, ETH_P_IPV4, &udp(destination, port));
            let refused = frame(&packet, PLAIN) == Err(Refusal::Heartbeat);
            assert_eq!(refused, heartbeat, "{destination:?} {port}");
        }
        // None run in this tunnel.
        let mut quiet = entries(PLAIN);
        quiet.ingress.heartbeat_port = 0;
        let packet = gre(PLAIN, 0, ETH_P_IPV4, &udp(GROUP, 0));
        let datagram = datagram(&packet);
        let (header, _) = datagram.header().unwrap();
        assert!(
            decapsulate(
                &datagram,
                &header,
                &quiet,
                &mut Sequence::default(),
                none_before
            )
            .is_ok()
        );
    }

    #[test]
    fn what_the_device_would_not_take() {
        for (format, protocol, longest) in [
            (PLAIN, ETH_P_IPV4, 1476),
            (Format::LAYER2, ETH_P_TEB, 1476 + Ethernet::LEN),
        ] {
            let mut inner = udp(INNER_LOCAL, 9);
            inner.resize(longest, 0);
            assert!(frame(&gre(format, 0, protocol, &inner), format).is_ok());
            inner.push(0);
            assert_eq!(
                frame(&gre(format, 0, protocol, &inner), format),
                Err(Refusal::TooLong)
            );
        }
        let tagged = framed([7; 6], ETH_P_8021Q, &[0; 1476 + Vlan::LEN]);
        let packet = gre(Format::LAYER2, 0, ETH_P_TEB, &tagged);
        assert!(frame(&packet, Format::LAYER2).is_ok());
    }

    fn keepalive(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let header = Ipv4::new(PROTO_GRE, source, destination, 0, 255, 24);
        [bytes_of(&header), bytes_of(&GreBase::new(0, KEEPALIVE))].concat()
    }

    #[test]
    fn keepalives_are_given_back_to_the_far_end_alone() {
        let inner = keepalive(LOCAL, REMOTE);
        // What is behind its end goes nowhere.
        let packet = gre(PLAIN, 0, ETH_P_IPV4, &[&inner[..], &[1, 2]].concat());
        let expected = Outcome::GiveBack {
            packet: &inner,
            destination: REMOTE,
        };
        assert_eq!(run(&datagram(&packet), PLAIN), Ok(expected));
        for (source, destination) in [(REMOTE, LOCAL), (LOCAL, INNER_LOCAL), (INNER_LOCAL, REMOTE)]
        {
            let packet = gre(PLAIN, 0, ETH_P_IPV4, &keepalive(source, destination));
            assert!(frame(&packet, PLAIN).is_ok(), "like any other");
        }
        let cut = gre(PLAIN, 0, ETH_P_IPV4, &inner[..23]);
        assert!(frame(&cut, PLAIN).is_ok(), "like any other");
    }

    #[test]
    fn our_keepalive_comes_back_empty() {
        let packet = gre(PLAIN, 0, KEEPALIVE, &[]);
        assert_eq!(run(&datagram(&packet), PLAIN), Ok(Outcome::KeepaliveHeard));
    }

    #[test]
    fn cut_at_every_byte() {
        let inners = [
            (ETH_P_IPV4, udp(INNER_LOCAL, 9)),
            (ETH_P_IPV4, keepalive(LOCAL, REMOTE)),
            (
                ETH_P_IPV6,
                inner_ipv6(PROTO_DESTINATION_OPTIONS, [0xfd; 16], &[0; 8]),
            ),
        ];
        for (protocol, inner) in inners {
            let whole = gre(Format::KEY, 0, protocol, &inner);
            let fixed = if protocol == ETH_P_IPV4 {
                Ipv4::LEN
            } else {
                Ipv6::LEN
            };
            for length in 0..whole.len() {
                let datagram = datagram(&whole[..length]);
                if length < 8 {
                    assert_eq!(datagram.header(), None, "{length}");
                } else {
                    let result = run(&datagram, Format::KEY).map(drop);
                    let expected = if length < 8 + fixed {
                        Err(Refusal::Malformed)
                    } else {
                        Ok(())
                    };
                    assert_eq!(result, expected, "{length}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_packet(bytes: Vec<u8>, format in 0_u32..64, tos: u8) {
            if let Some(datagram) = Datagram::in_ipv4(&bytes) {
                prop_assert!(datagram.gre.len() < bytes.len());
            }
            let datagram = Datagram { tos, ..datagram(&bytes) };
            if let Some((header, _)) = datagram.header() {
                let entries = entries(Format(format));
                let _ = decapsulate(&datagram, &header, &entries, &mut Sequence::default(), none_before);
            }
        }

        #[test]
        fn damaged_packets_add_nothing(
            format in 0_u32..64,
            protocol in prop::sample::select(vec![ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, KEEPALIVE]),
            mut inner in prop::collection::vec(any::<u8>(), 0..200),
            start in prop::sample::select(vec![0x45, 0x46, 0x60]),
            tos: u8,
        ) {
            let format = Format(format);
            if let Some(first) = inner.first_mut() {
                *first = start;
            }
            let packet = gre(format, 1, protocol, &inner);
            let datagram = Datagram { tos, ..datagram(&packet) };
            let (header, _) = datagram.header().unwrap();
            let result = decapsulate(&datagram, &header, &entries(format), &mut Sequence::default(), none_before);
            if let Ok(Outcome::Deliver { frame, inner_length, .. }) = result {
                prop_assert_eq!(inner_length, inner.len());
                let length = inner.len() + if protocol == ETH_P_TEB { 0 } else { Ethernet::LEN };
                prop_assert_eq!(frame.len(), length);
            }
        }
    }
}
