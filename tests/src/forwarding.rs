//! A router whose tunnel and LAN take part in transit, for runs of single frames: programs that ask the
//! routing tables of a lab's node.

use anyhow::Result;
use router_common::{
    checksum,
    gre::Format,
    map::{Interface, TunnelEgress, TunnelIngress, egress_flag, ingress_flag, interface_flag},
    net::{Ethernet, Ipv4},
};

use crate::{
    bench::rig,
    frames::{TUNNEL, UNDERLAY_MACS, inner_udp},
    kernel::{Kernel, LOOPBACK, egress, ingress, key},
    lab::Lab,
};

/// The lab's node that routes.
pub const ROUTER: &str = rig::ROUTER;
/// On the LAN, with a neighbour entry.
pub const HOST: [u8; 4] = [10, 9, 0, 2];
/// Behind the tunnel.
pub const FAR: [u8; 4] = [10, 8, 0, 2];

/// The routing tables are those of [`ROUTER`], where a test run is to be started.
pub fn lab() -> Result<Lab> {
    let lab = rig::lab()?;
    lab.node(ROUTER).ip_batch(&[
        "neigh replace 10.0.2.10 lladdr 02:00:00:00:01:01 dev eth0 nud permanent".into(),
        "link add tun0 type veth peer name tun0-dp".into(),
        "link set tun0 up".into(),
        "link set tun0-dp up".into(),
        "route add 10.8.0.0/16 dev tun0".into(),
    ])?;
    Ok(lab)
}

/// Gives the programs a tunnel of `format` and the interfaces of the calling thread's node.
pub fn take_part(kernel: &mut Kernel, format: Format) -> Result<()> {
    let tunnel = ifindex("tun0")?;
    let ingress = TunnelIngress {
        flags: ingress_flag::TRANSIT,
        user_ifindex: tunnel,
        ..ingress(TUNNEL, format)
    };
    kernel.add_tunnel(key(format), &ingress);
    let egress = TunnelEgress {
        underlay_ifindex: ifindex("eth0")?,
        flags: egress_flag::TRANSIT,
        ..egress(format)
    };
    kernel.set_egress_of(tunnel, &egress);
    let part = Interface {
        flags: interface_flag::LAN | interface_flag::TRANSMIT,
        mac: UNDERLAY_MACS[0],
        protected_by: 0,
    };
    // A test run's frame comes by the loopback device.
    for ifindex in [LOOPBACK, ifindex("eth0")?, ifindex("eth1")?] {
        kernel.set_interface(ifindex, part);
    }
    Ok(())
}

fn ifindex(name: &str) -> Result<u32> {
    Ok(rustix::net::netdevice::name_to_index(
        rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )?,
        name,
    )?)
}

/// A UDP packet with `payload` bytes of payload.
pub fn packet(source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
    let mut packet = inner_udp(9, &vec![0; payload]);
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&destination);
    correct_checksum(&mut packet);
    packet
}

/// Makes the checksum of an IPv4 header without options right.
pub fn correct_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = !checksum::sum(&packet[..Ipv4::LEN]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The frame in which a host of the LAN sends a packet of EtherType `protocol` to the router.
pub fn from_host(protocol: u16, packet: &[u8]) -> Vec<u8> {
    let [destination, source] = UNDERLAY_MACS;
    let ethernet = Ethernet::new(destination, source, protocol);
    [bytemuck::bytes_of(&ethernet), packet].concat()
}
