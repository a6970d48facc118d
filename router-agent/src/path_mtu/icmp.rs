//! ICMP errors that say "packet too big", as raw sockets deliver them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use router_common::{
    checksum,
    gre::bit,
    net::{GRE_UDP_PORT, IPV6_MINIMUM_MTU, Ipv4, Ipv6, PROTO_GRE, PROTO_ICMP, PROTO_UDP, Udp},
    packet::Packet as _,
};

/// Type, code, checksum and four bytes that depend on the type; then the packet that was too big.
type IcmpHeader = [u8; 8];
const ICMP_LEN: usize = size_of::<IcmpHeader>();

/// Destination unreachable, fragmentation needed and DF set (RFC 792).
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// Packet too big (RFC 4443 §3.2); its code is to be ignored.
const PACKET_TOO_BIG: u8 = 2;
/// What every IPv4 link carries (RFC 791), in bytes.
const MIN_IPV4_MTU: u16 = 68;

/// MTUs in use, for routers that do not tell theirs (RFC 1191 §7.1).
const PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
];

/// A router's word on the path from `local` to `remote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    pub local: IpAddr,
    pub remote: IpAddr,
    pub encapsulation: Encapsulation,
    /// In bytes, the outer headers included.
    pub mtu: u32,
}

/// How the packet that was too big had been encapsulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    Gre(QuotedKey),
    GreUdp(QuotedKey),
}

/// The GRE key in that packet. A router need not quote more than 8 bytes after the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotedKey {
    NotQuoted,
    Absent,
    Present(u32),
}

/// Reads what a raw socket for ICMP received: a whole IPv4 packet. `None` unless it is about a
/// tunnel packet from an address of ours. Anybody can forge such a message; `is_ours` and the
/// search for the tunnel keep out those who do not know its addresses.
pub fn from_ipv4(packet: &[u8], is_ours: impl Fn(IpAddr) -> bool) -> Option<PathMtu> {
    let outer: Ipv4 = packet.read(0)?;
    let message = payload(&outer, packet)?;
    // A raw socket gets the message before the kernel looks at its checksum.
    if outer.protocol != PROTO_ICMP || checksum::sum(message) != 0xffff {
        return None;
    }
    let [kind, code, _, _, _, _, mtu @ ..]: IcmpHeader = message.read(0)?;
    if [kind, code] != FRAGMENTATION_NEEDED {
        return None;
    }
    let quote = message.get(ICMP_LEN..)?;
    let quoted: Ipv4 = quote.read(0)?;
    let local = Ipv4Addr::from(quoted.source).into();
    let concerns_us = quoted.source == outer.destination
        && quoted.dont_fragment()
        && !quoted.is_fragment()
        && is_ours(local);
    if !concerns_us {
        return None;
    }
    let mtu = match u16::from_be_bytes(mtu) {
        0 => plateau_below(quoted.total_length())?,
        mtu => mtu,
    };
    Some(PathMtu {
        local,
        remote: Ipv4Addr::from(quoted.destination).into(),
        encapsulation: encapsulation(quoted.protocol, payload(&quoted, quote)?)?,
        mtu: (mtu >= MIN_IPV4_MTU && fits_not(quoted.total_length().into(), mtu.into()))
            .then(|| mtu.into())?,
    })
}

/// An MTU that the packet would have fitted is made up.
const fn fits_not(length: usize, mtu: u32) -> bool {
    (mtu as usize) < length
}

/// As [`from_ipv4`], for a raw socket for ICMPv6, which delivers the message without the IPv6
/// header and with its checksum verified.
pub fn from_ipv6(message: &[u8], is_ours: impl Fn(IpAddr) -> bool) -> Option<PathMtu> {
    let [kind, _, _, _, mtu @ ..]: IcmpHeader = message.read(0)?;
    let quoted: Ipv6 = message.read(ICMP_LEN)?;
    let local = Ipv6Addr::from(quoted.source).into();
    if kind != PACKET_TOO_BIG || quoted.version() != 6 || !is_ours(local) {
        return None;
    }
    let payload = message.get(ICMP_LEN + Ipv6::LEN..)?;
    let length = usize::from(quoted.payload_length()) + Ipv6::LEN;
    let mtu = u32::from_be_bytes(mtu);
    Some(PathMtu {
        local,
        remote: Ipv6Addr::from(quoted.destination).into(),
        encapsulation: encapsulation(quoted.next_header, payload)?,
        mtu: fits_not(length, mtu).then(|| mtu.max(IPV6_MINIMUM_MTU))?,
    })
}

