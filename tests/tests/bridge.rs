//! Two sites as one Ethernet: a bridge on each router, with a LAN port and a `gre-bridge` tunnel.

use anyhow::ensure;
use bytemuck::bytes_of;
use router_common::net::{ETH_P_IPV4, Ethernet, Ipv4, PROTO_UDP, Udp};
use router_tests::{
    agent,
    article::{self, CLIENT, ROUTERS, Router, SERVER},
    capture::{self, Capture},
    cluster::{Cluster, PATIENCE},
    format::{ALL, Format, GRE_BRIDGE, ping},
    lab::{Lab, Node},
    poll,
    talk::{self, Member},
};

/// The hosts, which are in one network.
const HOSTS: [(&str, &str, &str); 2] = [
    (CLIENT, "192.0.2.1", "2001:db8::1"),
    (SERVER, "192.0.2.2", "2001:db8::2"),
];
/// Of the frames that are made here.
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0x77, 1];
const BROADCAST: [u8; 6] = [0xff; 6];
/// Set aside for experiments (IEEE 802).
const EXPERIMENTAL: u16 = 0x88b5;
const TRANSFER: usize = 3 << 20;

fn over_ipv6() -> Format {
    Format {
        over_ipv6: true,
        overhead: 58,
        ..GRE_BRIDGE
    }
}

fn keyed() -> Format {
    Format {
        lines: &["parameters ip key 9", "parameters ip sequence"],
        overhead: 46,
        ..GRE_BRIDGE
    }
}

