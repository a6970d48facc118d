//! The daemon: sets up what the configuration asks for, starts the threads, and takes it all down
//! again at the end.

pub mod board;
mod clock_health;
pub mod driver;
mod ethernets;
mod fenced;
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
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
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
    time::sleep,
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
    config::{Config, Group},
    control::{protocol::MonitorState, server},
    dataplane::{Dataplane, Former, ModeChoice},
    monitor::{Monitor, Verdict},
    net::{Netlink, announce::Announcer},
    path_mtu::icmp::PathMtu,
    slow_path::{self, SlowPath},
    takeover::{
        Ears, Engine, GroupResources, Journal, Order, ServiceTarget, Tools, notify::Notifier,
    },
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

/// How a running agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Leaves the cluster and takes everything away.
    Leave,
    /// Leaves everything as it is, to the next agent.
    Detach,
}

/// Runs the agent until SIGTERM or SIGINT, which mean to leave the cluster and take everything away,
/// or SIGUSR2, which means to leave everything to the next agent.
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
    let directory = options.control_socket.parent().unwrap_or(Path::new("/"));
    let journal = Journal::open(directory)?;
    // Before anything is changed: a stop must not be missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut detach = signal(SignalKind::user_defined2())?;
    let names: Vec<_> = config.tunnels.iter().map(|t| t.name.clone()).collect();
    let targets: Vec<_> = plan.targets.iter().flatten().cloned().collect();

    let former = Former::find(&options.bpffs)?;
    if let Some(why) = former.obstacle() {
        give_up(&former, why, &config, &targets, &netlink).await?;
    }
    let mut dataplane = Dataplane::load(former)?;
    let starting = async {
        let setup = setup::carry_out(config, plan, &options, &netlink, &mut dataplane).await?;
        start(setup, dataplane.newest_epoch(), &netlink, journal).await
    };
    let started = tokio::select! {
        started = starting => started,
        _ = terminate.recv() => Err(anyhow!("asked to terminate while starting")),
        _ = interrupt.recv() => Err(anyhow!("interrupted while starting")),
    };
    let outcome = match started {
        Err(error) => {
            setup::clear_services(targets.iter(), &netlink).await;
            setup::clear_routes(&HashSet::new(), &netlink).await;
            Err::<Ending, _>(error).and(dataplane.remove().map(|()| Ending::Leave))
        }
        Ok(started) => {
            let stop = async {
                tokio::select! {
                    _ = terminate.recv() => ("asked to terminate", Ending::Leave),
                    _ = interrupt.recv() => ("interrupted", Ending::Leave),
                    _ = detach.recv() => ("asked to detach", Ending::Detach),
                }
            };
            run_until(stop, started, dataplane, listener, &options.bpffs).await
        }
    };
    if let Ok(Ending::Detach) = outcome {
        info!("stopped; the kernel goes on for the next agent");
        return Ok(());
    }
    let outcome = outcome.and(netlink.remove_tunnels(&names).await);
    info!("stopped");
    outcome
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

/// Works until `stop`, or until a thread ends, and removes programs and maps unless they shall
/// stay.
async fn run_until(
    stop: impl Future<Output = (&'static str, Ending)>,
    started: Started,
    dataplane: Dataplane,
    listener: UnixListener,
    bpffs: &Path,
) -> Result<Ending> {
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
        (reason, ending) = stop => {
            info!(reason, "stopping");
            Ok(ending)
        }
        Some(name) = running.ended.recv() => Err(anyhow!("thread {name} has ended")),
        _ = &mut keeper => {
            running.stop(Ending::Leave).await;
            server.abort();
            Dataplane::remove_left_over(bpffs)?;
            return Err(anyhow!("the keeper of the tunnels has ended"));
        }
    };
    let ending = *outcome.as_ref().unwrap_or(&Ending::Leave);
    running.stop(ending).await;
    server.abort();
    // One that has panicked need not hear.
    let _ = stop_keeper.send(());
    let handed_back = keeper.await;
    if ending == Ending::Detach {
        return outcome;
    }
    let removed = if let Ok(dataplane) = handed_back {
        dataplane.remove()
    } else {
        error!("the keeper of the tunnels had panicked");
        Dataplane::remove_left_over(bpffs)
    };
    removed.and(outcome)
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
    /// The takeover thread shall leave the services where they are.
    keeps_services: Arc<AtomicBool>,
    slow_path: SlowPath,
    threads: Vec<JoinHandle<()>>,
    /// Names of threads that have ended, in order or not.
    ended: UnboundedReceiver<&'static str>,
}

