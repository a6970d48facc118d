//! A tunnel and its packets, for the tests.

use std::net::IpAddr;

use bytemuck::{Zeroable as _, bytes_of};
use router_common::{
    checksum,
    gre::{AnyKey, Format, GreBase, Label, TunnelKey},
    map::{TunnelDevice, TunnelEgress, TunnelIngress},
    net::{Ipv4, Mac, PROTO_UDP, Udp},
};

use super::decapsulate::{Addresses, Datagram};
use crate::tunnel::Entries;

pub const LOCAL: [u8; 4] = [10, 0, 1, 10];
pub const REMOTE: [u8; 4] = [10, 0, 2, 10];
pub const INNER_LOCAL: [u8; 4] = [169, 254, 0, 1];
pub const INNER_REMOTE: [u8; 4] = [169, 254, 0, 2];
pub const USER_MAC: Mac = [2, 0, 0, 0, 0xaa, 1];
pub const DATAPLANE_IFINDEX: u32 = 42;
pub const KEY: u32 = 0x0102_0304;
pub const HEARTBEAT_PORT: u16 = 6940;
pub const MSS: u16 = 1400;

pub fn entries(format: Format) -> Entries {
    let key = format.has(Format::KEY).then_some(KEY);
    Entries {
        key: AnyKey::Ipv4(TunnelKey {
            local: LOCAL,
            remote: REMOTE,
            label: Label::new(key, format.has(Format::UDP)),
        }),
        ingress: TunnelIngress {
            format,
            user_mac: USER_MAC,
            heartbeat_address: INNER_LOCAL,
            heartbeat_port: HEARTBEAT_PORT,
            ..TunnelIngress::zeroed()
        },
        egress: TunnelEgress::zeroed(),
        device: TunnelDevice {
            user_ifindex: 41,
            dataplane_ifindex: DATAPLANE_IFINDEX,
            mtu: 1476,
            mss_ipv4: MSS,
            mss_ipv6: MSS,
            ..TunnelDevice::default()
        },
    }
}

/// GRE as a tunnel of `format` sends it.
pub fn gre(format: Format, sequence: u32, protocol: u16, inner: &[u8]) -> Vec<u8> {
    let mut gre = bytes_of(&GreBase::new(format.bits(), protocol)).to_vec();
    if format.has(Format::CHECKSUM) {
        gre.extend([0; 4]);
    }
    if format.has(Format::KEY) {
        gre.extend(KEY.to_be_bytes());
    }
    if format.has(Format::SEQUENCE) {
        gre.extend(sequence.to_be_bytes());
    }
    gre.extend(inner);
    if format.has(Format::CHECKSUM) {
        let checksum = !checksum::sum(&gre);
        gre[4..6].copy_from_slice(&checksum.to_be_bytes());
    }
    gre
}

/// From the tunnel's far end.
pub fn datagram(gre: &[u8]) -> Datagram<'_> {
    Datagram {
        addresses: Addresses::Ipv4 {
            local: LOCAL,
            remote: REMOTE,
        },
        tos: 0,
        udp: false,
        gre,
    }
}

/// An inner IPv4 packet.
pub fn ipv4(protocol: u8, tos: u8, destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(Ipv4::LEN + payload.len()).unwrap();
    let header = Ipv4::new(protocol, INNER_REMOTE, destination, tos, 64, length);
    [bytes_of(&header), payload].concat()
}

pub fn udp(destination: [u8; 4], port: u16) -> Vec<u8> {
    let header = Udp::without_checksum(port, port, 12);
    let payload = [bytes_of(&header), &[1, 2, 3, 4]].concat();
    ipv4(PROTO_UDP, 0, destination, &payload)
}

pub fn ours() -> IpAddr {
    LOCAL.into()
}
