//! Protected packets are forwarded by authority that ends by itself, whatever becomes of the agent.
//! A packet tells when it was sent, by the clock that all nodes of the lab share: what was sent after
//! the authority had ended, and arrived by that router all the same, is a violation.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_common::time::BootTime;
use router_tests::{
    agent,
    article::{self, CLIENT, CLIENT_ADDRESS, ROUTERS, Router, SERVER, SERVER_ADDRESS},
    clock,
    cluster::{Cluster, Fault, PATIENCE},
    lab::Node,
    poll,
    traffic::{Report, Traffic},
};
use serde_json::Value;

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
/// Between the packets that show who forwards.
const PACE: Duration = Duration::from_micros(100);
const DEAD_MS: u64 = 200;
/// Three quarters of that.
const LEASE_NS: u64 = 150_000_000;
const AGENT_DEAD_NS: u64 = 1_000_000_000;

/// Lines that protect both sides of the routers.
const PROTECT: &str = "set cluster group aws protect interface eth1
set cluster group aws protect interface eth2
";

fn config(router: Router, prefer: &str, more: &str) -> String {
    let [lan, servers] = article::SERVICES;
    router.article_config()
        + &format!(
            "set cluster group aws service {lan}
set cluster group aws service {servers}
set cluster group aws prefer {prefer}
set cluster keepalive-interval 10
set cluster dead-interval {DEAD_MS}
set cluster agent-dead-interval {}
{more}",
            AGENT_DEAD_NS / 1_000_000
        )
}

/// A cluster whose primary is active and forwards.
fn formed(prefer: &'static str, more: &'static str) -> Cluster {
    let cluster = Cluster::start(move |router| config(router, prefer, more)).unwrap();
    cluster.settle(PRIMARY).unwrap();
    poll::until(PATIENCE, || client_reaches_server(&cluster)).unwrap();
    cluster
}

fn client_reaches_server(cluster: &Cluster) -> Result<String> {
    let words = ["ping", "-c1", "-W1", SERVER_ADDRESS];
    cluster.lab.node(CLIENT).exec(&words)
}

fn traffic(cluster: &Cluster) -> Traffic {
    let (client, server) = (cluster.lab.node(CLIENT), cluster.lab.node(SERVER));
    Traffic::start(client, server, SERVER_ADDRESS, PACE).unwrap()
}

/// Has `node` ping by `words`, which must bring no answer.
fn ping_in_vain(node: &Node, words: &[&str]) {
    assert!(!node.output(words).unwrap().status.success(), "{words:?}");
}

/// The first entry of a router's map, as `routerctl maps dump` shows it.
fn dumped(node: &Node, map: &str) -> Result<Value> {
    let text = agent::routerctl(node, &["maps", "dump", map, "--json"])?;
    let document: Value = serde_json::from_str(&text)?;
    let value = document["entries"][0]["value"].clone();
    ensure!(value.is_object(), "{map} is empty: {text}");
    Ok(value)
}

fn number(node: &Node, map: &str, field: &str) -> Result<u64> {
    let value = dumped(node, map)?;
    value[field]
        .as_u64()
        .with_context(|| format!("{map} has no number {field}: {value}"))
}

/// Protected packets that a router's fence dropped, of every kind.
fn dropped(node: &Node) -> u64 {
    let Ok(value) = dumped(node, "fence_counters") else {
        return 0;
    };
    let counters = value.as_object().unwrap().values();
    counters.map(|count| count.as_u64().unwrap()).sum()
}

/// Packets that `router` forwarded although they were sent at `end` or later, and before `until`.
fn violations(report: &Report, router: Router, end: BootTime, until: BootTime) -> usize {
    report
        .arrivals()
        .iter()
        .filter(|arrival| {
            arrival.from == router.server_side_mac && arrival.sent >= end && arrival.sent < until
        })
        .count()
}

/// Packets that `router` forwarded of those sent before `until`.
fn forwarded(report: &Report, router: Router, until: BootTime) -> usize {
    report
        .arrivals()
        .iter()
        .filter(|arrival| arrival.from == router.server_side_mac && arrival.sent < until)
        .count()
}

