//! How long a failover takes, with an arbiter and without: the active node loses power under traffic, again
//! and again, at the fastest timing.

use std::{collections::BTreeMap, fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_common::time::BootTime;

use super::{report::output_directory, rounds};
use crate::{
    article::{self, ARBITER, ARBITER_ADDRESS, CLIENT, Router, SERVER, SERVER_ADDRESS, SERVICES},
    cluster::{Cluster, Fault, PATIENCE},
    etcd::Etcd,
    poll,
    status::activation_after,
    traffic::Traffic,
};

/// Between packets, and so how finely an outage is measured.
const PACE: Duration = Duration::from_micros(250);
const ETCD_MEMBERS: usize = 3;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Failovers of each kind
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Of one failover.
struct Parts {
    /// From the loss of power to the first packet that the successor forwards.
    whole: Duration,
    /// From the last sign of the peer to the decision that it is dead.
    detection: Duration,
    /// From question to answer.
    arbiter: Option<Duration>,
    /// With an arbiter: the active lived on its peer's grants, and not on the record, when it was killed.
    paired: bool,
    /// From the opening of the fence to the last service taken.
    services: Duration,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    println!("failover: {}, keepalive 1 ms, dead 4 ms", rounds::machine());
    let mut document = BTreeMap::new();
    for (name, with_etcd) in [("without arbiter", false), ("with etcd", true)] {
        let parts = measure(arguments.rounds, with_etcd).with_context(|| name.to_owned())?;
        let of = |part: fn(&Parts) -> Option<Duration>| {
            let mut times: Vec<_> = parts.iter().filter_map(part).collect();
            times.sort_unstable();
            times
        };
        let rows = [
            ("power lost to first packet", of(|it| Some(it.whole))),
            ("last heard to suspected", of(|it| Some(it.detection))),
            ("arbiter asked to answered", of(|it| it.arbiter)),
            ("fence open to services taken", of(|it| Some(it.services))),
        ];
        let alone = parts.iter().filter(|it| !it.paired).count();
        println!(
            "\n{name}, {} failovers; {alone} while the active lived on the record",
            parts.len()
        );
        println!("  {:<32}{:>9}{:>9}{:>9}", "", "p50", "p99", "max");
        let mut figures = BTreeMap::new();
        for (row, times) in rows {
            let Some(last) = times.len().checked_sub(1) else {
                continue;
            };
            let at = |percent: usize| times[last * percent / 100].as_secs_f64() * 1e3;
            println!(
                "  {row:<32}{:>9.2}{:>9.2}{:>9.2} ms",
                at(50),
                at(99),
                at(100)
            );
            figures.insert(row, [at(50), at(99), at(100)]);
        }
        document.insert(name, figures);
    }
    let path = output_directory()?.join("failover.json");
    let document = serde_json::json!({
        "machine": rounds::machine(),
        "rounds": arguments.rounds,
        "milliseconds_p50_p99_max": document,
    });
    fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}

fn config(router: Router) -> String {
    let [lan, servers] = SERVICES;
    router.article_config()
        + &format!(
            "set cluster group aws service {lan}
set cluster group aws service {servers}
set cluster group aws protect interface eth1
set cluster group aws protect interface eth2
set cluster keepalive-interval 1
set cluster dead-interval 4
"
        )
}

fn measure(rounds: u32, with_etcd: bool) -> Result<Vec<Parts>> {
    let lab = article::lab_with_arbiter()?;
    // Held until the agents have ended.
    let etcd = with_etcd
        .then(|| Etcd::start(lab.node(ARBITER), ARBITER_ADDRESS, ETCD_MEMBERS))
        .transpose()?;
    let arbiter = etcd.as_ref().map_or_else(String::new, Etcd::config);
    let mut cluster = Cluster::start_in(lab, move |router| config(router) + &arbiter)?;
    let mut parts = Vec::new();
    for round in 1..=rounds {
        let failover = fail_over(&mut cluster).with_context(|| format!("round {round}"));
        parts.push(failover.with_context(|| cluster.logs())?);
    }
    Ok(parts)
}

fn fail_over(cluster: &mut Cluster) -> Result<Parts> {
    let active = cluster.settle_any()?;
    let successor = active.peer();
    // After whatever made it live on the record.
    let is_paired = |cluster: &Cluster| {
        let arbiter = cluster.group(active)?.arbiter;
        anyhow::Ok(arbiter.is_none_or(|it| it.record.is_some_and(|it| it.ends_with("paired"))))
    };
    poll::until(PATIENCE, || {
        ensure!(is_paired(cluster)?, "the active lives on the record");
        Ok(())
    })?;
    let lab = &cluster.lab;
    let traffic = Traffic::start(lab.node(CLIENT), lab.node(SERVER), SERVER_ADDRESS, PACE)?;
    sleep(Duration::from_millis(200));
    let paired = is_paired(cluster)?;
    let at = cluster.inject(Fault::KillNode, active)?;
    let group = cluster.await_active(successor, PATIENCE)?;
    sleep(Duration::from_millis(200));
    let packets = traffic.finish()?;
    cluster.heal(Fault::KillNode, active)?;
    let first = packets.first_from(successor.server_side_mac, at);
    let first = first.context("the successor forwarded nothing")?;
    let activation = activation_after(&group, at).context("the history tells of no activation")?;
    let between = |from: u64, to: u64| BootTime::from_ns(to).since(BootTime::from_ns(from));
    let stages = activation.stages;
    let last_step = activation.steps.iter().map(|step| step.done_ns).max();
    Ok(Parts {
        whole: first.at.since(at),
        detection: between(activation.last_heard_ns, stages.suspected_ns),
        arbiter: (stages.arbiter_answered_ns > 0)
            .then(|| between(stages.arbiter_asked_ns, stages.arbiter_answered_ns)),
        paired,
        services: between(
            stages.fence_open_ns,
            last_step.unwrap_or(stages.fence_open_ns),
        ),
    })
}
