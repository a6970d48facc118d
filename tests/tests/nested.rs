//! Packets that come out of one tunnel and go into another: of a router between two tunnels, and of another kind of
//! tunnel that goes through ours.

use std::{net::IpAddr, time::Duration};

use router_tests::{
    agent::{self, Agent},
    article::{self, ROUTERS},
    lab::{End, Lab, Node, NodeSpec, Topology},
    poll,
    talk::transfer,
};

const HUB: &str = "hub";
const SPOKES: [&str; 2] = ["one", "two"];
/// Such as no slowness of a machine explains, nor of one that is emulated.
const PATIENCE: Duration = Duration::from_mins(2);
/// Bytes, many segments.
const LENGTH: usize = 1_000_000;

/// Two spokes with a cable each to the hub.
fn hub_and_spokes() -> Lab {
    let mut topology = Topology::default().node(NodeSpec::new(HUB).forwarding().bridge("br0"));
    for (spoke, number) in SPOKES.into_iter().zip(1..) {
        topology = topology.node(NodeSpec::new(spoke)).cable(
            End::new(spoke, "eth0").address(&format!("10.8.{number}.2/24")),
            End::new(HUB, spoke).address(&format!("10.8.{number}.1/24")),
        );
    }
    Lab::new(topology).unwrap()
}

/// The tunnel between the hub and spoke `number`, as `at_hub` or the spoke has it.
fn tunnel(number: u8, at_hub: bool, kind: &str, line: &str) -> String {
    let ends = [1, 2].map(|host| format!("10.8.{number}.{host}"));
    let [hub, spoke] = ends.each_ref().map(String::as_str);
    if at_hub {
        tunnel_between([hub, spoke], number - 1, kind, line)
    } else {
        tunnel_between([spoke, hub], 0, kind, line)
    }
}

fn tunnel_between([local, remote]: [&str; 2], name: u8, kind: &str, line: &str) -> String {
    let lines = [
        &format!("encapsulation {kind}"),
        &format!("local-ip {local}"),
        &format!("remote-ip {remote}"),
        line,
    ];
    lines.iter().fold(String::new(), |config, line| {
        config + &format!("set interfaces tunnel tun{name} {line}\n")
    })
}

fn start(node: &Node, config: &str) -> Agent {
    Agent::start(
        node,
        &format!("set system host-name {}\n{config}", node.name()),
    )
    .unwrap()
}

/// Pings, then TCP, from one spoke to the other.
fn they_talk(lab: &Lab, address: &str) {
    let [one, two] = SPOKES.map(|spoke| lab.node(spoke));
    poll::until(PATIENCE, || one.exec(&["ping", "-c1", "-W1", address])).unwrap();
    let address: IpAddr = address.parse().unwrap();
    transfer(one, two, address, LENGTH).unwrap();
    nothing_is_lost_on_its_way_out(lab.node(HUB));
}

fn nothing_is_lost_on_its_way_out(node: &Node) {
    let counters = ["show", "interfaces", "tunnel", "--json"];
    let text = agent::routerctl(node, &counters).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for tunnel in document["tunnels"].as_array().unwrap() {
        assert_eq!(tunnel["tx_errors"], 0, "{tunnel}");
    }
}

#[test]
fn a_router_forwards_from_tunnel_to_tunnel() {
    for kind in ["gre", "gre-udp"] {
        let lab = hub_and_spokes();
        let hub: String = [1, 2]
            .map(|number| {
                let address = format!("address 172.16.{number}.1/24");
                tunnel(number, true, kind, &address)
            })
            .concat();
        let _hub = start(lab.node(HUB), &hub);
        let _spokes = [1_u8, 2].map(|number| {
            let node = lab.node(SPOKES[usize::from(number) - 1]);
            let address = format!("address 172.16.{number}.2/24");
            let agent = start(node, &tunnel(number, false, kind, &address));
            let other = format!("172.16.{}.0/24", 3 - number);
            let via = format!("172.16.{number}.1");
            let route = ["ip", "route", "add", &other, "via", &via];
            poll::until(PATIENCE, || node.exec(&route)).unwrap();
            agent
        });
        they_talk(&lab, "172.16.2.2");
    }
}

#[test]
fn a_bridge_joins_two_tunnels() {
    let lab = hub_and_spokes();
    let hub: String = [1, 2]
        .map(|number| {
            let port = "parameters ip bridge-group bridge br0";
            tunnel(number, true, "gre-bridge", port)
        })
        .concat();
    let _hub = start(lab.node(HUB), &hub);
    let _spokes = [1_u8, 2].map(|number| {
        let address = format!("address 172.16.0.{number}/24");
        let node = lab.node(SPOKES[usize::from(number) - 1]);
        start(node, &tunnel(number, false, "gre-bridge", &address))
    });
    they_talk(&lab, "172.16.0.2");
}

#[test]
fn another_tunnel_goes_through_ours() {
    for kind in ["gre", "gre-bridge", "gre-udp"] {
        let lab = article::lab().unwrap();
        let nodes = ROUTERS.map(|router| lab.node(router.name));
        let mut agents = Vec::new();
        for (router, number) in ROUTERS.into_iter().zip(1..) {
            let node = lab.node(router.name);
            let ends = [router.underlay, router.peer().underlay];
            let address = format!("address 172.16.0.{number}/24");
            let config = tunnel_between(ends, 0, kind, &address);
            agents.push(start(node, &config));
            let [local, remote] = [number, 3 - number].map(|host| format!("172.16.0.{host}"));
            node.ip_batch(&[
                format!(
                    "link add vxlan0 type vxlan id 5 dstport 4789 local {local} remote {remote}"
                ),
                format!("address add 172.17.0.{number}/24 dev vxlan0"),
                "link set vxlan0 up".to_owned(),
            ])
            .unwrap();
        }
        poll::until(PATIENCE, || {
            nodes[0].exec(&["ping", "-c1", "-W1", "172.17.0.2"])
        })
        .unwrap();
        for (from, to, address) in [
            (nodes[0], nodes[1], "172.17.0.2"),
            (nodes[1], nodes[0], "172.17.0.1"),
        ] {
            transfer(from, to, address.parse().unwrap(), LENGTH)
                .unwrap_or_else(|error| panic!("{kind}: {error:#}"));
        }
        nodes.into_iter().for_each(nothing_is_lost_on_its_way_out);
    }
}