#[test]
fn only_the_active_forwards_and_local_traffic_is_never_fenced() {
    let cluster = formed("availability", PROTECT);
    let (client, server) = (cluster.lab.node(CLIENT), cluster.lab.node(SERVER));
    let standby = cluster.node(SECONDARY);

    // To the standby itself.
    for (host, address) in [(client, "10.0.0.12"), (server, "10.0.9.12")] {
        host.exec(&["ping", "-c3", "-i0.05", "-W1", address])
            .unwrap();
        standby
            .exec(&[
                "ping",
                "-c1",
                "-W1",
                if host.name() == CLIENT {
                    CLIENT_ADDRESS
                } else {
                    SERVER_ADDRESS
                },
            ])
            .unwrap();
    }
    assert_eq!(dropped(standby), 0, "nothing of that is transit");

    // Through it.
    let by_the_standby = [
        "route add 10.0.9.0/24 via 10.0.0.12 table 7",
        "rule add to 10.0.9.100 pref 1 lookup 7",
    ];
    client.ip_batch(&by_the_standby.map(str::to_owned)).unwrap();
    let ping = ["ping", "-c3", "-i0.05", "-W1", SERVER_ADDRESS];
    ping_in_vain(client, &ping);
    let dropped_in = number(standby, "fence_counters", "dropped_in").unwrap();
    assert_eq!(dropped_in, 3);
    client.ip_batch(&["rule delete pref 1".to_owned()]).unwrap();

    // What came by an interface that is not protected is stopped where it leaves.
    let out = [
        "ping",
        "-c2",
        "-i0.05",
        "-W1",
        "-I",
        "10.0.2.1",
        CLIENT_ADDRESS,
    ];
    let cloud = cluster.lab.node(article::CLOUD);
    cloud
        .ip_batch(&["route add 10.0.0.100/32 via 10.0.2.10".to_owned()])
        .unwrap();
    ping_in_vain(cloud, &out);
    assert_eq!(number(standby, "fence_counters", "dropped_out").unwrap(), 2);

    // So is what a tunnel delivered.
    let active = cluster.node(PRIMARY);
    let by_the_tunnel = "route add 10.0.0.100/32 via 169.254.0.2 dev tun00";
    active.ip_batch(&[by_the_tunnel.to_owned()]).unwrap();
    let out = [
        "ping",
        "-c2",
        "-i0.05",
        "-W1",
        "-I",
        PRIMARY.tunnel,
        CLIENT_ADDRESS,
    ];
    ping_in_vain(active, &out);
    assert_eq!(number(standby, "fence_counters", "dropped_out").unwrap(), 4);
    active
        .ip_batch(&["route delete 10.0.0.100/32".to_owned()])
        .unwrap();

    client_reaches_server(&cluster).unwrap();
    assert_eq!(dropped(active), 0);
    let opened = number(active, "fences", "opened_ns").unwrap();
    assert!(number(active, "leases", "first_passed_ns").unwrap() >= opened);
}

/// What becomes of the active's agent when its grants are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Killed,
}

/// Cuts the active's grants while its agent is gone; the packets meanwhile, the end of the lease, and
/// when the agent was there again.
fn cut_from_grants(end: End, more: &'static str) -> (Report, BootTime, BootTime, Cluster) {
    let mut cluster = formed("consistency", more);
    let traffic = traffic(&cluster);
    sleep(Duration::from_millis(300));
    let fault = match end {
        End::Stopped => Fault::StopAgent,
        End::Killed => Fault::KillAgent,
    };
    cluster.inject(fault, PRIMARY).unwrap();
    article::cut_tunnel(&cluster.lab).unwrap();
    sleep(Duration::from_millis(2 * DEAD_MS));
    // Nobody grants any more: this was the last one.
    let granted = number(cluster.node(PRIMARY), "leases", "granted_tx_ns").unwrap();
    assert!(granted > 0, "it lived on grants");
    let lease_end = BootTime::from_ns(granted + LEASE_NS);
    sleep(Duration::from_millis(600));
    let healed = cluster.heal(fault, PRIMARY).unwrap();
    // It runs, and still nobody grants.
    sleep(Duration::from_millis(1_500));
    let report = traffic.finish().unwrap();
    (report, lease_end, healed, cluster)
}

