//! The daemon: sets up what the configuration asks for, starts the threads, and takes it all down
//! again at the end.

mod arbitration;
pub mod board;
mod cleared;
mod clock_health;
pub mod configuration;
pub mod driver;
mod ethernets;
mod fenced;
pub mod fitness;
pub mod keeper;
mod lock;
mod noting;
mod past;
pub mod preflight;
pub mod present;
pub mod privileges;
mod program_log;
pub mod pulse;
pub mod realtime;
pub mod report;
mod secrets;
mod setup;
pub mod stages;
mod step_times;
pub mod succession;
mod supervisor;
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
use futures::FutureExt as _;
use router_common::identity::Epoch;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::{
        mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    task::JoinSet,
    time::sleep,
};
use tracing::{error, info, warn};

use self::{
    clock_health::ClockWatch,
    configuration::{Beginning, Configuration, way_back},
    driver::{Driver, Input},
    fitness::{Fitness, Monitors},
    keeper::Keeper,
    noting::{Noting, Scripts},
    pulse::{BEAT, Pulse},
    realtime::Priority,
    report::{News, Report},
    setup::{Asking, OpenSlowPath, Setup},
    succession::Succession,
    supervisor::Supervisor,
};
use crate::{
    arbiter::{Desk, Question},
    clock,
    config::Config,
    control::{permission::Access, server},
    dataplane::{Dataplane, Former, ModeChoice},
    logging::Log,
    metrics,
    monitor::{Monitor, Verdict},
    net::{Netlink, announce::Announcer},
    path_mtu::icmp::PathMtu,
    slow_path::SlowPath,
    takeover::{Ears, Engine, GroupResources, Journal, Order, ServiceTarget, Tools, conntrack},
    track,
};

const CLOCK_THREAD: &str = "probe-clock";
const TAKEOVER_THREAD: &str = "takeover";

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

impl Options {
    /// Where files are that do not outlive the system's run.
    fn run_directory(&self) -> &Path {
        self.control_socket.parent().unwrap_or(Path::new("/"))
    }
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
    match (attempt(beginning, options, &mut progress).await, trial) {
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
    let doors = Doors::open(&config, &options.control_socket, plan.access.clone()).await?;
    let _socket_file = RemovedAtTheEnd(&options.control_socket);
    let journal = Journal::open(options.run_directory())?;
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
                conntrack::end(options.run_directory()).await;
            }
            let stop = ending(&mut signals, &configuration, &mut successors);
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
    conntrack::end(options.run_directory()).await;
    let outcome = outcome.and(netlink.remove_tunnels(&names).await);
    info!("stopped");
    outcome.map(|()| Outcome::Stopped)
}

/// The signals that mean something to an agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    detach: Signal,
    reload: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            detach: signal(SignalKind::user_defined2())?,
            reload: signal(SignalKind::hangup())?,
        };
        succession::admit_signals()?;
        Ok(signals)
    }

    /// Comes when an orderly stop is asked for.
    async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "asked to terminate",
            _ = self.interrupt.recv() => "interrupted",
        }
    }
}

/// Comes when the agent is to end: why, and how.
async fn ending(
    signals: &mut Signals,
    configuration: &Configuration,
    successors: &mut UnboundedReceiver<Succession>,
) -> (&'static str, Ending) {
    const ANOTHER: &str = "for another configuration";
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return ("asked to terminate", Ending::Leave),
            _ = signals.interrupt.recv() => return ("interrupted", Ending::Leave),
            _ = signals.detach.recv() => return ("asked to detach", Ending::Detach),
            Some(by) = successors.recv() => return (ANOTHER, Ending::Succeed(by)),
            _ = signals.reload.recv() => match configuration.reload().await {
                Ok(Some(by)) => return (ANOTHER, Ending::Succeed(by)),
                Ok(None) => {}
                Err(error) => error!("the configuration stays as it is: {error:#}"),
            },
            () = unconfirmed(configuration) => {
                let by = configuration.way_back("it was not confirmed in time");
                return ("the configuration was not confirmed", Ending::Succeed(by));
            }
        }
    }
}

