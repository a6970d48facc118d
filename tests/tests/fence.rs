//! Protected packets are forwarded by authority that ends by itself, whatever becomes of the agent.
//! A packet tells when it was sent, by the clock that all nodes of the lab share: what was sent after
//! the authority had ended, and arrived by that router all the same, is a violation.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::TunnelStatus;
use router_common::time::BootTime;
use router_tests::{
    agent::{self, Agent},
    article::{
        self, CLIENT, CLIENT_ADDRESS, FAR, FAR_ADDRESS, PROTECT, ROUTERS, Router, SERVER,
        SERVER_ADDRESS,
    },
    clock,
    cluster::{Cluster, Fault, PATIENCE},
    lab::{Lab, Node},
    poll,
    traffic::{Report, Traffic},
    transit::turn_offloads_off,
};
use serde::Deserialize;
use serde_json::Value;

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
/// Between the packets that show who forwards.
const PACE: Duration = Duration::from_micros(100);
const DEAD_MS: u64 = 200;
/// Three quarters of that.
const LEASE_NS: u64 = 150_000_000;
const AGENT_DEAD_NS: u64 = 1_000_000_000;

fn config(router: Router, prefer: &str, more: &str) -> String {
    router.article_with_services()
        + &format!(
            "set cluster group aws prefer {prefer}
set cluster keepalive-interval 10
set cluster dead-interval {DEAD_MS}
set cluster agent-dead-interval {}
{more}",
            AGENT_DEAD_NS / 1_000_000
        )
}

/// A cluster whose primary is active and forwards.
fn formed(prefer: &'static str, more: &'static str) -> Cluster {
    let lab = article::lab().unwrap();
    formed_in(lab, move |router| config(router, prefer, more))
}

fn formed_in(lab: Lab, config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start_in(lab, config).unwrap();
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

/// How packets pass the primary, all of them by its fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the client to the server.
    BetweenLans,
    /// From the client to the far end of a tunnel.
    IntoTunnel,
    OutOfTunnel,
}

/// A tunnel between the primary and a far end that belongs to no cluster.
fn data_tunnel(local: &str, remote: &str, address: &str) -> String {
    format!(
        "set interfaces tunnel tun1 address {address}/24
set interfaces tunnel tun1 encapsulation gre
set interfaces tunnel tun1 local-ip {local}
set interfaces tunnel tun1 remote-ip {remote}
"
    )
}

/// An address behind the tunnel; its ends are link-local, to which nothing is forwarded past the stack.
const BEHIND_FAR: &str = "10.3.0.1";
const TUNNEL_ENDS: [&str; 2] = ["169.254.1.1", "169.254.1.2"];
const FAST_PATH: &str = "set interfaces ethernet eth1 fast-path enable
";

/// A pair whose primary is active by grants and forwards, and the far end of its data tunnel.
struct Scene {
    cluster: Cluster,
    _far: Agent,
}