impl Running {
    /// Ends all threads. To leave, they release what is held and tell the peers.
    async fn stop(self, ending: Ending) {
        let input = match ending {
            Ending::Leave => Input::Stop,
            Ending::Detach => {
                self.keeps_services.store(true, Ordering::Relaxed);
                Input::Detach
            }
        };
        // A clock thread that has ended has nothing to stop.
        let _ = self.inbox.send(input);
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

#[expect(
    clippy::too_many_lines,
    reason = "the list of all that is started, in its order"
)]
async fn start(
    setup: Setup,
    newest: Epoch,
    netlink: &Netlink,
    journal: Journal,
) -> Result<Started> {
    let Setup {
        facts,
        keeper,
        sessions,
        keepalive,
        configs,
        local,
        granted,
        fences,
        epochs,
        targets,
        monitors,
    } = setup;
    let (inbox, inbox_receiver) = mpsc::channel();
    let (orders, orders_receiver) = unbounded_channel();
    let (reports, reports_receiver) = unbounded_channel();
    let (ended_sender, ended) = unbounded_channel();
    let beginnings = setup::driven_groups(&facts.config, sessions, newest);
    let resources = setup::gather(&facts.config, &beginnings, targets, netlink).await;
    realtime::lock_memory();

    let keeps_services = Arc::new(AtomicBool::new(false));
    let (verdicts, verdicts_receiver) = unbounded_channel();
    let ears = Ears {
        outcomes: inbox.clone(),
        reports: reports.clone(),
        verdicts: verdicts.clone(),
    };
    let engine = spawn_engine(
        resources,
        journal,
        Arc::clone(&keeps_services),
        orders_receiver,
        ears,
        &ended_sender,
    )?;
    let enabled = facts.config.tunnels.iter().filter(|tunnel| tunnel.enabled);
    let (path_mtus, reported) = channel(PATH_MTUS);
    let (slow_path, worker) = slow_path::open(
        Arc::clone(&facts.slow_path),
        Arc::clone(&epochs),
        enabled,
        path_mtus,
    )?;
    let slow = spawn("slow-path", &ended_sender, move || worker.run())?;
    info!(source = facts.clock_health.source, "clock source");
    if facts.config.cluster.is_some()
        && let Some(warning) = facts.clock_health.warning()
    {
        warn!("{warning}");
    }
    let board = Arc::new(Board::new(facts));
    let notifiers = setup::notifiers(&board.facts().config);
    tokio::spawn(note_reports(
        Arc::clone(&board),
        notifiers,
        reports_receiver,
    ));
    let were_well = beginnings.iter().map(|beginning| beginning.was_well);
    let sources = Sources {
        monitors,
        checked: board
            .facts()
            .groups()
            .iter()
            .map(Group::is_checked)
            .collect(),
        verdicts,
    };
    watch(
        sources,
        verdicts_receiver,
        were_well.collect(),
        &inbox,
        &reports,
    );
    let facts = board.facts();
    let driver = Driver {
        groups: beginnings.into_iter().map(|b| b.group).collect(),
        keepalive,
        generation: facts.generation,
        configs,
        sessions: Arc::clone(&facts.heard),
        local,
        granted,
        fences,
        epochs,
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
        keeps_services,
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

async fn note_reports(
    board: Arc<Board>,
    mut notifiers: Vec<Option<Notifier>>,
    mut reports: UnboundedReceiver<Report>,
) {
    while let Some(report) = reports.recv().await {
        if let News::Transition(change) = report.news
            && let Some(notifier) = &mut notifiers[report.group]
        {
            notifier.tell(change);
        }
        board.note(report);
    }
}

/// Opens what the takeover thread needs, so that its lack is known now and not at a failover, and
/// starts it.
fn spawn_engine(
    resources: Vec<GroupResources>,
    journal: Journal,
    keeps_services: Arc<AtomicBool>,
    orders: UnboundedReceiver<Order>,
    ears: Ears,
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
    let tools = Tools { netlink, announcer };
    let engine = Engine::new(resources, tools, journal, keeps_services, ears)?;
    spawn("takeover", ended, move || {
        realtime::raise(Priority::Takeover);
        runtime.block_on(engine.run(orders));
    })
}

/// Whose verdicts tell whether a group's node is well.
struct Sources {
    monitors: Vec<Monitor>,
    /// By group: whether its resources are checked, which gives a verdict like a monitor's.
    checked: Vec<bool>,
    verdicts: UnboundedSender<Verdict>,
}

/// Starts the monitors. Until all of a group's have answered they count as unreachable, so that a
/// node does not claim a group before it knows whether it is of use. In a group that goes on and
/// `was_well` one counts as reachable until it is known not to be.
fn watch(
    sources: Sources,
    mut receiver: UnboundedReceiver<Verdict>,
    were_well: Vec<bool>,
    inbox: &mpsc::Sender<Input>,
    reports: &UnboundedSender<Report>,
) {
    let Sources {
        monitors,
        checked,
        verdicts,
    } = sources;
    let mut states = vec![Vec::new(); were_well.len()];
    for monitor in monitors {
        states[monitor.group].push(MonitorState::Initializing);
        tokio::spawn(monitor.run(verdicts.clone()));
    }
    for (group, states) in states.iter_mut().enumerate() {
        states.extend(checked[group].then_some(MonitorState::Initializing));
        if !states.is_empty() && !were_well[group] {
            // The receiver is gone only while the agent stops.
            let _ = inbox.send(Input::Monitors { group, ok: false });
        }
    }
    let (inbox, reports) = (inbox.clone(), reports.clone());
    tokio::spawn(async move {
        while let Some(verdict) = receiver.recv().await {
            pass_on(verdict, &mut states, &were_well, &inbox, &reports);
        }
    });
}

/// A group's monitors are well if all of them are reachable.
fn pass_on(
    verdict: Verdict,
    states: &mut [Vec<MonitorState>],
    were_well: &[bool],
    inbox: &mpsc::Sender<Input>,
    reports: &UnboundedSender<Report>,
) {
    let Verdict {
        group,
        index,
        state,
    } = verdict;
    states[group][index] = state;
    let ok = states[group].iter().all(|state| match state {
        MonitorState::Reachable => true,
        MonitorState::Initializing => were_well[group],
        MonitorState::Unreachable | MonitorState::Unknown => false,
    });
    // Either receiver is gone only while the agent stops.
    let _ = inbox.send(Input::Monitors { group, ok });
    let news = News::Monitor { index, state };
    let _ = reports.send(Report { group, news });
}
