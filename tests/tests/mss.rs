//! The segment size that TCP announces through a tunnel, for hosts behind the routers and for the
//! routers themselves.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::ensure;
use router_common::{
    net::{ETH_P_IPV4, PROTO_TCP},
    packet::Packet as _,
};
use router_tests::{
    article::{CLOUD, ROUTERS, Router, cloud_interface},
    capture::{self, Capture},
    cluster::{Cluster, PATIENCE},
    format::{ALL, Format, GRE, GRE_UDP_OVER_IPV6, await_pings, ping},
    lab::Node,
    poll,
    sites::{SITES, host_address, routed},
    talk,
};

const TRANSFER: usize = 1 << 20;
const PORT: u16 = 5001;
const AUTO: &str = "set interfaces tunnel tun00 parameters ip adjust-mss auto\n";

/// Both routers with such a tunnel, and the primary with `lines`.
fn adjusted(format: Format, lines: &'static str) -> impl Fn(Router) -> String {
    move |router| {
        let config = format.config(router);
        if router == ROUTERS[0] {
            config + lines
        } else {
            config
        }
    }
}

/// Segment size that a SYN announces (RFC 9293 §3.2: option 2), and whether it is an answer.
fn announced(frame: &[u8]) -> Option<(bool, u16)> {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let (ether_type, ip) = capture::ip_of_frame(frame)?;
    let (protocol, header) = if ether_type == ETH_P_IPV4 {
        (ip.read::<u8>(9)?, 20)
    } else {
        (ip.read::<u8>(6)?, 40)
    };
    let flags: u8 = ip.read(header + 13)?;
    if protocol != PROTO_TCP || flags & SYN == 0 {
        return None;
    }
    let end = header + usize::from(ip.read::<u8>(header + 12)? >> 4) * 4;
    let mut option = header + 20;
    while option < end {
        match ip.read::<u8>(option)? {
            1 => option += 1,
            2 => return Some((flags & ACK != 0, u16::from_be_bytes(ip.read(option + 2)?))),
            _ => option += usize::from(ip.read::<u8>(option + 1)?.max(2)),
        }
    }
    None
}

/// What the two ends of a TCP connection hear from each other: the listener of the SYN, and the
/// other of its answer.
fn connection(from: &Node, from_if: &str, to: &Node, to_if: &str, address: IpAddr) -> (u16, u16) {
    let filter = format!("port {PORT}");
    let [at_listener, at_caller] = [(to, to_if), (from, from_if)]
        .map(|(node, interface)| Capture::start(node, interface, &filter, ALL).unwrap());
    talk::transfer_to_port(from, to, (address, PORT), TRANSFER).unwrap();
    let heard = |capture: &Capture, is_answer: bool| {
        poll::until(PATIENCE, || {
            let frames = capture.frames()?;
            let sizes: BTreeSet<u16> = frames
                .iter()
                .filter_map(|frame| announced(frame))
                .filter(|(answer, _)| *answer == is_answer)
                .map(|(_, size)| size)
                .collect();
            ensure!(sizes.len() == 1, "sizes {sizes:?}");
            let syns: Vec<_> = frames
                .into_iter()
                .filter(|frame| announced(frame).is_some_and(|(answer, _)| answer == is_answer))
                .collect();
            Ok((syns, sizes.first().copied().unwrap_or_default()))
        })
        .unwrap()
    };
    let (syns, syn) = heard(&at_listener, false);
    let (answers, answer) = heard(&at_caller, true);
    for frames in [syns, answers] {
        assert_eq!(capture::verify_plain(&frames).wrong, [""; 0]);
    }
    (syn, answer)
}

/// Segment sizes with IPv4 and with IPv6 that each end hears, in both directions.
fn between_hosts(format: Format, lines: &'static str, expected: [u16; 2]) {
    let cluster = routed(adjusted(format, lines));
    let [client, server] = SITES.map(|(host, _)| cluster.lab.node(host));
    // First with checksums that are still to be completed when they pass the tunnel.
    for ipv6 in [false, true] {
        let address = host_address(SITES[1].1, ipv6);
        talk::transfer(client, server, address, TRANSFER).unwrap();
    }
    hosts_hear(&cluster, expected);
}

