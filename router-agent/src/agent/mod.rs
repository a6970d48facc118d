//! The daemon: sets up what the configuration asks for, starts the threads, and takes it all down
//! again at the end.

mod arbitration;
pub mod board;
mod cleared;
mod clock_health;
pub mod configuration;
mod doors;
pub mod driver;
mod ethernets;
mod fenced;
pub mod fitness;
pub mod keeper;
pub mod lock;
mod noting;
mod past;
pub mod preflight;
pub mod present;
pub mod privileges;
mod program_log;
pub mod pulse;
pub mod realtime;
pub mod report;
mod running;
mod secrets;
mod setup;
mod signals;
pub mod stages;
mod start;
mod step_times;
pub mod succession;
mod supervisor;
mod threads;
pub(crate) mod words;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, anyhow};
use futures::FutureExt as _;
use tokio::{sync::mpsc::unbounded_channel, time::sleep};
use tracing::{info, warn};

use self::{
    configuration::{Beginning, Configuration, way_back},
    doors::{Doors, RemovedAtTheEnd},
    running::run_until,
    signals::{Signals, ending},
    start::start,
    succession::Succession,
};
use crate::{
    clock,
    config::Config,
    dataplane::{Dataplane, Former, ModeChoice},
    logging::Log,
    net::Netlink,
    takeover::{Journal, ServiceTarget, conntrack},
};

/// Where and how the agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file that the agent starts with.
    pub config: PathBuf,
    /// Whether what the language knows and this router does not carry out is refused.
    pub strict: bool,
    pub control_socket: PathBuf,
    pub bpffs: PathBuf,
    pub xdp_mode: ModeChoice,
    /// Where the history is kept.
    pub history: PathBuf,
    pub log: Log,
}

/// How a running agent ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// Leaves the cluster and takes everything away.
    Leave,
    /// Leaves everything as it is, to the next agent.
    Detach,
    /// The same, to one that takes this one's place in the same process.
    Succeed(Succession),
}

/// What is to happen when an agent has ended.
#[derive(Debug)]
pub enum Outcome {
    Stopped,
    /// Another one is to begin in its place.
    Succeeded {
        by: Succession,
        /// It was asked to terminate meanwhile.
        terminate: bool,
    },
}

/// Runs the agent until SIGTERM or SIGINT, which mean to leave the cluster and take everything away,
/// or SIGUSR2, which means to leave everything to the next agent, or until another one is to take its
/// place: for a new configuration, or because it could not come to run by the one that it was to try.
///
/// Fails with [`preflight::Unfit`], having changed nothing, if the system does not fit.
pub async fn run(beginning: Beginning, options: Options) -> Result<Outcome> {
    let trial = beginning.succession.clone().filter(Succession::is_trial);
    let mut progress = Progress::default();
    // It holds all that a start makes, which is much for the stack.
    match (
        Box::pin(attempt(beginning, options, &mut progress)).await,
        trial,
    ) {
        (Err(error), Some(trial)) if !progress.has_begun => Ok(Outcome::Succeeded {
            by: way_back(&trial, &error)?,
            terminate: progress.terminate,
        }),
        (outcome, _) => outcome,
    }
}

/// How far an agent has come.
#[derive(Default)]
struct Progress {
    /// It runs, or did.
    has_begun: bool,
    /// It was asked to terminate before that.
    terminate: bool,
}

