//! Every wire format of a tunnel between two agents: what passes, and what it looks like on the
//! way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
};

use anyhow::ensure;
use bytemuck::bytes_of;
use router_agent::slow_path::TUNNEL_PACKETS_PER_S;
use router_common::{
    gre,
    net::{ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet, GRE_UDP_PORT, Ipv4, Ipv6, PROTO_ICMP},
    packet::Packet as _,
};
use router_tests::{
    article::{self, CLOUD, ROUTERS, Router, cloud_interface},
    capture::{self, Capture, Wrapped},
    cluster::{Cluster, Fault, PATIENCE},
    format::{
        ALL, Format, GRE, GRE_BRIDGE, GRE_OVER_IPV6, GRE_UDP, GRE_UDP_OVER_IPV6, Wire, addresses,
        await_pings, counter, ping, state, underlay_mac, wrapped,
    },
    frames, poll,
    talk::{self, Member},
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];

/// RFC 791, RFC 8200, RFC 792: bytes.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
/// By TCP, in bytes: a few dozen of the longest segments.
const TRANSFER: usize = 3 << 20;
/// The same by the slow path. It drops what is more than it takes of a tunnel at once, so six of
/// these, each segment acknowledged, and what else is said must be less, however fast it comes.
const SLOW_TRANSFER: usize = 128 << 10;
const _: () = assert!(6 * 2 * SLOW_TRANSFER / 1280 < TUNNEL_PACKETS_PER_S as usize * 3 / 4);

/// The whole of it: the device, small and full packets, TCP, multicast, and each header.
fn carries_everything(format: Format) {
    let cluster = format.start();
    the_device_is_as_configured(&cluster, format);
    // First as between neighbours on one machine, who leave checksums and segments to each other.
    talks_to_its_peer(&cluster, PRIMARY, format);
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
    for router in ROUTERS {
        poll::until(PATIENCE, || {
            let findings = capture::verify(&wire.of(router)?);
            ensure!(
                findings.tcp_segments > 2 * transfer(format) / 1500 && findings.messages > 12,
                "{findings:?}"
            );
            Ok(())
        })
        .unwrap();
    }
    for (router, frames) in ROUTERS.into_iter().zip(wire.finish()) {
        let wrong = capture::verify(&frames).wrong;
        assert_eq!(wrong, [""; 0], "from {}", router.name);
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
            "slow_checksum_errors",
            "slow_rate_limited",
        ] {
            assert_eq!(
                counter(cluster.node(router), "tun00", name).unwrap(),
                0,
                "{name}"
            );
        }
    }
}

