//! The daemon: sets up what the configuration asks for, starts the threads, and takes it all down
//! again at the end.

pub mod board;
pub mod driver;
pub mod preflight;
pub mod realtime;
pub mod report;
mod setup;

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tracing::{error, info};

use self::{
    board::Board,
    driver::{Driver, Input},
    realtime::Priority,
    report::{News, Report},
    setup::Setup,
};
use crate::{
    config::Config,
    control::{protocol::MonitorState, server},
    dataplane::ModeChoice,
    monitor::{Monitor, Verdict},
    net::{Netlink, announce::Announcer},
    takeover::{Engine, Order, ServiceTarget},
};

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
    let listener = server::bind(&options.control_socket).with_context(|| {
        format!(
            "cannot listen for routerctl at {}",
            options.control_socket.display()
        )
    })?;
    // Before anything that could be asked for by name: a stop must not be missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let names: Vec<_> = config.tunnels.iter().map(|t| t.name.clone()).collect();

    let setup = setup::carry_out(config, plan, &options, &netlink).await?;
    let running = start(setup, &netlink).await?;
    let server = tokio::spawn(server::serve(listener, running.board.clone()));
    info!("running");
    tokio::select! {
        _ = terminate.recv() => info!("asked to terminate"),
        _ = interrupt.recv() => info!("interrupted"),
    }

    running.stop().await?;
    server.abort();
    for name in names {
        netlink.remove_tunnel(&name).await?;
    }
    // The socket goes last: who still finds it gets no answer, and says so.
    let _ = std::fs::remove_file(&options.control_socket);
    info!("stopped");
    Ok(())
}

/// The threads at work.
struct Running {
    board: Arc<Board>,
    dataplane: crate::dataplane::Dataplane,
    inbox: mpsc::Sender<Input>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Releases what is held, tells the peers, and ends the programs.
    async fn stop(self) -> Result<()> {
        // A clock thread that has ended has nothing to stop.
        let _ = self.inbox.send(Input::Stop);
        let threads = self.threads;
        tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    error!("a thread had panicked");
                }
            }
        })
        .await?;
        self.dataplane.remove()
    }
}

async fn start(setup: Setup, netlink: &Netlink) -> Result<Running> {
    let Setup {
        dataplane,
        facts,
        sessions,
        keepalive,
        local,
        targets,
        monitors,
    } = setup;
    let (inbox, inbox_receiver) = mpsc::channel();
    let (orders, orders_receiver) = unbounded_channel();
    let (reports, reports_receiver) = unbounded_channel();
    setup::clear_services(&targets, netlink).await;
    let engine = spawn_engine(targets, orders_receiver, inbox.clone(), reports.clone())?;
    let board = Arc::new(Board::new(facts));
    tokio::spawn(note_reports(Arc::clone(&board), reports_receiver));
    watch(monitors, &inbox, &reports).await;

    realtime::lock_memory();
    let facts = board.facts();
    let driver = Driver {
        groups: setup::driven_groups(&facts.config, sessions, dataplane.newest_epoch()),
        keepalive,
        generation: facts.generation,
        sessions: Arc::clone(&facts.heard),
        local,
        statistics: Arc::clone(&facts.clock),
        inbox: inbox_receiver,
        orders,
        reports,
    };
    let clock = thread::Builder::new()
        .name("probe-clock".to_owned())
        .spawn(move || driver.run())
        .context("cannot start the clock thread")?;
    Ok(Running {
        board,
        dataplane,
        inbox,
        threads: vec![clock, engine],
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
    thread::Builder::new()
        .name("takeover".to_owned())
        .spawn(move || {
            realtime::raise(Priority::Takeover);
            runtime.block_on(engine.run(orders));
        })
        .context("cannot start the takeover thread")
}

/// Starts the monitors, and waits until each has given its first verdict, so that a node does not
/// claim a group before it knows whether it is of use.
async fn watch(
    monitors: Vec<Monitor>,
    inbox: &mpsc::Sender<Input>,
    reports: &UnboundedSender<Report>,
) {
    let groups = monitors.iter().map(|monitor| monitor.group + 1).max();
    let mut states = vec![Vec::new(); groups.unwrap_or(0)];
    let (verdicts, mut receiver) = unbounded_channel();
    for monitor in monitors {
        states[monitor.group].push(MonitorState::Initializing);
        tokio::spawn(monitor.run(verdicts.clone()));
    }
    drop(verdicts);
    let is_open = |state: &MonitorState| *state == MonitorState::Initializing;
    while states.iter().flatten().any(is_open) {
        let Some(verdict) = receiver.recv().await else {
            return;
        };
        pass_on(verdict, &mut states, inbox, reports);
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
