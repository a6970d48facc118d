//! How long a failover takes, with an arbiter and without: the active node loses power under traffic, again
//! and again, at the fastest timing.

use std::{collections::BTreeMap, fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::{arbiter::record, cluster::Mode};
use router_common::time::BootTime;

use super::{report::output_directory, rounds};
use crate::{
    article::{
        self, ARBITER, ARBITER_ADDRESS, CLIENT, FASTEST_TIMING, PROTECT, RECORD, Router, SERVER,
        SERVER_ADDRESS,
    },
    cluster::{Cluster, Fault, PATIENCE},
    etcd::Etcd,
    poll,
    status::activation_after,
    traffic::Traffic,
};

/// Between packets, and so how finely an outage is measured.
const PACE: Duration = Duration::from_micros(250);
/// Around a failover nothing is asked, for asking takes a processor.
const UNDISTURBED: Duration = Duration::from_millis(300);
const ETCD_MEMBERS: usize = 3;
/// Slow failovers that are told one by one.
const WORST: usize = 3;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Failovers of each kind
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only those with an arbiter, or only those without one
    #[arg(long)]
    etcd: Option<bool>,
}

/// By what the active forwarded when it lost power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    OwnWord,
    Grants,
    /// The arbiter's, with a term that the successor waits for.
    Record,
}

impl By {
    const fn words(self) -> &'static str {
        match self {
            Self::OwnWord => "without arbiter",
            Self::Grants => "with etcd, record paired",
            Self::Record => "with etcd, record solo",
        }
    }
}

/// The stages of a failover, in their order.
const STAGES: [&str; 5] = [
    "last heard to suspected",
    "suspected to arbiter asked",
    "arbiter asked to answered",
    "fence open to services taken",
    "power lost to first packet",
];

/// Of one failover, how long each stage took that there was.
struct Failover {
    by: By,
    stages: [Option<Duration>; STAGES.len()],
}

