//! Every wire format of a tunnel between two agents: what passes, and what it looks like on the
//! way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytemuck::bytes_of;
use router_common::{
    gre,
    net::{
        ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet, GRE_UDP_PORT, Ipv4, Ipv6, PROTO_ICMP,
        PROTO_UDP, Udp, Vlan,
    },
    packet::Packet as _,
};
use router_tests::{
    agent,
    article::{self, CLIENT, CLOUD, ROUTERS, Router, SERVER, cloud_interface},
    capture::{self, Capture, Wrapped},
    cluster::{Cluster, Fault, PATIENCE},
    lab::Node,
    poll,
    talk::{self, Member},
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];

/// RFC 791, RFC 8200, RFC 792: bytes.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
/// A few hundred segments, even if a tunnel makes no long ones.
const TRANSFER: usize = 3 << 20;
/// More frames than any test here makes.
const ALL: u32 = 200_000;
/// Not a protocol: set aside for experiments (IEEE 802).
const EXPERIMENTAL: u16 = 0x88b5;

/// A tunnel as it is configured, and what follows for the wire.
#[derive(Clone, Copy)]
struct Format {
    encapsulation: &'static str,
    over_ipv6: bool,
    /// What else is behind `set interfaces tunnel tun00`.
    lines: &'static [&'static str],
    /// Bits of the GRE header.
    bits: u16,
    key: Option<u32>,
    /// Of outer headers and inner Ethernet header, in bytes.
    overhead: usize,
}

const GRE: Format = Format {
    encapsulation: "gre",
    over_ipv6: false,
    lines: &[],
    bits: 0,
    key: None,
    overhead: 24,
};

const GRE_OVER_IPV6: Format = Format {
    over_ipv6: true,
    overhead: 44,
    ..GRE
};

const GRE_UDP: Format = Format {
    encapsulation: "gre-udp",
    overhead: 32,
    ..GRE
};

const GRE_UDP_OVER_IPV6: Format = Format {
    over_ipv6: true,
    overhead: 52,
    ..GRE_UDP
};

const GRE_BRIDGE: Format = Format {
    encapsulation: "gre-bridge",
    overhead: 38,
    ..GRE
};

impl Format {
    fn is_udp(&self) -> bool {
        self.encapsulation == "gre-udp"
    }

    fn is_layer2(&self) -> bool {
        self.encapsulation == "gre-bridge"
    }

    fn has_sequence(&self) -> bool {
        self.bits & gre::bit::SEQUENCE != 0
    }

    /// Whether the stack hands the tunnel segments longer than the MTU.
    fn has_long_segments(&self) -> bool {
        self.bits & (gre::bit::SEQUENCE | gre::bit::CHECKSUM) == 0
    }

    fn endpoint(&self, router: Router) -> &'static str {
        if self.over_ipv6 {
            router.underlay_ipv6
        } else {
            router.underlay
        }
    }

    /// The lines for a tunnel called `name`, without addresses of its own.
    fn bare_config(&self, router: Router, name: &str) -> String {
        let mut words = vec![
            format!("encapsulation {}", self.encapsulation),
            format!("local-ip {}", self.endpoint(router)),
            format!("remote-ip {}", self.endpoint(router.peer())),
        ];
        words.extend(self.lines.iter().map(|line| (*line).to_owned()));
        words
            .iter()
            .map(|words| format!("set interfaces tunnel {name} {words}\n"))
            .collect()
    }

    fn config(&self, router: Router) -> String {
        format!(
            "set system host-name {}
set interfaces tunnel tun00 address {}/24
set interfaces tunnel tun00 address {}/64
set interfaces tunnel tun00 multicast enable
",
            router.name, router.tunnel, router.tunnel_ipv6
        ) + &self.bare_config(router, "tun00")
    }

    /// Both routers with this tunnel, once pings of both families pass.
    fn start(self) -> Cluster {
        let cluster = Cluster::start(move |router| self.config(router)).unwrap();
        await_pings(&cluster);
        cluster
    }
}