fn transfer(format: Format) -> usize {
    if format.has_checksum() {
        SLOW_TRANSFER
    } else {
        TRANSFER
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
        talk::transfer(node, peer, address, transfer(format)).unwrap();
        talk::datagrams(node, peer, address)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", state(cluster)));
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

const GRE_CHECKSUM: Format = Format {
    lines: &["parameters ip checksum"],
    bits: gre::bit::CHECKSUM,
    overhead: 28,
    ..GRE
};

const EVERYTHING_OVER_IPV6: Format = Format {
    lines: &[
        "parameters ip checksum",
        "parameters ip key 5",
        "parameters ip sequence",
    ],
    bits: gre::bit::CHECKSUM | gre::bit::KEY | gre::bit::SEQUENCE,
    key: Some(5),
    overhead: 56,
    ..GRE_OVER_IPV6
};

/// Every length from nothing to what fills the tunnel, by UDP, one way.
#[test]
fn checksums_are_sent() {
    for format in [GRE_CHECKSUM, EVERYTHING_OVER_IPV6] {
        let cluster = Cluster::start(move |router| format.config(router)).unwrap();
        // A packet counted means that the tunnel is set up, one answered that the next hop is known.
        poll::until(PATIENCE, || {
            let node = cluster.node(PRIMARY);
            ping(node, &["-c1", "-W1", format.endpoint(SECONDARY)])?;
            let _ = ping(node, &["-c1", "-W0.1", SECONDARY.tunnel]);
            ensure!(counter(node, "tun00", "tx_packets")? > 0, "none sent");
            Ok(())
        })
        .unwrap();
        let wire = Wire::tap(&cluster);
        let socket = cluster
            .node(PRIMARY)
            .run(|| UdpSocket::bind((PRIMARY.tunnel, 0)))
            .unwrap()
            .unwrap();
        let longest = 1500 - format.overhead - IPV4_HEADER - 8;
        let lengths = (0..300).chain(longest - 300..=longest);
        for length in lengths.clone() {
            let payload: Vec<u8> = (0..length)
                .map(|byte| byte.to_le_bytes()[0] ^ 0x5a)
                .collect();
            socket.send_to(&payload, (SECONDARY.tunnel, 9)).unwrap();
        }
        let frames = poll::until(PATIENCE, || {
            let frames = wire.of(PRIMARY)?;
            let (count, all) = (capture::verify(&frames).messages, lengths.clone().count());
            ensure!(count >= all, "{count} of {all}");
            Ok(frames)
        })
        .unwrap();
        assert_eq!(capture::verify(&frames).wrong, [""; 0]);
        for packet in &wrapped(&frames) {
            has_the_headers(packet, format);
        }
    }
}

#[test]
fn gre_with_checksums() {
    carries_everything(GRE_CHECKSUM);
}

#[test]
fn gre_over_ipv6_with_everything() {
    carries_everything(EVERYTHING_OVER_IPV6);
}

/// Tunnels between the same addresses: their number is the third part of their addresses.
const TUNNELS: [Format; 5] = [
    GRE,
    Format {
        lines: &["parameters ip key 1"],
        key: Some(1),
        ..GRE
    },
    Format {
        lines: &["parameters ip key 2", "parameters ip sequence"],
        key: Some(2),
        ..GRE
    },
    Format {
        lines: &["parameters ip key 1"],
        key: Some(1),
        ..GRE_UDP
    },
    Format {
        lines: &["parameters ip key 3"],
        key: Some(3),
        ..GRE_BRIDGE
    },
];

fn address_in(router: Router, tunnel: usize) -> String {
    let host = if router == PRIMARY { 1 } else { 2 };
    format!("169.254.{tunnel}.{host}")
}

#[test]
fn tunnels_between_the_same_addresses_are_told_apart() {
    for over_ipv6 in [false, true] {
        let tunnels = TUNNELS.map(|tunnel| Format {
            over_ipv6,
            ..tunnel
        });
        let cluster = Cluster::start(move |router| {
            let lines = tunnels.iter().enumerate().map(|(number, tunnel)| {
                let name = format!("tun{number}");
                let address = address_in(router, number);
                tunnel.bare_config(router, &name)
                    + &format!("set interfaces tunnel {name} address {address}/24\n")
            });
            format!("set system host-name {}\n", router.name) + &lines.collect::<String>()
        })
        .unwrap();
        for number in 0..tunnels.len() {
            let peer = address_in(SECONDARY, number);
            poll::until(PATIENCE, || {
                ping(cluster.node(PRIMARY), &["-c1", "-W1", &peer])
            })
            .unwrap();
        }
        let wire = Wire::tap(&cluster);
        let received = || {
            [0, 1, 2, 3, 4].map(|number| {
                counter(
                    cluster.node(SECONDARY),
                    &format!("tun{number}"),
                    "rx_packets",
                )
                .unwrap()
            })
        };
        let before = received();
        for number in 0..tunnels.len() {
            let peer = address_in(SECONDARY, number);
            let count = format!("-c{}", 10 * (number + 1));
            ping(cluster.node(PRIMARY), &[&count, "-i0.01", "-W1", &peer]).unwrap();
        }
        for (number, (before, after)) in before.into_iter().zip(received()).enumerate() {
            let pings = 10 * (u64::try_from(number).unwrap() + 1);
            // And a little of what a host says by itself.
            let more = after - before;
            assert!((pings..pings + 10).contains(&more), "tun{number}: {more}");
        }
        for frames in wire.finish() {
            for packet in wrapped(&frames) {
                let Some((ETH_P_IPV4, ip)) = packet.inner_ip() else {
                    continue;
                };
                let header: Ipv4 = ip.read(0).unwrap();
                let tunnel = tunnels[usize::from(header.destination[2])];
                assert_eq!(packet.key, tunnel.key);
                assert_eq!(packet.ports.is_some(), tunnel.is_udp());
            }
        }
    }
}

/// What the primary sends for `arguments` of `ping`, without the answers.
fn pings_on_the_wire(cluster: &Cluster, arguments: &[&str]) -> Vec<Vec<u8>> {
    let filter = format!("ether src {}", underlay_mac(PRIMARY));
    let interface = cloud_interface(PRIMARY.name);
    let capture = Capture::start(cluster.lab.node(CLOUD), interface, &filter, ALL).unwrap();
    ping(
        cluster.node(PRIMARY),
        &[&["-c2", "-i0.02", "-W1"], arguments].concat(),
    )
    .unwrap();
    poll::until(PATIENCE, || {
        let mut frames = capture.frames()?;
        frames.retain(|frame| Wrapped::read(frame).is_some_and(|packet| is_echo_request(&packet)));
        ensure!(frames.len() >= 2, "{} frames", frames.len());
        Ok(frames)
    })
    .unwrap()
}

fn is_echo_request(packet: &Wrapped<'_>) -> bool {
    let kind = |offset: usize, kind: u8| {
        packet
            .inner_ip()
            .is_some_and(|(_, ip)| ip.get(offset) == Some(&kind))
    };
    match packet.inner_ip() {
        Some((ETH_P_IPV4, _)) => kind(9, PROTO_ICMP) && kind(IPV4_HEADER, 8),
        Some((ETH_P_IPV6, _)) => kind(6, 58) && kind(IPV6_HEADER, 128),
        _ => false,
    }
}

#[test]
fn the_outer_header_is_fixed_or_inherited() {
    let fixed = ["parameters ip ttl 17", "parameters ip tos 32"];
    let inherited = ["parameters ip ttl inherit", "parameters ip tos inherit"];
    let fixed_ipv6 = [
        "parameters ipv6 hoplimit 17",
        "parameters ipv6 tclass 0x20",
        "parameters ipv6 flowlabel 0x12345",
    ];
    let inherited_ipv6 = [
        "parameters ipv6 hoplimit inherit",
        "parameters ipv6 tclass inherit",
        "parameters ipv6 flowlabel inherit",
    ];
    for (format, lines, is_fixed) in [
        (GRE, &fixed[..], true),
        (GRE_UDP, &inherited, false),
        (GRE_BRIDGE, &inherited, false),
        (GRE_OVER_IPV6, &fixed_ipv6, true),
        (GRE_UDP_OVER_IPV6, &inherited_ipv6, false),
    ] {
        let lines: &'static [&'static str] = lines.to_vec().leak();
        let cluster = Format { lines, ..format }.start();
        for (address, ipv6) in [(SECONDARY.tunnel, false), (SECONDARY.tunnel_ipv6, true)] {
            // DSCP EF, and that a router may mark congestion (RFC 3168: ECT(0)).
            let mut words = vec!["-Q", "0xba", "-t", "9"];
            if ipv6 {
                words.extend(["-F", "0x54321"]);
            }
            words.push(address);
            for frame in pings_on_the_wire(&cluster, &words) {
                let packet = Wrapped::read(&frame).unwrap();
                assert_eq!(packet.inner_tos(), Some(0xba));
                let expected = if is_fixed { (17, 0x22) } else { (9, 0xba) };
                assert_eq!((packet.ttl, packet.tos), expected, "{format:?}");
                let label = match (format.over_ipv6, is_fixed, ipv6) {
                    (true, true, _) => 0x12345,
                    (true, false, true) => 0x54321,
                    _ => 0,
                };
                assert_eq!(packet.flow_label, label, "{format:?}");
            }
        }
    }
}

/// RFC 6040 §4.2: what a router on the way marks reaches the inner packet, and a packet whose
/// sender would not understand the mark is dropped.
#[test]
fn congestion_marked_on_the_way_arrives() {
    const NOT_ECT: &str = "0xb8";
    const ECT_0: &str = "0xba";
    for format in [
        GRE,
        GRE_OVER_IPV6,
        GRE_UDP,
        GRE_UDP_OVER_IPV6,
        GRE_BRIDGE,
        Format {
            over_ipv6: true,
            ..GRE_BRIDGE
        },
    ] {
        let cluster = format.start();
        let mut dropped = 0;
        for address in [SECONDARY.tunnel, SECONDARY.tunnel_ipv6] {
            let [frame, ..] = &pings_on_the_wire(&cluster, &["-Q", ECT_0, address])[..] else {
                panic!("no frame");
            };
            let arrived = arrivals(&cluster, &[congested(frame)]);
            assert_eq!(arrived, [0xbb], "{format:?} {address}");
            let [frame, ..] = &pings_on_the_wire(&cluster, &["-Q", NOT_ECT, address])[..] else {
                panic!("no frame");
            };
            // The first does not arrive, or it would be the one that is seen.
            let arrived = arrivals(&cluster, &[congested(frame), frame.clone()]);
            assert_eq!(arrived, [0xb8], "{format:?} {address}");
            dropped += 1;
            let errors = counter(cluster.node(SECONDARY), "tun00", "rx_ecn_errors").unwrap();
            assert_eq!(errors, dropped, "{format:?} {address}");
        }
    }
}

/// The frame as a router hands it on that has more to send than it can.
fn congested(frame: &[u8]) -> Vec<u8> {
    const CE: u8 = 3;
    let mut frame = frame.to_vec();
    let packet = &mut frame[Ethernet::LEN..];
    if packet[0] >> 4 == 4 {
        let outer: Ipv4 = packet.read(0).unwrap();
        packet[..Ipv4::LEN].copy_from_slice(bytes_of(&outer.with_tos(outer.tos | CE)));
    } else {
        let outer: Ipv6 = packet.read(0).unwrap();
        let outer = outer.with_traffic_class(outer.traffic_class() | CE);
        packet[..Ipv6::LEN].copy_from_slice(bytes_of(&outer));
    }
    frame
}

/// Sends frames of the primary to the secondary once more; type of service or traffic class of the
/// first ping that comes out of its tunnel, whose checksums must be right.
fn arrivals(cluster: &Cluster, frames: &[Vec<u8>]) -> Vec<u8> {
    let filter = "icmp[icmptype] == icmp-echo or icmp6[icmp6type] == icmp6-echo";
    let node = cluster.node(SECONDARY);
    let mut capture = Capture::start(node, "tun00", filter, 1).unwrap();
    for frame in frames {
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 2, 10]);
        let interface = cloud_interface(SECONDARY.name);
        talk::send_frame(cluster.lab.node(CLOUD), interface, &frame).unwrap();
    }
    capture
        .wait_within(PATIENCE)
        .unwrap_or_else(|error| panic!("{error}\n{}", state(cluster)));
    let arrived = capture.finish().unwrap();
    assert_eq!(capture::verify_plain(&arrived).wrong, [""; 0]);
    let tos = |frame: &Vec<u8>| match capture::ip_of_frame(frame)? {
        (ETH_P_IPV4, ip) => Some(ip.read::<Ipv4>(0)?.tos),
        (_, ip) => Some(ip.read::<Ipv6>(0)?.traffic_class()),
    };
    arrived.iter().filter_map(tos).collect()
}

