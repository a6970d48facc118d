//! The daemon: sets up what the configuration asks for, starts the threads, and takes it all down
//! again at the end.

pub mod board;
mod clock_health;
pub mod driver;
mod ethernets;
pub mod keeper;
mod lock;
pub mod preflight;
pub mod present;
pub mod realtime;
pub mod report;
mod secrets;
mod setup;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};
use router_common::identity::Epoch;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::{
        mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel},
        oneshot,
    },
};
use tracing::{error, info, warn};

use self::{
    board::Board,
    clock_health::ClockWatch,
    driver::{Driver, Input},
    keeper::Keeper,
    realtime::Priority,
    report::{News, Report},
    setup::Setup,
};
use crate::{
    config::Config,
    control::{protocol::MonitorState, server},
    dataplane::{Dataplane, ModeChoice},
    monitor::{Monitor, Verdict},
    net::{Netlink, announce::Announcer},
    path_mtu::icmp::PathMtu,
    slow_path::{self, SlowPath},
    takeover::{Engine, Order, ServiceTarget},
};

/// How many words of routers on the path's MTU may wait.
const PATH_MTUS: usize = 64;

/// Where and how the agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    pub control_socket: PathBuf,
    pub bpffs: PathBuf,
    pub xdp_mode: ModeChoice,
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// Fails with [`preflight::Unfit`], having changed nothing, if the system does not fit.
pub async fn run(config: Config, options: Options) -> Result<()> {
    let netlink = Netlink::open()?;
    let plan = setup::plan(&config, &options, &netlink).await?;
    let _lock = lock::network_namespace()?;
    let listener = server::bind(&options.control_socket).with_context(|| {
        format!(
            "cannot listen for routerctl at {}",
            options.control_socket.display()
        )
    })?;
    let _socket_file = RemovedAtTheEnd(&options.control_socket);
    // Before anything is changed: a stop must not be missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let names: Vec<_> = config.tunnels.iter().map(|t| t.name.clone()).collect();

    let mut dataplane = Dataplane::load(&options.bpffs)?;
    let starting = async {
        let setup = setup::carry_out(config, plan, &options, &netlink, &mut dataplane).await?;
        start(setup, dataplane.newest_epoch(), &netlink).await
    };
    let started = tokio::select! {
        started = starting => started,
        _ = terminate.recv() => Err(anyhow!("asked to terminate while starting")),
        _ = interrupt.recv() => Err(anyhow!("interrupted while starting")),
    };
    let outcome = match started {
        Err(error) => Err::<(), _>(error).and(dataplane.remove()),
        Ok(started) => {
            let stop = async {
                tokio::select! {
                    _ = terminate.recv() => "asked to terminate",
                    _ = interrupt.recv() => "interrupted",
                }
            };
            run_until(stop, started, dataplane, listener, &options.bpffs).await
        }
    };
    let outcome = outcome.and(netlink.remove_tunnels(&names).await);
    info!("stopped");
    outcome
}

/// Works until `stop`, or until a thread ends, and removes programs and maps.
async fn run_until(
    stop: impl Future<Output = &'static str>,
    started: Started,
    dataplane: Dataplane,
    listener: UnixListener,
    bpffs: &Path,
) -> Result<()> {
    let Started {
        mut running,
        keeper,
        path_mtus,
    } = started;
    let (stop_keeper, stopped) = oneshot::channel();
    let mut keeper = tokio::spawn(keeper.run(dataplane, path_mtus, stopped));
    let server = tokio::spawn(server::serve(listener, running.board.clone()));
    info!("running");
    let outcome = tokio::select! {
        reason = stop => {
            info!(reason, "stopping");
            Ok(())
        }
        Some(name) = running.ended.recv() => Err(anyhow!("thread {name} has ended")),
        _ = &mut keeper => {
            running.stop().await;
            server.abort();
            Dataplane::remove_left_over(bpffs)?;
            return Err(anyhow!("the keeper of the tunnels has ended"));
        }
    };
    running.stop().await;
    server.abort();
    // One that has panicked need not hear.
    let _ = stop_keeper.send(());
    let removed = if let Ok(dataplane) = keeper.await {
        dataplane.remove()
    } else {
        error!("the keeper of the tunnels had panicked");
        Dataplane::remove_left_over(bpffs)
    };
    outcome.and(removed)
}

/// Removes what an agent that died or stopped, or `load`, left: programs, fences, maps and devices.
/// The tunnels that were removed. Service addresses stay; the next agent removes those of its configuration.
pub async fn remove_left_overs(bpffs: &Path) -> Result<Vec<String>> {
    let _lock = lock::network_namespace()?;
    Dataplane::remove_all(bpffs)?;
    Netlink::open()?.remove_all_tunnels().await
}

/// The control socket's file: who still finds it gets no answer.
struct RemovedAtTheEnd<'a>(&'a Path);

impl Drop for RemovedAtTheEnd<'_> {
    fn drop(&mut self) {
        // It may have been removed by others.
        let _ = std::fs::remove_file(self.0);
    }
}

/// The threads at work.
struct Running {
    board: Arc<Board>,
    inbox: mpsc::Sender<Input>,
    slow_path: SlowPath,
    threads: Vec<JoinHandle<()>>,
    /// Names of threads that have ended, in order or not.
    ended: UnboundedReceiver<&'static str>,
}

impl Running {
    /// Releases what is held and tells the peers.
    async fn stop(self) {
        // A clock thread that has ended has nothing to stop.
        let _ = self.inbox.send(Input::Stop);
        drop(self.slow_path);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    error!("a thread had panicked");
                }
            }
        });
        if joined.await.is_err() {
            error!("the threads could not be waited for");
        }
    }
}

