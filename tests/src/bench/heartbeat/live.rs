//! How regular the heartbeats of two agents are, idle and with all CPUs busy, and at which timing
//! they begin to fail.

use std::{thread::sleep, time::Duration};

use anyhow::Result;
use serde::Serialize;

use super::{
    super::{plot, report::output_directory, rounds},
    distribution::Distribution,
    publish,
    tap::Tap,
    usage::{Busy, sessions},
};
use crate::{
    article::{self, CLOUD, ROUTERS, Router},
    cluster::Cluster,
};

const KEEPALIVE: Duration = Duration::from_millis(1);
const DEAD_MS: u64 = 20;

/// What happened while a pair of agents ran.
#[derive(Debug, Serialize)]
struct Trial {
    name: String,
    dead_interval_ms: u64,
    seconds: u64,
    /// Whether one was active and the other standby when it began.
    settled: bool,
    /// Times that the group changed hands; nothing was the matter with either node.
    false_failovers: u32,
    /// Changes of state of both nodes.
    transitions: usize,
    round_trip: Distribution,
    gaps: Distribution,
    lateness: Distribution,
    /// Probes of the first node that passed, of which so many were answered.
    probes: u64,
    replies: u64,
    /// Packets that were not seen; then the figures are of the others.
    unseen: u64,
    /// By the first node's program, since its start.
    rtt_min_us: f64,
    rtt_max_us: f64,
}

pub fn measure(seconds: u64) -> Result<()> {
    let trials = [
        trial("idle", DEAD_MS, seconds, false)?,
        trial("all CPUs busy", DEAD_MS, seconds, true)?,
    ];
    println!("\nheartbeat, live: {}", rounds::machine());
    println!(
        "  keepalive {KEEPALIVE:?}, dead-interval {DEAD_MS} ms, {seconds} s each; busy: two processes a CPU"
    );
    println!("{:<34}{}   µs", "", Distribution::heading());
    for trial in &trials {
        for (what, distribution) in [
            ("round trip", &trial.round_trip),
            ("gap between messages", &trial.gaps),
            ("lateness of the probe clock", &trial.lateness),
        ] {
            println!("  {:<32}{distribution}", format!("{}: {what}", trial.name));
        }
    }
    print_verdicts(&trials);
    let curves: Vec<_> = trials
        .iter()
        .flat_map(|trial| {
            let name = &trial.name;
            [
                (format!("round trip, {name}"), trial.round_trip.points()),
                (format!("gap, {name}"), trial.gaps.points()),
            ]
        })
        .collect();
    let svg = output_directory()?.join("heartbeat-live.svg");
    plot::percentiles("heartbeats, µs", &curves, &svg)?;
    println!("written: {}", svg.display());
    publish("heartbeat-live", &trials)
}

/// Tries the dead-intervals in turn, with all CPUs busy.
pub fn measure_tightest(seconds: u64, dead_intervals_ms: &[u64]) -> Result<()> {
    println!(
        "\nheartbeat, tightest timing: all CPUs busy, keepalive {KEEPALIVE:?}, {seconds} s each"
    );
    let mut trials = Vec::new();
    for &dead_ms in dead_intervals_ms {
        trials.push(trial(
            &format!("dead-interval {dead_ms} ms"),
            dead_ms,
            seconds,
            true,
        )?);
    }
    print_verdicts(&trials);
    publish("heartbeat-tightest", &trials)
}

fn print_verdicts(trials: &[Trial]) {
    for trial in trials {
        println!(
            "  {}{}: {} false failovers, {} changes of state; {} of {} probes answered; longest gap \
             {:.1} ms; {} packets unseen",
            trial.name,
            if trial.settled {
                ""
            } else {
                " (not settled before)"
            },
            trial.false_failovers,
            trial.transitions,
            trial.replies,
            trial.probes,
            trial.gaps.max_us / 1e3,
            trial.unseen,
        );
    }
}

/// The article's configuration at this timing.
pub fn config(router: Router, dead_ms: u64) -> String {
    router.article_config()
        + &format!(
            "set cluster keepalive-interval {}
set cluster dead-interval {dead_ms}
",
            KEEPALIVE.as_millis()
        )
}

/// Epoch, and the number of changes of state of both nodes.
fn changes(cluster: &Cluster) -> Result<(u32, usize)> {
    let groups = [cluster.group(ROUTERS[0])?, cluster.group(ROUTERS[1])?];
    let epoch = groups.iter().map(|group| group.epoch).max().unwrap_or(0);
    let transitions = groups.iter().map(|group| group.transitions.len()).sum();
    Ok((epoch, transitions))
}

fn trial(name: &str, dead_ms: u64, seconds: u64, busy: bool) -> Result<Trial> {
    let cluster = Cluster::start(move |router| config(router, dead_ms))?;
    // Too tight a timing may not let them; that is a figure as well.
    let settled = cluster.settle_any().is_ok();
    let during = Duration::from_secs(seconds);
    let before = changes(&cluster)?;
    let load = busy
        .then(|| Busy::start(during + Duration::from_mins(1)))
        .transpose()?;
    let router = ROUTERS[0];
    let interface = article::cloud_interface(router.name);
    let tap = Tap::start(cluster.lab.node(CLOUD), interface, router, KEEPALIVE)?;
    sleep(during);
    let mut heard = tap.finish()?;
    drop(load);
    let after = changes(&cluster)?;
    let state = sessions(cluster.node(router), 1)?.remove(0);
    let [round_trip, gaps, lateness] = heard.distributions();
    #[expect(clippy::cast_precision_loss, reason = "spans of minutes at most")]
    let in_us = |ns: u64| ns as f64 / 1e3;
    Ok(Trial {
        name: name.into(),
        dead_interval_ms: dead_ms,
        seconds,
        settled,
        false_failovers: after.0 - before.0,
        transitions: after.1.saturating_sub(before.1),
        round_trip,
        gaps,
        lateness,
        probes: heard.probes,
        replies: heard.replies,
        unseen: heard.dropped,
        rtt_min_us: in_us(state.rtt_min_ns),
        rtt_max_us: in_us(state.rtt_max_ns),
    })
}
