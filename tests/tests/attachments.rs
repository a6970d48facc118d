//! What becomes of our programs on interfaces when others take them off, and of the mode that they are in
//! when agents replace each other.

use anyhow::{Result, ensure};
use router_tests::{
    agent,
    article::{self, CLOUD, ROUTERS, Router, cloud_interface},
    cluster::{Cluster, PATIENCE},
    lab::Lab,
    poll,
    replacing::tunnel,
};

/// Of the block in `router-agent/src/net/egress.rs`.
const BLOCK: &str = "1381254994";

fn await_ping(cluster: &Cluster) {
    let [a, c] = ROUTERS;
    let words = ["ping", "-c1", "-W1", c.tunnel];
    until(cluster, || cluster.node(a).exec(&words).map(drop));
}

fn until(cluster: &Cluster, holds: impl FnMut() -> Result<()>) {
    poll::until(PATIENCE, holds).unwrap_or_else(|error| {
        panic!("{error:#}\n{}", cluster.logs());
    });
}

/// Nobody tells the agent of filters and qdiscs.
#[test]
fn the_program_that_encapsulates_comes_back_to_the_tunnels_devices() {
    let cluster = Cluster::start(Router::tunnel_config).unwrap();
    await_ping(&cluster);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    assert_eq!(tunnel(node).unwrap().notes, [""; 0]);
    let deletions = [
        format!("tc filter del block {BLOCK}"),
        // With its only qdisc the block goes, too.
        "tc qdisc del dev tun00-dp ingress".to_owned(),
    ];
    for (number, deletion) in (1..).zip(deletions) {
        node.exec(&deletion.split(' ').collect::<Vec<_>>()).unwrap();
        let restored = "somebody took our filter from the tunnels' devices";
        until(&cluster, || {
            let times = agent::log(node).matches(restored).count();
            ensure!(times == number, "put back {times} times, not {number}");
            let notes = tunnel(node)?.notes;
            let told = notes.iter().any(|note| note.contains("from its device"));
            ensure!(told, "not told: {notes:?}");
            Ok(())
        });
        await_ping(&cluster);
    }
}

/// Lets the cable at the first router's underlay have native XDP or not: a veth takes it only with as many
/// queues for what it receives as its other end has for what that sends.
fn set_queues(lab: &Lab, queues: &str) {
    let [a, _] = ROUTERS;
    let words = ["ethtool", "-L", cloud_interface(a.name), "tx", queues];
    lab.node(CLOUD).exec(&words).unwrap();
}

fn set_mtu(cluster: &Cluster, mtu: &str) {
    let [a, _] = ROUTERS;
    let words = ["ip", "link", "set", "eth0", "mtu", mtu];
    cluster.node(a).exec(&words).unwrap();
}

fn await_mode(cluster: &Cluster, mode: &str, why: &str) {
    let [a, _] = ROUTERS;
    until(cluster, || {
        let tunnel = tunnel(cluster.node(a))?;
        let reason = tunnel.xdp_mode_reason.unwrap_or_default();
        ensure!(tunnel.xdp_mode == mode, "{} ({reason})", tunnel.xdp_mode);
        ensure!(reason.contains(why), "{reason}");
        Ok(())
    });
}

const TOO_FEW: &str = "too few queues";

/// Both routers, the first in generic mode because it must.
fn in_generic_mode() -> Cluster {
    let lab = article::lab().unwrap();
    set_queues(&lab, "2");
    let cluster = Cluster::start_in(lab, Router::tunnel_config).unwrap();
    await_mode(&cluster, "generic", TOO_FEW);
    cluster
}

#[test]
fn an_agent_that_goes_on_knows_why_xdp_is_generic_and_when_it_need_not_be() {
    let mut cluster = in_generic_mode();
    let [a, _] = ROUTERS;
    cluster.take_agent(a).unwrap().kill().unwrap();
    cluster.start_agent(a).unwrap();
    await_mode(&cluster, "generic", TOO_FEW);
    // In vain as yet: it stays as it was.
    set_mtu(&cluster, "1400");
    await_ping(&cluster);
    await_mode(&cluster, "generic", TOO_FEW);

    set_queues(&cluster.lab, "1");
    set_mtu(&cluster, "1500");
    await_mode(&cluster, "native", "");
    await_ping(&cluster);
}

#[test]
fn native_xdp_is_tried_again_with_an_mtu_that_was_set_while_no_agent_ran() {
    let mut cluster = in_generic_mode();
    let [a, _] = ROUTERS;
    cluster.take_agent(a).unwrap().kill().unwrap();
    set_queues(&cluster.lab, "1");
    set_mtu(&cluster, "1400");
    cluster.start_agent(a).unwrap();
    await_mode(&cluster, "native", "");
    await_ping(&cluster);
}