/// A tunnel of packets has no place for a VLAN's tag, which must not come out on the underlay.
#[test]
fn a_vlan_on_a_layer_3_tunnel_is_refused() {
    let cluster = GRE.start();
    let node = cluster.node(PRIMARY);
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 5]].concat();
    frame.extend([0x81, 0, 0, 5, 8, 0]);
    frame.extend(frames::inner_udp(9, &[0; 32]));
    talk::send_frame(node, "tun00", &frame).unwrap();
    poll::until(PATIENCE, || {
        ensure!(counter(node, "tun00", "tx_unsupported")? > 0, "not counted");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_tunnel_without_multicast_takes_none() {
    let cluster = Cluster::start(|router| {
        let config = GRE.config(router);
        config.replace("multicast enable", "multicast disable")
    })
    .unwrap();
    await_pings(&cluster);
    let words = ["ip", "-json", "-details", "link", "show", "tun00"];
    let text = cluster.node(PRIMARY).exec(&words).unwrap();
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(links[0]["allmulti"], 0, "{text}");
    let flags = links[0]["flags"].as_array().unwrap();
    assert!(!flags.contains(&"MULTICAST".into()), "{flags:?}");
}

/// A host that joins a group says so to the routers of each network, also of a tunnel.
#[test]
fn joins_of_multicast_groups_go_through_the_tunnel() {
    for format in [GRE, GRE_UDP_OVER_IPV6, GRE_BRIDGE] {
        let cluster = format.start();
        let wire = Wire::tap(&cluster);
        let node = cluster.node(SECONDARY);
        let members = ["239.1.2.3", "ff15::1:2:3"]
            .map(|group| Member::join(node, "tun00", group.parse().unwrap()).unwrap());
        let heard = cluster.node(PRIMARY);
        for member in &members {
            member.hears(heard, "tun00").unwrap();
        }
        // Reports are sent after a while that is drawn at random (RFC 3376 §5.1, RFC 3810 §6.1).
        let frames = poll::until(PATIENCE, || {
            let frames = wire.of(SECONDARY)?;
            let reports = reports(&wrapped(&frames));
            ensure!(!reports.contains(&0), "{reports:?} reports");
            Ok(frames)
        })
        .unwrap();
        assert_eq!(capture::verify(&frames).wrong, [""; 0]);
    }
}

/// How many packets report membership of the test's groups, by IGMP and by MLD.
fn reports(packets: &[Wrapped<'_>]) -> [usize; 2] {
    const IGMP: u8 = 2;
    const GROUP: [u8; 4] = [239, 1, 2, 3];
    const GROUP_IPV6: [u8; 16] = [0xff, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 3];
    // RFC 3376 §4.2: type 0x22, after an IPv4 header with the router alert option.
    let is_igmp =
        |ip: &[u8]| ip[9] == IGMP && ip[24] == 0x22 && ip.windows(4).any(|bytes| bytes == GROUP);
    // RFC 3810 §5.2: ICMPv6 type 143, after a hop-by-hop header of 8 bytes.
    let is_mld =
        |ip: &[u8]| ip[6] == 0 && ip[48] == 143 && ip.windows(16).any(|bytes| bytes == GROUP_IPV6);
    let count = |wanted: u16, is_report: &dyn Fn(&[u8]) -> bool| {
        packets
            .iter()
            .filter_map(Wrapped::inner_ip)
            .filter(|(ether_type, ip)| *ether_type == wanted && is_report(ip))
            .count()
    };
    [count(ETH_P_IPV4, &is_igmp), count(ETH_P_IPV6, &is_mld)]
}

fn with_services(format: Format) -> Cluster {
    let cluster =
        Cluster::start(move |router| format.config(router) + &article::service_cluster_config())
            .unwrap();
    cluster.settle(PRIMARY).unwrap();
    cluster
}

fn forms_a_cluster_and_fails_over(format: Format) {
    let mut cluster = with_services(format);
    cluster.inject(Fault::KillNode, PRIMARY).unwrap();
    cluster.await_active(SECONDARY, PATIENCE).unwrap();
    cluster.heal(Fault::KillNode, PRIMARY).unwrap();
    cluster.settle(PRIMARY).unwrap();
    cluster.inject(Fault::CutTunnel, PRIMARY).unwrap();
    for router in ROUTERS {
        cluster.await_active(router, PATIENCE).unwrap();
    }
    cluster.heal(Fault::CutTunnel, PRIMARY).unwrap();
    cluster.settle(PRIMARY).unwrap();
}

#[test]
fn a_cluster_over_gre_in_udp_forms_and_fails_over() {
    forms_a_cluster_and_fails_over(GRE_UDP);
}

#[test]
fn a_cluster_over_ipv6_forms_and_fails_over() {
    forms_a_cluster_and_fails_over(GRE_OVER_IPV6);
}
