//! The client reaches the server through both routers' tunnel: client, vyatta-a, tunnel, vyatta-c,
//! server.

use std::fs;

use anyhow::{Context as _, Result};
use router_agent::control::protocol::TunnelStatus;
use serde::Deserialize;

use crate::{
    agent::{self, Agent},
    article::{
        self, CLIENT, CLIENT_ADDRESS, CLOUD, ROUTERS, Router, SERVER, SERVER_ADDRESS,
        cloud_interface,
    },
    cluster::PATIENCE,
    lab::{Lab, Node},
    poll,
};

const SWITCH: &str = "switch";
pub const CLIENT6: &str = "fd00:a::100";
pub const SERVER6: &str = "fd00:9::100";
pub const BOTH: [[&str; 2]; 2] = [[CLIENT_ADDRESS, SERVER_ADDRESS], [CLIENT6, SERVER6]];

/// The LANs may be passed by, on all tunnels.
pub const FAST: &str = "set interfaces ethernet eth1 fast-path enable
set interfaces ethernet eth2 fast-path enable
";
/// As [`FAST`], and the tunnel is taken out again.
pub const SLOW: &str = "set interfaces ethernet eth1 fast-path enable
set interfaces ethernet eth2 fast-path enable
set interfaces tunnel tun00 fast-path disable
";

/// `routerctl show interfaces tunnel --json`.
#[derive(Deserialize)]
struct Document {
    tunnels: Vec<TunnelStatus>,
}

/// The article's network with both agents.
pub struct Network {
    // Before the lab, so that agents end before the network does.
    agents: Vec<Agent>,
    pub lab: Lab,
}

impl Network {
    /// With `more` behind the tunnel's configuration, once pings go through in both families.
    pub fn start(more: &str) -> Self {
        Self::start_with(|router| router.tunnel_config() + more, |_| ())
    }

    /// As [`Network::start`], with a `config` of its own for the tunnel, and with `prepare` done
    /// before the agents start.
    pub fn start_with(config: impl Fn(Router) -> String, prepare: impl Fn(&Lab)) -> Self {
        let lab = article::lab().unwrap();
        turn_offloads_off(&lab);
        addresses6(&lab);
        prepare(&lab);
        let agents = ROUTERS
            .map(|router| {
                let host = if router == ROUTERS[0] { 1 } else { 2 };
                let address6 =
                    format!("set interfaces tunnel tun00 address 'fd00:254::{host}/64'\n");
                let config = config(router) + &address6;
                Agent::start(lab.node(router.name), &config).unwrap()
            })
            .into();
        let network = Self { agents, lab };
        poll::until(PATIENCE, || network.route_through_the_tunnel())
            .with_context(|| {
                ROUTERS
                    .map(|router| agent::log(network.router(router)))
                    .join("\n")
            })
            .unwrap();
        // Neighbours are found by the first packets.
        for [client, server] in BOTH {
            poll::until(PATIENCE, || network.ping(&["-c1", "-W1", server])).unwrap();
            poll::until(PATIENCE, || {
                network.node(SERVER).exec(&["ping", "-c1", "-W1", client])
            })
            .unwrap();
        }
        network
    }

    fn route_through_the_tunnel(&self) -> Result<()> {
        let lines = |lines: &[&str]| {
            lines
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<Vec<_>>()
        };
        let [a, c] = ROUTERS.map(|router| self.router(router));
        a.ip_batch(&lines(&[
            "route replace 10.0.9.100/32 via 169.254.0.2 dev tun00",
            "route replace 10.0.9.12/32 via 169.254.0.2 dev tun00",
            "route replace fd00:9::/64 via fd00:254::2 dev tun00",
        ]))?;
        c.ip_batch(&lines(&[
            "route replace 10.0.0.100/32 via 169.254.0.1 dev tun00",
            "route replace fd00:a::/64 via fd00:254::1 dev tun00",
        ]))?;
        self.node(CLIENT).ip_batch(&lines(&[
            "route replace 10.0.9.0/24 via 10.0.0.11",
            "route replace fd00:9::/64 via fd00:a::11",
        ]))?;
        self.node(SERVER).ip_batch(&lines(&[
            "route replace 10.0.0.0/24 via 10.0.9.12",
            "route replace fd00:a::/64 via fd00:9::12",
        ]))
    }

