//! Between LAN and tunnel by the kernel's routing tables, which those of a lab's router are.

use anyhow::Result;
use router_common::{
    bench::{Bench, HEADERS},
    checksum,
    gre::Format,
    map::{Interface, TunnelEgress, TunnelIngress, egress_flag, ingress_flag, interface_flag},
    net::{ETH_P_IPV4, Ethernet, Ipv4},
};

use super::{FROM_LAN, INNER_PAYLOAD, Section, Subject, TO_LAN, decapsulation};
use crate::{
    bench::rig::{self, ROUTER},
    frames::{Outer, TUNNEL, UNDERLAY_MACS, inner_udp},
    kernel::{Kernel, LOOPBACK, egress, ingress, key},
};

/// On the LAN, with a neighbour entry.
const HOST: [u8; 4] = [10, 9, 0, 2];
/// Behind the tunnel.
const FAR: [u8; 4] = [10, 8, 0, 2];

/// Each packet asks the tables twice or three times: for the way back to its source, which must
/// exist, for its own, and into a tunnel for the outer packet's.
pub fn section() -> Result<Section> {
    let lab = rig::lab()?;
    let node = lab.node(ROUTER);
    node.ip_batch(&[
        "neigh replace 10.0.2.10 lladdr 02:00:00:00:01:01 dev eth0 nud permanent".into(),
        "link add tun0 type veth peer name tun0-dp".into(),
        "link set tun0 up".into(),
        "link set tun0-dp up".into(),
        "route add 10.8.0.0/16 dev tun0".into(),
    ])?;
    // The routing tables are those of the namespace that a test run is started in.
    let mut rows = node.run(|| -> Result<_> {
        let mut subjects = [
            to_lan("tunnel to LAN, IPv4", Format::default())?,
            from_lan("LAN to tunnel, IPv4", Format::default())?,
            from_lan("LAN to tunnel, IPv4, keyed", Format::KEY)?,
        ];
        decapsulation(&mut subjects)
    })??;
    rows.retain(|row| row.name.contains("LAN"));
    Ok(Section {
        title: "transit, with FIB look-up".into(),
        relative_to: "pass".into(),
        rows,
    })
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

fn packet(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
    let mut packet = inner_udp(9, &[0; INNER_PAYLOAD]);
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&destination);
    packet[10..12].fill(0);
    let sum = !checksum::sum(&packet[..Ipv4::LEN]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The programs in the lab's router: its tunnel and its LAN take part in transit.
fn router(format: Format) -> Result<Kernel> {
    let mut kernel = Kernel::for_benchmark()?;
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
    Ok(kernel)
}

fn to_lan(name: &str, format: Format) -> Result<Subject> {
    let frame = Outer::new(format).around(ETH_P_IPV4, &packet(FAR, HOST));
    let removed = i32::try_from(format.outer_length())?;
    Ok(subject(name, router(format)?, frame, removed, TO_LAN))
}

fn from_lan(name: &str, format: Format) -> Result<Subject> {
    let [destination, source] = UNDERLAY_MACS;
    let ethernet = Ethernet::new(destination, source, ETH_P_IPV4);
    let frame = [bytemuck::bytes_of(&ethernet), &packet(HOST, FAR)].concat();
    let added = i32::try_from(format.outer_length())?;
    Ok(subject(name, router(format)?, frame, -added, FROM_LAN))
}

fn subject(
    name: &str,
    kernel: Kernel,
    frame: Vec<u8>,
    removed: i32,
    program: &'static str,
) -> Subject {
    let mut headers = [0; HEADERS];
    headers.copy_from_slice(&frame[..HEADERS]);
    Subject {
        name: name.into(),
        kernel,
        frame,
        bench: Bench {
            headers,
            removed,
            number_offset: 0,
            first: 0,
            end: 1,
            next: 0,
            step: 1,
            ifindex: 0,
            padding: 0,
        },
        program,
    }
}