#[test]
fn without_grants_no_packet_leaves_after_the_lease_end_however_the_agent_is() {
    for end in [End::Stopped, End::Killed] {
        let (report, lease_end, healed, cluster) = cut_from_grants(end, PROTECT);
        let before = forwarded(&report, PRIMARY, lease_end);
        assert!(before > 1_000, "{end:?}: {before} packets before the end");
        let after = violations(&report, PRIMARY, lease_end, BootTime::from_ns(u64::MAX));
        assert_eq!(
            after,
            0,
            "{end:?}, of which {} once the agent was there again",
            violations(&report, PRIMARY, healed, BootTime::from_ns(u64::MAX))
        );
        assert_eq!(
            forwarded(&report, SECONDARY, BootTime::from_ns(u64::MAX)),
            0,
            "{end:?}: the standby does not claim what it does not hear"
        );
        // With its grants its forwarding comes back.
        article::heal_tunnel(&cluster.lab).unwrap();
        poll::until(PATIENCE, || client_reaches_server(&cluster)).unwrap();
    }
}

/// The planted defect: interfaces that nothing protects.
#[test]
fn without_the_fence_that_is_noticed() {
    let (report, lease_end, _, _cluster) = cut_from_grants(End::Stopped, "");
    let after = violations(&report, PRIMARY, lease_end, BootTime::from_ns(u64::MAX));
    assert!(after > 1_000, "{after}");
}

#[test]
fn a_stopped_agents_own_word_ends_before_its_peer_takes_over() {
    let mut cluster = formed("availability", PROTECT);
    let traffic = traffic(&cluster);
    sleep(Duration::from_millis(300));
    cluster.inject(Fault::StopAgent, PRIMARY).unwrap();
    let vouched = number(cluster.node(PRIMARY), "fences", "authority_end_ns").unwrap();
    let vouched = BootTime::from_ns(vouched);
    cluster.await_active(SECONDARY, PATIENCE).unwrap();
    sleep(Duration::from_millis(300));
    let resumed = clock::now();
    cluster.heal(Fault::StopAgent, PRIMARY).unwrap();
    sleep(Duration::from_millis(300));
    let report = traffic.finish().unwrap();
    let before = forwarded(&report, PRIMARY, vouched);
    assert!(before > 1_000, "{before} packets before the end");
    let never = BootTime::from_ns(u64::MAX);
    assert_eq!(violations(&report, PRIMARY, vouched, never), 0);
    assert!(forwarded(&report, SECONDARY, never) > 0);
    // Nothing by the successor before the end, either.
    assert_eq!(forwarded(&report, SECONDARY, vouched), 0);
    assert!(vouched < resumed);
}

#[test]
fn after_an_orderly_stop_nothing_protected_passes_until_it_is_unloaded() {
    let mut cluster = formed("availability", PROTECT);
    let agent = cluster.take_agent(SECONDARY).unwrap();
    assert!(agent.terminate().unwrap().success());
    let client = cluster.lab.node(CLIENT);
    let by_the_stopped = [
        "route add 10.0.9.0/24 via 10.0.0.12 table 7",
        "rule add to 10.0.9.100 pref 1 lookup 7",
    ];
    client.ip_batch(&by_the_stopped.map(str::to_owned)).unwrap();
    let server = cluster.lab.node(SERVER);
    server
        .ip_batch(&["route replace 10.0.0.0/24 via 10.0.9.12".to_owned()])
        .unwrap();
    let ping = ["ping", "-c2", "-i0.05", "-W1", SERVER_ADDRESS];
    ping_in_vain(client, &ping);

    let stopped = cluster.node(SECONDARY);
    let agent = agent::binary("router-agent").unwrap();
    stopped.exec(&[agent.to_str().unwrap(), "unload"]).unwrap();
    poll::until(PATIENCE, || client.exec(&ping)).unwrap();
}