/// Segment sizes with IPv4 and with IPv6 that each host hears of the other, whoever calls.
fn hosts_hear(cluster: &Cluster, expected: [u16; 2]) {
    let [client, server] = SITES.map(|(host, _)| cluster.lab.node(host));
    for host in [client, server] {
        host.exec(&["ethtool", "-K", "eth0", "tx", "off"]).unwrap();
    }
    for (from, to, (_, site)) in [(client, server, SITES[1]), (server, client, SITES[0])] {
        for (ipv6, expected) in [false, true].into_iter().zip(expected) {
            let address = host_address(site, ipv6);
            // Who has learned the path's MTU announces less by itself.
            for host in [client, server] {
                for family in ["-4", "-6"] {
                    host.exec(&["ip", family, "route", "flush", "cache"])
                        .unwrap();
                }
            }
            let heard = connection(from, "eth0", to, "eth0", address);
            assert_eq!(heard, (expected, expected), "to {address}");
        }
    }
}

#[test]
fn without_adjust_mss_hosts_hear_each_other() {
    between_hosts(GRE, "", [1460, 1440]);
}

#[test]
fn hosts_are_told_what_fits_the_tunnel() {
    between_hosts(GRE, AUTO, [1476 - 40, 1476 - 60]);
}

/// A router on the path has said that it is narrow.
#[test]
fn hosts_are_told_what_fits_the_path() {
    const PATH_MTU: u16 = 1400;
    let cluster = routed(adjusted(GRE, AUTO));
    let [a, c] = ROUTERS;
    let narrow = PATH_MTU.to_string();
    let words = ["ip", "link", "set", cloud_interface(c.name), "mtu", &narrow];
    cluster.lab.node(CLOUD).exec(&words).unwrap();
    let mtu = PATH_MTU - 24;
    poll::until(PATIENCE, || {
        let node = cluster.node(a);
        // Too long for the path, so it does not come back.
        let _ = ping(node, &["-c1", "-W1", "-Mdo", "-s1440", c.tunnel]);
        let link = node.exec(&["ip", "link", "show", "tun00"])?;
        ensure!(link.contains(&format!("mtu {mtu} ")), "{link}");
        Ok(())
    })
    .unwrap();
    hosts_hear(&cluster, [mtu - 40, mtu - 60]);
}

#[test]
fn hosts_are_told_a_fixed_size_also_in_udp_over_ipv6() {
    let lines = "set interfaces tunnel tun00 parameters ip adjust-mss 1000\n";
    between_hosts(GRE_UDP_OVER_IPV6, lines, [1000, 1000]);
}

#[test]
fn a_size_that_is_too_large_changes_nothing() {
    let lines = "set interfaces tunnel tun00 parameters ip adjust-mss 9000\n";
    between_hosts(GRE, lines, [1460, 1440]);
}

#[test]
fn the_routers_own_connections_are_told_too() {
    let lines = "set interfaces tunnel tun00 parameters ip adjust-mss 1000\n";
    let cluster = Cluster::start(adjusted(GRE, lines)).unwrap();
    await_pings(&cluster);
    for router in ROUTERS {
        let off = ["ethtool", "-K", "tun00", "tx", "off"];
        cluster.node(router).exec(&off).unwrap();
    }
    for router in ROUTERS {
        let [from, to] = [router, router.peer()].map(|router| cluster.node(router));
        for address in router_tests::format::addresses(router.peer()) {
            // At the primary's own end a packet is seen before it is changed on its way out, and
            // after it on its way in.
            let heard = connection(from, "tun00", to, "tun00", address);
            assert_eq!(heard, (1000, 1000), "to {address}");
        }
    }
}