fn await_pings(cluster: &Cluster) {
    for address in [SECONDARY.tunnel, SECONDARY.tunnel_ipv6] {
        poll::until(PATIENCE, || {
            ping(cluster.node(PRIMARY), &["-c1", "-W1", address])
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    }
}

fn ping(node: &Node, arguments: &[&str]) -> Result<String> {
    node.exec(&[&["ping"], arguments].concat())
}

fn addresses(router: Router) -> [IpAddr; 2] {
    [router.tunnel, router.tunnel_ipv6].map(|address| address.parse().unwrap())
}

/// What each router sends, as the cloud gets it.
struct Wire {
    captures: [Capture; 2],
}

impl Wire {
    /// From here on, what the routers send is cut and summed before it leaves, as on a real wire.
    fn tap(cluster: &Cluster) -> Self {
        let cloud = cluster.lab.node(CLOUD);
        for router in ROUTERS {
            let off = ["ethtool", "-K", "eth0", "tx", "off"];
            cluster.node(router).exec(&off).unwrap();
            let off = ["ethtool", "-K", cloud_interface(router.name), "gro", "off"];
            cloud.exec(&off).unwrap();
        }
        let captures = ROUTERS.map(|router| {
            let filter = format!("ether src {} and {TUNNELLED}", underlay_mac(router));
            Capture::start(cloud, cloud_interface(router.name), &filter, ALL).unwrap()
        });
        Self { captures }
    }

    fn finish(self) -> [Vec<Vec<u8>>; 2] {
        self.captures.map(|capture| capture.finish().unwrap())
    }
}

const TUNNELLED: &str = "( ip proto 47 or ip6 proto 47 or udp dst port 4754 )";

fn underlay_mac(router: Router) -> &'static str {
    if router == PRIMARY {
        "02:00:00:00:01:0a"
    } else {
        "02:00:00:00:02:0a"
    }
}

fn wrapped(frames: &[Vec<u8>]) -> Vec<Wrapped<'_>> {
    frames
        .iter()
        .map(|frame| Wrapped::read(frame).unwrap_or_else(|| panic!("not as sent: {frame:02x?}")))
        .collect()
}

