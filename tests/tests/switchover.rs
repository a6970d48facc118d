//! Planned moves under a stream of packets in each direction, at 10,000 packets a second, through the
//! service addresses: who hands over loses none.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use router_agent::dataplane::DEFAULT_BPFFS;
use router_common::map::LAYOUT_VERSION;
use router_tests::{
    agent,
    article::{
        self, ARBITER, ARBITER_ADDRESS, CLIENT, CLIENT_ADDRESS, PROTECT, QUICK_TIMING, ROUTERS,
        Router, SERVER, SERVER_ADDRESS,
    },
    clock,
    cluster::{Cluster, PATIENCE},
    etcd::Etcd,
    lab::Lab,
    poll,
    traffic::{Report, Traffic},
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
const INTERVAL: Duration = Duration::from_micros(100);
const PACKETS: usize = 100_000;
/// Around each move.
const PAUSE: Duration = Duration::from_secs(2);

const DEFAULT_TIMING: &str = "";
const AUTO_FAILBACK: &str = "set cluster group aws auto-failback true
";

/// A cluster whose primary is active and forwards.
fn formed(lines: &[&str]) -> Cluster {
    formed_in(article::lab().unwrap(), lines)
}

fn formed_in(lab: Lab, lines: &[&str]) -> Cluster {
    let more = lines.concat();
    let config = move |router: Router| router.article_with_services() + &more;
    let cluster = Cluster::start_in(lab, config).unwrap();
    // On a busy machine the secondary may have been the first.
    let first = cluster.settle_any().unwrap();
    if first != PRIMARY {
        agent::routerctl(cluster.node(first), &["force", "cluster", "standby"]).unwrap();
    }
    cluster.settle(PRIMARY).unwrap();
    cluster.await_active(PRIMARY, PATIENCE).unwrap();
    let client = cluster.lab.node(CLIENT);
    let ping = ["ping", "-c1", "-W1", SERVER_ADDRESS];
    poll::until(PATIENCE, || client.exec(&ping)).unwrap();
    cluster
}

/// The streams while the group is moved: from the client to the server, and back.
fn under_traffic(
    cluster: &mut Cluster,
    moves: impl FnOnce(&mut Cluster) -> Result<()>,
) -> [Report; 2] {
    let began = clock::now();
    let streams = {
        let [client, server] = [CLIENT, SERVER].map(|name| cluster.lab.node(name));
        [
            Traffic::start(client, server, SERVER_ADDRESS, INTERVAL).unwrap(),
            Traffic::start(server, client, CLIENT_ADDRESS, INTERVAL).unwrap(),
        ]
    };
    sleep(PAUSE);
    moves(cluster).unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    let length = INTERVAL * u32::try_from(PACKETS).unwrap() + Duration::from_millis(100);
    clock::sleep_until(began.after(length)).unwrap();
    sleep(PAUSE);
    streams.map(|stream| stream.finish().unwrap())
}

fn none_lost(reports: &[Report; 2], cluster: &Cluster) {
    for (report, way) in reports.iter().zip(["client to server", "server to client"]) {
        println!("{way}: {} sent, {} lost", report.sent(), report.lost());
        assert!(report.sent() >= PACKETS, "{} sent", report.sent());
        let missing = report.missing();
        assert!(
            missing.is_empty(),
            "{way}: {} lost, among them {:?}\n{}",
            missing.len(),
            &missing[..missing.len().min(20)],
            cluster.logs()
        );
    }
}

/// Away from the primary, and back again.
fn by_hand(cluster: &mut Cluster) -> Result<()> {
    for router in [PRIMARY, SECONDARY] {
        agent::routerctl(cluster.node(router), &["force", "cluster", "standby"])?;
        cluster.await_active(router.peer(), PATIENCE)?;
        cluster.settle(router.peer())?;
        sleep(PAUSE);
    }
    Ok(())
}

/// The primary's agent is stopped in order, and takes the group back when it is started again.
fn by_failback(cluster: &mut Cluster) -> Result<()> {
    let agent = cluster.take_agent(PRIMARY)?;
    anyhow::ensure!(agent.terminate()?.success(), "it did not stop in order");
    cluster.await_active(SECONDARY, PATIENCE)?;
    sleep(PAUSE);
    cluster.start_agent(PRIMARY)?;
    cluster.await_active(PRIMARY, PATIENCE)?;
    cluster.settle(PRIMARY)
}

#[test]
fn a_move_by_hand_loses_no_packet() {
    for timing in [DEFAULT_TIMING, QUICK_TIMING] {
        let mut cluster = formed(&[timing]);
        let reports = under_traffic(&mut cluster, by_hand);
        none_lost(&reports, &cluster);
    }
}

/// The primary's agent is replaced by one with another layout of maps, after it has made way.
fn by_another_layout(cluster: &mut Cluster) -> Result<()> {
    let away = ["force", "cluster", "standby", "all"];
    agent::routerctl(cluster.node(PRIMARY), &away)?;
    cluster.await_active(SECONDARY, PATIENCE)?;
    cluster.settle(SECONDARY)?;
    sleep(PAUSE);
    cluster.take_agent(PRIMARY)?.detach()?;
    let [ours, others] =
        [LAYOUT_VERSION, 1000].map(|layout| format!("{DEFAULT_BPFFS}/router/v{layout}"));
    cluster.node(PRIMARY).exec(&["mv", &ours, &others])?;
    cluster.start_agent(PRIMARY)?;
    cluster.settle(SECONDARY)?;
    let log = agent::log(cluster.node(PRIMARY));
    anyhow::ensure!(log.contains("it is of layout v1000"), "{log}");
    sleep(PAUSE);
    Ok(())
}

/// As docs/operations.md tells it, and the package does it.
#[test]
fn an_upgrade_to_another_layout_loses_no_packet() {
    let mut cluster = formed(&[]);
    let reports = under_traffic(&mut cluster, by_another_layout);
    none_lost(&reports, &cluster);
}

#[test]
fn an_orderly_stop_and_a_failback_lose_no_packet() {
    for timing in [DEFAULT_TIMING, QUICK_TIMING] {
        let mut cluster = formed(&[timing, AUTO_FAILBACK]);
        let reports = under_traffic(&mut cluster, by_failback);
        none_lost(&reports, &cluster);
    }
}

/// As [`formed`], with an arbiter, which is to outlive the agents.
fn formed_with_arbiter(lines: &[&str]) -> (Etcd, Cluster) {
    let lab = article::lab_with_arbiter().unwrap();
    let etcd = Etcd::start(lab.node(ARBITER), ARBITER_ADDRESS, 3).unwrap();
    let cluster = formed_in(lab, &[&[etcd.config().as_str()], lines].concat());
    (etcd, cluster)
}

/// That each router became active last by a record of the arbiter's.
fn both_recorded(cluster: &Cluster) {
    for router in ROUTERS {
        let group = cluster.group(router).unwrap();
        let mut changes = group.transitions.iter();
        let stages = &changes.rfind(|it| it.to == "active").unwrap().stages;
        assert!(
            stages.arbiter_asked_ns > 0 && stages.arbiter_answered_ns >= stages.arbiter_asked_ns,
            "{}: {stages:?}",
            router.name
        );
    }
}

/// The old node lets go before the new one has its record, and goes on forwarding what comes to it.
#[test]
fn moves_that_an_arbiter_records_lose_no_packet() {
    let (_etcd, mut cluster) = formed_with_arbiter(&[QUICK_TIMING]);
    let reports = under_traffic(&mut cluster, by_hand);
    none_lost(&reports, &cluster);
    both_recorded(&cluster);
}

#[test]
fn a_stop_and_a_failback_that_an_arbiter_records_lose_no_packet() {
    let (_etcd, mut cluster) = formed_with_arbiter(&[DEFAULT_TIMING, AUTO_FAILBACK]);
    let reports = under_traffic(&mut cluster, by_failback);
    none_lost(&reports, &cluster);
    both_recorded(&cluster);
}

/// Of a stream under which the group moved: the longest run of packets that were lost, and how many
/// there were in all.
fn lost(report: &Report) -> (usize, usize) {
    let missing = report.missing();
    let runs = missing.chunk_by(|one, next| one + 1 == *next);
    let longest = runs.map(<[u64]>::len).max().unwrap_or(0);
    (longest, missing.len())
}

/// With a fence, what is sent to the old router after that has closed is lost. It is less than what is sent
/// in half a keepalive, because nodes that wait for each other do not wait for the next one. Keepalives are
/// so far apart that a busy machine makes no difference.
#[test]
fn a_move_between_fences_waits_for_no_keepalive() {
    const HALF_A_KEEPALIVE: usize = 2_000;
    const SLOW_TIMING: &str =
        "set cluster keepalive-interval 400\nset cluster dead-interval 1600\n";
    for prefer in ["availability", "consistency"] {
        let prefer_line = format!("set cluster group aws prefer {prefer}\n");
        let mut cluster = formed(&[SLOW_TIMING, &prefer_line, PROTECT]);
        let reports = under_traffic(&mut cluster, by_hand);
        for report in &reports {
            let (longest, all) = lost(report);
            println!(
                "{prefer}: {all} of {} lost, {longest} in a row",
                report.sent()
            );
            assert!(longest < HALF_A_KEEPALIVE, "{}", cluster.logs());
        }
    }
}
