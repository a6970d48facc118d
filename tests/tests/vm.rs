//! Our tunnel beside Linux's own. Not run by default: it needs kernel modules, which the guest of
//! `cargo xtask test --vm` has.

use std::{fs, net::UdpSocket};

use anyhow::{Context as _, Result, ensure};
use router_tests::{
    agent,
    interop::{
        Case, INSIDE, INSIDE_ADDRESSES, NEAR, OURS, Outer, PATIENCE, Pair, SERVICE, TUNNEL_V4,
        TUNNEL_V6, ping, talk,
        wire::{self, Packet},
    },
    lab::Node,
    poll,
    replacing::tunnel,
};

/// How room is made for headers in what is in a tunnel already differs between kernels.
#[path = "nested.rs"]
mod nested;

const MEGABYTE: usize = 1 << 20;
/// What the pings carry in their IP headers, for the outer header to inherit.
const PING_TTL: u8 = 9;
const PING_TOS: u8 = 0x48;

/// One test for each row.
macro_rules! cases {
    ($($name:ident: $case:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check(&$case);
            }
        )*
    };
}

const IP6GRE: Case = Case {
    kind: "ip6gre",
    ..Case::GRE
};
const GRETAP: Case = Case {
    kind: "gretap",
    ..Case::GRE
};

/// What is not the default of either end.
const OUTER: Outer = Outer {
    hop_limit: 33,
    traffic_class: 0x48,
    flow_label: 0xabcde,
};

cases! {
    gre: Case::GRE;
    gre_with_a_key: Case { key: Some(0xfeed_0042), ..Case::GRE };
    gre_with_key_zero: Case { key: Some(0), ..Case::GRE };
    gre_that_inherits_ttl_and_tos: Case { inherit: true, ..Case::GRE };
    gre_with_ttl_and_tos: Case { fixed: Some(OUTER), ..Case::GRE };
    gre_with_checksums: Case { checksum: true, ..Case::GRE };
    gre_with_sequence_numbers: Case { sequence: true, ..Case::GRE };
    gre_with_everything: Case {
        key: Some(7),
        checksum: true,
        sequence: true,
        ..Case::GRE
    };
    gre_in_udp: Case { in_udp: true, ..Case::GRE };
    gre_in_udp_with_a_key: Case { in_udp: true, key: Some(7), ..Case::GRE };
    gretap: GRETAP;
    gretap_that_inherits_ttl_and_tos: Case { inherit: true, ..GRETAP };
    gretap_with_everything: Case {
        key: Some(7),
        checksum: true,
        sequence: true,
        ..GRETAP
    };
    ip6gre: Case { theirs: "encaplimit none", ..IP6GRE };
    // Linux's default: a destination option says how deep tunnels may nest (RFC 2473 §4.1.1).
    ip6gre_with_an_encapsulation_limit: IP6GRE;
    ip6gre_with_a_key: Case { key: Some(0xfeed_0042), theirs: "encaplimit none", ..IP6GRE };
    ip6gre_with_checksums: Case { checksum: true, theirs: "encaplimit none", ..IP6GRE };
    ip6gre_with_sequence_numbers: Case { sequence: true, theirs: "encaplimit none", ..IP6GRE };
    ip6gre_that_inherits: Case { inherit: true, theirs: "encaplimit none", ..IP6GRE };
    ip6gre_with_everything: Case {
        key: Some(7),
        checksum: true,
        sequence: true,
        theirs: "encaplimit none",
        ..IP6GRE
    };
    ip6gre_with_hop_limit_traffic_class_and_flow_label: Case {
        fixed: Some(OUTER),
        theirs: "encaplimit none",
        ..IP6GRE
    };
    ip6gretap: Case { kind: "ip6gretap", theirs: "encaplimit none", ..Case::GRE };
}

/// Everything that a tunnel is for, in both directions, and what the wire showed meanwhile.
fn check(case: &Case) {
    let pair = Pair::new(case).unwrap();
    pair.await_ping().unwrap();
    let capture = pair.capture().unwrap();
    let [ours, theirs] = [pair.ours(), pair.theirs()];
    let (ttl, tos) = (PING_TTL.to_string(), PING_TOS.to_string());
    let marked = ["-c2", "-i0.2", "-W5", "-t", &ttl, "-Q", &tos];
    for (from, to, there) in [(ours, theirs, 1), (theirs, ours, 0)] {
        for address in [TUNNEL_V4[there], TUNNEL_V6[there]] {
            ping(from, address, &marked).unwrap();
            talk::transfer(from, to, address, MEGABYTE).unwrap();
        }
        talk::multicast(from, to, "tun0").unwrap();
    }
    if case.is_layer_2() {
        vlan(&pair).unwrap();
    }
    let frames = capture.finish().unwrap();
    verify(&pair, case, &frames).unwrap();
    came_as_it_should(ours, case).unwrap();
}

