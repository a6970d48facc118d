//! What the programs leave to the stack arrives all the same, within bounds.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytemuck::bytes_of;
use router_agent::{
    config::{self, Facts},
    control::protocol::TunnelStatus,
    path_mtu::icmp::{Encapsulation, PathMtu, QuotedKey},
    slow_path::{self, TOTAL_PACKETS_PER_S, TUNNEL_PACKETS_PER_S, Table},
    tunnel::{self, Surroundings, Transit},
};
use router_common::{
    checksum,
    gre::{GreBase, bit},
    net::{
        ETH_P_IPV4, ETH_P_IPV6, Ethernet, GRE_UDP_PORT, Ipv4, Ipv6, PROTO_DESTINATION_OPTIONS,
        PROTO_GRE, PROTO_UDP, Udp,
    },
};
use router_tests::{
    agent::{self, Agent},
    article::{self, CLIENT, CLOUD, ROUTERS, Router, cloud_interface},
    capture::{self, Capture},
    cluster::{Cluster, PATIENCE},
    format::{self, ALL},
    kernel::Kernel,
    lab::Node,
    poll,
    sites::{SITES, host_address, routed},
    talk,
};
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};
use serde::Deserialize;

const PORT: u16 = 5001;

fn ping(node: &Node, address: &str) -> Result<String> {
    node.exec(&["ping", "-c1", "-W1", address])
}

/// Both routers with `config`, once a ping goes through the tunnel.
fn tunnel_with(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    let [a, c] = ROUTERS;
    poll::until(PATIENCE, || ping(cluster.node(a), c.tunnel)).unwrap();
    cluster
}

fn with(lines: &'static [&'static str]) -> impl Fn(Router) -> String {
    move |router| {
        lines.iter().fold(router.tunnel_config(), |config, line| {
            config + &format!("set interfaces tunnel tun00 {line}\n")
        })
    }
}

#[derive(Deserialize)]
struct Tunnels {
    tunnels: Vec<TunnelStatus>,
}

fn tunnel_status(node: &Node, name: &str) -> Result<TunnelStatus> {
    let text = agent::routerctl(node, &["show", "interfaces", "tunnel", "--json"])?;
    let Tunnels { tunnels } = serde_json::from_str(&text)?;
    tunnels
        .into_iter()
        .find(|tunnel| tunnel.name == name)
        .with_context(|| format!("no {name} in {text}"))
}

fn counter(node: &Node, name: &str) -> u64 {
    tunnel_status(node, "tun00").unwrap().counter(name)
}

fn await_counter(node: &Node, name: &str, at_least: u64) {
    poll::until(PATIENCE, || {
        let tunnel = tunnel_status(node, "tun00")?;
        let value = tunnel.counter(name);
        ensure!(
            value >= at_least,
            "{name} is {value}: {:?}",
            tunnel.counters
        );
        Ok(())
    })
    .unwrap();
}

fn octets(address: &str) -> [u8; 4] {
    address.parse::<Ipv4Addr>().unwrap().octets()
}

