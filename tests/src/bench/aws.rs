//! What the agent adds to a takeover at AWS: from its decision until its requests are on the cable.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use router_common::time::BootTime;

use super::{heartbeat::distribution::Distribution, report::output_directory, rounds};
use crate::{
    agent,
    aws::{self, Cloud, requests::Requests},
    clock,
    cluster::PATIENCE,
    poll,
    status::activation_after,
};

/// What the configuration moves: two routes, an elastic IP, a private address.
const MOVED: usize = 4;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Times that the group is moved
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Of each move, in nanoseconds.
#[derive(Default)]
struct Times {
    first: Vec<u64>,
    last: Vec<u64>,
    /// From the last request until all were answered.
    answers: Vec<u64>,
    requests: usize,
    /// Requests by connections that were begun after the decision.
    on_new_connections: usize,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { rounds } = *arguments;
    println!("aws: {}", rounds::machine());
    println!(
        "  moto in place of EC2, plain HTTP; {MOVED} resources; moved by `force cluster standby`"
    );
    let cloud = Cloud::start(aws::config)?;
    let mut times = Times::default();
    for round in 1..=rounds {
        let moved = move_group(&cloud, &mut times).with_context(|| format!("round {round}"));
        moved.with_context(|| cloud.cluster.logs())?;
    }
    println!("{:<40}{}   µs", "", Distribution::heading());
    let mut document = serde_json::Map::new();
    for (what, values) in [
        ("decided to first request passing", &mut times.first),
        ("decided to last request passing", &mut times.last),
        ("last request to all answered, moto's", &mut times.answers),
    ] {
        let distribution = Distribution::of(values);
        println!("  {what:<38}{distribution}");
        document.insert(what.to_owned(), serde_json::to_value(distribution)?);
    }
    let Times {
        requests,
        on_new_connections,
        ..
    } = times;
    println!(
        "  {on_new_connections} of {requests} requests were on connections begun after the decision"
    );
    document.insert("machine".to_owned(), rounds::machine().into());
    document.insert("requests".to_owned(), requests.into());
    document.insert("on_new_connections".to_owned(), on_new_connections.into());
    let path = output_directory()?.join("aws.json");
    fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}

fn move_group(cloud: &Cloud, times: &mut Times) -> Result<()> {
    let Cloud { cluster, .. } = cloud;
    let active = poll::until(PATIENCE * 3, || {
        let active = cluster.settle_any()?;
        cluster.await_active(active, PATIENCE).map(|_| active)
    })?;
    let successor = active.peer();
    let requests = Requests::listen(&cluster.lab, successor)?;
    let before = clock::now();
    let away = ["force", "cluster", "standby"];
    agent::routerctl(cluster.node(active), &away)?;
    let group = cluster.await_active(successor, PATIENCE)?;
    let requests = requests.finish()?;
    let activation =
        activation_after(&group, before).context("the history tells of no activation")?;
    let decided = BootTime::from_ns(activation.decided_ns);
    let moved: Vec<_> = requests
        .iter()
        .filter(|request| request.at >= decided && request.moves())
        .take(MOVED)
        .collect();
    ensure!(moved.len() == MOVED, "{requests:?}");
    let (first, last) = (moved[0].at, moved[MOVED - 1].at);
    let done = activation.steps.iter().map(|step| step.done_ns).max();
    let ns = |from: BootTime, to: BootTime| to.as_ns().saturating_sub(from.as_ns());
    times.first.push(ns(decided, first));
    times.last.push(ns(decided, last));
    let answered = BootTime::from_ns(done.unwrap_or_default());
    times.answers.push(ns(last, answered));
    times.requests += moved.len();
    let is_new = |at: BootTime| !at.is_never() && at >= decided;
    times.on_new_connections += moved.iter().filter(|it| is_new(it.connecting)).count();
    Ok(())
}