/// By the fast path, in native mode; with checksums by the slow path.
fn came_as_it_should(ours: &Node, case: &Case) -> Result<()> {
    let words = ["show", "interfaces", "tunnel", "tun0", "--json"];
    let document: serde_json::Value = serde_json::from_str(&agent::routerctl(ours, &words)?)?;
    let status = &document["tunnels"][0];
    let count = |name: &str| {
        status[name]
            .as_u64()
            .with_context(|| format!("no {name}: {status}"))
    };
    let [mut used, mut unused] = ["rx_packets", "slow_packets"];
    if case.checksum {
        (used, unused) = (unused, used);
    }
    // A few may have come before the programs were there.
    ensure!(
        count(used)? > 100 * count(unused)?,
        "not by {used} alone: {status}"
    );
    ensure!(status["xdp_mode"] == "native", "{status}");
    Ok(())
}

/// Frames with a VLAN tag inside the tunnel.
fn vlan(pair: &Pair) -> Result<()> {
    const ADDRESSES: [&str; 2] = ["10.5.0.1", "10.5.0.2"];
    let [ours, theirs] = [pair.ours(), pair.theirs()];
    for (node, address) in [ours, theirs].into_iter().zip(ADDRESSES) {
        let mtu = node.run(|| fs::read_to_string("/sys/class/net/tun0/mtu"))??;
        // The kernel gives a VLAN the MTU of what is below, where a real Ethernet has room for the
        // tag. A tunnel has not.
        let mtu = mtu.trim().parse::<u32>()? - 4;
        node.ip_batch(&[
            "link add link tun0 name tun0.5 type vlan id 5".to_owned(),
            format!("link set tun0.5 mtu {mtu} up"),
            format!("address add {address}/24 dev tun0.5"),
        ])?;
    }
    for (from, to, there) in [(ours, theirs, 1), (theirs, ours, 0)] {
        ping(from, ADDRESSES[there], &["-c2", "-i0.2", "-W5"])?;
        talk::transfer(from, to, ADDRESSES[there], MEGABYTE)?;
    }
    Ok(())
}

/// That all packets are as the case says, and all checksums right.
fn verify(pair: &Pair, case: &Case, frames: &[Vec<u8>]) -> Result<()> {
    // What theirs sent has been through both routers.
    let mut directions = [2, 0].map(|hops| Direction {
        hops,
        packets: 0,
        sequences: Vec::new(),
    });
    for (number, frame) in frames.iter().enumerate() {
        let packet = wire::read(frame).with_context(|| format!("frame {number}"))?;
        let Some(packet) = packet else { continue };
        let direction = usize::from(pair.is_ours(packet.outer.source));
        directions[direction]
            .next(case, &packet)
            .with_context(|| format!("frame {number}: {packet:x?}"))?;
    }
    for Direction {
        packets, sequences, ..
    } in directions
    {
        ensure!(packets > 500, "only {packets} packets in one direction");
        ensure_numbered(sequences)?;
    }
    Ok(())
}

/// That each number was used once, and hardly any was left out. Their order is not looked at: on
/// their way packets overtake each other where two processors forward them.
fn ensure_numbered(mut sequences: Vec<u32>) -> Result<()> {
    let seen = sequences.len();
    sequences.sort_unstable();
    sequences.dedup();
    ensure!(sequences.len() == seen, "sequence numbers come again");
    if let [first, .., last] = sequences[..] {
        ensure!(
            usize::try_from(last - first)? < seen + seen / 10,
            "{seen} packets were numbered from {first} to {last}"
        );
    }
    Ok(())
}

/// What was seen of one of the two senders.
struct Direction {
    /// Routers between it and the capture.
    hops: u8,
    packets: usize,
    sequences: Vec<u32>,
}

