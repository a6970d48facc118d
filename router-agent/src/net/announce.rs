//! Tells a LAN that an address has moved here: gratuitous ARP (RFC 5227 §3) and unsolicited
//! neighbour advertisement (RFC 4861 §7.2.6). Asks it who else has it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv6Header, Icmpv6Type, PacketBuilder, PacketBuilderStep,
    icmpv6::NeighborAdvertisementHeader,
};

use super::{Link, socket::set_option};

const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
/// RFC 4861 §4.6.1: option "source link-layer address", one unit of 8 bytes.
const SOURCE_LINK_LAYER_ADDRESS: [u8; 2] = [1, 1];
/// Option "target link-layer address".
const TARGET_LINK_LAYER_ADDRESS: [u8; 2] = [2, 1];

/// Sends announcements. It holds its socket open, because closing a packet socket waits until the
/// kernel is done with all packets under way: several milliseconds, between one address and the
/// next.
#[derive(Debug)]
pub struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    pub fn open() -> io::Result<Self> {
        // SAFETY: a system call without memory arguments.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { socket })
    }

    /// For frames of which each stands behind a `struct virtio_net_hdr` (packet(7), `PACKET_VNET_HDR`).
    pub fn open_with_offloads() -> io::Result<Self> {
        let announcer = Self::open()?;
        set_option(
            &announcer.socket,
            libc::SOL_PACKET,
            libc::PACKET_VNET_HDR,
            1_i32,
        )?;
        Ok(announcer)
    }

    /// Announces that `address` is at `link` from now on.
    pub fn announce(&self, link: &Link, address: IpAddr) -> io::Result<()> {
        let frame = match address {
            // From the address for the address.
            IpAddr::V4(address) => arp_request(link.mac, address, address),
            IpAddr::V6(address) => unsolicited_advertisement(link.mac, address)?,
        };
        self.send(link.index, &frame)
    }

    /// Has whoever else uses `address` say so to us alone (RFC 5227 §1.1, "ARP probe").
    pub fn probe_ipv4(&self, link: &Link, address: Ipv4Addr) -> io::Result<()> {
        let frame = arp_request(link.mac, Ipv4Addr::UNSPECIFIED, address);
        self.send(link.index, &frame)
    }

    /// Has whoever else uses `address` say so to `from`, an address of ours. Asked as duplicate address
    /// detection asks, it would tell all nodes to send to it.
    pub fn probe_ipv6(&self, link: &Link, from: Ipv6Addr, address: Ipv6Addr) -> io::Result<()> {
        let frame = solicitation(link.mac, from, address)?;
        self.send(link.index, &frame)
    }

    /// The Ethernet address that an interface has now, by ioctl: netlink would wait for whatever the kernel is
    /// changing anywhere.
    pub fn mac(&self, link_index: u32) -> io::Result<[u8; 6]> {
        // SAFETY: the structure is plain integers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = i32::try_from(link_index).map_err(io::Error::other)?;
        // The first finds the name by which the second asks.
        for question in [libc::SIOCGIFNAME, libc::SIOCGIFHWADDR] {
            // SAFETY: `request` lives through the call, and is what both questions take.
            let outcome = unsafe {
                libc::ioctl(
                    self.socket.as_raw_fd(),
                    question as libc::Ioctl,
                    &raw mut request,
                )
            };
            if outcome < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the last answer is an address.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(std::array::from_fn(|at| data[at].to_ne_bytes()[0]))
    }

    /// Sends a whole Ethernet frame out of an interface.
    pub fn send(&self, link_index: u32, frame: &[u8]) -> io::Result<()> {
        send(&self.socket, link_index, frame)
    }
}