impl Scene {
    fn start(more: &'static str) -> Self {
        let lab = article::lab_with_far_end().unwrap();
        turn_offloads_off(&lab);
        let [near_end, far_end] = TUNNEL_ENDS;
        let tunnel = |local, remote, address| data_tunnel(local, remote, address);
        let far = lab.node(FAR);
        let far_agent = Agent::start(far, &tunnel(FAR_ADDRESS, PRIMARY.underlay, far_end)).unwrap();
        let cluster = formed_in(lab, move |router| {
            let tunnel = if router == PRIMARY {
                tunnel(PRIMARY.underlay, FAR_ADDRESS, near_end)
            } else {
                String::new()
            };
            config(router, "consistency", more) + &tunnel
        });
        let [client, far, router] = [CLIENT, FAR, PRIMARY.name].map(|name| cluster.lab.node(name));
        client
            .ip_batch(&[format!("route add {BEHIND_FAR}/32 via 10.0.0.254")])
            .unwrap();
        far.ip_batch(&[
            "link set lo up".to_owned(),
            format!("address add {BEHIND_FAR}/32 dev lo"),
        ])
        .unwrap();
        let there = format!("route replace {BEHIND_FAR}/32 via {far_end} dev tun1");
        let back =
            format!("route replace {CLIENT_ADDRESS}/32 via {near_end} dev tun1 src {BEHIND_FAR}");
        poll::until(PATIENCE, || {
            router.ip_batch(std::slice::from_ref(&there))?;
            far.ip_batch(std::slice::from_ref(&back))?;
            client.exec(&["ping", "-c1", "-W1", BEHIND_FAR])
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
        Self {
            cluster,
            _far: far_agent,
        }
    }

    fn traffic(&self, way: Way) -> Traffic {
        let [client, server, far] = [CLIENT, SERVER, FAR].map(|name| self.cluster.lab.node(name));
        match way {
            Way::BetweenLans => Traffic::start(client, server, SERVER_ADDRESS, PACE),
            Way::IntoTunnel => Traffic::start_by(client, far, "tun1", BEHIND_FAR, PACE),
            Way::OutOfTunnel => Traffic::start_by(far, client, "eth0", CLIENT_ADDRESS, PACE),
        }
        .unwrap()
    }

    /// Packets that passed the primary's stack by.
    fn past_the_stack(&self) -> u64 {
        #[derive(Deserialize)]
        struct Document {
            tunnels: Vec<TunnelStatus>,
        }
        let words = ["show", "interfaces", "tunnel", "--json"];
        let text = agent::routerctl(self.cluster.node(PRIMARY), &words).unwrap();
        let Document { tunnels } = serde_json::from_str(&text).unwrap();
        let counters = ["rx_transit", "tx_transit"];
        let of_tunnel = |tunnel: &TunnelStatus| counters.map(|name| tunnel.counter(name));
        tunnels.iter().flat_map(of_tunnel).sum()
    }
}

/// What came to packets whose router lost its grants while its agent was gone.
struct Cut {
    report: Report,
    lease_end: BootTime,
    /// When the agent was there again.
    healed: BootTime,
}

/// Cuts the active's grants while its agent is gone.
fn cut_from_grants(scene: &mut Scene, way: Way, end: End) -> Cut {
    let traffic = scene.traffic(way);
    let cluster = &mut scene.cluster;
    sleep(Duration::from_millis(300));
    let fault = match end {
        End::Stopped => Fault::StopAgent,
        End::Killed => Fault::KillAgent,
    };
    cluster.inject(fault, PRIMARY).unwrap();
    article::cut_routers_apart(&cluster.lab).unwrap();
    sleep(Duration::from_millis(2 * DEAD_MS));
    // Nobody grants any more: this was the last one.
    let granted = number(cluster.node(PRIMARY), "leases", "granted_tx_ns").unwrap();
    assert!(granted > 0, "it lived on grants");
    let lease_end = BootTime::from_ns(granted + LEASE_NS);
    sleep(Duration::from_millis(600));
    let healed = cluster.heal(fault, PRIMARY).unwrap();
    // It runs, and still nobody grants.
    sleep(Duration::from_millis(1_500));
    Cut {
        report: traffic.finish().unwrap(),
        lease_end,
        healed,
    }
}

impl Cut {
    /// Packets sent when the lease had ended, which arrived all the same, by whichever router.
    fn violations(&self) -> usize {
        self.sent_from(self.lease_end)
    }

    fn sent_from(&self, instant: BootTime) -> usize {
        let arrivals = self.report.arrivals().iter();
        arrivals.filter(|arrival| arrival.sent >= instant).count()
    }
}

fn no_packet_leaves_after_the_lease_end(way: Way, more: &'static str) {
    for end in [End::Stopped, End::Killed] {
        let mut scene = Scene::start(more);
        let cut = cut_from_grants(&mut scene, way, end);
        let before = cut.report.received() - cut.violations();
        assert!(
            before > 1_000,
            "{way:?}, {end:?}: {before} packets before the end"
        );
        assert_eq!(
            cut.violations(),
            0,
            "{way:?}, {end:?}, of which {} once the agent was there again",
            cut.sent_from(cut.healed)
        );
        let passed_by = scene.past_the_stack() > 1_000;
        assert_eq!(passed_by, more.contains(FAST_PATH), "{way:?}, {end:?}");
        // With its grants forwarding comes back.
        let cluster = &scene.cluster;
        article::bring_routers_together(&cluster.lab).unwrap();
        poll::until(PATIENCE, || client_reaches_server(cluster)).unwrap();
    }
}

#[test]
fn without_grants_no_packet_leaves_after_the_lease_end_however_the_agent_is() {
    for way in [Way::BetweenLans, Way::IntoTunnel, Way::OutOfTunnel] {
        no_packet_leaves_after_the_lease_end(way, PROTECT);
    }
}

#[test]
fn nor_does_one_past_the_stack() {
    const PROTECTED_FAST_PATH: &str = "set cluster group aws protect interface eth1
set cluster group aws protect interface eth2
set interfaces ethernet eth1 fast-path enable
";
    for way in [Way::IntoTunnel, Way::OutOfTunnel] {
        no_packet_leaves_after_the_lease_end(way, PROTECTED_FAST_PATH);
    }
}

/// The planted defect: interfaces that nothing protects.
#[test]
fn without_the_fence_that_is_noticed() {
    for (way, more) in [
        (Way::BetweenLans, ""),
        (Way::IntoTunnel, FAST_PATH),
        (Way::OutOfTunnel, ""),
    ] {
        let mut scene = Scene::start(more);
        let after = cut_from_grants(&mut scene, way, End::Stopped).violations();
        assert!(after > 1_000, "{way:?}: {after}");
    }
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

/// Where consistency is preferred. Otherwise both may forward while the group is handed over.
#[test]
fn who_hands_over_has_closed_before_the_successor_opens() {
    let cluster = formed("consistency", PROTECT);
    let traffic = traffic(&cluster);
    sleep(Duration::from_millis(300));
    agent::routerctl(cluster.node(PRIMARY), &["force", "cluster", "standby"]).unwrap();
    cluster.await_active(SECONDARY, PATIENCE).unwrap();
    let opened = number(cluster.node(SECONDARY), "fences", "opened_ns").unwrap();
    sleep(Duration::from_millis(300));
    let report = traffic.finish().unwrap();
    let (opened, never) = (BootTime::from_ns(opened), BootTime::from_ns(u64::MAX));
    assert!(forwarded(&report, PRIMARY, opened) > 1_000);
    assert_eq!(violations(&report, PRIMARY, opened, never), 0);
    assert!(forwarded(&report, SECONDARY, never) > 1_000);
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