impl Direction {
    fn next(&mut self, case: &Case, packet: &Packet) -> Result<()> {
        self.packets += 1;
        ensure!(packet.key == case.key, "key");
        ensure!(packet.has_checksum == case.checksum, "checksum");
        ensure!(packet.in_udp == case.in_udp, "GRE in UDP");
        ensure!(packet.sequence.is_some() == case.sequence, "sequence");
        self.sequences.extend(packet.sequence);
        if let Some(fixed) = case.fixed {
            let outer = &packet.outer;
            ensure!(outer.hop_limit + self.hops == fixed.hop_limit, "hop limit");
            ensure!(outer.traffic_class == fixed.traffic_class, "traffic class");
            ensure!(
                outer.source.is_ipv4() || outer.flow_label == fixed.flow_label,
                "flow label"
            );
        }
        if case.inherit
            && let Some(inner) = packet.inner()?
        {
            let outer = &packet.outer;
            ensure!(
                outer.traffic_class == inner.traffic_class,
                "traffic class of {inner:x?}"
            );
            let by_linux_over_ipv6 = self.hops > 0 && outer.source.is_ipv6();
            ensure!(
                by_linux_over_ipv6 || outer.hop_limit + self.hops == inner.hop_limit,
                "hop limit of {inner:x?}"
            );
        }
        Ok(())
    }
}

#[test]
fn a_bridge_joins_a_lan_with_a_gretap() {
    let case = Case {
        ours: &["parameters ip bridge-group bridge br0"],
        ..GRETAP
    };
    // The LAN and the far end are one network then: 10.254.0.0/24, without a router between.
    let pair = Pair::prepared(&case, |lab| {
        lab.node(OURS).ip_batch(&[
            "link add br0 type bridge".to_owned(),
            "link set br0 up".to_owned(),
            "link set eth1 master br0".to_owned(),
        ])?;
        lab.node(INSIDE)
            .ip_batch(&[format!("address add {}/24 dev eth0", TUNNEL_V4[0])])
    })
    .unwrap();
    let [inside, theirs] = [pair.inside(), pair.theirs()];
    poll::until(PATIENCE, || ping(inside, TUNNEL_V4[1], &["-c1", "-W2"])).unwrap();
    ping(theirs, TUNNEL_V4[0], &["-c2", "-i0.2", "-W5"]).unwrap();
    talk::transfer(inside, theirs, TUNNEL_V4[1], MEGABYTE).unwrap();
    talk::transfer(theirs, inside, TUNNEL_V4[0], MEGABYTE).unwrap();
}

/// Its checksum is none that headers around it change (RFC 9260 §6.8), and its long packets are cut in a way of their
/// own.
#[test]
fn sctp_passes() {
    for case in [Case::GRE, GRETAP] {
        let pair = Pair::new(&case).unwrap();
        pair.await_ping().unwrap();
        let [ours, theirs] = [pair.ours(), pair.theirs()];
        for (from, to, there) in [(ours, theirs, 1), (theirs, ours, 0)] {
            for address in [TUNNEL_V4[there], TUNNEL_V6[there]] {
                talk::transfer_by_sctp(from, to, address, MEGABYTE).unwrap();
            }
        }
    }
}

/// A VLAN's device has no XDP of its own: the programs run below it, and see the tags.
#[test]
fn the_underlay_is_a_vlan() {
    let pair = Pair::prepared(&Case::GRE, |lab| {
        for (name, interface, address) in [
            (OURS, "eth0", "10.0.1.10/24"),
            (NEAR, "to-ours", "10.0.1.1/24"),
        ] {
            lab.node(name).ip_batch(&[
                format!("address del {address} dev {interface}"),
                format!("link add link {interface} name vlan100 type vlan id 100"),
                "link set vlan100 up".to_owned(),
                format!("address add {address} dev vlan100"),
            ])?;
        }
        lab.node(OURS)
            .ip_batch(&["route add 10.0.0.0/16 via 10.0.1.1".to_owned()])
    })
    .unwrap();
    pair.await_ping().unwrap();
    let [ours, theirs] = [pair.ours(), pair.theirs()];
    for (from, to, there) in [(ours, theirs, 1), (theirs, ours, 0)] {
        for address in [TUNNEL_V4[there], TUNNEL_V6[there]] {
            ping(from, address, &["-c2", "-i0.2", "-W5"]).unwrap();
            talk::transfer(from, to, address, MEGABYTE).unwrap();
        }
        talk::multicast(from, to, "tun0").unwrap();
    }
}