    pub fn node(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    pub fn router(&self, router: Router) -> &Node {
        self.lab.node(router.name)
    }

    /// The router's agent dies at once.
    pub fn kill_agent(&mut self, router: Router) {
        let position = ROUTERS.iter().position(|other| *other == router);
        let agent = self.agents.remove(position.unwrap());
        agent.kill().unwrap();
    }

    /// The router's agent dies at once, and another one takes its place.
    pub fn replace_agent(&mut self, router: Router) {
        self.kill_agent(router);
        let node = self.router(router);
        let config = fs::read_to_string(node.directory().join("router.conf")).unwrap();
        let agent = Agent::start(node, &config).unwrap();
        poll::until(PATIENCE, || agent::routerctl(node, &["show", "version"])).unwrap();
        let position = ROUTERS.iter().position(|other| *other == router);
        self.agents.insert(position.unwrap(), agent);
    }

    /// `ping` of the client.
    pub fn ping(&self, arguments: &[&str]) -> Result<String> {
        self.node(CLIENT).exec(&[&["ping"], arguments].concat())
    }

    /// A counter of each router's tunnel.
    pub fn counters(&self, name: &str) -> [u64; 2] {
        ROUTERS.map(|router| {
            let words = ["show", "interfaces", "tunnel", "--json"];
            let text = agent::routerctl(self.router(router), &words).unwrap();
            let document: Document = serde_json::from_str(&text).unwrap();
            document.tunnels[0].counter(name)
        })
    }

    /// What passed the stack by: received and sent, at each router.
    pub fn transit(&self) -> [[u64; 2]; 2] {
        [self.counters("rx_transit"), self.counters("tx_transit")]
    }

    /// By how much `work` made each of [`Network::transit`] grow.
    pub fn transit_during(&self, work: impl FnOnce()) -> [[u64; 2]; 2] {
        let before = self.transit();
        work();
        let mut growth = self.transit();
        for (now, then) in growth.iter_mut().flatten().zip(before.iter().flatten()) {
            *now -= then;
        }
        growth
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for router in ROUTERS {
                eprintln!("{}:\n{}", router.name, agent::log(self.router(router)));
            }
        }
        self.agents.clear();
    }
}

/// All checksums are those of a real wire, no packet is longer than the MTU, and every port that
/// XDP sends to has NAPI.
pub fn turn_offloads_off(lab: &Lab) {
    let off = |node: &str, interface: &str, gro: &str| {
        let words = ["ethtool", "-K", interface, "tx", "off", "gro", gro];
        lab.node(node).exec(&words).unwrap();
    };
    for router in ROUTERS {
        for interface in ["eth0", "eth1", "eth2"] {
            off(router.name, interface, "off");
        }
        off(CLOUD, cloud_interface(router.name), "off");
    }
    for host in [CLIENT, SERVER] {
        off(host, "eth0", "off");
    }
    for port in ["lan-a", "lan-c", "srv-a", "srv-c"] {
        off(SWITCH, port, "on");
    }
    for port in ["lan-client", "srv-server"] {
        off(SWITCH, port, "off");
    }
}

fn addresses6(lab: &Lab) {
    for name in [ROUTERS[0].name, ROUTERS[1].name, CLOUD] {
        lab.node(name)
            .run(|| fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1"))
            .unwrap()
            .unwrap();
    }
    for (node, address, interface) in [
        (CLIENT, CLIENT6, "eth0"),
        (SERVER, SERVER6, "eth0"),
        (ROUTERS[0].name, "fd00:a::11", "eth1"),
        (ROUTERS[1].name, "fd00:9::12", "eth2"),
    ] {
        let line = format!("address add {address}/64 dev {interface} nodad");
        lab.node(node).ip_batch(&[line]).unwrap();
    }
    for (router, gateway) in ROUTERS.into_iter().zip(["fd00:1::1", "fd00:2::1"]) {
        let line = format!("route add fd00::/16 via {gateway}");
        lab.node(router.name).ip_batch(&[line]).unwrap();
    }
}