fn counter(node: &Node, tunnel: &str, name: &str) -> u64 {
    let words = ["show", "interfaces", "tunnel", tunnel, "--json"];
    let text = agent::routerctl(node, &words).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["tunnels"][0][name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// The counters of both routers, for messages.
fn state(cluster: &Cluster) -> String {
    ROUTERS
        .map(|router| {
            let node = cluster.node(router);
            let tunnels = agent::routerctl(node, &["show", "interfaces", "tunnel", "detail"]);
            let reasons = agent::routerctl(node, &["maps", "dump", "reasons"]);
            format!(
                "--- {} ---\n{}{}",
                router.name,
                tunnels.unwrap_or_default(),
                reasons.unwrap_or_default()
            )
        })
        .concat()
}

/// The whole of it: the device, small and full packets, TCP, multicast, and each header.
fn carries_everything(format: Format) {
    let cluster = format.start();
    the_device_is_as_configured(&cluster, format);
    let wire = Wire::tap(&cluster);
    let long = format.has_long_segments().then(|| {
        let filter = "greater 3000 and tcp";
        Capture::start(cluster.node(PRIMARY), "tun00", filter, 1).unwrap()
    });
    for router in ROUTERS {
        talks_to_its_peer(&cluster, router, format);
    }
    if let Some(mut long) = long {
        long.wait_within(PATIENCE)
            .expect("a segment longer than the MTU on the tunnel");
    }
    for (router, frames) in ROUTERS.into_iter().zip(wire.finish()) {
        let findings = capture::verify(&frames);
        assert_eq!(findings.wrong, [""; 0], "from {}", router.name);
        assert!(
            findings.tcp_segments > 2 * TRANSFER / 1500 && findings.messages > 12,
            "{findings:?}"
        );
        let packets = wrapped(&frames);
        for packet in &packets {
            has_the_headers(packet, format);
        }
        if format.has_sequence() {
            counts_up_by_one(&packets);
        }
        if format.is_udp() {
            ports_tell_flows_apart(&packets);
        }
        for name in [
            "rx_errors",
            "tx_errors",
            "rx_checksum_errors",
            "rx_ecn_errors",
        ] {
            assert_eq!(counter(cluster.node(router), "tun00", name), 0, "{name}");
        }
    }
}

fn the_device_is_as_configured(cluster: &Cluster, format: Format) {
    for router in ROUTERS {
        let words = ["ip", "-json", "-details", "link", "show", "tun00"];
        let text = cluster.node(router).exec(&words).unwrap();
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        let link = &links[0];
        assert_eq!(link["mtu"], 1500 - format.overhead);
        let flags: BTreeSet<&str> = link["flags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|flag| flag.as_str().unwrap())
            .collect();
        assert!(
            flags.contains("UP") && flags.contains("MULTICAST"),
            "{flags:?}"
        );
        // `ip` shows the flag only as this.
        assert_eq!(link["allmulti"], 1, "{text}");
        assert_eq!(flags.contains("NOARP"), !format.is_layer2(), "{flags:?}");
    }
}

fn talks_to_its_peer(cluster: &Cluster, router: Router, format: Format) {
    let (node, peer) = (cluster.node(router), cluster.node(router.peer()));
    let mtu = 1500 - format.overhead;
    for address in addresses(router.peer()) {
        let header = if address.is_ipv4() {
            IPV4_HEADER
        } else {
            IPV6_HEADER
        };
        let full = (mtu - header - ICMP_HEADER).to_string();
        let address_text = address.to_string();
        for size in ["56", "0", &full] {
            let words = ["-Mdo", "-c3", "-i0.02", "-W1", "-s", size, &address_text];
            ping(node, &words).unwrap_or_else(|error| {
                panic!("{error:#}\n{}", state(cluster));
            });
        }
        talk::transfer(node, peer, address, TRANSFER).unwrap();
    }
    for group in ["239.251.252.253", "ff15::4754"] {
        let member = Member::join(peer, "tun00", group.parse().unwrap()).unwrap();
        member.hears(node, "tun00").unwrap();
    }
}

fn has_the_headers(packet: &Wrapped<'_>, format: Format) {
    let Format {
        encapsulation: _,
        over_ipv6,
        lines: _,
        bits,
        key,
        overhead: _,
    } = format;
    assert_eq!(packet.ipv6, over_ipv6);
    assert_eq!(packet.bits, bits);
    assert_eq!(packet.key, key);
    assert!(packet.dont_fragment);
    assert_eq!(packet.ttl, if over_ipv6 { 64 } else { 255 });
    assert_eq!(packet.flow_label, 0);
    assert_eq!(packet.tos, packet.inner_tos().unwrap_or(0));
    if format.is_layer2() {
        assert_eq!(packet.header.protocol, ETH_P_TEB);
    } else {
        assert!([ETH_P_IPV4, ETH_P_IPV6].contains(&packet.header.protocol));
    }
    match packet.ports {
        None => assert!(!format.is_udp()),
        Some((source, destination)) => {
            assert!(format.is_udp());
            assert!(source >= 49_152, "port {source}");
            assert_eq!(destination, GRE_UDP_PORT);
        }
    }
}

/// Two processors may send at the same time, so the wire need not have them in order.
fn counts_up_by_one(packets: &[Wrapped<'_>]) {
    let mut numbers: Vec<u32> = packets.iter().map(|p| p.header.sequence).collect();
    numbers.sort_unstable();
    for pair in numbers.windows(2) {
        assert_eq!(pair[1], pair[0] + 1);
    }
}

/// RFC 8086 §3.1: a flow keeps its port, and several flows have several.
fn ports_tell_flows_apart(packets: &[Wrapped<'_>]) {
    let mut ports: BTreeMap<Vec<u8>, BTreeSet<u16>> = BTreeMap::new();
    for packet in packets {
        if let (Some(flow), Some((port, _))) = (echo_flow(packet), packet.ports) {
            ports.entry(flow).or_default().insert(port);
        }
    }
    assert!(ports.len() > 3, "{} flows of pings", ports.len());
    for (flow, ports) in &ports {
        assert_eq!(ports.len(), 1, "flow {flow:02x?} has ports {ports:?}");
    }
    let all: BTreeSet<_> = packets.iter().map(|packet| packet.ports).collect();
    assert!(all.len() > 3, "{all:?}");
}

/// Addresses, type and identifier of an IPv4 ping.
fn echo_flow(packet: &Wrapped<'_>) -> Option<Vec<u8>> {
    let (ETH_P_IPV4, ip) = packet.inner_ip()? else {
        return None;
    };
    let header: Ipv4 = ip.read(0)?;
    let (kind, identifier): (u8, [u8; 2]) = (ip.read(20)?, ip.read(24)?);
    (header.protocol == PROTO_ICMP).then(|| {
        [
            header.source.as_slice(),
            &header.destination,
            &[kind],
            &identifier,
        ]
        .concat()
    })
}

#[test]
fn plain_gre() {
    carries_everything(GRE);
}

#[test]
fn gre_with_a_key() {
    carries_everything(Format {
        lines: &["parameters ip key 4294967295"],
        bits: gre::bit::KEY,
        key: Some(u32::MAX),
        overhead: 28,
        ..GRE
    });
}

#[test]
fn gre_with_sequence_numbers() {
    carries_everything(Format {
        lines: &["parameters ip sequence"],
        bits: gre::bit::SEQUENCE,
        overhead: 28,
        ..GRE
    });
}

#[test]
fn gre_over_ipv6() {
    carries_everything(GRE_OVER_IPV6);
}

#[test]
fn gre_over_ipv6_with_key_and_sequence_numbers() {
    carries_everything(Format {
        lines: &["parameters ip key 0", "parameters ip sequence"],
        bits: gre::bit::KEY | gre::bit::SEQUENCE,
        key: Some(0),
        overhead: 52,
        ..GRE_OVER_IPV6
    });
}

#[test]
fn gre_in_udp() {
    carries_everything(GRE_UDP);
}

#[test]
fn gre_in_udp_with_a_key() {
    carries_everything(Format {
        lines: &["parameters ip key 7"],
        bits: gre::bit::KEY,
        key: Some(7),
        overhead: 36,
        ..GRE_UDP
    });
}

#[test]
fn gre_in_udp_over_ipv6() {
    carries_everything(GRE_UDP_OVER_IPV6);
}

#[test]
fn frames() {
    carries_everything(GRE_BRIDGE);
}

#[test]
fn frames_with_a_key() {
    carries_everything(Format {
        lines: &["parameters ip key 9"],
        bits: gre::bit::KEY,
        key: Some(9),
        overhead: 42,
        ..GRE_BRIDGE
    });
}

#[test]
fn frames_over_ipv6() {
    carries_everything(Format {
        over_ipv6: true,
        overhead: 58,
        ..GRE_BRIDGE
    });
}