/// The path is narrower than the tunnel believed: who sends through it learns what fits.
#[test]
fn path_mtu_reaches_the_inner_sender() {
    const NARROW: u32 = 1400;
    let pair = Pair::new(&Case::GRE).unwrap();
    pair.await_ping().unwrap();
    pair.route_to_service().unwrap();
    pair.narrow(NARROW).unwrap();
    let inside = pair.inside();
    // IPv4 and GRE headers are put before every packet, 24 bytes.
    let fits = NARROW - 24;
    for (address, headers, said) in [
        (SERVICE[0], 28, format!("mtu = {fits}")),
        (SERVICE[1], 48, format!("mtu = {fits}")),
    ] {
        let size = format!("-s{}", 1476 - headers);
        // The first tells the tunnel, a later one the host.
        poll::until(PATIENCE, || {
            let output = inside.output(&["ping", "-n", "-Mdo", "-c1", "-W2", &size, address])?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).replace("mtu=", "mtu = ");
            ensure!(text.contains(&said), "no {said:?} in {text}");
            Ok(())
        })
        .unwrap();
        let size = format!("-s{}", fits - headers);
        ping(inside, address, &["-Mdo", "-c1", "-W5", &size]).unwrap();
    }
    pair.disturb("delay 5ms loss 1%").unwrap();
    for (service, address) in SERVICE.into_iter().zip(INSIDE_ADDRESSES) {
        talk::transfer(inside, pair.theirs(), service, MEGABYTE).unwrap();
        talk::transfer(pair.theirs(), inside, address, MEGABYTE).unwrap();
    }
}

/// A link under the tunnel loses and delays packets; TCP in it gets everything across.
#[test]
fn tcp_gets_across_a_bad_link() {
    let pair = Pair::new(&Case::GRE).unwrap();
    pair.await_ping().unwrap();
    pair.disturb("delay 5ms 1ms loss 1%").unwrap();
    let [ours, theirs] = [pair.ours(), pair.theirs()];
    talk::transfer(ours, theirs, TUNNEL_V4[1], MEGABYTE).unwrap();
    talk::transfer(theirs, ours, TUNNEL_V4[0], MEGABYTE).unwrap();
}

#[test]
fn outer_fragments_are_received() {
    let case = Case {
        theirs: "nopmtudisc ignore-df ttl 64",
        ..Case::GRE
    };
    let pair = Pair::new(&case).unwrap();
    pair.await_ping().unwrap();
    pair.narrow(1400).unwrap();
    let [ours, theirs] = [pair.ours(), pair.theirs()];
    let capture = pair.capture().unwrap();
    talk::datagram(theirs, ours, TUNNEL_V4[0], 1440).unwrap();
    talk::datagram(theirs, ours, TUNNEL_V6[0], 1400).unwrap();
    talk::transfer(theirs, ours, TUNNEL_V4[0], MEGABYTE).unwrap();
    let fragments = wire::fragments(&capture.finish().unwrap()).unwrap();
    assert!(fragments > 100, "only {fragments} packets were fragments");
}

#[test]
fn outer_ip_options_are_received() {
    let pair = Pair::new(&Case::GRE).unwrap();
    pair.await_ping().unwrap();
    let receiver = pair
        .ours()
        .run(|| UdpSocket::bind((TUNNEL_V4[0], 5000)))
        .unwrap()
        .unwrap();
    let [to, from] = pair.underlay();
    let [inner_to, inner_from] = TUNNEL_V4;
    let packet = wire::with_options([from, to], [inner_from, inner_to], 5000, b"hello").unwrap();
    talk::send_raw(pair.theirs(), to, &packet).unwrap();
    talk::expect(&receiver, b"hello").unwrap();
}

/// Where the kernel has no links for TC programs (before 6.6) nothing ends with the agent by
/// itself: what an agent that died left behind must not be in its successor's way.
#[test]
fn an_agent_succeeds_one_that_died_and_leaves_nothing() {
    let mut pair = Pair::new(&Case::GRE).unwrap();
    pair.await_ping().unwrap();
    let words = ["tc", "filter", "show", "dev", "eth0", "ingress"];
    let filters = |pair: &Pair| {
        let output = pair.ours().output(&words).unwrap().stdout;
        String::from_utf8_lossy(&output).into_owned()
    };
    let ours = |text: &str| text.matches("underlay_handover").count();
    let device = |pair: &Pair| pair.ours().interface_index("tun0").unwrap();
    let before = (ours(&filters(&pair)), device(&pair));
    pair.take_agent().unwrap().kill().unwrap();
    pair.start_agent().unwrap();
    // The tunnel works all the time, so that a ping shows nothing.
    poll::until(PATIENCE, || {
        agent::routerctl(pair.ours(), &["show", "version"])
    })
    .unwrap();
    pair.await_ping().unwrap();
    // Replaced, not added beside it.
    assert_eq!((ours(&filters(&pair)), device(&pair)), before);
    assert!(pair.take_agent().unwrap().terminate().unwrap().success());
    let links = pair.ours().exec(&["ip", "-details", "link"]).unwrap();
    for trace in ["tun0", "prog/xdp"] {
        assert!(!links.contains(trace), "{trace} in {links}");
    }
    let left = filters(&pair);
    assert!(!left.contains("bpf"), "{left}");
}