/// What follows an IPv4 header and its options.
fn payload<'a>(header: &Ipv4, packet: &'a [u8]) -> Option<&'a [u8]> {
    let length = header.header_length();
    if header.version() != 4 || length < Ipv4::LEN {
        return None;
    }
    packet.get(length..)
}

/// The next plateau below the length of a packet that was too big.
fn plateau_below(total_length: u16) -> Option<u16> {
    PLATEAUS.into_iter().find(|mtu| *mtu < total_length)
}

fn encapsulation(protocol: u8, payload: &[u8]) -> Option<Encapsulation> {
    match protocol {
        PROTO_GRE => Some(Encapsulation::Gre(gre_key(payload)?)),
        PROTO_UDP => {
            let udp: Udp = payload.read(0)?;
            let gre = payload.get(Udp::LEN..)?;
            (udp.destination() == GRE_UDP_PORT).then_some(Encapsulation::GreUdp(gre_key(gre)?))
        }
        _ => None,
    }
}

/// `None` for a version of GRE that tunnels do not use.
fn gre_key(gre: &[u8]) -> Option<QuotedKey> {
    let Some(flags) = gre.read(0).map(u16::from_be_bytes) else {
        return Some(QuotedKey::NotQuoted);
    };
    if flags & bit::VERSION != 0 {
        return None;
    }
    if flags & bit::KEY == 0 {
        return Some(QuotedKey::Absent);
    }
    // The checksum and what is reserved with it stand before the key (RFC 2890 §2).
    let offset = if flags & bit::CHECKSUM == 0 { 4 } else { 8 };
    Some(gre.read(offset).map_or(QuotedKey::NotQuoted, |key| {
        QuotedKey::Present(u32::from_be_bytes(key))
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOCAL: [u8; 4] = [10, 0, 1, 10];
    const REMOTE: [u8; 4] = [10, 0, 2, 10];
    const ROUTER: [u8; 4] = [10, 0, 1, 1];
    const LOCAL_6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const REMOTE_6: [u8; 16] = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
    const KEYED: [u8; 8] = [0x20, 0, 0x08, 0, 1, 2, 3, 4];
    const GRE_IN_UDP: [u8; 8] = [0xc0, 0x01, 0x12, 0x92, 5, 0xdc, 0, 0];

    fn is_ours(address: IpAddr) -> bool {
        address == IpAddr::from(LOCAL) || address == IpAddr::from(LOCAL_6)
    }

    fn quoted(protocol: u8, total_length: u16) -> Ipv4 {
        Ipv4::new(protocol, LOCAL, REMOTE, 0, 255, total_length)
    }

    fn too_big(mtu: u16, quoted: &Ipv4, payload: &[u8]) -> Vec<u8> {
        let [high, low] = mtu.to_be_bytes();
        icmp([3, 4, 0, 0, 0, 0, high, low], quoted, payload)
    }

    fn icmp(header: IcmpHeader, quoted: &Ipv4, payload: &[u8]) -> Vec<u8> {
        let mut message = [&header, bytemuck::bytes_of(quoted), payload].concat();
        let checksum = !checksum::sum(&message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let length = u16::try_from(Ipv4::LEN + message.len()).unwrap();
        let outer = Ipv4::new(PROTO_ICMP, ROUTER, LOCAL, 0xc0, 64, length);
        [bytemuck::bytes_of(&outer), &message].concat()
    }

    fn too_big_6(mtu: u32, next_header: u8, payload: &[u8]) -> Vec<u8> {
        let quoted = Ipv6::new(next_header, LOCAL_6, REMOTE_6, 0, 0, 64, 1460);
        [
            &[2, 0, 0x12, 0x34],
            &mtu.to_be_bytes()[..],
            bytemuck::bytes_of(&quoted),
            payload,
        ]
        .concat()
    }

    fn expected(encapsulation: Encapsulation, mtu: u32) -> PathMtu {
        PathMtu {
            local: LOCAL.into(),
            remote: REMOTE.into(),
            encapsulation,
            mtu,
        }
    }

    #[test]
    fn a_message_as_it_comes_over_the_wire() {
        #[rustfmt::skip]
        let packet = [
            // IPv4 from the router, with a router alert (24 bytes)
            0x46, 0xc0, 0x00, 0x3c, 0x00, 0x00, 0x00, 0x00, 0x40, 0x01, 0x00, 0x00,
            10, 0, 1, 1, 10, 0, 1, 10, 0x94, 0x04, 0x00, 0x00,
            // fragmentation needed, MTU 1400
            0x03, 0x04, 0xcb, 0x7d, 0x00, 0x00, 0x05, 0x78,
            // the quoted header, 1500 bytes, DF, and 8 bytes of keyed GRE
            0x45, 0x00, 0x05, 0xdc, 0x00, 0x00, 0x40, 0x00, 0xff, 0x2f, 0x5e, 0xdf,
            10, 0, 1, 10, 10, 0, 2, 10,
            0x20, 0x00, 0x08, 0x00, 0x01, 0x02, 0x03, 0x04,
        ];
        assert_eq!(
            from_ipv4(&packet, is_ours),
            Some(expected(
                Encapsulation::Gre(QuotedKey::Present(0x0102_0304)),
                1400
            ))
        );
    }

    #[test]
    fn keys_as_far_as_they_are_quoted() {
        let checksummed = [0xa0, 0, 8, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 9];
        for (gre, key) in [
            (&[0, 0, 8, 0, 0x45, 0, 0, 0][..], QuotedKey::Absent),
            (&KEYED, QuotedKey::Present(0x0102_0304)),
            (&KEYED[..7], QuotedKey::NotQuoted),
            (&checksummed, QuotedKey::Present(9)),
            (&checksummed[..8], QuotedKey::NotQuoted),
            (&[], QuotedKey::NotQuoted),
        ] {
            let native = too_big(1400, &quoted(PROTO_GRE, 1500), gre);
            assert_eq!(
                from_ipv4(&native, is_ours),
                Some(expected(Encapsulation::Gre(key), 1400)),
                "{gre:02x?}"
            );
            let payload = [&GRE_IN_UDP, gre].concat();
            let udp = too_big(1400, &quoted(PROTO_UDP, 1500), &payload);
            assert_eq!(
                from_ipv4(&udp, is_ours),
                Some(expected(Encapsulation::GreUdp(key), 1400)),
                "{gre:02x?}"
            );
        }
    }

    #[test]
    fn a_router_that_does_not_tell_its_mtu() {
        let mtu = |total_length| {
            let packet = too_big(0, &quoted(PROTO_GRE, total_length), &KEYED);
            from_ipv4(&packet, is_ours).map(|path| path.mtu)
        };
        assert_eq!(mtu(65535), Some(32000));
        assert_eq!(mtu(9000), Some(8166));
        assert_eq!(mtu(1500), Some(1492));
        assert_eq!(mtu(1492), Some(1006));
        assert_eq!(mtu(69), Some(68));
        assert_eq!(mtu(68), None);
    }

    #[test]
    fn mtus_that_no_link_has() {
        let v4 = |mtu| from_ipv4(&too_big(mtu, &quoted(PROTO_GRE, 1500), &KEYED), is_ours);
        assert_eq!(v4(67), None);
        assert_eq!(v4(68).map(|path| path.mtu), Some(68));
        let v6 = |mtu| {
            from_ipv6(&too_big_6(mtu, PROTO_GRE, &KEYED), is_ours)
                .unwrap()
                .mtu
        };
        assert_eq!(v6(1279), 1280);
        assert_eq!(v6(0), 1280);
        assert_eq!(v6(1400), 1400);
    }

    #[test]
    fn ipv6() {
        let expected = |encapsulation| {
            Some(PathMtu {
                local: LOCAL_6.into(),
                remote: REMOTE_6.into(),
                encapsulation,
                mtu: 1400,
            })
        };
        let key = QuotedKey::Present(0x0102_0304);
        let gre = too_big_6(1400, PROTO_GRE, &KEYED);
        assert_eq!(from_ipv6(&gre, is_ours), expected(Encapsulation::Gre(key)));
        let udp = too_big_6(1400, PROTO_UDP, &[GRE_IN_UDP, KEYED].concat());
        assert_eq!(
            from_ipv6(&udp, is_ours),
            expected(Encapsulation::GreUdp(key))
        );
    }

    #[test]
    fn what_is_not_believed() {
        let gre = quoted(PROTO_GRE, 1500);
        let good = too_big(1400, &gre, &KEYED);
        assert!(from_ipv4(&good, is_ours).is_some());
        assert_eq!(from_ipv4(&good, |_| false), None);

        // Another code, another type: echo.
        for header in [[3, 3, 0, 0, 0, 0, 5, 0x78], [8, 4, 0, 0, 0, 0, 5, 0x78]] {
            assert_eq!(from_ipv4(&icmp(header, &gre, &KEYED), is_ours), None);
        }
        // Sent to another of our addresses than the packet had come from; not ICMP.
        for (at, byte) in [(19, 11), (9, 47), (0, 0x65)] {
            let mut packet = good.clone();
            packet[at] = byte;
            assert_eq!(from_ipv4(&packet, is_ours), None, "{at}");
        }
        // A bit flipped on the way.
        let mut packet = good.clone();
        packet[27] ^= 1;
        assert_eq!(from_ipv4(&packet, is_ours), None);

        // A quoted header shorter than any, and one of another version.
        for byte in [0x44, 0x40, 0x65] {
            let mut bytes: [u8; 20] = bytemuck::cast(gre);
            bytes[0] = byte;
            let packet = too_big(1400, &bytemuck::cast(bytes), &KEYED);
            assert_eq!(from_ipv4(&packet, is_ours), None, "{byte:02x}");
        }
        // A packet that need not have been dropped, a fragment, TCP, PPTP's GRE, other UDP.
        let free = Ipv4::fragmentable(PROTO_GRE, LOCAL, REMOTE, 0, 255, 1500, 1);
        assert_eq!(from_ipv4(&too_big(1400, &free, &KEYED), is_ours), None);
        let mut bytes: [u8; 20] = bytemuck::cast(gre);
        bytes[7] = 1;
        let fragment: Ipv4 = bytemuck::cast(bytes);
        assert_eq!(from_ipv4(&too_big(1400, &fragment, &KEYED), is_ours), None);
        for (protocol, payload) in [
            (6, KEYED),
            (PROTO_GRE, [0x20, 1, 0x88, 0x0b, 0, 0, 0, 0]),
            (PROTO_UDP, [0xc0, 1, 0x12, 0x93, 0, 8, 0, 0]),
        ] {
            let packet = too_big(1400, &quoted(protocol, 1500), &payload);
            assert_eq!(from_ipv4(&packet, is_ours), None, "{protocol}");
            let message = too_big_6(1400, protocol, &payload);
            assert_eq!(from_ipv6(&message, is_ours), None, "{protocol}");
        }

        let good = too_big_6(1400, PROTO_GRE, &KEYED);
        assert_eq!(from_ipv6(&good, |_| false), None);
        for (at, byte) in [(0, 1), (0, 128), (8, 0x40)] {
            let mut message = good.clone();
            message[at] = byte;
            assert_eq!(from_ipv6(&message, is_ours), None, "{at}");
        }
    }

    #[test]
    fn an_mtu_that_the_packet_would_have_fitted_is_made_up() {
        let told = |mtu| from_ipv6(&too_big_6(mtu, PROTO_GRE, &KEYED), is_ours);
        // The quoted packet has 1500 bytes.
        assert_eq!(told(1499).map(|path| path.mtu), Some(1499));
        assert_eq!(told(1500), None);
        assert_eq!(told(u32::MAX), None);
    }

    #[test]
    fn cut_at_every_byte() {
        let udp = [GRE_IN_UDP, KEYED].concat();
        // Up to the end of UDP's header there is no tunnel to be known.
        let whole = too_big(1400, &quoted(PROTO_UDP, 1500), &udp);
        for cut in 0..whole.len() {
            // The checksum would already refuse the cut.
            let message = &whole[Ipv4::LEN..cut.max(Ipv4::LEN)];
            let quote = message.get(ICMP_LEN + Ipv4::LEN..).unwrap_or_default();
            let packet = too_big(1400, &quoted(PROTO_UDP, 1500), quote);
            let known = quote.len() >= Udp::LEN;
            assert_eq!(from_ipv4(&packet, is_ours).is_some(), known, "{cut}");
            assert_eq!(from_ipv4(&whole[..cut], is_ours), None, "{cut}");
        }
        let whole = too_big_6(1400, PROTO_UDP, &udp);
        let start = ICMP_LEN + Ipv6::LEN + Udp::LEN;
        for cut in 0..whole.len() {
            let known = from_ipv6(&whole[..cut], is_ours).is_some();
            assert_eq!(known, cut >= start, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = from_ipv4(&bytes, |_| true);
            let _ = from_ipv6(&bytes, |_| true);
        }

        #[test]
        fn a_lying_message_gives_a_sane_mtu_or_nothing(
            lies in prop::collection::vec((0_usize..28, any::<u8>()), 0..4),
            mtu: u16,
        ) {
            let mut header: [u8; 20] = bytemuck::cast(quoted(PROTO_UDP, 1500));
            let mut payload = GRE_IN_UDP;
            for (at, byte) in lies {
                match header.get_mut(at) {
                    Some(place) => *place = byte,
                    None => payload[at - 20] = byte,
                }
            }
            let packet = too_big(mtu, &bytemuck::cast(header), &payload);
            if let Some(path) = from_ipv4(&packet, is_ours) {
                prop_assert!(path.mtu >= 68 && path.local == IpAddr::from(LOCAL));
            }
        }
    }
}
