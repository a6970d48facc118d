//! Forwarding between LAN and tunnel without the stack, and that nobody can tell but by the
//! counters. The client reaches the server through both routers:
//! client, vyatta-a, tunnel, vyatta-c, server.

use std::{
    fs,
    net::UdpSocket,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::{InterfaceRole, InterfaceStatus, LogLine};
use router_tests::{
    agent::{self, Agent},
    article::{
        self, CLIENT, CLIENT_ADDRESS, CLOUD, ROUTERS, Router, SERVER, SERVER_ADDRESS,
        cloud_interface,
    },
    capture::{self, Capture},
    cluster::PATIENCE,
    lab::Node,
    poll,
    traffic::Traffic,
    transit::{BOTH, FAST, Network, SERVER6, SLOW, turn_offloads_off},
};
use serde::Deserialize;

/// `routerctl show interfaces --json`.
#[derive(Deserialize)]
struct Interfaces {
    interfaces: Vec<InterfaceStatus>,
}

/// TCP from the client to `server` for a second, or the other way round.
fn iperf3(network: &Network, server: &str, reverse: Option<&str>) {
    let mut listener = Command::new("iperf3");
    listener
        .args(["-s", "-1", "-B", server])
        .stdout(Stdio::null());
    let mut listener = network.node(SERVER).spawn("iperf3", &mut listener).unwrap();
    let mut words = vec!["iperf3", "-c", server, "-t1", "-b50M"];
    words.extend(reverse);
    poll::until(PATIENCE, || network.node(CLIENT).exec(&words)).unwrap();
    listener.wait_within(PATIENCE).unwrap();
}

/// Checksum errors that the transport protocols of a host counted (RFC 4113, RFC 4022).
fn checksum_errors(node: &Node) -> u64 {
    let words = [
        "nstat",
        "-asz",
        "TcpInCsumErrors",
        "UdpInCsumErrors",
        "IcmpInCsumErrors",
    ];
    let text = node.exec(&words).unwrap();
    let counts = text
        .lines()
        .filter(|line| line.contains("CsumErrors"))
        .map(|line| {
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        });
    let counts: Vec<_> = counts.collect();
    assert_eq!(counts.len(), 3, "{text}");
    counts.iter().sum()
}

#[test]
fn packets_pass_by_the_stack_both_ways() {
    let network = Network::start(FAST);
    let on_wire = ROUTERS.map(|router| {
        let filter = format!("ip proto 47 and src host {}", router.underlay);
        let interface = cloud_interface(router.name);
        Capture::start(network.node(CLOUD), interface, &filter, 100_000).unwrap()
    });
    all_pings_pass_by(&network, "plain");
    for [_, server] in BOTH {
        for reverse in [None, Some("--reverse")] {
            let growth = network.transit_during(|| iperf3(&network, server, reverse));
            let fewest = growth.as_flattened().iter().min().unwrap();
            assert!(*fewest > 100, "{growth:?}");
        }
    }
    for capture in on_wire {
        let findings = capture::verify(&capture.finish().unwrap());
        assert_eq!(findings.wrong, [""; 0]);
        assert!(findings.tcp_segments > 100, "{findings:?}");
    }
    for host in [CLIENT, SERVER] {
        assert_eq!(checksum_errors(network.node(host)), 0, "{host}");
    }
    // What passes by is counted as a packet of the tunnel, too.
    for [all, transit] in [["rx_packets", "rx_transit"], ["tx_packets", "tx_transit"]] {
        let (all, transit) = (network.counters(all), network.counters(transit));
        assert!(
            all[0] >= transit[0] && all[1] >= transit[1],
            "{all:?} {transit:?}"
        );
    }
}

/// Who answers pings with TTLs from 1 on, as `traceroute` would show.
fn hops(network: &Network, server: &str) -> Vec<String> {
    (1..=4)
        .map(|ttl| {
            let ttl = ttl.to_string();
            // It fails where the TTL is exceeded.
            let words = ["ping", "-n", "-c1", "-W2", "-t", &ttl, server];
            let output = network.node(CLIENT).output(&words).unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().nth(1).unwrap_or_default();
            // Without the round-trip time.
            line.split(" time=").next().unwrap_or_default().to_owned()
        })
        .collect()
}

/// What a client sees of the way: hops, MTU, fragments, the routers themselves.
fn sights(network: &Network) -> Vec<String> {
    let mut sights = Vec::new();
    for [_, server] in BOTH {
        sights.extend(hops(network, server));
    }
    // 1476 bytes is the tunnel's MTU; 28 and 48 are IP's and ICMP's headers.
    for (server, length) in [
        (SERVER_ADDRESS, "1448"),
        (SERVER_ADDRESS, "1449"),
        (SERVER6, "1428"),
        (SERVER6, "1429"),
    ] {
        let words = ["ping", "-n", "-c1", "-W2", "-Mdo", "-s", length, server];
        let output = network.node(CLIENT).output(&words).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().nth(1).unwrap_or_default();
        sights.push(line.split(" time=").next().unwrap_or_default().to_owned());
        // The next one shall find out for itself.
        for family in ["-4", "-6"] {
            let words = ["ip", family, "route", "flush", "cache"];
            network.node(CLIENT).exec(&words).unwrap();
        }
    }
    for (address, length) in [
        // Fragmented by the router, by the client. In IPv6 first the client and then the server
        // have to learn how.
        (SERVER_ADDRESS, "1472"),
        (SERVER_ADDRESS, "4000"),
        (SERVER6, "4000"),
        (SERVER6, "4000"),
        (SERVER6, "4000"),
        ("10.0.0.11", "56"),
        ("10.0.9.12", "56"),
        ("fd00:9::12", "56"),
        ("fd00:a::11", "56"),
    ] {
        let text = network
            .ping(&["-n", "-c1", "-W2", "-Mdont", "-s", length, address])
            .unwrap_or_else(|error| format!("{address}: {error}"));
        let line = text.lines().nth(1).unwrap_or_default();
        sights.push(line.split(" time=").next().unwrap_or_default().to_owned());
    }
    sights
}

#[test]
fn nobody_sees_a_difference() {
    let (fast, slow) = {
        let network = Network::start(FAST);
        let mut fast = Vec::new();
        let growth = network.transit_during(|| fast = sights(&network));
        assert!(
            growth.as_flattened().iter().all(|count| *count > 0),
            "{growth:?}"
        );
        drop(network);
        let network = Network::start(SLOW);
        let slow = sights(&network);
        assert_eq!(network.transit(), [[0; 2]; 2], "the tunnel is taken out");
        (fast, slow)
    };
    assert_eq!(fast, slow);
    // And it is what routers do.
    assert_eq!(
        fast[..3],
        [
            "From 10.0.0.11 icmp_seq=1 Time to live exceeded",
            "From 169.254.0.2 icmp_seq=1 Time to live exceeded",
            "64 bytes from 10.0.9.100: icmp_seq=1 ttl=62",
        ]
    );
    assert_eq!(fast[6], "64 bytes from fd00:9::100: icmp_seq=1 ttl=62");
    assert_eq!(fast[8], "1456 bytes from 10.0.9.100: icmp_seq=1 ttl=62");
    assert_eq!(
        fast[9],
        "From 10.0.0.11 icmp_seq=1 Frag needed and DF set (mtu = 1476)"
    );
    assert_eq!(
        fast[11],
        "From fd00:a::11 icmp_seq=1 Packet too big: mtu=1476"
    );
    assert_eq!(fast[14..16], [fast[11].as_str(), ""]);
    for sight in fast[12..14].iter().chain(&fast[16..]) {
        assert!(sight.contains(" bytes from "), "{fast:#?}");
    }
}

#[test]
fn nothing_passes_by_unless_it_is_asked_for() {
    let network = Network::start("");
    assert_eq!(network.transit(), [[0; 2]; 2]);
}

#[test]
fn every_format_is_put_on_and_taken_off() {
    for (description, more) in [
        ("UDP", "set interfaces tunnel tun00 encapsulation gre-udp\n"),
        (
            "key and sequence",
            "set interfaces tunnel tun00 parameters ip key 7\n\
             set interfaces tunnel tun00 parameters ip sequence\n",
        ),
        (
            "inherited header bytes",
            "set interfaces tunnel tun00 parameters ip ttl inherit\n",
        ),
    ] {
        all_pings_pass_by(&Network::start(&format!("{FAST}{more}")), description);
    }
    for encapsulation in ["gre", "gre-udp"] {
        let config = |router: Router| {
            let over_ipv6 = router
                .tunnel_config()
                .replace("10.0.1.10", "fd00:1::10")
                .replace("10.0.2.10", "fd00:2::10")
                .replace("'gre'", &format!("'{encapsulation}'"));
            over_ipv6 + FAST
        };
        let network = Network::start_with(config, |_| ());
        all_pings_pass_by(&network, &format!("{encapsulation} over IPv6"));
    }
}

fn all_pings_pass_by(network: &Network, description: &str) {
    for [_, server] in BOTH {
        let growth = network.transit_during(|| {
            network.ping(&["-c3", "-i0.05", "-W1", server]).unwrap();
        });
        assert!(
            growth.as_flattened().iter().all(|count| *count == 3),
            "{description}: {growth:?}"
        );
    }
}

#[test]
fn the_reverse_path_is_checked_as_the_stack_does() {
    let config = |router: Router| router.tunnel_config() + FAST;
    let network = Network::start_with(config, |lab| {
        lab.node(ROUTERS[0].name)
            .run(|| fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1"))
            .unwrap()
            .unwrap();
        let line = "address add 10.77.0.1/32 dev eth0".to_owned();
        lab.node(CLIENT).ip_batch(&[line]).unwrap();
    });
    let [a, _] = ROUTERS;
    let spoofed = |source| network.ping(&["-c1", "-W1", "-I", source, SERVER_ADDRESS]);
    let sent = || network.counters("tx_packets")[0];
    // The way to the source is the underlay.
    let line = "route add 10.77.0.1/32 via 10.0.1.1".to_owned();
    network.router(a).ip_batch(&[line]).unwrap();
    let before = sent();
    spoofed("10.77.0.1").unwrap_err();
    assert_eq!(sent(), before);
    // The way to the source is where it came from; the server has no way back.
    let line = "route replace 10.77.0.1/32 via 10.0.0.100".to_owned();
    network.router(a).ip_batch(&[line]).unwrap();
    let growth = network.transit_during(|| {
        spoofed("10.77.0.1").unwrap_err();
    });
    assert_eq!(growth[1][0], 1);
    // An address of the router's own.
    let line = "address add 10.0.0.11/32 dev eth0".to_owned();
    network.node(CLIENT).ip_batch(&[line]).unwrap();
    let before = sent();
    spoofed("10.0.0.11").unwrap_err();
    assert_eq!(sent(), before);
}

/// As above, from the tunnel, whose filter is set once the agent runs.
#[test]
fn a_reverse_path_filter_that_is_set_later_holds() {
    const SPOOFED: &str = "10.77.0.2";
    let network = Network::start(FAST);
    let [a, c] = ROUTERS;
    let line = format!("address add {SPOOFED}/32 dev eth0");
    network.node(CLIENT).ip_batch(&[line]).unwrap();
    // The server's router knows another way to the source.
    let line = format!("route add {SPOOFED}/32 via 10.0.2.1");
    network.router(c).ip_batch(&[line]).unwrap();
    let line = format!("route add {SPOOFED}/32 via 10.0.0.100");
    network.router(a).ip_batch(&[line]).unwrap();
    let passes = || {
        let growth = network.transit_during(|| {
            // The answer goes elsewhere.
            network
                .ping(&["-c1", "-W1", "-I", SPOOFED, SERVER_ADDRESS])
                .unwrap_err();
        });
        growth[0][1]
    };
    assert_eq!(passes(), 1);
    let router = network.router(c);
    for (device, strict, expected) in [("tun00", "1", 0), ("tun00", "0", 1), ("other", "1", 0)] {
        if device != "tun00" {
            let rename = ["ip", "link", "set", "tun00", "name", device];
            router.exec(&rename).unwrap();
        }
        let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
        router.run(|| fs::write(path, strict)).unwrap().unwrap();
        poll::until(PATIENCE, || {
            let count = passes();
            ensure!(count == expected, "{count} with {strict} at {device}");
            Ok(())
        })
        .unwrap();
    }
}

/// A router's `show interfaces --json`, of one interface.
fn interface(node: &Node, name: &str) -> Result<InterfaceStatus> {
    let text = agent::routerctl(node, &["show", "interfaces", "--json"])?;
    let document: Interfaces = serde_json::from_str(&text)?;
    let mut interfaces = document.interfaces.into_iter();
    interfaces
        .find(|interface| interface.name == name)
        .with_context(|| format!("no {name} in {text}"))
}

/// Until each ping passes by the stack again, both ways and at both routers.
fn await_passing_by(network: &Network) {
    poll::until(PATIENCE, || {
        let before = network.transit();
        network.ping(&["-c1", "-W1", SERVER_ADDRESS])?;
        let after = network.transit();
        let all = before.as_flattened().iter().zip(after.as_flattened());
        ensure!(
            all.clone().all(|(then, now)| now > then),
            "{before:?} {after:?}"
        );
        Ok(())
    })
    .unwrap();
}

#[test]
fn interfaces_that_are_made_anew_take_part_again() {
    let network = Network::start(FAST);
    all_pings_pass_by(&network, "before");
    let [a, _] = ROUTERS;
    let node = network.router(a);
    for (name, role) in [
        ("eth1", InterfaceRole::Lan),
        ("eth0", InterfaceRole::Underlay),
    ] {
        let before = interface(node, name).unwrap();
        assert_eq!((before.role, before.fast_path), (role, true));
        let told = || {
            let text = agent::routerctl(node, &["maps", "dump", "interfaces", "--json"]).unwrap();
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            document["entries"].as_array().unwrap().len()
        };
        let count = told();
        // Traffic goes on meanwhile.
        let mut pings = Command::new("ping");
        pings
            .args(["-i0.02", "-w60", SERVER_ADDRESS])
            .stdout(Stdio::null());
        let pings = network.node(CLIENT).spawn("ping", &mut pings).unwrap();
        node.exec(&["ip", "link", "delete", name]).unwrap();
        poll::until(PATIENCE, || {
            ensure!(told() == count - 1, "{} interfaces are known", told());
            Ok(())
        })
        .unwrap();
        network.lab.replug(a.name, name).unwrap();
        turn_offloads_off(&network.lab);
        await_passing_by(&network);
        drop(pings);
        let after = interface(node, name).unwrap();
        assert_eq!((after.role, after.fast_path), (role, true));
        assert_eq!(told(), count);
    }
}

#[test]
fn a_lan_may_change_its_name_and_address_and_lose_its_program() {
    let network = Network::start(FAST);
    let [a, _] = ROUTERS;
    let node = network.router(a);
    node.exec(&["ip", "link", "set", "eth1", "name", "lan0"])
        .unwrap();
    poll::until(PATIENCE, || {
        ensure!(interface(node, "lan0")?.fast_path);
        Ok(())
    })
    .unwrap();
    await_passing_by(&network);
    let mac = "02:00:00:00:00:77";
    node.exec(&["ip", "link", "set", "lan0", "address", mac])
        .unwrap();
    network
        .node(CLIENT)
        .exec(&["ip", "neigh", "flush", "dev", "eth0"])
        .unwrap();
    await_passing_by(&network);
    let pins = node
        .exec(&["find", "/sys/fs/bpf/router", "-path", "*links/lan*"])
        .unwrap();
    assert_eq!(pins.lines().count(), 2, "{pins}");
    for pin in pins.lines() {
        node.exec(&["rm", pin]).unwrap();
    }
    poll::until(PATIENCE, || {
        let log = agent::log(node);
        let times = log.matches("detached our programs").count();
        ensure!(times == 2, "noticed {times} times");
        Ok(())
    })
    .unwrap();
    await_passing_by(&network);
}

#[test]
fn interfaces_that_cannot_send_are_refused() {
    let lab = article::lab().unwrap();
    let [a, _] = ROUTERS;
    let node = lab.node(a.name);
    node.ip_batch(&["link add br0 type bridge", "link set eth1 master br0"].map(str::to_owned))
        .unwrap();
    let config = a.tunnel_config()
        + "set interfaces ethernet br0 fast-path enable\n"
        + "set interfaces ethernet eth1 fast-path enable\n";
    let _agent = Agent::start(node, &config).unwrap();
    poll::until(Duration::from_secs(5), || {
        let log = agent::log(node);
        for problem in [
            "interface br0: no fast-path for a bridge interface",
            "interface eth1: no fast-path for a port of another interface",
        ] {
            ensure!(log.contains(problem), "{log}");
        }
        Ok(())
    })
    .unwrap();
}

/// A LAN that becomes a port of a bridge, with the address that the bridge has, too: what comes by it is the
/// bridge's from then on, and so is the fence.
#[test]
fn nothing_passes_by_the_fence_of_a_bridge_from_one_of_its_ports() {
    const MAC: &str = "02:00:00:00:00:77";
    let [protecting, _] = ROUTERS;
    let network = Network::start_with(
        |router| {
            let protect = if router == protecting {
                "set cluster group aws protect interface br0\n"
            } else {
                ""
            };
            router.article_config() + FAST + protect
        },
        |lab| {
            let lines = [
                format!("link set eth1 address {MAC}"),
                format!("link add br0 address {MAC} type bridge"),
                "link set br0 up".to_owned(),
            ];
            lab.node(protecting.name).ip_batch(&lines).unwrap();
        },
    );
    all_pings_pass_by(&network, "by eth1");
    let node = network.router(protecting);
    let lines = [
        "address flush dev eth1",
        "link set eth1 master br0",
        "address add 10.0.0.11/24 dev br0",
    ];
    node.ip_batch(&lines.map(str::to_owned)).unwrap();
    let ping = || network.ping(&["-c1", "-W1", SERVER_ADDRESS]);
    poll::until(PATIENCE, ping).unwrap();
    poll::until(PATIENCE, || {
        let status = interface(node, "eth1")?;
        ensure!(!status.fast_path, "{status:?}");
        Ok(())
    })
    .unwrap();
    agent::routerctl(node, &["force", "cluster", "standby"]).unwrap();
    poll::until(PATIENCE, || {
        ensure!(ping().is_err(), "the fence is open");
        Ok(())
    })
    .unwrap();
    let dropped = || {
        let words = ["maps", "dump", "fence_counters", "--json"];
        let text = agent::routerctl(node, &words).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let count = &document["entries"][0]["value"]["dropped_in"];
        count.as_u64().unwrap_or(0)
    };
    let before = dropped();
    let sent = network.transit()[1][0];
    network
        .ping(&["-c3", "-i0.05", "-W1", SERVER_ADDRESS])
        .unwrap_err();
    assert_eq!(dropped(), before + 3);
    assert_eq!(network.transit()[1][0], sent);
}

/// A host of the LAN that moves to another Ethernet address and does not say so is found again, though
/// the stack, which would ask for it, sends it nothing.
#[test]
fn a_next_hop_that_moves_in_silence_is_found_again() {
    let network = Network::start(FAST);
    let [a, _] = ROUTERS;
    for (setting, value) in [
        ("base_reachable_time_ms", "500"),
        ("delay_first_probe_time", "1"),
        ("retrans_time_ms", "100"),
    ] {
        let path = format!("/proc/sys/net/ipv4/neigh/eth1/{setting}");
        let written = network.router(a).run(|| fs::write(&path, value)).unwrap();
        written.unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let socket = |host, address: &str| {
        let bound = network.node(host).run(|| UdpSocket::bind((address, 7000)));
        bound.unwrap().unwrap()
    };
    let (sender, receiver) = (
        socket(SERVER, SERVER_ADDRESS),
        socket(CLIENT, CLIENT_ADDRESS),
    );
    receiver.set_nonblocking(true).unwrap();
    let mut sent = 0_u64;
    // The client is silent: whoever hears from it learns its address.
    let mut arrives_again = || {
        let first = sent;
        poll::until(PATIENCE, || {
            sent += 1;
            sender.send_to(&sent.to_be_bytes(), (CLIENT_ADDRESS, 7000))?;
            let mut number = [0; 8];
            receiver.recv(&mut number)?;
            ensure!(u64::from_be_bytes(number) > first, "sent before");
            Ok(())
        })
    };
    let growth = network.transit_during(|| arrives_again().unwrap());
    assert!(growth[0][0] > 0, "{growth:?}");
    network
        .node(CLIENT)
        .exec(&["ip", "link", "set", "eth0", "address", "02:00:00:00:00:77"])
        .unwrap();
    arrives_again().unwrap_or_else(|error| {
        let neighbours = network.router(a).exec(&["ip", "-s", "neigh"]);
        panic!("{error:#}\n{}", neighbours.unwrap_or_default())
    });
}

/// What passes the stack by passes the fence all the same: once the agent's word has ended, nothing
/// does, in either direction, though the programs go on working.
#[test]
fn without_authority_nothing_passes_by() {
    const HASTY: &str = "set cluster agent-dead-interval 500\n";
    let mut network = Network::start_with(
        |router| {
            let protect = if router == ROUTERS[0] {
                "set cluster group aws protect interface eth1\n"
            } else {
                ""
            };
            router.article_config() + FAST + HASTY + protect
        },
        |_| (),
    );
    all_pings_pass_by(&network, "with authority");
    // Before it had authority, some may have been dropped.
    let before = dropped_transit(network.router(ROUTERS[0]));
    network.kill_agent(ROUTERS[0]);
    thread::sleep(Duration::from_millis(600));
    for (from, to) in [(CLIENT, SERVER_ADDRESS), (SERVER, CLIENT_ADDRESS)] {
        let ping = ["ping", "-c3", "-i0.05", "-W1", to];
        let output = network.node(from).output(&ping).unwrap();
        assert!(!output.status.success(), "{from}");
    }
    assert_eq!(dropped_transit(network.router(ROUTERS[0])) - before, 6);
}

fn dropped_transit(node: &Node) -> u64 {
    let words = ["maps", "dump", "fence_counters", "--json"];
    let text = agent::routerctl(node, &words).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    // What has counted nothing yet is not shown.
    let value = &document["entries"][0]["value"];
    value["dropped_transit"].as_u64().unwrap_or_default()
}

/// As they were to leave, in either direction.
#[test]
fn what_is_fenced_as_it_passes_by_is_told_with_its_addresses() {
    let [protecting, _] = ROUTERS;
    let network = Network::start_with(
        |router| router.article_config() + FAST + "set cluster group aws protect interface eth1\n",
        |_| (),
    );
    let ways = [(CLIENT, SERVER_ADDRESS), (SERVER, CLIENT_ADDRESS)];
    let ping = |(from, to): (&str, &str)| {
        let output = network.node(from).output(&["ping", "-c1", "-W1", to]);
        output.unwrap().status.success()
    };
    let node = network.router(protecting);
    agent::routerctl(node, &["force", "cluster", "standby"]).unwrap();
    poll::until(PATIENCE, || {
        ensure!(!ways.into_iter().any(ping), "the fence is open");
        Ok(())
    })
    .unwrap();
    agent::routerctl(node, &["log", "level", "info,bpf::fence=debug"]).unwrap();
    for way in ways {
        assert!(!ping(way), "{way:?}");
    }
    let encapsulated = [
        ("interface", "eth1"),
        ("from", protecting.underlay),
        ("to", protecting.peer().underlay),
        ("inner_from", CLIENT_ADDRESS),
    ];
    let plain = [
        ("interface", "eth0"),
        ("from", SERVER_ADDRESS),
        ("to", CLIENT_ADDRESS),
    ];
    for fields in [&encapsulated[..], &plain] {
        poll::until(PATIENCE, || {
            let fenced = agent::log_about(node, "bpf::fence")?;
            let is_it = |line: &LogLine| {
                let has = |(name, value): &(&str, &str)| {
                    line.fields.get(*name).map(String::as_str) == Some(*value)
                };
                fields.iter().all(has)
            };
            ensure!(fenced.iter().any(is_it), "no {fields:?} in {fenced:#?}");
            Ok(())
        })
        .unwrap();
    }
}

/// 10,000 packets a second past the stacks of both routers, while their agents are killed and
/// started again: none is lost, and none takes another way.
#[test]
fn transit_goes_on_while_agents_are_replaced() {
    const INTERVAL: Duration = Duration::from_micros(100);
    let mut network = Network::start(FAST);
    let before = network.transit();
    let [client, server] = [CLIENT, SERVER].map(|name| network.node(name));
    let traffic = Traffic::start(client, server, SERVER_ADDRESS, INTERVAL).unwrap();
    for router in ROUTERS {
        thread::sleep(Duration::from_secs(2));
        network.replace_agent(router);
    }
    thread::sleep(Duration::from_secs(6));
    let report = traffic.finish().unwrap();
    let sent = report.sent() as u64;
    println!("{sent} sent, {} lost", report.lost());
    assert_eq!(report.missing(), [0; 0]);
    let [received, transmitted] = network.transit();
    assert!(transmitted[0] >= before[1][0] + sent, "{transmitted:?}");
    assert!(received[1] >= before[0][1] + sent, "{received:?}");
}
