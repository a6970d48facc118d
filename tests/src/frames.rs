//! Frames as a tunnel's far end sends them, for the programs that [`crate::kernel`] loads.

use bytemuck::bytes_of;
use router_common::{
    gre::{GreBase, bit},
    heartbeat::{Content, Heartbeat, Kind},
    identity::{Claim, Epoch, Flags, NodeId},
    kdf::{direction_key, session_number},
    map::Settings,
    net::{ETH_P_IPV4, Ethernet, Ipv4, Mac, PROTO_GRE, PROTO_UDP, Udp},
    siphash::Key,
    time::BootTime,
};

use crate::clock;

pub const LOCAL: [u8; 4] = [10, 0, 1, 10];
pub const REMOTE: [u8; 4] = [10, 0, 2, 10];
pub const INNER_LOCAL: [u8; 4] = [169, 254, 0, 1];
pub const INNER_REMOTE: [u8; 4] = [169, 254, 0, 2];
pub const UNDERLAY_MACS: [Mac; 2] = [[2, 0, 0, 0, 1, 10], [2, 0, 0, 0, 1, 1]];
pub const USER_MAC: Mac = [2, 0, 0, 0, 0xaa, 1];
/// Marks decapsulated packets.
pub const SETTINGS: Settings = Settings {
    marker: [2, 0xcc, 0xdd, 0xee],
};
pub const KEY: u32 = 0x0102_0304;
pub const PLAIN_TUNNEL: u32 = 3;
pub const KEYED_TUNNEL: u32 = 4;
pub const USER_IFINDEX: u32 = 77;
pub const PORT: u16 = 6940;
pub const GROUP: &str = "aws";
pub const SESSION_SLOT: u32 = 5;
pub const OUR_GENERATION: u32 = 1000;
pub const PEER_GENERATION: u32 = 2000;

pub fn from_peer(secret: &[u8]) -> Key {
    direction_key(secret, GROUP, "vyatta-c", "vyatta-a")
}

pub fn to_peer() -> Key {
    direction_key(b"cloudpack", GROUP, "vyatta-a", "vyatta-c")
}

pub fn our_claim() -> Claim {
    Claim {
        epoch: Epoch(6),
        owner: NodeId(1),
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
    let bits = if key.is_some() { bit::KEY } else { 0 };
    let base = GreBase::new(bits, protocol);
    let key = key.map_or(Vec::new(), |key| key.to_be_bytes().to_vec());
    underlay(PROTO_GRE, &[bytes_of(&base), &key, inner].concat())
}

pub fn inner_udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(Udp::LEN + payload.len()).unwrap();
    let udp = Udp::without_checksum(PORT, port, udp_length);
    let length = u16::try_from(Ipv4::LEN).unwrap() + udp_length;
    let ip = Ipv4::new(PROTO_UDP, INNER_REMOTE, INNER_LOCAL, 0, 255, length);
    [bytes_of(&ip), bytes_of(&udp), payload].concat()
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
    }
}

pub fn heartbeat(content: &Content, key: &Key) -> Vec<u8> {
    let message = Heartbeat::signed(content, key);
    gre(ETH_P_IPV4, None, &inner_udp(PORT, bytes_of(&message)))
}