/// GRE with these bits; `inner` is IPv4. A wrong checksum is wrong by one bit.
fn gre(protocol: u16, key: Option<u32>, checksum_is: Option<Checksum>, inner: &[u8]) -> Vec<u8> {
    let key_bit = key.map_or(0, |_| bit::KEY);
    let checksum_bit = checksum_is.map_or(0, |_| bit::CHECKSUM);
    let mut gre = bytes_of(&GreBase::new(key_bit | checksum_bit, protocol)).to_vec();
    if checksum_is.is_some() {
        gre.extend([0; 4]);
    }
    gre.extend(key.iter().flat_map(|key| key.to_be_bytes()));
    gre.extend(inner);
    if let Some(checksum_is) = checksum_is {
        let wrong = u16::from(checksum_is == Checksum::Wrong);
        let checksum = !checksum::sum(&gre) ^ wrong;
        gre[4..6].copy_from_slice(&checksum.to_be_bytes());
    }
    gre
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Checksum {
    Right,
    Wrong,
}

/// A UDP packet between the ends of the tunnel.
fn inner_udp(from: &str, to: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(Udp::LEN + payload.len()).unwrap();
    let udp = Udp::without_checksum(port, port, udp_length);
    let length = u16::try_from(Ipv4::LEN).unwrap() + udp_length;
    let ip = Ipv4::new(PROTO_UDP, octets(from), octets(to), 0, 64, length);
    [bytes_of(&ip), bytes_of(&udp), payload].concat()
}

/// A keepalive that comes back by the slow path has been to the far end as much as any other.
#[test]
fn keepalives_that_come_back_by_the_slow_path_keep_the_tunnel_up() {
    let cluster = Cluster::start(|router| {
        let lines = "set interfaces tunnel tun00 keepalive interval 1\n\
                     set interfaces tunnel tun00 keepalive retries 2\n";
        router.tunnel_config() + if router == ROUTERS[0] { lines } else { "" }
    })
    .unwrap();
    let [a, c] = ROUTERS;
    let node = cluster.node(a);
    let is_up = || tunnel_status(node, "tun00").unwrap().keepalive.unwrap().up;
    await_counter(node, "keepalives_heard", 1);
    article::cut_tunnel(&cluster.lab).unwrap();
    poll::until(PATIENCE, || {
        ensure!(!is_up(), "still up");
        Ok(())
    })
    .unwrap();
    let raw = Raw::open(cluster.lab.node(CLOUD));
    poll::until(PATIENCE, || {
        // With options that say nothing (RFC 791 §3.1).
        raw.send(c, &[1, 1, 1, 0], &gre(0, None, None, &[]));
        ensure!(counter(node, "slow_keepalives_heard") > 0, "not heard");
        ensure!(is_up(), "still down");
        Ok(())
    })
    .unwrap();
}

/// Sends IPv4 packets with whatever header they have.
struct Raw(OwnedFd);

impl Raw {
    fn open(node: &Node) -> Self {
        let raw = Protocol::from_raw(255.try_into().unwrap());
        let open = || {
            socket_with(
                AddressFamily::INET,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                Some(raw),
            )
        };
        Self(node.run(open).unwrap().unwrap())
    }

    /// From `from` to its peer; routers may fragment it. The kernel fills in length and checksum.
    fn send(&self, from: Router, options: &[u8], gre: &[u8]) {
        let packet = whole(from, options, gre);
        let to = SocketAddrV4::new(from.peer().underlay.parse().unwrap(), 0);
        sendto(&self.0, &packet, SendFlags::empty(), &to).unwrap();
    }
}

fn whole(from: Router, options: &[u8], gre: &[u8]) -> Vec<u8> {
    let (local, remote) = (octets(from.underlay), octets(from.peer().underlay));
    let length = u16::try_from(Ipv4::LEN + options.len() + gre.len()).unwrap();
    let outer = Ipv4::fragmentable(PROTO_GRE, local, remote, 0, 64, length, 0x1234);
    let mut packet = [bytes_of(&outer), options, gre].concat();
    packet[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    packet
}

/// A socket for GRE whose IP header the kernel writes.
fn raw_gre(node: &Node, family: AddressFamily) -> OwnedFd {
    let (ty, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    node.run(|| socket_with(family, ty, flags, Some(ipproto::GRE)))
        .unwrap()
        .unwrap()
}

/// A socket at the router's end of the tunnel.
fn receiver(node: &Node, address: &str, port: u16) -> UdpSocket {
    let socket = node
        .run(|| UdpSocket::bind((address, port)))
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2048];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn checksummed_packets_pass() {
    let cluster = tunnel_with(with(&["parameters ip checksum", "parameters ip sequence"]));
    let [a, c] = ROUTERS;
    ping(cluster.node(c), a.tunnel).unwrap();
    let mut server = Command::new("iperf3");
    server
        .args(["-s", "-1", "-B", c.tunnel])
        .stdout(Stdio::null());
    let mut server = cluster.node(c).spawn("iperf3", &mut server).unwrap();
    let client = ["iperf3", "-c", c.tunnel, "-n500K", "-b4M"];
    poll::until(PATIENCE, || cluster.node(a).exec(&client)).unwrap();
    server.wait_within(PATIENCE).unwrap();
    for router in ROUTERS {
        let tunnel = tunnel_status(cluster.node(router), "tun00").unwrap();
        assert!(tunnel.counter("slow_packets") > 10, "{tunnel:?}");
        assert_eq!(tunnel.counter("slow_checksum_errors"), 0);
        assert_eq!(tunnel.counter("rx_packets"), 0);
    }
}

#[test]
fn checksummed_frames_pass() {
    let cluster = tunnel_with(|router| {
        router
            .tunnel_config()
            .replace("encapsulation 'gre'", "encapsulation 'gre-bridge'")
            + "set interfaces tunnel tun00 parameters ip checksum\n"
    });
    for router in ROUTERS {
        let node = cluster.node(router);
        // Address resolution, and the ping.
        assert!(counter(node, "slow_packets") >= 2);
        assert_eq!(counter(node, "rx_packets"), 0);
    }
}

/// Merged by GRO, segments would have one checksum for all of them, and it would be wrong.
#[test]
fn segments_that_arrive_together_are_not_merged() {
    const CHECKSUM: &[&str] = &["parameters ip checksum"];
    segments_arrive(with(CHECKSUM));
    segments_arrive(over_ipv6(CHECKSUM));
    segments_arrive(|router| with(CHECKSUM)(router).replace("'gre'", "'gre-bridge'"));
}

fn segments_arrive(config: impl Fn(Router) -> String + 'static) {
    const LENGTH: usize = 256 << 10;
    let cluster = tunnel_with(config);
    let [a, c] = ROUTERS;
    let gro = |node: &Node, interface, state| {
        node.exec(&["ethtool", "-K", interface, "gro", state])
            .unwrap();
    };
    for router in ROUTERS {
        // As network cards have it, and veth has not. The cloud hands on what comes as it is.
        gro(cluster.node(router), "eth0", "on");
        gro(cluster.lab.node(CLOUD), cloud_interface(router.name), "off");
    }
    let address = c.tunnel.parse().unwrap();
    talk::transfer(cluster.node(a), cluster.node(c), address, LENGTH).unwrap();
    for router in ROUTERS {
        let node = cluster.node(router);
        assert_eq!(counter(node, "slow_checksum_errors"), 0);
    }
    let segments = usize::try_from(counter(cluster.node(c), "slow_packets")).unwrap();
    assert!(segments > LENGTH / 1500, "{segments}");
}

/// Packets and bytes that came by the slow path.
fn slow_traffic(node: &Node) -> [u64; 2] {
    ["slow_packets", "slow_bytes"].map(|name| counter(node, name))
}

/// On average, the packets between `before` and `after` were longer than `mtu` bytes.
fn assert_long(before: [u64; 2], after: [u64; 2], mtu: usize) {
    let [packets, bytes] = [0, 1].map(|at| after[at] - before[at]);
    let longer = packets * u64::try_from(mtu).unwrap();
    assert!(bytes > longer, "{bytes} bytes in {packets} packets");
}

/// Our way is narrow, as a router there has said; the far end's is not, and it does not know of ours.
#[test]
fn segments_that_are_longer_than_the_device_is_wide_arrive() {
    const LENGTH: usize = 256 << 10;
    const SEGMENT: usize = 1400;
    const MTU: usize = 1300;
    let cluster = tunnel_with(|router| {
        let narrow = if router == ROUTERS[0] {
            "set interfaces tunnel tun00 mtu 1300\n"
        } else {
            ""
        };
        with(&["parameters ip checksum"])(router) + narrow
    });
    let [a, c] = ROUTERS;
    let node = cluster.node(a);
    // What a host behind the router would announce.
    let announced = SEGMENT.to_string();
    let peer = [
        "ip", "route", "add", c.tunnel, "dev", "tun00", "advmss", &announced,
    ];
    node.exec(&peer).unwrap();
    let before = slow_traffic(node);
    talk::transfer(cluster.node(c), node, a.tunnel.parse().unwrap(), LENGTH).unwrap();
    assert_eq!(counter(node, "slow_too_long"), 0);
    assert_long(before, slow_traffic(node), MTU);
}

/// As above, and the host that they are for is behind us: they are cut on their way to it.
#[test]
fn segments_that_are_longer_than_the_device_is_wide_are_cut_for_a_host() {
    const LENGTH: usize = 256 << 10;
    const MTU: usize = 1300;
    for format in [format::GRE, format::GRE_OVER_IPV6, format::GRE_BRIDGE] {
        let cluster = routed(move |router| {
            let narrow = format!("set interfaces tunnel tun00 mtu {MTU}\n");
            let checksum = "set interfaces tunnel tun00 parameters ip checksum\n";
            let narrow = if router == ROUTERS[0] { &narrow } else { "" };
            format.config(router) + checksum + narrow
        });
        let [a, _] = ROUTERS;
        let [client, server] = SITES.map(|(host, _)| cluster.lab.node(host));
        // The LAN is one of real cables.
        let off = ["ethtool", "-K", "eth1", "tx", "off"];
        cluster.node(a).exec(&off).unwrap();
        for ipv6 in [false, true] {
            let before = slow_traffic(cluster.node(a));
            let lan = Capture::start(client, "eth0", "tcp dst port 5001", ALL).unwrap();
            let address = (host_address(SITES[0].1, ipv6), PORT);
            talk::transfer_to_port(server, client, address, LENGTH).unwrap();
            let context = format!("{format:?} IPv6 {ipv6}");
            poll::until(PATIENCE, || {
                let frames = lan.frames()?;
                let longest = frames.iter().map(Vec::len).max().unwrap_or_default();
                assert!(longest <= Ethernet::LEN + MTU, "{longest}: {context}");
                let findings = capture::verify_plain(&frames);
                assert_eq!(findings.wrong, [""; 0], "{context}");
                let segments = findings.tcp_segments;
                ensure!(segments > LENGTH / MTU, "{segments}: {context}");
                Ok(())
            })
            .unwrap();
            assert_long(before, slow_traffic(cluster.node(a)), MTU);
        }
        assert_eq!(counter(cluster.node(a), "slow_too_long"), 0);
    }
}

#[test]
fn a_wrong_checksum_is_dropped_and_counted() {
    let cluster = tunnel_with(with(&["parameters ip checksum"]));
    let [a, c] = ROUTERS;
    let receiver = receiver(cluster.node(a), a.tunnel, PORT);
    let raw = Raw::open(cluster.node(c));
    for (payload, checksum_is) in [(b"wrong", Checksum::Wrong), (b"right", Checksum::Right)] {
        let inner = inner_udp(c.tunnel, a.tunnel, PORT, payload);
        raw.send(c, &[], &gre(ETH_P_IPV4, None, Some(checksum_is), &inner));
    }
    assert_eq!(received(&receiver), b"right");
    assert_eq!(counter(cluster.node(a), "slow_checksum_errors"), 1);
    // None at all is for the programs to drop.
    let inner = inner_udp(c.tunnel, a.tunnel, PORT, b"none");
    raw.send(c, &[], &gre(ETH_P_IPV4, None, None, &inner));
    await_counter(cluster.node(a), "rx_checksum_errors", 1);
}

#[test]
fn outer_fragments_are_reassembled() {
    let cluster = tunnel_with(Router::tunnel_config);
    let [a, c] = ROUTERS;
    // What came before the programs were there is not of interest.
    let before = counter(cluster.node(a), "slow_packets");
    let interface = cloud_interface(a.name);
    cluster
        .lab
        .node(CLOUD)
        .exec(&["ip", "link", "set", interface, "mtu", "1000"])
        .unwrap();
    let receiver = receiver(cluster.node(a), a.tunnel, PORT);
    let payload: Vec<u8> = (0..=255).cycle().take(1400).collect();
    let inner = inner_udp(c.tunnel, a.tunnel, PORT, &payload);
    Raw::open(cluster.node(c)).send(c, &[], &gre(ETH_P_IPV4, None, None, &inner));
    assert_eq!(received(&receiver), payload);
    assert_eq!(counter(cluster.node(a), "slow_packets"), before + 1);
    assert_eq!(
        counter(cluster.node(a), "slow_bytes"),
        u64::try_from(inner.len()).unwrap()
    );
}

#[test]
fn packets_with_ip_options() {
    let cluster = tunnel_with(Router::article_config);
    let [a, c] = ROUTERS;
    let node = cluster.node(a);
    let no_operation = [1; 4];
    let raw = Raw::open(cluster.node(c));
    let receiver = receiver(node, a.tunnel, PORT);
    let inner = inner_udp(c.tunnel, a.tunnel, PORT, b"options");
    raw.send(c, &no_operation, &gre(ETH_P_IPV4, None, None, &inner));
    assert_eq!(received(&receiver), b"options");
    // What the programs answer is not for the slow path.
    let inner = inner_udp(c.tunnel, a.tunnel, 6940, b"heartbeat");
    raw.send(c, &no_operation, &gre(ETH_P_IPV4, None, None, &inner));
    await_counter(node, "slow_heartbeats", 1);
    // A keepalive, which leads back to its sender.
    let (local, remote) = (octets(a.underlay), octets(c.underlay));
    let back = Ipv4::new(PROTO_GRE, local, remote, 0, 255, 24);
    let keepalive = [bytes_of(&back), bytes_of(&GreBase::new(0, 0))].concat();
    raw.send(c, &no_operation, &gre(ETH_P_IPV4, None, None, &keepalive));
    await_counter(node, "slow_keepalives_answered", 1);
    await_counter(cluster.node(c), "keepalives_heard", 1);
}

#[test]
fn an_interface_without_programs_is_not_deaf() {
    let cluster = tunnel_with(Router::tunnel_config);
    let [a, c] = ROUTERS;
    // What came before the programs were there is not of interest.
    let before = counter(cluster.node(a), "slow_packets");
    let receiver = receiver(cluster.node(a), a.tunnel, PORT);
    // By the LAN, as if the underlay's route led there.
    let client = cluster.lab.node(CLIENT);
    client
        .exec(&["ip", "route", "add", a.underlay, "via", "10.0.0.11"])
        .unwrap();
    let inner = inner_udp(c.tunnel, a.tunnel, PORT, b"by the LAN");
    Raw::open(client).send(c, &[], &gre(ETH_P_IPV4, None, None, &inner));
    assert_eq!(received(&receiver), b"by the LAN");
    assert_eq!(counter(cluster.node(a), "slow_packets"), before + 1);
}

#[test]
fn gre_in_udp_with_a_udp_checksum() {
    let cluster = tunnel_with(|router| {
        router
            .tunnel_config()
            .replace("encapsulation 'gre'", "encapsulation 'gre-udp'")
    });
    let [a, c] = ROUTERS;
    // What came before the programs were there is not of interest.
    let before = counter(cluster.node(a), "slow_packets");
    let receiver = receiver(cluster.node(a), a.tunnel, PORT);
    let sender = cluster
        .node(c)
        .run(|| UdpSocket::bind((c.underlay, 0)))
        .unwrap()
        .unwrap();
    let inner = inner_udp(c.tunnel, a.tunnel, PORT, b"in UDP");
    let datagram = gre(ETH_P_IPV4, None, None, &inner);
    sender
        .send_to(&datagram, (a.underlay, GRE_UDP_PORT))
        .unwrap();
    assert_eq!(received(&receiver), b"in UDP");
    assert_eq!(counter(cluster.node(a), "slow_packets"), before + 1);

    // As another stack of the same machine leaves it: the field has the pseudo-header's part of the sum.
    let mut inner = inner_udp(c.tunnel, a.tunnel, PORT, b"to be summed");
    let [from, to] = [c, a].map(|end| octets(end.tunnel));
    let length = inner[Ipv4::LEN + 4..][..2].to_vec();
    let pseudo = [&from[..], &to, &[0, PROTO_UDP], &length].concat();
    let partial = checksum::sum(&pseudo).to_be_bytes();
    inner[Ipv4::LEN + 6..][..2].copy_from_slice(&partial);
    let datagram = gre(ETH_P_IPV4, None, None, &inner);
    sender
        .send_to(&datagram, (a.underlay, GRE_UDP_PORT))
        .unwrap();
    assert_eq!(received(&receiver), b"to be summed");
}

/// As [`with`], over IPv6.
fn over_ipv6(lines: &'static [&'static str]) -> impl Fn(Router) -> String {
    let over_ipv4 = with(lines);
    move |router| {
        ROUTERS.iter().fold(over_ipv4(router), |config, end| {
            config.replace(end.underlay, end.underlay_ipv6)
        })
    }
}

#[test]
fn checksums_over_ipv6() {
    let cluster = tunnel_with(over_ipv6(&["parameters ip checksum"]));
    for router in ROUTERS {
        let node = cluster.node(router);
        assert!(counter(node, "slow_packets") > 0);
        assert_eq!(counter(node, "rx_packets"), 0);
    }
}

#[test]
fn fragments_over_ipv6() {
    let cluster = tunnel_with(over_ipv6(&[]));
    let [a, c] = ROUTERS;
    // What came before the programs were there is not of interest.
    let before = counter(cluster.node(a), "slow_packets");
    // The sender fragments, with an extension header (RFC 8200 §4.5).
    let route = "route change fd00::/29 via fd00:2::1 mtu 1300".to_owned();
    cluster.node(c).ip_batch(&[route]).unwrap();
    let receiver = receiver(cluster.node(a), a.tunnel, PORT);
    let payload: Vec<u8> = (0..=255).cycle().take(1400).collect();
    let inner = inner_udp(c.tunnel, a.tunnel, PORT, &payload);
    let raw = raw_gre(cluster.node(c), AddressFamily::INET6);
    let to = SocketAddr::new(a.underlay_ipv6.parse().unwrap(), 0);
    let packet = gre(ETH_P_IPV4, None, None, &inner);
    sendto(&raw, &packet, SendFlags::empty(), &to).unwrap();
    assert_eq!(received(&receiver), payload);
    assert_eq!(counter(cluster.node(a), "slow_packets"), before + 1);
}

/// The stack knows what they ask of whom.
#[test]
fn extension_headers_of_ipv6() {
    const HOP_BY_HOP: u8 = 0;
    // With a PadN of four bytes (RFC 8200 §4.2).
    let options = |next_header| [next_header, 0, 1, 4, 0, 0, 0, 0];
    let cluster = tunnel_with(over_ipv6(&[]));
    let [a, c] = ROUTERS;
    let receiver = receiver(cluster.node(a), a.tunnel, PORT);
    for (headers, text) in [
        (vec![HOP_BY_HOP], "hop-by-hop"),
        (vec![PROTO_DESTINATION_OPTIONS], "destination"),
        (vec![HOP_BY_HOP, PROTO_DESTINATION_OPTIONS], "both"),
    ] {
        let before = counter(cluster.node(a), "slow_packets");
        let next = headers.iter().copied().skip(1).chain([PROTO_GRE]);
        let extensions: Vec<u8> = next.flat_map(options).collect();
        let inner = inner_udp(c.tunnel, a.tunnel, PORT, text.as_bytes());
        let payload = [extensions, gre(ETH_P_IPV4, None, None, &inner)].concat();
        let [from, to] = [c, a].map(|end| end.underlay_ipv6.parse::<Ipv6Addr>().unwrap().octets());
        let length = u16::try_from(payload.len()).unwrap();
        let ip = Ipv6::new(headers[0], from, to, 0, 0, 64, length);
        let ethernet = Ethernet::new([2, 0, 0, 0, 1, 10], [2, 0, 0, 0, 1, 1], ETH_P_IPV6);
        let frame = [bytes_of(&ethernet), bytes_of(&ip), &payload].concat();
        talk::send_frame(cluster.lab.node(CLOUD), cloud_interface(a.name), &frame).unwrap();
        assert_eq!(received(&receiver), text.as_bytes());
        assert_eq!(
            counter(cluster.node(a), "slow_packets"),
            before + 1,
            "{text}"
        );
    }
}

#[test]
fn gre_in_udp_over_ipv6_with_a_udp_checksum() {
    let cluster = tunnel_with(|router| {
        over_ipv6(&[])(router).replace("encapsulation 'gre'", "encapsulation 'gre-udp'")
    });
    let [a, c] = ROUTERS;
    // What came before the programs were there is not of interest.
    let before = counter(cluster.node(a), "slow_packets");
    let receiver = receiver(cluster.node(a), a.tunnel, PORT);
    let sender = cluster
        .node(c)
        .run(|| UdpSocket::bind((c.underlay_ipv6, 0)))
        .unwrap()
        .unwrap();
    let inner = inner_udp(c.tunnel, a.tunnel, PORT, b"over IPv6");
    let datagram = gre(ETH_P_IPV4, None, None, &inner);
    let to = SocketAddr::new(a.underlay_ipv6.parse().unwrap(), GRE_UDP_PORT);
    sender.send_to(&datagram, to).unwrap();
    assert_eq!(received(&receiver), b"over IPv6");
    assert_eq!(counter(cluster.node(a), "slow_packets"), before + 1);
}

#[test]
fn a_port_that_is_taken_is_told_with_the_remedy() {
    let lab = article::lab().unwrap();
    let [a, _] = ROUTERS;
    let node = lab.node(a.name);
    let _taken = receiver(node, "0.0.0.0", GRE_UDP_PORT);
    let config = a.tunnel_config().replace("'gre'", "'gre-udp'");
    let _agent = Agent::start(node, &config).unwrap();
    poll::until(PATIENCE, || {
        let log = agent::log(node);
        ensure!(log.contains("`ss -lunp sport = :4754` shows"), "{log}");
        ensure!(log.contains("Address already in use"), "{log}");
        Ok(())
    })
    .unwrap();
}

/// A router in the cloud has a narrow link behind it, and says so.
#[test]
fn words_of_routers_on_the_paths_mtu_are_passed_on() {
    const MTU: u32 = 1300;
    let lab = article::lab().unwrap();
    let [a, c] = ROUTERS;
    let far = cloud_interface(c.name);
    lab.node(CLOUD)
        .exec(&["ip", "link", "set", far, "mtu", &MTU.to_string()])
        .unwrap();
    let node = lab.node(a.name);
    let configs = [a.tunnel_config(), over_ipv6(&[])(a)];
    let tunnels = configs.map(|config| {
        let facts = Facts::of_host(a.name);
        let loaded = config::parse("router.conf", &config, &facts, false).unwrap();
        loaded.config.tunnels[0].clone()
    });
    let table = Arc::new(Table::default());
    for tunnel in &tunnels {
        let nowhere = Surroundings {
            index: 0,
            user_ifindex: 0,
            user_mac: [0; 6],
            dataplane_ifindex: 0,
            underlay_ifindex: 0,
            vlan: 0,
            mtu: 1476,
            may_fragment: false,
            transit: Transit::default(),
            heartbeat: None,
            epochs: None,
        };
        table.set(&tunnel::entries(tunnel, &nowhere));
    }
    let (sender, mut path_mtus) = tokio::sync::mpsc::channel(8);
    let epochs = Arc::new(Kernel::with_tunnels_and_session().epochs());
    let open = || slow_path::open(table, epochs, &tunnels, sender);
    let (slow_path, worker) = node.run(open).unwrap().unwrap();
    let worker = thread::spawn(|| worker.run());
    for (family, tunnel) in [AddressFamily::INET, AddressFamily::INET6]
        .into_iter()
        .zip(&tunnels)
    {
        let socket = raw_gre(node, family);
        let to = SocketAddr::new(tunnel.remote_ip, 0);
        let packet = gre(ETH_P_IPV4, None, None, &[0; 1396]);
        sendto(&socket, &packet, SendFlags::empty(), &to).unwrap();
        let path_mtu = poll::until(PATIENCE, || Ok(path_mtus.try_recv()?)).unwrap();
        let expected = PathMtu {
            local: tunnel.local_ip,
            remote: tunnel.remote_ip,
            encapsulation: Encapsulation::Gre(QuotedKey::Absent),
            mtu: MTU,
        };
        assert_eq!(path_mtu, expected);
    }
    drop(slow_path);
    worker.join().unwrap();
}

/// Sends `packets` in turn, so many each millisecond; how many went out, and in what time.
fn flood(raw: &Raw, to: SocketAddrV4, packets: &[Vec<u8>], per_ms: u32) -> (u64, Duration) {
    const FLOOD: Duration = Duration::from_secs(3);
    let start = Instant::now();
    let mut sent = 0;
    let mut turn = packets.iter().cycle();
    while start.elapsed() < FLOOD {
        let due = u64::try_from(start.elapsed().as_millis()).unwrap() * u64::from(per_ms);
        while sent < due {
            let packet = turn.next().unwrap();
            // A full queue is the flood's own trouble.
            let _ = sendto(&raw.0, packet, SendFlags::empty(), &to);
            sent += 1;
        }
        thread::sleep(Duration::from_micros(200));
    }
    (sent, start.elapsed())
}

#[test]
fn a_flood_of_slow_packets_starves_nobody() {
    const PER_MS: u32 = 60;
    const KEY: u32 = 7;
    let mut cluster = Cluster::start(|router| {
        let host = router.tunnel.rsplit_once('.').unwrap().1;
        let second = router
            .tunnel_config()
            .lines()
            .filter(|line| line.contains("tun00"))
            .map(|line| line.replace("tun00", "tun01") + "\n")
            .collect::<String>()
            .replace(router.tunnel, &format!("192.168.7.{host}"));
        router.service_config()
            + &second
            + &format!(
                "set interfaces tunnel tun01 parameters ip key {KEY}
set interfaces tunnel tun01 parameters ip checksum
set cluster keepalive-interval 10
set cluster dead-interval 40
"
            )
    })
    .unwrap();
    let [a, c] = ROUTERS;
    cluster.settle(a).unwrap();
    let epoch = cluster.group(a).unwrap().epoch;
    // Nobody reads what arrives.
    let _receiver = receiver(cluster.node(a), "192.168.7.1", PORT);
    let packets = [Checksum::Right, Checksum::Wrong].map(|checksum_is| {
        let inner = inner_udp("192.168.7.2", "192.168.7.1", PORT, &[0; 64]);
        whole(
            c,
            &[],
            &gre(ETH_P_IPV4, Some(KEY), Some(checksum_is), &inner),
        )
    });
    let to = SocketAddrV4::new(a.underlay.parse().unwrap(), 0);
    let raw = Raw::open(cluster.node(c));
    let (sent, elapsed) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&raw, to, &packets, PER_MS));
        // The agent has time for questions meanwhile.
        agent::status(cluster.node(a)).unwrap();
        flood.join().unwrap()
    });
    let tunnel = tunnel_status(cluster.node(a), "tun01").unwrap();
    let count = |name| tunnel.counter(name);
    let taken = count("slow_packets") + count("slow_checksum_errors");
    let limit = u64::from(TUNNEL_PACKETS_PER_S) * (2 + elapsed.as_secs());
    assert!(count("slow_packets") > 0 && count("slow_checksum_errors") > 0);
    assert!(taken <= limit, "{taken} of {limit}");
    assert!(count("slow_rate_limited") > 0);
    let read = taken + count("slow_rate_limited");
    let limit = u64::from(TOTAL_PACKETS_PER_S) * (2 + elapsed.as_secs());
    assert!(read <= limit, "{read} of {limit}, {sent} sent");
    assert_eq!(count("rx_packets"), 0);
    for router in ROUTERS {
        let group = cluster.group(router).unwrap();
        assert_eq!(group.epoch, epoch, "{}", cluster.logs());
    }
    cluster.settle(a).unwrap();
    cluster.take_agent(a).unwrap().terminate().unwrap();
}
