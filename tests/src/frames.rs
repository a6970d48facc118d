//! Frames as a tunnel's far end sends them, for the programs that [`crate::kernel`] loads.

use bytemuck::bytes_of;
use router_common::{
    checksum,
    gre::Format,
    heartbeat::{Content, Heartbeat, Kind},
    identity::{Claim, Epoch, Flags, NodeId},
    kdf::{session_number, slot},
    keys::{NumberedKey, Slot},
    lease::Length,
    map::Settings,
    net::{
        ETH_P_IPV4, ETH_P_IPV6, Ethernet, GRE_UDP_PORT, Ipv4, Ipv6, Mac, PROTO_DESTINATION_OPTIONS,
        PROTO_GRE, PROTO_TCP, PROTO_UDP, Udp,
    },
    time::BootTime,
};

use crate::clock;

pub const LOCAL: [u8; 4] = [10, 0, 1, 10];
pub const REMOTE: [u8; 4] = [10, 0, 2, 10];
pub const LOCAL6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
pub const REMOTE6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
pub const INNER_LOCAL: [u8; 4] = [169, 254, 0, 1];
pub const INNER_REMOTE: [u8; 4] = [169, 254, 0, 2];
pub const UNDERLAY_MACS: [Mac; 2] = [[2, 0, 0, 0, 1, 10], [2, 0, 0, 0, 1, 1]];
pub const USER_MAC: Mac = [2, 0, 0, 0, 0xaa, 1];
/// Marks decapsulated packets.
pub const SETTINGS: Settings = Settings {
    marker: [2, 0xcc, 0xdd, 0xee],
    encapsulated_mark: 0x1234_5679,
};
pub const KEY: u32 = 0x0102_0304;
pub const PLAIN_TUNNEL: u32 = 3;
pub const KEYED_TUNNEL: u32 = 4;
/// The tunnel of any format.
pub const TUNNEL: u32 = 6;
pub const VLAN: u16 = 5;
pub const USER_IFINDEX: u32 = 77;
pub const PORT: u16 = 6940;
pub const GROUP: &str = "aws";
pub const SESSION_SLOT: u32 = 5;
pub const OUR_GENERATION: u32 = 1000;
pub const PEER_GENERATION: u32 = 2000;

pub fn from_peer(secret: &[u8]) -> NumberedKey {
    keys(secret).rx()
}

/// Of who does not know the secret, and has its number from any message: only the MAC tells.
pub fn forged() -> NumberedKey {
    NumberedKey {
        number: from_peer(b"cloudpack").number,
        ..from_peer(b"another secret")
    }
}

pub fn to_peer() -> NumberedKey {
    keys(b"cloudpack").tx()
}

/// Ours.
pub fn keys(secret: &[u8]) -> Slot {
    slot(secret, GROUP, "vyatta-a", "vyatta-c")
}

pub fn our_claim() -> Claim {
    Claim {
        epoch: Epoch(6),
        owner: NodeId(1),
    }
}

/// What the far end puts around an inner packet. Built of bytes, apart from the code under test.
#[derive(Clone, Debug)]
pub struct Outer {
    /// TPID and VLAN of each tag, outermost first.
    pub tags: Vec<[u16; 2]>,
    pub format: Format,
    pub key: u32,
    pub sequence: u32,
    pub tos: u8,
    /// A tunnel encapsulation limit between IPv6 and GRE (RFC 2473 §4.1.1).
    pub limit: bool,
}

impl Outer {
    pub fn new(format: Format) -> Self {
        Self {
            tags: Vec::new(),
            format,
            key: KEY,
            sequence: 0,
            tos: 0,
            limit: false,
        }
    }