async fn attempt(
    beginning: Beginning,
    options: Options,
    progress: &mut Progress,
) -> Result<Outcome> {
    let netlink = Netlink::open()?;
    let config = beginning.loaded.config.clone();
    let is_trial = beginning
        .succession
        .as_ref()
        .is_some_and(Succession::is_trial);
    let run_by = beginning.succession.as_ref().and_then(Succession::run_by);
    let plan = setup::plan(&config, &options, &netlink).await?;
    let tells_connections = plan.conntrackd.is_some();
    let _lock = lock::network_namespace()?;
    let doors = Doors::open(&config, &options.control_socket).await?;
    let _socket_file = RemovedAtTheEnd(&options.control_socket);
    let journal = Journal::open(lock::file_of_namespace("started.json")?)?;
    // Before anything is changed: a stop must not be missed.
    let mut signals = Signals::catch()?;
    let (successions, mut successors) = unbounded_channel();
    let configuration = Arc::new(Configuration::new(
        beginning,
        options.clone(),
        netlink.clone(),
        successions,
    )?);
    let names: Vec<_> = config.tunnels.iter().map(|t| t.name.clone()).collect();
    let targets: Vec<_> = plan.targets.iter().flatten().cloned().collect();

    let former = Former::find(&options.bpffs)?;
    if let Some(why) = former.obstacle() {
        give_up(&former, why, &config, &targets, &netlink).await?;
    }
    let mut dataplane = Dataplane::load(former)?;
    let starting = async {
        let setup = setup::carry_out(config, plan, &options, &netlink, &mut dataplane).await?;
        start(
            setup,
            Arc::clone(&configuration),
            dataplane.newest_epoch(),
            &netlink,
            journal,
            &options.history,
        )
        .await
    };
    let trial_left = run_by.map_or(Duration::MAX, |by| by.since(clock::now()));
    let started = tokio::select! {
        started = starting => started,
        stop = signals.stop() => {
            progress.terminate = true;
            Err(anyhow!("{stop} while starting"))
        }
        () = sleep(trial_left), if is_trial => {
            Err(anyhow!(
                "the agent did not come to run within two thirds of agent-dead-interval, of which the \
                 rest is for the way back: apply when this machine has time, or write a longer one into \
                 the configuration files of both nodes and restart their agents, the standby's first"
            ))
        }
    };
    let outcome = match started.and_then(|started| {
        configuration.begun()?;
        Ok(started)
    }) {
        // The next one goes on with what there is.
        Err(error) if is_trial => return Err(error),
        Err(error) => {
            setup::clear_services(targets.iter(), &netlink).await;
            setup::clear_routes(&HashSet::new(), &netlink).await;
            Err::<Ending, _>(error).and(dataplane.remove().map(|()| Ending::Leave))
        }
        Ok(started) => {
            progress.has_begun = true;
            if !tells_connections {
                conntrack::end().await;
            }
            let board = Arc::clone(&started.running.noting.board);
            let stop = ending(&mut signals, &configuration, board.facts(), &mut successors);
            run_until(stop, started, dataplane, doors, &options.bpffs).await
        }
    };
    match outcome {
        Ok(Ending::Detach) => {
            info!("stopped; the kernel goes on for the next agent");
            return Ok(Outcome::Stopped);
        }
        Ok(Ending::Succeed(by)) => {
            info!("another agent takes this one's place");
            let terminate = signals.stop().now_or_never().is_some();
            return Ok(Outcome::Succeeded { by, terminate });
        }
        Ok(Ending::Leave) | Err(_) => {}
    }
    conntrack::end().await;
    let outcome = outcome.and(netlink.remove_tunnels(&names).await);
    info!("stopped");
    outcome.map(|()| Outcome::Stopped)
}

/// Gives up in order what an agent before this one left and this one cannot go on with: the peers
/// hear that this node is out, its services are released, and only then it is taken away.
async fn give_up(
    former: &Former,
    why: &str,
    config: &Config,
    targets: &[ServiceTarget],
    netlink: &Netlink,
) -> Result<()> {
    /// Of the peers' probes, which are answered in the former agent's name.
    const ANSWERS: u32 = 3;
    const LONGEST: Duration = Duration::from_secs(1);
    warn!("what an agent before this one left is of no use: {why}; all is made anew");
    if former.withdraw()? {
        setup::clear_services(targets.iter(), netlink).await;
        setup::clear_routes(&HashSet::new(), netlink).await;
        if let Some(cluster) = &config.cluster {
            sleep((cluster.keepalive_interval * ANSWERS).min(LONGEST)).await;
        }
    }
    Ok(())
}

/// Removes what an agent that died or stopped, or `load`, left: programs, fences, maps and devices.
/// The tunnels that were removed. Service addresses stay; the next agent removes those of its configuration.
pub async fn remove_left_overs(bpffs: &Path) -> Result<Vec<String>> {
    let _lock = lock::network_namespace()?;
    Dataplane::remove_all(bpffs)?;
    Netlink::open()?.remove_all_tunnels().await
}
