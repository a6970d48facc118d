//! What the kernel's programs say of packets: it comes to the agent's log with names, as much of it as its
//! level asks for, and no more than a limit however many packets there are.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use router_agent::control::protocol::{LogLine, LogSeverity};
use router_common::log::Gate;
use router_tests::{
    agent,
    article::{self, CLOUD, ROUTERS, Router},
    capture::Capture,
    cluster::{Cluster, PATIENCE},
    lab::Node,
    poll,
    talk::{send_frame, send_frames},
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
const HEARTBEAT_LENGTH: usize = 146;
const FORGED: &str = "its MAC is wrong";

/// Those about `target` that say `words`.
fn about(node: &Node, target: &str, words: &str) -> Result<Vec<LogLine>> {
    let mut lines = agent::log_about(node, target)?;
    lines.retain(|line| line.message.contains(words));
    Ok(lines)
}

fn suppressed(lines: &[LogLine]) -> u64 {
    let counts = lines
        .iter()
        .filter_map(|line| line.fields.get("suppressed"));
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

fn told(lines: &[LogLine]) -> usize {
    let is_told = |line: &&LogLine| !line.fields.contains_key("suppressed");
    lines.iter().filter(is_told).count()
}

/// A heartbeat that was on its way to the primary, from the cloud's end of its cable.
fn heartbeat(cluster: &Cluster) -> Vec<u8> {
    const FRAMES: u32 = 20;
    let cloud = cluster.lab.node(CLOUD);
    let interface = article::cloud_interface(PRIMARY.name);
    let mut capture = Capture::start(cloud, interface, "ip proto 47", FRAMES).unwrap();
    capture.wait_within(PATIENCE).unwrap();
    let frames = capture.finish().unwrap();
    let to_primary = [2, 0, 0, 0, 1, 0x0a];
    let mut frames = frames.into_iter();
    frames
        .find(|frame| frame.starts_with(&to_primary) && frame.len() == HEARTBEAT_LENGTH)
        .expect("one of some frames is a heartbeat")
}

/// The same with another last byte, which is of the MAC.
fn forged(cluster: &Cluster) -> Vec<u8> {
    let mut frame = heartbeat(cluster);
    *frame.last_mut().unwrap() ^= 1;
    frame
}

fn formed() -> Cluster {
    formed_by(Router::article_config)
}

fn formed_by(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    cluster
}

fn send(cluster: &Cluster, frame: &[u8]) {
    let interface = article::cloud_interface(PRIMARY.name);
    send_frame(cluster.lab.node(CLOUD), interface, frame).unwrap();
}

/// The same, of another kind of trouble.
fn with_checksum(frame: &[u8]) -> Vec<u8> {
    const FLAGS: usize = 14 + 20;
    let mut frame = frame.to_vec();
    frame[FLAGS] |= 0x80;
    frame
}

fn await_checksum(cluster: &Cluster) {
    poll::until(PATIENCE, || {
        let checksums = about(cluster.node(PRIMARY), "bpf::gre", "GRE checksum")?;
        ensure!(checksums.len() == 1, "{checksums:?}");
        Ok(())
    })
    .unwrap();
}

/// Until the log tells of so many, each by a line or in a sum.
fn await_forged(cluster: &Cluster, expected: u64) {
    poll::until(Duration::from_secs(30), || {
        let lines = about(cluster.node(PRIMARY), "bpf::heartbeat", FORGED)?;
        let all = u64::try_from(told(&lines))? + suppressed(&lines);
        ensure!(all == expected, "{all} of {expected}: {lines:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_forged_heartbeat_makes_one_line_that_says_why_and_whence() {
    let cluster = formed();
    let node = cluster.node(PRIMARY);
    let before = agent::log_about(node, "bpf").unwrap();
    assert_eq!(before, [], "while all is well");

    send(&cluster, &forged(&cluster));
    poll::until(PATIENCE, || {
        let lines = about(node, "bpf::heartbeat", FORGED)?;
        ensure!(lines.len() == 1, "{lines:?}");
        let LogLine { level, fields, .. } = &lines[0];
        ensure!(*level == LogSeverity::Warn, "{lines:?}");
        for (field, value) in [
            ("group", "aws"),
            ("interface", "eth0"),
            ("from", SECONDARY.underlay),
            ("to", PRIMARY.underlay),
            ("inner_from", SECONDARY.tunnel),
        ] {
            ensure!(
                fields.get(field).map(String::as_str) == Some(value),
                "{lines:?}"
            );
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(cluster.session(PRIMARY).unwrap().mac_failures, 1);
}

#[test]
fn the_level_of_the_log_reaches_the_running_programs() {
    let leases = "set cluster group aws prefer consistency\n";
    let cluster = formed_by(move |router| router.article_config() + leases);
    let node = cluster.node(PRIMARY);
    let level = |level| agent::routerctl(node, &["log", "level", level]).unwrap();
    let leases = || about(node, "bpf::lease", "lease").map(|lines| lines.len());
    assert_eq!(leases().unwrap(), 0);

    level("info,bpf::lease=debug");
    poll::until(PATIENCE, || {
        ensure!(leases()? > 0);
        Ok(())
    })
    .unwrap();

    level("info,bpf::heartbeat=off");
    let silent = leases().unwrap();
    let failures = cluster.session(PRIMARY).unwrap().mac_failures;
    send(&cluster, &forged(&cluster));
    poll::until(PATIENCE, || {
        let now = cluster.session(PRIMARY)?.mac_failures;
        ensure!(now > failures, "{now} failures");
        Ok(())
    })
    .unwrap();
    // What was in the ring is there by now.
    let renewals = cluster.session(PRIMARY).unwrap().replies_received;
    poll::until(PATIENCE, || {
        let now = cluster.session(PRIMARY)?.replies_received;
        ensure!(now > renewals + 10, "{now} replies");
        Ok(())
    })
    .unwrap();
    assert_eq!(about(node, "bpf::heartbeat", FORGED).unwrap(), []);
    assert!(leases().unwrap() <= silent + 1, "but for one under way");
    let gates = agent::routerctl(node, &["maps", "dump", "log_gates", "--json"]).unwrap();
    assert!(
        !gates.contains("lease-renewed"),
        "closed and so not shown: {gates}"
    );
    assert!(gates.contains("impostor"), "{gates}");

    level("info");
    send(&cluster, &forged(&cluster));
    poll::until(PATIENCE, || {
        ensure!(about(node, "bpf::heartbeat", FORGED)?.len() == 1);
        Ok(())
    })
    .unwrap();
}

/// What the counter has come to when it has stood still for a second, above zero. Of a flood, a machine that
/// has no time loses some before they are counted.
fn still(counter: impl Fn() -> Result<u64>) -> u64 {
    let mut last = (0, Instant::now());
    poll::until(PATIENCE, || {
        let now = counter()?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        let (value, since) = last;
        ensure!(
            value > 0 && since.elapsed() > Duration::from_secs(1),
            "still at {value}"
        );
        Ok(value)
    })
    .unwrap()
}

#[test]
fn a_flood_makes_few_lines_and_the_rest_is_counted() {
    const FLOOD: u64 = 20_000;
    let cluster = formed();
    let node = cluster.node(PRIMARY);
    let frame = forged(&cluster);
    let began = router_agent::clock::now();
    let interface = article::cloud_interface(PRIMARY.name);
    let flood = FLOOD.try_into().unwrap();
    send_frames(cluster.lab.node(CLOUD), interface, &frame, flood).unwrap();
    let refused = still(|| Ok(cluster.session(PRIMARY)?.mac_failures));
    assert!(refused > FLOOD / 20, "{refused} of {FLOOD}");
    let took = router_agent::clock::now().since(began);
    // Another kind of trouble is seen all the same.
    send(&cluster, &with_checksum(&frame));
    await_checksum(&cluster);
    await_forged(&cluster, refused);
    let lines = about(node, "bpf::heartbeat", FORGED).unwrap();
    let intervals = took.as_nanos() / u128::from(Gate::INTERVAL_NS) + 1;
    let bound = usize::try_from(u128::from(Gate::BURST) + intervals).unwrap();
    assert!(told(&lines) <= bound, "{} in {took:?}", told(&lines));
    assert!(lines.len() <= 2 * bound, "{lines:?}");
    let dump = agent::routerctl(node, &["maps", "dump", "log_suppressed"]).unwrap();
    assert!(dump.contains("forged"), "{dump}");
}

#[test]
fn the_next_agent_goes_on_where_the_one_before_it_stopped() {
    const FLOOD: u32 = 20;
    let mut cluster = formed();
    let frame = forged(&cluster);
    let flood = |cluster: &Cluster| {
        let interface = article::cloud_interface(PRIMARY.name);
        send_frames(cluster.lab.node(CLOUD), interface, &frame, FLOOD).unwrap();
    };
    flood(&cluster);
    await_forged(&cluster, u64::from(FLOOD));

    cluster.take_agent(PRIMARY).unwrap().kill().unwrap();
    // Nobody reads; it must not be in the way.
    send(&cluster, &with_checksum(&frame));
    cluster.start_agent(PRIMARY).unwrap();
    cluster.settle_any().unwrap();
    let log = agent::log(cluster.node(PRIMARY));
    assert!(!log.contains("all is made anew"), "{log}");
    // Records come in order: what the one before has read would be ahead of this.
    await_checksum(&cluster);
    await_forged(&cluster, 0);

    flood(&cluster);
    await_forged(&cluster, u64::from(FLOOD));
}
