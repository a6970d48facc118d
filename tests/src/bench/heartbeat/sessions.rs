//! What agents and kernel use for many sessions, and at rest.

use std::{fmt::Write as _, thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use aya::sys::{Stats, enable_stats};
use serde::Serialize;

use super::{
    super::rounds,
    publish,
    usage::{Shares, Usage, resident_kb, sessions},
};
use crate::{
    agent,
    article::{self, PRIMARY, ROUTERS, Router, SECONDARY},
    clock,
    cluster::Cluster,
    poll,
    status::{is_active, is_standby},
};

/// Sessions, and the intervals in ms; the first is an agent at rest with the default timing.
const CASES: [(u32, u64, u64); 4] = [
    (1, 50, 200),
    (1, 100, 400),
    (100, 100, 400),
    (1_000, 100, 400),
];
const START_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug, Serialize)]
struct Case {
    sessions: u32,
    keepalive_ms: u64,
    seconds: u64,
    nodes: Vec<NodeUse>,
    /// The same while the cloud drops what tunnels send, so that a probe's way ends there.
    cut: Vec<NodeUse>,
    /// Of both nodes, whose messages were believed within the dead-interval at the end.
    sessions_up: usize,
    failovers: u32,
}

#[derive(Debug, Serialize)]
struct NodeUse {
    node: &'static str,
    cores: Shares,
    resident_kb: u64,
}

pub fn measure(seconds: u64) -> Result<()> {
    println!("\nheartbeat, sessions: {}", rounds::machine());
    println!("  both agents, {seconds} s each; in percent of one core");
    println!("  sending through tunnel and underlay is in the agent's system time");
    println!(
        "{:>10}{:>11} {:<14}{:>8}{:>8}{:>8}{:>9}{:>12}{:>9}",
        "sessions", "keepalive", "node", "agent", "user", "system", "program", "runs/s", "RSS MiB"
    );
    let mut cases = Vec::new();
    for (count, keepalive_ms, dead_ms) in CASES {
        let case = case(count, keepalive_ms, dead_ms, seconds)?;
        let cut = case.cut.iter().map(|used| (", cut", used));
        for (state, used) in case.nodes.iter().map(|used| ("", used)).chain(cut) {
            let NodeUse {
                node,
                cores,
                resident_kb,
            } = used;
            println!(
                "{count:>10}{:>11} {:<14}{:>8.2}{:>8.2}{:>8.2}{:>9.3}{:>12.0}{:>9.1}",
                format!("{keepalive_ms} ms"),
                format!("{node}{state}"),
                100.0 * (cores.user + cores.system),
                100.0 * cores.user,
                100.0 * cores.system,
                100.0 * cores.program,
                cores.program_runs_per_second,
                f64::from(u32::try_from(*resident_kb)?) / 1024.0,
            );
        }
        println!(
            "{:>21} {} of {} sessions up, {} failovers",
            "",
            case.sessions_up,
            2 * count,
            case.failovers
        );
        cases.push(case);
    }
    publish("heartbeat-sessions", &cases)
}

fn config(router: Router, groups: u32, keepalive_ms: u64, dead_ms: u64) -> String {
    let mut text = router.tunnel_config()
        + &format!(
            "set cluster interface tun00
set cluster pre-shared-secret cloudpack
set cluster keepalive-interval {keepalive_ms}
set cluster dead-interval {dead_ms}
"
        );
    for group in 0..groups {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "set cluster group g{group} primary {PRIMARY}
set cluster group g{group} secondary {SECONDARY}"
        );
    }
    text
}

/// The sum of all epochs, once each group has an active node and a standby.
fn settled(cluster: &Cluster) -> Result<u32> {
    let [first, second] = ROUTERS.map(|router| agent::status(cluster.node(router)));
    let (first, second) = (first?, second?);
    let mut epochs = 0;
    for (one, other) in first.groups.iter().zip(&second.groups) {
        ensure!(
            (is_active(one) && is_standby(other)) || (is_standby(one) && is_active(other)),
            "group {} is {} and {}",
            one.group,
            one.state,
            other.state
        );
        epochs += one.epoch;
    }
    Ok(epochs)
}

fn case(count: u32, keepalive_ms: u64, dead_ms: u64, seconds: u64) -> Result<Case> {
    let cluster = Cluster::start(move |router| config(router, count, keepalive_ms, dead_ms))?;
    let epochs = poll::until(START_TIMEOUT, || settled(&cluster))?;
    // What they do only once after their start is over.
    sleep(Duration::from_secs(2));
    let _statistics = enable_stats(Stats::RunTime)?;
    let look = || -> Result<Vec<(Router, u32, Usage)>> {
        ROUTERS
            .into_iter()
            .map(|router| {
                let agent = cluster.agent(router)?.id();
                Ok((router, agent, Usage::of(cluster.node(router), agent)?))
            })
            .collect()
    };
    let used = || -> Result<Vec<NodeUse>> {
        let before = look()?;
        sleep(Duration::from_secs(seconds));
        let pairs = look()?.into_iter().zip(before);
        pairs
            .map(|((router, agent, after), (_, _, before))| {
                Ok(NodeUse {
                    node: router.name,
                    cores: after.since(&before),
                    resident_kb: resident_kb(agent)?,
                })
            })
            .collect()
    };
    let nodes = used()?;
    let mut sessions_up = 0;
    for router in ROUTERS {
        let states = sessions(cluster.node(router), count)?;
        let now = clock::now();
        sessions_up += states
            .iter()
            .filter(|state| now.since(state.last_heard()) < Duration::from_millis(dead_ms))
            .count();
    }
    let failovers = settled(&cluster).map_or(u32::MAX, |now| now - epochs);
    article::cut_tunnel(&cluster.lab)?;
    // Both take over what they have not.
    sleep(Duration::from_secs(2));
    let cut = used()?;
    Ok(Case {
        sessions: count,
        keepalive_ms,
        seconds,
        nodes,
        cut,
        sessions_up,
        failovers,
    })
}
