//! The demonstration: a cluster, traffic, a fault, and what was measured.

mod report;
mod scene;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use crate::{
    article::{FASTEST_TIMING, PRIMARY, Router, SECONDARY},
    aws::{self, Cloud},
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
    /// The article's configuration, the one with service addresses and 1 ms / 4 ms timing, both, or the
    /// one whose routes and addresses are at AWS, which moto emulates
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
    Aws,
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
    if args.scene == SceneChoice::Aws {
        return play_aws(args);
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
        let config = |router: Router| router.service_config() + FASTEST_TIMING;
        last = Some(with_logs(config, |cluster| {
            scene::service(cluster, &args.fault, args.rounds)
        })?);
    }
    println!("\nThe cluster behaved as it should.");
    if let (true, Some(cluster)) = (args.keep, last) {
        keep(cluster)?;
    }
    Ok(())
}

fn play_aws(args: &Args) -> Result<()> {
    ensure_root()?;
    report::heading(
        "Routes and addresses at AWS, which moto emulates; keepalive 10 ms, dead 50 ms",
    );
    let mut cloud = Cloud::start(aws::config)?;
    let result = scene::aws(&mut cloud, &args.fault);
    if result.is_err() {
        eprintln!("\n{}", cloud.cluster.logs());
    }
    result?;
    println!("\nThe cluster behaved as it should.");
    if args.keep {
        cloud.moto.keep();
        keep(cloud.cluster)?;
    }
    Ok(())
}

fn keep(cluster: Cluster) -> Result<()> {
    println!("\nThe lab is left running. To enter a node (as root):");
    print!("{}", cluster.keep()?);
    println!("To remove it: router-demo --clean");
    Ok(())
}

fn ensure_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "needs root: it makes namespaces and loads BPF programs"
    );
    Ok(())
}

/// Starts a cluster and plays `scene` with it. When that fails, the agents' logs tell more.
fn with_logs(
    config: fn(Router) -> String,
    scene: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<Cluster> {
    ensure_root()?;
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
