//! Counters that are cleared: text shows them from then on, also after the agent; they go on.

use anyhow::{Result, ensure};
use router_agent::control::protocol::{HeartbeatStatus, TunnelStatus};
use router_tests::{
    agent,
    article::{self, ROUTERS, Router},
    cluster::{Cluster, PATIENCE},
    lab::Node,
    poll,
    replacing::tunnels,
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];

/// However slow this machine is, an agent begins anew before its peer takes it for dead, and a path that is
/// cut for a while is not given up.
fn config(router: Router) -> String {
    router.article_config()
        + "set cluster agent-dead-interval 60000
set cluster dead-interval 20000
"
}

fn formed() -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    cluster
}

/// Another agent goes on in the place of the router's.
fn replace_agent(cluster: &mut Cluster, router: Router) {
    let detached = cluster.take_agent(router).unwrap().detach().unwrap();
    assert!(detached.success());
    cluster.start_agent(router).unwrap();
    poll::until(PATIENCE, || tunnel(cluster.node(router))).unwrap();
}

fn tunnel(node: &Node) -> Result<TunnelStatus> {
    let mut tunnels = tunnels(node)?;
    ensure!(tunnels.len() == 1, "one tunnel is configured");
    Ok(tunnels.remove(0))
}

fn ping(node: &Node, count: u64) {
    let count = count.to_string();
    let words = ["ping", "-c", &count, "-i", "0.05", PRIMARY.peer().tunnel];
    node.exec(&words).unwrap();
}

/// The text's `RX` packets.
fn shown(node: &Node) -> (String, u64) {
    let text = agent::routerctl(node, &["show", "interfaces", "tunnel", "tun00"]).unwrap();
    let row = text.lines().find(|line| line.trim().starts_with("RX:"));
    let packets = row.unwrap().split_whitespace().nth(2).unwrap();
    let packets = packets.parse().unwrap();
    (text, packets)
}