    /// The bytes of the GRE header (RFC 2784 §2.1, RFC 2890 §2), with the checksum of it and `inner`.
    pub fn gre(&self, protocol: u16, inner: &[u8]) -> Vec<u8> {
        let mut gre = self.format.bits().to_be_bytes().to_vec();
        gre.extend(protocol.to_be_bytes());
        let has_checksum = self.format.has(Format::CHECKSUM);
        if has_checksum {
            gre.extend([0; 4]);
        }
        if self.format.has(Format::KEY) {
            gre.extend(self.key.to_be_bytes());
        }
        if self.format.has(Format::SEQUENCE) {
            gre.extend(self.sequence.to_be_bytes());
        }
        if has_checksum {
            let sum = !checksum::sum(&[&gre, inner].concat());
            gre[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        gre
    }

    /// The frame with `inner`, of EtherType `protocol`.
    pub fn around(&self, protocol: u16, inner: &[u8]) -> Vec<u8> {
        let payload = [self.gre(protocol, inner), inner.to_vec()].concat();
        let (next, payload) = if self.format.has(Format::UDP) {
            let length = u16::try_from(Udp::LEN + payload.len()).unwrap();
            let udp = Udp::without_checksum(0xc001, GRE_UDP_PORT, length);
            (PROTO_UDP, [bytes_of(&udp), &payload].concat())
        } else {
            (PROTO_GRE, payload)
        };
        let (ether_type, packet) = if self.format.has(Format::IPV6) {
            (ETH_P_IPV6, self.over_ipv6(next, &payload))
        } else {
            let length = u16::try_from(Ipv4::LEN + payload.len()).unwrap();
            let ip = Ipv4::new(next, REMOTE, LOCAL, self.tos, 255, length);
            (ETH_P_IPV4, [bytes_of(&ip), &payload].concat())
        };
        let [destination, source] = UNDERLAY_MACS;
        let mut frame = [destination, source].concat();
        frame.extend(
            self.tags
                .iter()
                .flatten()
                .copied()
                .flat_map(u16::to_be_bytes),
        );
        frame.extend(ether_type.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn over_ipv6(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        // Pad1's big sister fills the option up to eight bytes.
        let options = [next, 0, 4, 1, 4, 1, 1, 0];
        let (next, options) = if self.limit {
            (PROTO_DESTINATION_OPTIONS, &options[..])
        } else {
            (next, &[][..])
        };
        let length = u16::try_from(options.len() + payload.len()).unwrap();
        let ip = Ipv6::new(next, REMOTE6, LOCAL6, self.tos, 0, 64, length);
        [bytes_of(&ip), options, payload].concat()
    }
}

/// An Ethernet frame with an IPv4 packet of `protocol` from the tunnel's far end.
pub fn underlay(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(Ipv4::LEN + payload.len()).unwrap();
    let [destination, source] = UNDERLAY_MACS;
    let ethernet = Ethernet::new(destination, source, ETH_P_IPV4);
    let ip = Ipv4::new(protocol, REMOTE, LOCAL, 0, 255, length);
    [bytes_of(&ethernet), bytes_of(&ip), payload].concat()
}

/// A frame with a GRE packet.
pub fn gre(protocol: u16, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    Outer {
        key: key.unwrap_or(0),
        ..Outer::new(Format::default().with(Format::KEY, key.is_some()))
    }
    .around(protocol, inner)
}

/// A frame as a layer-2 tunnel carries it.
pub fn inner_frame(tags: &[[u16; 2]]) -> Vec<u8> {
    let mut frame = [[2, 0, 0, 0, 7, 1], [2, 0, 0, 0, 7, 2]].concat();
    frame.extend(tags.iter().flatten().copied().flat_map(u16::to_be_bytes));
    frame.extend(ETH_P_IPV4.to_be_bytes());
    // Longer than the shortest frame of Ethernet, which need not be filled up.
    frame.extend(inner_udp(9, &[7; 40]));
    frame
}

pub fn inner_udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(Udp::LEN + payload.len()).unwrap();
    let udp = Udp::without_checksum(PORT, port, udp_length);
    let length = u16::try_from(Ipv4::LEN).unwrap() + udp_length;
    let ip = Ipv4::new(PROTO_UDP, INNER_REMOTE, INNER_LOCAL, 0, 255, length);
    [bytes_of(&ip), bytes_of(&udp), payload].concat()
}

/// A TCP SYN with the segment size that Ethernet allows, behind so many options of one byte, and a right checksum.
pub fn inner_syn(no_operations: usize) -> Vec<u8> {
    assert!(no_operations <= 4);
    let mut tcp = vec![
        0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x70, 2, 0xff, 0xff, 0, 0, 0, 0,
    ];
    tcp.extend(vec![1; no_operations]);
    tcp.extend([2, 4, 0x05, 0xb4]);
    tcp.resize(28, 0);
    let length = u16::try_from(tcp.len()).unwrap();
    let sum = !tcp_sum(INNER_REMOTE, INNER_LOCAL, &tcp);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let total = u16::try_from(Ipv4::LEN).unwrap() + length;
    let ip = Ipv4::new(PROTO_TCP, INNER_REMOTE, INNER_LOCAL, 0, 64, total);
    [bytes_of(&ip), &tcp].concat()
}

/// The sum over a TCP segment and its pseudo-header (RFC 9293 §3.1): all ones if its checksum is
/// right.
pub fn tcp_sum(source: [u8; 4], destination: [u8; 4], segment: &[u8]) -> u16 {
    let [high, low] = u16::try_from(segment.len()).unwrap().to_be_bytes();
    let rest = [0, PROTO_TCP, high, low];
    checksum::sum(&[&source[..], &destination, &rest, segment].concat())
}

/// An IPv6 packet without a payload (next header 59, RFC 8200 §4.7).
pub fn inner_ipv6(destination: [u8; 16]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(destination);
    packet
}

pub fn probe() -> Content {
    let now = clock::now();
    Content {
        kind: Kind::Probe,
        flags: Flags::ELIGIBLE,
        session: session_number(GROUP),
        sender: NodeId(2),
        generation: PEER_GENERATION,
        sequence: 1,
        tx: BootTime::from_ns(123),
        echo_tx: now,
        echo_generation: OUR_GENERATION,
        claim: our_claim(),
        agent_age_us: 10,
        grant: Length::NONE,
        wanted_key: from_peer(b"cloudpack").number,
    }
}

/// The IPv4 packet of a heartbeat.
pub fn heartbeat_packet(content: &Content, key: &NumberedKey) -> Vec<u8> {
    inner_udp(PORT, bytes_of(&Heartbeat::signed(content, key)))
}

pub fn heartbeat(content: &Content, key: &NumberedKey) -> Vec<u8> {
    gre(ETH_P_IPV4, None, &heartbeat_packet(content, key))
}