/// Tells of a thread's end when it is dropped, also by a panic.
struct TellsEnd {
    thread: &'static str,
    to: UnboundedSender<&'static str>,
}

impl Drop for TellsEnd {
    fn drop(&mut self) {
        // Nobody listens while the agent stops.
        let _ = self.to.send(self.thread);
    }
}

fn spawn(
    name: &'static str,
    ended: &UnboundedSender<&'static str>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let tells_end = TellsEnd {
        thread: name,
        to: ended.clone(),
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _tells_end = tells_end;
            work();
        })
        .with_context(|| format!("cannot start thread {name}"))
}

/// All that runs, but for the keeper, which needs the programs for itself.
struct Started {
    running: Running,
    keeper: Keeper,
    path_mtus: Receiver<PathMtu>,
}

async fn start(setup: Setup, newest: Epoch, netlink: &Netlink) -> Result<Started> {
    let Setup {
        facts,
        keeper,
        sessions,
        keepalive,
        configs,
        local,
        granted,
        fences,
        targets,
        monitors,
    } = setup;
    let (inbox, inbox_receiver) = mpsc::channel();
    let (orders, orders_receiver) = unbounded_channel();
    let (reports, reports_receiver) = unbounded_channel();
    let (ended_sender, ended) = unbounded_channel();
    setup::clear_services(&targets, netlink).await;
    realtime::lock_memory();

    let engine = spawn_engine(
        targets,
        orders_receiver,
        inbox.clone(),
        reports.clone(),
        &ended_sender,
    )?;
    let enabled = facts.config.tunnels.iter().filter(|tunnel| tunnel.enabled);
    let (path_mtus, reported) = channel(PATH_MTUS);
    let (slow_path, worker) = slow_path::open(Arc::clone(&facts.slow_path), enabled, path_mtus)?;
    let slow = spawn("slow-path", &ended_sender, move || worker.run())?;
    info!(source = facts.clock_health.source, "clock source");
    if facts.config.cluster.is_some()
        && let Some(warning) = facts.clock_health.warning()
    {
        warn!("{warning}");
    }
    let board = Arc::new(Board::new(facts));
    tokio::spawn(note_reports(Arc::clone(&board), reports_receiver));
    watch(monitors, &inbox, &reports);
    let facts = board.facts();
    let driver = Driver {
        groups: setup::driven_groups(&facts.config, sessions, newest),
        keepalive,
        generation: facts.generation,
        configs,
        sessions: Arc::clone(&facts.heard),
        local,
        granted,
        fences,
        statistics: Arc::clone(&facts.clock),
        clock_watch: ClockWatch::default(),
        inbox: inbox_receiver,
        orders,
        reports,
    };
    let clock = spawn("probe-clock", &ended_sender, move || driver.run())?;
    let running = Running {
        board,
        inbox,
        slow_path,
        threads: vec![clock, engine, slow],
        ended,
    };
    Ok(Started {
        running,
        keeper,
        path_mtus: reported,
    })
}

async fn note_reports(board: Arc<Board>, mut reports: UnboundedReceiver<Report>) {
    while let Some(report) = reports.recv().await {
        board.note(report);
    }
}

/// Opens what the takeover thread needs, so that its lack is known now and not at a failover, and
/// starts it.
fn spawn_engine(
    targets: Vec<Vec<ServiceTarget>>,
    orders: UnboundedReceiver<Order>,
    outcomes: mpsc::Sender<Input>,
    reports: UnboundedSender<Report>,
    ended: &UnboundedSender<&'static str>,
) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the takeover thread's runtime")?;
    let announcer = Announcer::open().context("cannot open a packet socket")?;
    let netlink = {
        let _inside = runtime.enter();
        Netlink::open()?
    };
    let engine = Engine::new(netlink, announcer, targets, outcomes, reports);
    spawn("takeover", ended, move || {
        realtime::raise(Priority::Takeover);
        runtime.block_on(engine.run(orders));
    })
}

/// Starts the monitors. Until all of a group's have answered they count as unreachable, so that a
/// node does not claim a group before it knows whether it is of use.
fn watch(monitors: Vec<Monitor>, inbox: &mpsc::Sender<Input>, reports: &UnboundedSender<Report>) {
    let groups = monitors.iter().map(|monitor| monitor.group + 1).max();
    let mut states = vec![Vec::new(); groups.unwrap_or(0)];
    let (verdicts, mut receiver) = unbounded_channel();
    for monitor in monitors {
        let group = monitor.group;
        states[group].push(MonitorState::Initializing);
        // Either receiver is gone only while the agent stops.
        let _ = inbox.send(Input::Monitors { group, ok: false });
        tokio::spawn(monitor.run(verdicts.clone()));
    }
    let (inbox, reports) = (inbox.clone(), reports.clone());
    tokio::spawn(async move {
        while let Some(verdict) = receiver.recv().await {
            pass_on(verdict, &mut states, &inbox, &reports);
        }
    });
}

/// A group's monitors are well if all of them are reachable.
fn pass_on(
    verdict: Verdict,
    states: &mut [Vec<MonitorState>],
    inbox: &mpsc::Sender<Input>,
    reports: &UnboundedSender<Report>,
) {
    let Verdict {
        group,
        index,
        state,
    } = verdict;
    states[group][index] = state;
    let ok = states[group]
        .iter()
        .all(|state| *state == MonitorState::Reachable);
    // Either receiver is gone only while the agent stops.
    let _ = inbox.send(Input::Monitors { group, ok });
    let news = News::Monitor { index, state };
    let _ = reports.send(Report { group, news });
}