#[test]
fn cleared_counters_are_shown_from_zero_and_go_on_for_metrics() {
    const BEFORE: u64 = 20;
    const AFTER: u64 = 5;
    let mut cluster = formed();
    let clear = |node: &Node, words: &[&str]| {
        let words = [&["clear", "interfaces", "tunnel"], words].concat();
        agent::routerctl_output(node, &words).unwrap()
    };
    let node = cluster.node(PRIMARY);
    ping(node, BEFORE);
    assert!(tunnel(node).unwrap().counter("rx_packets") >= BEFORE);
    let (text, packets) = shown(node);
    assert!(packets >= BEFORE && !text.contains("cleared"), "{text}");

    let unknown = clear(node, &["tun7", "counters"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no tunnel tun7"));
    let cleared = clear(node, &["tun00", "counters"]);
    let said = String::from_utf8_lossy(&cleared.stdout);
    assert!(said.contains("tun00"), "{said}");
    let (text, packets) = shown(node);
    assert!(packets < BEFORE, "{text}");
    assert!(text.contains("cleared"), "{text}");
    let total = tunnel(node).unwrap();
    assert!(total.counter("rx_packets") >= BEFORE);
    assert!(total.since_cleared("rx_packets") < BEFORE);

    ping(node, AFTER);
    let whole = tunnel(node).unwrap();
    assert!(whole.counter("rx_packets") >= BEFORE + AFTER);
    let (text, packets) = shown(node);
    assert!((AFTER..BEFORE).contains(&packets), "{text}");

    // So it is for the agent that comes next, whose counters go on.
    replace_agent(&mut cluster, PRIMARY);
    let node = cluster.node(PRIMARY);
    assert!(tunnel(node).unwrap().counter("rx_packets") >= BEFORE + AFTER);
    let (text, packets) = shown(node);
    assert!((AFTER..BEFORE).contains(&packets), "{text}");

    let all = clear(node, &["counters"]);
    assert!(String::from_utf8_lossy(&all.stdout).contains("tun00"));
    assert!(shown(node).1 < AFTER);
}

/// The text's row of this name.
fn row(node: &Node, name: &str) -> String {
    let text = agent::routerctl(node, &["show", "heartbeat"]).unwrap();
    let mut rows = text.lines().map(str::trim);
    let row = rows.find_map(|row| row.strip_prefix(name));
    row.unwrap_or_else(|| panic!("no {name} in {text}"))
        .trim()
        .to_owned()
}

/// Probes sent and answered, by the text.
fn probes(node: &Node) -> [u64; 2] {
    let row = row(node, "Probes:");
    let numbers: Vec<u64> = row
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers.try_into().unwrap()
}

fn await_session(
    cluster: &Cluster,
    is_as_expected: impl Fn(&HeartbeatStatus) -> bool,
) -> HeartbeatStatus {
    poll::until(PATIENCE, || {
        let session = cluster.session(PRIMARY)?;
        ensure!(is_as_expected(&session), "{session:?}");
        Ok(session)
    })
    .unwrap()
}

/// Has probes of the primary be lost between others that are answered.
fn lose_probes(cluster: &Cluster) {
    const LOST: u64 = 20;
    let before = await_session(cluster, |session| session.replies_received > LOST);
    article::cut_tunnel_from(&cluster.lab, PRIMARY.name).unwrap();
    let sent = before.probes_sent + LOST;
    await_session(cluster, |session| session.probes_sent > sent);
    article::heal_tunnel(&cluster.lab).unwrap();
    await_session(cluster, |session| {
        session.round_trip_loss_percent > Some(0.0)
    });
}

#[test]
fn cleared_heartbeats_are_shown_from_zero_with_their_losses_and_go_on_for_metrics() {
    let mut cluster = formed();
    lose_probes(&cluster);
    let node = cluster.node(PRIMARY);
    assert!(!row(node, "Loss:").contains("trip 0.000 %"));

    let before = cluster.session(PRIMARY).unwrap();
    let said = agent::routerctl(node, &["clear", "heartbeat", "counters"]).unwrap();
    assert!(said.contains("aws over tun00"), "{said}");
    let [sent, answered] = probes(node);
    assert!(sent < before.probes_sent, "{sent}");
    assert!(answered < before.replies_received, "{answered}");
    let age = row(node, "Counters:");
    assert!(age.starts_with("cleared "), "{age}");
    // None of those that were lost counts any more, and one that has come since is enough to say so.
    poll::until(PATIENCE, || {
        let loss = row(node, "Loss:");
        ensure!(loss == "round trip 0.000 %, inbound 0.000 %", "{loss}");
        Ok(())
    })
    .unwrap();
    let whole = cluster.session(PRIMARY).unwrap();
    assert!(whole.round_trip_loss_percent > Some(0.0), "{whole:?}");
    assert!(whole.replies_received > before.replies_received);
    let cleared = whole.cleared.as_ref().unwrap();
    assert!(cleared.before("replies_received") >= before.replies_received);
    assert!(tunnel(node).unwrap().cleared.is_none());

    // The peer's next agent, another generation, begins anew what was counted of it.
    replace_agent(&mut cluster, SECONDARY);
    let next = await_session(&cluster, |session| {
        session.peer_generation != before.peer_generation && session.peer_generation != 0
    });
    let cleared = next.cleared.as_ref().unwrap();
    assert_eq!(cleared.before("replies_received"), 0);
    assert!(cleared.before("probes_sent") > 0);

    // So does this node's with its own; that the rest was cleared, it knows.
    replace_agent(&mut cluster, PRIMARY);
    let next = cluster.session(PRIMARY).unwrap();
    let cleared = next.cleared.as_ref().unwrap();
    assert_eq!(cleared.before("probes_sent"), 0);
    assert!(row(cluster.node(PRIMARY), "Counters:").starts_with("cleared "));
}