/// Comes when a configuration that waits to be confirmed has not been. The wait looks again now and
/// then, because it may be confirmed meanwhile, and because a timer does not count what the machine
/// sleeps.
async fn unconfirmed(configuration: &Configuration) {
    const LOOK: Duration = Duration::from_millis(200);
    loop {
        let until = configuration.unconfirmed_until();
        if until.is_some_and(|until| clock::now() >= until) {
            return;
        }
        sleep(LOOK).await;
    }
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

/// Where others ask.
struct Doors {
    control: (UnixListener, Access),
    metrics: Option<TcpListener>,
}

impl Doors {
    async fn open(config: &Config, socket: &Path, access: Access) -> Result<Self> {
        let listener = server::bind(socket, &access)
            .with_context(|| format!("cannot listen for routerctl at {}", socket.display()))?;
        let metrics = match config.metrics {
            Some(address) => Some(metrics::server::bind(address).await.with_context(|| {
                format!("cannot serve metrics at {address}: see `service metrics listen`")
            })?),
            None => None,
        };
        Ok(Self {
            control: (listener, access),
            metrics,
        })
    }
}

/// Works until `stop`, or until a thread ends, and removes programs and maps unless they shall
/// stay.
async fn run_until(
    stop: impl Future<Output = (&'static str, Ending)>,
    started: Started,
    dataplane: Dataplane,
    doors: Doors,
    bpffs: &Path,
) -> Result<Ending> {
    let Started {
        mut running,
        keeper,
        path_mtus,
        pulses,
    } = started;
    let mut servers = JoinSet::new();
    servers.spawn(program_log::forward(&dataplane, &running.noting.board));
    let (stop_keeper, stopped) = oneshot::channel();
    let mut keeper = tokio::spawn(keeper.run(dataplane, path_mtus, stopped));
    let (listener, access) = doors.control;
    servers.spawn(server::serve(
        listener,
        access,
        running.noting.board.clone(),
    ));
    if let Some(listener) = doors.metrics {
        servers.spawn(metrics::server::serve(
            listener,
            running.noting.board.clone(),
        ));
    }
    let main = Pulse::new("main", clock::now());
    servers.spawn(beat(main.clone()));
    let pulses = pulses.into_iter().chain([main]).collect();
    let supervisor = Supervisor::tell(running.noting.board.clone(), pulses);
    info!("running");
    let outcome = tokio::select! {
        (reason, ending) = stop => {
            info!(reason, "stopping");
            Ok(ending)
        }
        Some(name) = running.ended.recv() => Err(anyhow!("thread {name} has ended")),
        _ = &mut keeper => {
            running.stop(&Ending::Leave).await;
            servers.abort_all();
            Dataplane::remove_left_over(bpffs)?;
            return Err(anyhow!("the keeper of the tunnels has ended"));
        }
    };
    let ending = outcome.as_ref().unwrap_or(&Ending::Leave);
    supervisor.agent_ends(ending);
    running.stop(ending).await;
    servers.abort_all();
    // One that has panicked need not hear.
    let _ = stop_keeper.send(());
    let handed_back = keeper.await;
    match ending {
        Ending::Detach | Ending::Succeed(_) => return outcome,
        Ending::Leave => {}
    }
    let removed = if let Ok(dataplane) = handed_back {
        dataplane.remove()
    } else {
        error!("the keeper of the tunnels had panicked");
        Dataplane::remove_left_over(bpffs)
    };
    removed.and(outcome)
}

/// Says again and again that the runtime of this thread goes round.
async fn beat(pulse: Pulse) {
    loop {
        pulse.beat(clock::now());
        sleep(BEAT).await;
    }
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
    inbox: mpsc::Sender<Input>,
    /// The takeover thread shall leave the services where they are.
    keeps_services: Arc<AtomicBool>,
    slow_path: SlowPath,
    threads: Vec<JoinHandle<()>>,
    noting: Noting,
    /// Names of threads that have ended, in order or not.
    ended: UnboundedReceiver<&'static str>,
}

impl Running {
    /// Ends all threads. To leave, they release what is held and tell the peers.
    async fn stop(self, ending: &Ending) {
        let (input, scripts) = match ending {
            Ending::Leave => (Input::Stop, Scripts::HearAll),
            Ending::Detach | Ending::Succeed(_) => {
                self.keeps_services.store(true, Ordering::Relaxed);
                (Input::Detach, Scripts::AreLeft)
            }
        };
        // A clock thread that has ended has nothing to stop.
        let _ = self.inbox.send(input);
        drop(self.slow_path);
        join(self.threads).await;
        // Those that report have ended.
        self.noting.stop(scripts).await;
    }
}

async fn join(threads: Vec<JoinHandle<()>>) {
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
    /// Of the threads without which nothing is decided, or done about it.
    pulses: [Pulse; 2],
}

#[expect(
    clippy::too_many_lines,
    reason = "the list of all that is started, in its order"
)]
async fn start(
    setup: Setup,
    configuration: Arc<Configuration>,
    newest: Epoch,
    netlink: &Netlink,
    journal: Journal,
    history: &Path,
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
        leases,
        epochs,
        targets,
        conntrackd,
        monitors,
        etcd,
        slow_path,
    } = setup;
    let (inbox, inbox_receiver) = mpsc::channel();
    let (orders, orders_receiver) = unbounded_channel();
    let (questions, questions_receiver) = unbounded_channel();
    let (reports, reports_receiver) = unbounded_channel();
    let (ended_sender, ended) = unbounded_channel();
    let beginnings = setup::driven_groups(&facts.config, sessions, newest);
    let resources = setup::gather(&facts.config, &beginnings, targets, conntrackd, netlink).await;
    realtime::lock_memory();

    let pulses = [CLOCK_THREAD, TAKEOVER_THREAD].map(|name| Pulse::new(name, clock::now()));
    let [clock_pulse, takeover_pulse] = pulses.clone();
    let keeps_services = Arc::new(AtomicBool::new(false));
    let (verdicts, verdicts_receiver) = unbounded_channel();
    let (addresses, held) = unbounded_channel();
    let ears = Ears {
        outcomes: inbox.clone(),
        reports: reports.clone(),
        verdicts: verdicts.clone(),
        addresses,
    };
    if let Some(lookout) = setup::lookout(&facts.config, netlink, &reports)? {
        tokio::spawn(lookout.run(held));
    }
    let engine = spawn_engine(
        resources,
        journal,
        Arc::clone(&keeps_services),
        takeover_pulse,
        orders_receiver,
        ears,
        &ended_sender,
    )?;
    let OpenSlowPath {
        slow_path,
        worker,
        path_mtus,
    } = slow_path;
    let slow = spawn("slow-path", &ended_sender, move || worker.run())?;
    let clock_health = facts.presents.clock();
    info!(source = clock_health.source, "clock source");
    if facts.config.cluster.is_some()
        && let Some(warning) = clock_health.warning()
    {
        warn!("{warning}");
    }
    let ask = |Asking { etcd, keys }| {
        let desk = Desk::new(etcd, keys, inbox.clone(), reports.clone());
        spawn_arbiter(desk, questions_receiver, &ended_sender)
    };
    let arbiter = etcd.map(ask).transpose()?;
    let noting = Noting::start(
        facts,
        configuration,
        history,
        inbox.clone(),
        reports_receiver,
        &ended_sender,
    )?;
    let facts = noting.board.facts();
    let sources = Sources { monitors, verdicts };
    let of_groups = facts.groups().iter().zip(&beginnings).map(|(group, it)| {
        let others = group.monitor_names().count() - group.monitors.len();
        Monitors::new(group.monitors.len(), others, it.was_well)
    });
    track::begin(
        setup::tracks(&facts.config, &beginnings),
        netlink,
        &sources.verdicts,
    );
    watch(
        sources,
        verdicts_receiver,
        of_groups.collect(),
        &inbox,
        &reports,
    );
    let driver = Driver {
        groups: beginnings.into_iter().map(|b| b.group).collect(),
        keepalive,
        generation: facts.generation,
        configs,
        sessions: Arc::clone(&facts.heard),
        local,
        granted,
        fences,
        leases,
        epochs,
        statistics: Arc::clone(&facts.clock),
        clock_watch: ClockWatch::default(),
        pulse: clock_pulse,
        inbox: inbox_receiver,
        orders,
        questions,
        reports,
    };
    let clock = spawn(CLOCK_THREAD, &ended_sender, move || driver.run())?;
    let running = Running {
        inbox,
        keeps_services,
        slow_path,
        threads: [clock, engine, slow].into_iter().chain(arbiter).collect(),
        noting,
        ended,
    };
    Ok(Started {
        running,
        keeper,
        path_mtus,
        pulses,
    })
}