/// The lab with its bridges, whose hosts reach each other.
fn bridged(format: Format) -> Cluster {
    let lab = article::sites().unwrap();
    for router in ROUTERS {
        let lines = [
            "link add br0 type bridge",
            "link set br0 up",
            "link set eth1 master br0",
        ];
        let lines = lines.map(str::to_owned);
        lab.node(router.name).ip_batch(&lines).unwrap();
    }
    for (host, ipv4, ipv6) in HOSTS {
        // What is longer than a port takes a bridge drops without a word.
        let lines = [
            format!("link set eth0 mtu {}", 1500 - format.overhead),
            format!("address add {ipv4}/24 dev eth0"),
            format!("address add {ipv6}/64 dev eth0 nodad"),
        ];
        lab.node(host).ip_batch(&lines).unwrap();
    }
    let cluster = Cluster::start_in(lab, move |router: Router| {
        format!("set system host-name {}\n", router.name)
            + &format.bare_config(router, "tun00")
            + "set interfaces tunnel tun00 parameters ip bridge-group bridge br0\n"
    })
    .unwrap();
    let (_, ipv4, _) = HOSTS[1];
    poll::until(PATIENCE, || {
        ping(client(&cluster.lab), &["-c1", "-W1", ipv4])
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    cluster
}

fn client(lab: &Lab) -> &Node {
    lab.node(CLIENT)
}

/// Each host with the other.
fn directions(lab: &Lab) -> [(&Node, &Node, &'static str, &'static str); 2] {
    let [(one, one_ipv4, one_ipv6), (other, ipv4, ipv6)] = HOSTS;
    let (one, other) = (lab.node(one), lab.node(other));
    [(one, other, ipv4, ipv6), (other, one, one_ipv4, one_ipv6)]
}

fn hosts_talk(format: Format) {
    let cluster = bridged(format);
    let mtu = 1500 - format.overhead;
    for (from, to, ipv4, ipv6) in directions(&cluster.lab) {
        // ARP and neighbour discovery begin anew, with broadcasts and multicasts.
        from.exec(&["ip", "neighbour", "flush", "dev", "eth0"])
            .unwrap();
        for (address, headers) in [(ipv4, 28), (ipv6, 48)] {
            for size in ["56", "0", &(mtu - headers).to_string()] {
                let words = ["-Mdo", "-c2", "-i0.02", "-W2", "-s", size, address];
                ping(from, &words).unwrap();
            }
            let address = address.parse().unwrap();
            talk::transfer(from, to, address, TRANSFER).unwrap();
            talk::datagrams(from, to, address).unwrap();
        }
        for group in ["239.251.252.253", "ff15::4754"] {
            let member = Member::join(to, "eth0", group.parse().unwrap()).unwrap();
            member.hears(from, "eth0").unwrap();
        }
    }
}

#[test]
fn hosts_talk_over_ipv4() {
    hosts_talk(GRE_BRIDGE);
}

#[test]
fn hosts_talk_over_ipv6() {
    hosts_talk(over_ipv6());
}

#[test]
fn hosts_talk_with_key_and_sequence_numbers() {
    hosts_talk(keyed());
}

/// Without offload at the hosts, so that every segment is one of the wire.
#[test]
fn what_arrives_at_a_host_has_right_checksums() {
    let cluster = bridged(GRE_BRIDGE);
    for (node, _, _, _) in directions(&cluster.lab) {
        for feature in ["tx", "gro"] {
            node.exec(&["ethtool", "-K", "eth0", feature, "off"])
                .unwrap();
        }
    }
    let [(from, to, ipv4, ipv6), _] = directions(&cluster.lab);
    let capture = Capture::start(to, "eth0", "dst port 5001", ALL).unwrap();
    for address in [ipv4, ipv6] {
        talk::transfer_to_port(from, to, (address.parse().unwrap(), 5001), TRANSFER).unwrap();
    }
    let findings = poll::until(PATIENCE, || {
        let findings = capture::verify_plain(&capture.frames()?);
        ensure!(findings.tcp_segments > 2 * TRANSFER / 1500, "{findings:?}");
        Ok(findings)
    })
    .unwrap();
    assert_eq!(findings.wrong, [""; 0]);
}

/// A frame from nobody to everybody; `behind` the addresses: tags and type.
fn frame(behind: &[u8], payload: &[u8]) -> Vec<u8> {
    [&BROADCAST, &SOURCE, behind, payload].concat()
}

fn udp_packet() -> Vec<u8> {
    let ip = Ipv4::new(PROTO_UDP, [192, 0, 2, 7], [192, 0, 2, 255], 0, 64, 68);
    let udp = Udp::without_checksum(5000, 9, 48);
    [bytes_of(&ip), bytes_of(&udp), &[0x5a; 40]].concat()
}

/// Whatever an Ethernet may carry: the frames that go in come out, tags and all. The shortest are
/// filled up.
fn frames_pass_untouched(format: Format) {
    let [ipv4_high, ipv4_low] = ETH_P_IPV4.to_be_bytes();
    let [high, low] = EXPERIMENTAL.to_be_bytes();
    let longest = vec![0xa5; 1500 - format.overhead];
    let llc = [&[0x42, 0x42, 3], [0x11; 35].as_slice()].concat();
    let udp = udp_packet();
    let arp = [
        &[0, 1, 8, 0, 6, 4, 0, 1][..],
        &SOURCE,
        &[192, 0, 2, 7],
        &[0; 6],
        &[192, 0, 2, 8],
    ]
    .concat();
    let frames = [
        frame(&[high, low], &[1; 50]),
        frame(&[high, low], &[2; 10]),
        frame(&[high, low], &longest),
        // IEEE 802.3: a length instead of a type.
        frame(&[0, 38], &llc),
        frame(&[ipv4_high, ipv4_low], &udp),
        frame(&[8, 6], &arp),
        // VLAN 7, priority 5.
        frame(&[0x81, 0, 0xa0, 7, high, low], &[3; 50]),
        frame(&[0x81, 0, 0xa0, 7, ipv4_high, ipv4_low], &udp),
        frame(&[0x81, 0, 0xa0, 7, 8, 6], &arp),
        frame(&[0x81, 0, 0xa0, 7, 0, 38], &llc),
        // VLAN 7 in service VLAN 300.
        frame(&[0x88, 0xa8, 1, 44, 0x81, 0, 0, 7, high, low], &[4; 50]),
        frame(
            &[0x88, 0xa8, 1, 44, 0x81, 0, 0, 7, ipv4_high, ipv4_low],
            &udp,
        ),
    ];
    let cluster = bridged(format);
    for (from, to, _, _) in directions(&cluster.lab) {
        let count = u32::try_from(frames.len()).unwrap();
        let mut capture = Capture::start(to, "eth0", "ether src 02:00:00:00:77:01", count).unwrap();
        for frame in &frames {
            talk::send_frame(from, "eth0", frame).unwrap();
        }
        let result = capture.wait_within(PATIENCE);
        let mut arrived = capture.finish().unwrap();
        for sent in &frames {
            let place = arrived.iter().position(|frame| frame.starts_with(sent));
            let place = place.unwrap_or_else(|| {
                panic!(
                    "did not arrive: {:02x?}\n{}{}",
                    &sent[..sent.len().min(40)],
                    arrived
                        .iter()
                        .map(|frame| format!("arrived: {:02x?}\n", &frame[..frame.len().min(40)]))
                        .collect::<String>(),
                    agent::log(to)
                )
            });
            let padding = arrived.swap_remove(place).split_off(sent.len());
            assert!(padding.iter().all(|byte| *byte == 0) && padding.len() <= 50);
        }
        result.unwrap();
    }
}

#[test]
fn frames_of_every_kind_pass_over_ipv4() {
    frames_pass_untouched(GRE_BRIDGE);
}

#[test]
fn frames_of_every_kind_pass_over_ipv6() {
    frames_pass_untouched(over_ipv6());
}

#[test]
fn a_frame_as_short_as_no_ethernet_has_it_is_filled_up() {
    let cluster = bridged(over_ipv6());
    let [(from, to, _, _), _] = directions(&cluster.lab);
    let mut capture = Capture::start(to, "eth0", "ether src 02:00:00:00:77:01", 1).unwrap();
    let sent = [
        bytes_of(&Ethernet::new(BROADCAST, SOURCE, EXPERIMENTAL)),
        &[9],
    ]
    .concat();
    talk::send_frame(from, "eth0", &sent).unwrap();
    capture.wait_within(PATIENCE).unwrap();
    let [arrived] = &capture.finish().unwrap()[..] else {
        panic!("one frame was asked for");
    };
    assert_eq!((arrived.len(), &arrived[..15]), (60, &sent[..]));
}
