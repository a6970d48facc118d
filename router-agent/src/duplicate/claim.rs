//! Who says in a frame that an address is its own.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv6Type, LinkSlice, NetSlice, SlicedPacket, TransportSlice,
};

/// RFC 4861 §7.1.2: what passed a router is not to be believed.
const UNFORWARDED: u8 = 255;
/// Octets of an IPv6 address.
const ADDRESS: usize = 16;

/// An address, and who says that it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub address: IpAddr,
    pub mac: [u8; 6],
}

impl Claim {
    /// What an Ethernet frame claims: as the sender of an ARP packet (RFC 5227 §2.4), or as the target of a
    /// neighbour advertisement. Who only asks whether an address is free (RFC 5227 §1.1, "ARP probe") claims
    /// nothing.
    pub fn in_frame(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        if !packet.link_exts.is_empty() {
            // Of a VLAN, and not of the interface itself.
            return None;
        }
        match (packet.net?, packet.transport, packet.link?) {
            (NetSlice::Arp(arp), _, _) => {
                let arp = ArpEthIpv4Packet::try_from(arp.to_packet()).ok()?;
                let address = arp.sender_ipv4_addr();
                let is_claim = [ArpOperation::REQUEST, ArpOperation::REPLY]
                    .contains(&arp.operation)
                    && !address.is_unspecified();
                is_claim.then_some(Self {
                    address: address.into(),
                    mac: arp.sender_mac,
                })
            }
            (
                NetSlice::Ipv6(ip),
                Some(TransportSlice::Icmpv6(icmp)),
                LinkSlice::Ethernet2(ethernet),
            ) => {
                let Icmpv6Type::NeighborAdvertisement(_) = icmp.icmp_type() else {
                    return None;
                };
                let target: [u8; ADDRESS] = icmp.payload().get(..ADDRESS)?.try_into().ok()?;
                (ip.header().hop_limit() == UNFORWARDED).then_some(Self {
                    address: Ipv6Addr::from(target).into(),
                    mac: ethernet.source(),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use etherparse::{PacketBuilder, icmpv6::NeighborAdvertisementHeader};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 12];
    const ADDRESS_V6: &str = "fd00::254";

    fn arp(operation: ArpOperation, sender: Ipv4Addr) -> Vec<u8> {
        let packet = ArpEthIpv4Packet {
            operation,
            sender_mac: MAC,
            sender_ipv4: sender.octets(),
            target_mac: [0; 6],
            target_ipv4: [10, 0, 0, 254],
        };
        let builder = PacketBuilder::ethernet2(MAC, [0xff; 6]).arp(packet.into());
        let mut frame = Vec::new();
        builder.write(&mut frame).unwrap();
        frame
    }

    fn advertisement(hop_limit: u8) -> Vec<u8> {
        let header = NeighborAdvertisementHeader {
            router: false,
            solicited: true,
            r#override: false,
        };
        let address: Ipv6Addr = ADDRESS_V6.parse().unwrap();
        let builder = PacketBuilder::ethernet2(MAC, [2, 0, 0, 0, 0, 1])
            .ipv6(address.octets(), [1; 16], hop_limit)
            .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
        let mut frame = Vec::new();
        builder.write(&mut frame, &address.octets()).unwrap();
        frame
    }

    #[test]
    fn who_speaks_under_an_address_claims_it() {
        let address = Ipv4Addr::new(10, 0, 0, 254);
        for operation in [ArpOperation::REQUEST, ArpOperation::REPLY] {
            let claim = Claim {
                address: address.into(),
                mac: MAC,
            };
            assert_eq!(Claim::in_frame(&arp(operation, address)), Some(claim));
        }
        let claim = Claim {
            address: ADDRESS_V6.parse().unwrap(),
            mac: MAC,
        };
        assert_eq!(Claim::in_frame(&advertisement(255)), Some(claim));
    }

    #[test]
    fn who_only_asks_or_is_beyond_a_router_does_not() {
        let probe = arp(ArpOperation::REQUEST, Ipv4Addr::UNSPECIFIED);
        assert_eq!(Claim::in_frame(&probe), None);
        assert_eq!(Claim::in_frame(&advertisement(254)), None);
    }

    #[test]
    fn what_is_cut_off_claims_nothing() {
        for frame in [
            arp(ArpOperation::REPLY, Ipv4Addr::new(10, 0, 0, 254)),
            advertisement(255),
        ] {
            for length in 0..frame.len() {
                assert_eq!(Claim::in_frame(&frame[..length]), None, "{length} bytes");
            }
        }
    }
}
