//! The demonstration: a cluster, traffic, a fault, and what was measured.

mod report;
mod scene;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use crate::{
    article::{PRIMARY, Router, SECONDARY},
    cluster::{Cluster, Fault},
    lab,
};

/// Shows a failover: makes two routers, a client LAN and a server side in namespaces of its own,
/// starts both agents, takes the active router away and tells what was measured.
#[derive(Debug, Parser)]
#[command(name = "router-demo", version)]
pub struct Args {
    /// How the active router is taken away; several are played one after the other
    #[arg(long, value_enum, default_value = "kill-node", value_delimiter = ',')]
    fault: Vec<Fault>,
    /// The article's configuration, the one with service addresses and 1 ms / 4 ms timing, or both
    #[arg(long, value_enum, default_value = "both")]
    scene: SceneChoice,
    /// Repeat the failover of the service scene and tell minimum, median and maximum
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Leave the last scene running, and tell how to enter it
    #[arg(long)]
    keep: bool,
    /// Only remove what --keep left
    #[arg(long, exclusive = true)]
    clean: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SceneChoice {
    Article,
    Service,
    Both,
}

/// Plays the scenes; success means that the cluster behaved as it should in each.
pub fn run(args: &Args) -> ExitCode {
    match play(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nrouter-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(args: &Args) -> Result<()> {
    if args.clean {
        println!("removed {} kept lab(s)", lab::remove_kept()?);
        return Ok(());
    }
    let mut last = None;
    if args.scene != SceneChoice::Service {
        report::heading("Scene 1: the article's configuration as it stands");
        last = Some(with_logs(Router::article_config, |cluster| {
            scene::article(cluster, &args.fault)
        })?);
    }
    if args.scene != SceneChoice::Article {
        // The first lab makes room.
        last.take();
        report::heading("Scene 2: with service addresses, keepalive 1 ms, dead 4 ms");
        last = Some(with_logs(Router::service_config, |cluster| {
            scene::service(cluster, &args.fault, args.rounds)
        })?);
    }
    println!("\nThe cluster behaved as it should.");
    if let (true, Some(cluster)) = (args.keep, last) {
        println!("\nThe lab is left running. To enter a node (as root):");
        print!("{}", cluster.keep()?);
        println!("To remove it: router-demo --clean");
    }
    Ok(())
}

/// Starts a cluster and plays `scene` with it. When that fails, the agents' logs tell more.
fn with_logs(
    config: fn(Router) -> String,
    scene: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<Cluster> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root: it makes namespaces and loads BPF programs"
    );
    let mut cluster = Cluster::start(config)?;
    println!(
        "{PRIMARY} and {SECONDARY} run in namespaces of {}",
        cluster.lab.directory().display()
    );
    let result = scene(&mut cluster);
    if result.is_err() {
        eprintln!("\n{}", cluster.logs());
    }
    result.map(|()| cluster)
}
