//! What becomes of our programs on interfaces when others take them off.

use anyhow::{Result, ensure};
use router_tests::{
    agent,
    article::{ROUTERS, Router},
    cluster::{Cluster, PATIENCE},
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
