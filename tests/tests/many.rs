//! A thousand tunnels of one agent, between the same two addresses.

use std::time::{Duration, Instant};

use anyhow::ensure;
use router_tests::{
    agent::{self, Agent},
    article::{self, ROUTERS, Router},
    lab::Node,
    poll,
};

const TUNNELS: u32 = 1_000;
/// Such as no slowness of a machine explains.
const PATIENCE: Duration = Duration::from_mins(3);

fn address(router: Router, tunnel: u32) -> String {
    let host = if router == ROUTERS[0] { 1 } else { 2 };
    let [_, b, c, d] = (4 * tunnel + host).to_be_bytes();
    format!("172.{}.{c}.{d}", 16 + b)
}

fn config(router: Router) -> String {
    let lines = (0..TUNNELS).flat_map(|tunnel| {
        [
            format!("address {}/30", address(router, tunnel)),
            "encapsulation gre".to_owned(),
            format!("local-ip {}", router.underlay),
            format!("remote-ip {}", router.peer().underlay),
            format!("parameters ip key {tunnel}"),
        ]
        .map(|line| format!("set interfaces tunnel tun{tunnel} {line}\n"))
    });
    lines.fold(
        format!("set system host-name {}\n", router.name),
        |config, line| config + &line,
    )
}

/// The tunnels' interfaces that there are.
fn devices(node: &Node) -> usize {
    let text = node
        .exec(&["ip", "-o", "link", "show", "type", "veth"])
        .unwrap();
    text.lines().filter(|line| line.contains(": tun")).count()
}

#[test]
fn an_agent_has_a_thousand_tunnels() {
    let lab = article::lab().unwrap();
    let start = Instant::now();
    let mut agents =
        ROUTERS.map(|router| Agent::start(lab.node(router.name), &config(router)).unwrap());
    let [a, c] = ROUTERS;
    let node = lab.node(a.name);
    for tunnel in [0, TUNNELS / 2, TUNNELS - 1] {
        let words = ["ping", "-c1", "-W1", &address(c, tunnel)];
        poll::until(PATIENCE, || node.exec(&words))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)));
    }
    eprintln!(
        "{TUNNELS} tunnels work {:?} after the start",
        start.elapsed()
    );
    let text = agent::routerctl(node, &["show", "interfaces", "tunnel", "--json"]).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let tunnels = document["tunnels"].as_array().unwrap();
    assert_eq!(tunnels.len(), TUNNELS as usize);
    for tunnel in tunnels {
        assert_eq!(tunnel["notes"], serde_json::json!([]), "{tunnel}");
        assert_eq!(tunnel["link_up"], true, "{tunnel}");
    }
    // All of them change at once.
    let start = Instant::now();
    node.exec(&["ip", "link", "set", "eth0", "mtu", "1400"])
        .unwrap();
    poll::until(PATIENCE, || {
        let last = format!("tun{}", TUNNELS - 1);
        let text = agent::routerctl(node, &["show", "interfaces", "tunnel", &last, "--json"])?;
        let document: serde_json::Value = serde_json::from_str(&text)?;
        ensure!(document["tunnels"][0]["mtu"] == 1400 - 28, "{document}");
        Ok(())
    })
    .unwrap();
    eprintln!("another MTU after {:?}", start.elapsed());
    let start = Instant::now();
    for agent in &mut agents {
        agent.signal(rustix::process::Signal::TERM).unwrap();
        agent.wait_within(PATIENCE).unwrap();
    }
    eprintln!("both stopped after {:?}", start.elapsed());
    for router in ROUTERS {
        assert_eq!(devices(lab.node(router.name)), 0, "{}", router.name);
    }
}