/// An ARP request to all.
fn arp_request(mac: [u8; 6], from: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac,
        sender_ipv4: from.octets(),
        target_mac: [0; 6],
        target_ipv4: address.octets(),
    };
    let builder = PacketBuilder::ethernet2(mac, BROADCAST).arp(packet.into());
    let mut frame = Vec::with_capacity(builder.size());
    // Writing to memory cannot fail, and the packet has no part whose length could be wrong.
    let written = builder.write(&mut frame);
    debug_assert!(written.is_ok());
    frame
}

/// A neighbour advertisement to all nodes that overrides what they knew.
fn unsolicited_advertisement(mac: [u8; 6], address: Ipv6Addr) -> io::Result<Vec<u8>> {
    let header = NeighborAdvertisementHeader {
        router: true,
        solicited: false,
        r#override: true,
    };
    let mut body = address.octets().to_vec();
    body.extend_from_slice(&TARGET_LINK_LAYER_ADDRESS);
    body.extend_from_slice(&mac);
    let builder = PacketBuilder::ethernet2(mac, ALL_NODES_MAC)
        .ipv6(address.octets(), ALL_NODES.octets(), 255)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
    written(builder, &body)
}

/// A neighbour solicitation to the group of nodes that may have the address (RFC 4291 §2.7.1).
fn solicitation(mac: [u8; 6], from: Ipv6Addr, address: Ipv6Addr) -> io::Result<Vec<u8>> {
    let [.., x, y, z] = address.octets();
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
    let mut body = address.octets().to_vec();
    body.extend_from_slice(&SOURCE_LINK_LAYER_ADDRESS);
    body.extend_from_slice(&mac);
    let builder = PacketBuilder::ethernet2(mac, [0x33, 0x33, 0xff, x, y, z])
        .ipv6(from.octets(), group, 255)
        .icmpv6(Icmpv6Type::NeighborSolicitation);
    written(builder, &body)
}

fn written(builder: PacketBuilderStep<Icmpv6Header>, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    builder
        .write(&mut frame, body)
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(frame)
}

fn send(socket: &OwnedFd, link_index: u32, frame: &[u8]) -> io::Result<()> {
    let index = i32::try_from(link_index).map_err(io::Error::other)?;
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_ifindex = index;
    let length =
        libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: `frame` and `address` live through the call, and their lengths are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            length,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn gratuitous_arp_is_as_rfc_5227_says() {
        let address = Ipv4Addr::new(10, 0, 0, 254);
        let frame = arp_request(MAC, address, address);
        assert_eq!(frame.len(), 42);
        assert_eq!(
            frame[..14],
            [
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06
            ]
        );
        // Ethernet, IPv4, lengths 6 and 4, request.
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..32], [2, 0, 0, 0, 0, 1, 10, 0, 0, 254]);
        assert_eq!(frame[32..42], [0, 0, 0, 0, 0, 0, 10, 0, 0, 254]);
    }

    #[test]
    fn advertisement_overrides_and_its_checksum_is_right() {
        let address: Ipv6Addr = "fd00::254".parse().unwrap();
        let frame = unsolicited_advertisement(MAC, address).unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else {
            panic!("not IPv6");
        };
        assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
            panic!("not ICMPv6");
        };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        let Icmpv6Header { icmp_type, .. } = icmp.header();
        let Icmpv6Type::NeighborAdvertisement(header) = icmp_type else {
            panic!("{icmp_type:?}");
        };
        assert!(header.r#override && !header.solicited);
        assert_eq!(icmp.payload()[16..], [2, 1, 2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_solicitation_asks_the_addresses_group_and_its_checksum_is_right() {
        let from: Ipv6Addr = "fe80::1".parse().unwrap();
        let frame = solicitation(MAC, from, "fd00::12:3456".parse().unwrap()).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else {
            panic!("not IPv6");
        };
        let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(ip.header().destination_addr(), group);
        assert_eq!(ip.header().hop_limit(), 255);
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else {
            panic!("not ICMPv6");
        };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(icmp.payload()[16..], [1, 1, 2, 0, 0, 0, 0, 1]);
    }
}