/// Asks the arbiter on a thread of its own: a failover waits for its answers.
fn spawn_arbiter(
    desk: Desk,
    questions: UnboundedReceiver<Question>,
    ended: &UnboundedSender<&'static str>,
) -> Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the arbiter thread's runtime")?;
    spawn("arbiter", ended, move || {
        realtime::raise(Priority::Takeover);
        runtime.block_on(desk.run(questions));
    })
}

/// Opens what the takeover thread needs, so that its lack is known now and not at a failover, and
/// starts it.
fn spawn_engine(
    resources: Vec<GroupResources>,
    journal: Journal,
    keeps_services: Arc<AtomicBool>,
    pulse: Pulse,
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
    let engine = Engine::new(resources, tools, journal, keeps_services, pulse, ears)?;
    spawn(TAKEOVER_THREAD, ended, move || {
        realtime::raise(Priority::Takeover);
        runtime.block_on(engine.run(orders));
    })
}

/// Whose verdicts tell whether a group's node is well.
struct Sources {
    monitors: Vec<Monitor>,
    verdicts: UnboundedSender<Verdict>,
}

/// Starts the monitors. Until one has answered it counts as unreachable, so that a node does not claim a
/// group before it knows whether it is of use; in a group that goes on and was well it counts as reachable
/// until it is known not to be.
fn watch(
    sources: Sources,
    mut receiver: UnboundedReceiver<Verdict>,
    mut groups: Vec<Monitors>,
    inbox: &mpsc::Sender<Input>,
    reports: &UnboundedSender<Report>,
) {
    let Sources { monitors, verdicts } = sources;
    for monitor in monitors {
        tokio::spawn(monitor.run(verdicts.clone()));
    }
    let (inbox, reports) = (inbox.clone(), reports.clone());
    // A receiver is gone only while the agent stops.
    let tell = move |group: usize, fitness: Fitness| {
        let _ = inbox.send(Input::Monitors { group, fitness });
    };
    for (group, monitors) in groups.iter().enumerate() {
        tell(group, monitors.fitness());
    }
    tokio::spawn(async move {
        while let Some(verdict) = receiver.recv().await {
            let Verdict {
                group,
                index,
                state,
                why,
            } = verdict;
            groups[group].note(index, state);
            // Who is shown what follows from it is shown it, too.
            let news = News::Monitor { index, state, why };
            let _ = reports.send(Report { group, news });
            tell(group, groups[group].fitness());
        }
    });
}