impl Failover {
    fn whole(&self) -> Option<Duration> {
        self.stages[STAGES.len() - 1]
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    println!("failover: {}", rounds::machine());
    println!("  keepalive 1 ms, dead 4 ms; {ETCD_MEMBERS} etcd processes on this machine");
    println!("  begun with both nodes up, paired if there is a record, and left alone for 300 ms");
    let mut kinds: BTreeMap<By, Vec<Failover>> = BTreeMap::new();
    for with_etcd in [false, true] {
        if arguments.etcd.is_none_or(|only| only == with_etcd) {
            for failover in measure(arguments.rounds, with_etcd)? {
                kinds.entry(failover.by).or_default().push(failover);
            }
        }
    }
    let mut document = BTreeMap::new();
    for (by, failovers) in &mut kinds {
        document.insert(by.words(), tell(*by, failovers));
    }
    let path = output_directory()?.join("failover.json");
    let document = serde_json::json!({
        "machine": rounds::machine(),
        "milliseconds_p50_p99_max": document,
    });
    fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints what came out of one kind; the figures of each stage.
fn tell(by: By, failovers: &mut [Failover]) -> BTreeMap<&'static str, [f64; 3]> {
    println!("\n{}, {} failovers", by.words(), failovers.len());
    println!("  {:<32}{:>9}{:>9}{:>9}", "", "p50", "p99", "max");
    let mut figures = BTreeMap::new();
    for (place, stage) in STAGES.into_iter().enumerate() {
        let mut times: Vec<_> = failovers.iter().filter_map(|it| it.stages[place]).collect();
        times.sort_unstable();
        let Some(last) = times.len().checked_sub(1) else {
            continue;
        };
        let at = |percent: usize| in_ms(times[last * percent / 100]);
        let [p50, p99, max] = [at(50), at(99), at(100)];
        println!("  {stage:<32}{p50:>9.2}{p99:>9.2}{max:>9.2} ms");
        figures.insert(stage, [p50, p99, max]);
    }
    failovers.sort_by_key(|it| std::cmp::Reverse(it.whole()));
    for slow in failovers.iter().take(WORST) {
        let stages = slow.stages.iter().map(|stage| {
            stage.map_or_else(|| format!("{:>9}", "-"), |it| format!("{:>9.2}", in_ms(it)))
        });
        println!(
            "  one of the slowest, by stage: {} ms",
            stages.collect::<String>()
        );
    }
    figures
}

fn in_ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn config(router: Router) -> String {
    router.article_with_services() + PROTECT + FASTEST_TIMING
}

fn measure(rounds: u32, with_etcd: bool) -> Result<Vec<Failover>> {
    let lab = article::lab_with_arbiter()?;
    // Held until the agents have ended.
    let etcd = with_etcd
        .then(|| Etcd::start(lab.node(ARBITER), ARBITER_ADDRESS, ETCD_MEMBERS))
        .transpose()?;
    let arbiter = etcd.as_ref().map_or_else(String::new, Etcd::config);
    let mut cluster = Cluster::start_in(lab, move |router| config(router) + &arbiter)?;
    let mut failovers = Vec::new();
    for round in 1..=rounds {
        let failover = fail_over(&mut cluster, etcd.as_ref());
        let failover = failover.with_context(|| format!("round {round}, etcd: {with_etcd}"));
        failovers.push(failover.with_context(|| cluster.logs())?);
    }
    Ok(failovers)
}

fn fail_over(cluster: &mut Cluster, etcd: Option<&Etcd>) -> Result<Failover> {
    let active = cluster.settle_any()?;
    let successor = active.peer();
    // After whatever made it live on the record.
    poll::until(PATIENCE, || {
        let record = cluster.group(active)?.arbiter.map(|it| it.record);
        let is_paired = record.is_none_or(|it| it.is_some_and(|it| it.ends_with("paired")));
        ensure!(is_paired, "the active lives on the record");
        Ok(())
    })?;
    let lab = &cluster.lab;
    let traffic = Traffic::start(lab.node(CLIENT), lab.node(SERVER), SERVER_ADDRESS, PACE)?;
    sleep(UNDISTURBED);
    let at = cluster.inject(Fault::KillNode, active)?;
    sleep(UNDISTURBED);
    let group = cluster.await_active(successor, PATIENCE)?;
    sleep(UNDISTURBED);
    let packets = traffic.finish()?;
    let by = match etcd {
        None => By::OwnWord,
        Some(etcd) => replaced(cluster, etcd, group.epoch)?,
    };
    cluster.heal(Fault::KillNode, active)?;
    let first = packets.first_from(successor.server_side_mac, at);
    let first = first.context("the successor forwarded nothing")?;
    let activation = activation_after(&group, at).context("the history tells of no activation")?;
    let stages = activation.stages;
    let between = |from: u64, to: u64| {
        (from > 0 && to > 0).then(|| BootTime::from_ns(to).since(BootTime::from_ns(from)))
    };
    let last_step = activation.steps.iter().map(|step| step.done_ns).max();
    Ok(Failover {
        by,
        stages: [
            between(activation.last_heard_ns, stages.suspected_ns),
            between(stages.suspected_ns, stages.arbiter_asked_ns),
            between(stages.arbiter_asked_ns, stages.arbiter_answered_ns),
            between(stages.fence_open_ns, last_step.unwrap_or_default()),
            Some(first.at.since(at)),
        ],
    })
}

/// What the record said that was replaced by the one of `epoch`: the last word of the node that lost power.
fn replaced(cluster: &Cluster, etcd: &Etcd, epoch: u32) -> Result<By> {
    let is_of = |value: &str| record::decode(value.as_bytes()).map(|it| it.claim.epoch.0 == epoch);
    let node = cluster.lab.node(ARBITER);
    let values = etcd.values_while(node, RECORD, |value| is_of(value).is_ok_and(|it| it))?;
    let last = values.last().context("there is no record")?;
    Ok(match record::decode(last.as_bytes())?.mode {
        Mode::Paired => By::Grants,
        Mode::Solo { .. } => By::Record,
    })
}