/// A group whose peer never runs, and which is therefore never active.
const CLOSED: Case = Case {
    more: "set cluster interface tun0
set cluster pre-shared-secret cloudpack
set cluster group g primary ours
set cluster group g secondary theirs
set cluster group g prefer consistency
set cluster group g protect interface eth1
",
    ..Case::GRE
};

/// What is inside reaches our router and nothing behind it, and the packets are counted.
fn nothing_is_forwarded(pair: &Pair) {
    let [inside, ours] = [pair.inside(), pair.ours()];
    poll::until(PATIENCE, || ping(inside, "10.1.0.1", &["-c1", "-W2"])).unwrap();
    for (from, to) in [(inside, SERVICE[0]), (pair.theirs(), INSIDE_ADDRESSES[0])] {
        assert!(ping(from, to, &["-c3", "-i0.2", "-W1"]).is_err());
    }
    let status = agent::status(ours).unwrap();
    let fence = &status.groups[0].fence;
    assert_eq!((fence.dropped_in, fence.dropped_out), (3, 3), "{fence:?}");
    ping(inside, "10.1.0.1", &["-c1", "-W5"]).unwrap();
}

#[test]
fn what_a_closed_fence_protects_is_not_forwarded() {
    let pair = Pair::new(&CLOSED).unwrap();
    pair.await_ping().unwrap();
    pair.route_to_service().unwrap();
    nothing_is_forwarded(&pair);
}

/// Some script clears traffic control of all interfaces. From Linux 6.6 on we have no filters there, and
/// what becomes of links is in `links.rs` and `fenced_interfaces.rs`.
#[test]
fn filters_that_others_delete_come_back() {
    let pair = Pair::new(&CLOSED).unwrap();
    pair.await_ping().unwrap();
    pair.route_to_service().unwrap();
    let ours = pair.ours();
    let qdiscs = ours.exec(&["tc", "qdisc", "show", "dev", "eth0"]).unwrap();
    if !qdiscs.contains("clsact") {
        return;
    }
    for interface in ["eth0", "eth1"] {
        ours.exec(&["tc", "qdisc", "del", "dev", interface, "clsact"])
            .unwrap();
    }
    poll::until(PATIENCE, || {
        let notes = [
            tunnel(ours)?.notes,
            agent::status(ours)?.groups[0].notes.clone(),
        ];
        let words = ["our programs from its underlay", "the fence of eth1"];
        for (notes, words) in notes.iter().zip(words) {
            let words = format!("somebody detached {words}");
            ensure!(
                notes.iter().any(|note| note.contains(&words)),
                "no {words:?} in {notes:?}"
            );
        }
        Ok(())
    })
    .unwrap();
    pair.await_ping().unwrap();
    nothing_is_forwarded(&pair);
}

#[test]
fn a_member_of_a_vrf_has_a_fence_of_its_own() {
    let pair = Pair::prepared(&CLOSED, |lab| {
        lab.node(OURS).ip_batch(&[
            "link add red type vrf table 10".to_owned(),
            "link set red up".to_owned(),
            "link set eth1 master red".to_owned(),
            "route add 10.1.0.0/24 dev eth1".to_owned(),
        ])
    })
    .unwrap();
    pair.await_ping().unwrap();
    let [_, far_end] = TUNNEL_V4;
    let to_service = format!("route add {}/32 vrf red via {far_end} dev tun0", SERVICE[0]);
    pair.ours().ip_batch(&[to_service]).unwrap();
    nothing_is_forwarded(&pair);
}

#[test]
fn a_vrf_itself_cannot_be_protected() {
    let case = Case {
        more: "set cluster interface tun0
set cluster pre-shared-secret cloudpack
set cluster group g primary ours
set cluster group g secondary theirs
set cluster group g protect interface red
",
        ..Case::GRE
    };
    let mut refused = Pair::new(&Case::GRE).unwrap();
    refused.take_agent().unwrap().terminate().unwrap();
    let ours = refused.ours();
    ours.ip_batch(&["link add red type vrf table 10".to_owned()])
        .unwrap();
    let mut agent = agent::Agent::start(ours, &case.config()).unwrap();
    assert!(!agent.wait_within(PATIENCE).unwrap().success());
    let log = agent::log(ours);
    assert!(log.contains("interface red is a VRF"), "{log}");
}
