//! Starts all that runs, each with what it needs.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result};
use router_common::identity::Epoch;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{info, warn};

use super::{
    clock_health::ClockWatch,
    configuration::Configuration,
    driver::{Driver, Input},
    fitness::{Fitness, Monitors},
    keeper::Keeper,
    noting::Noting,
    pulse::Pulse,
    realtime::{self, Priority},
    report::{News, Report},
    running::Running,
    setup::{self, Asking, OpenSlowPath, Setup},
    threads::spawn,
};
use crate::{
    arbiter::{Desk, Question},
    clock,
    monitor::{Monitor, Verdict},
    net::{Netlink, announce::Announcer},
    path_mtu::icmp::PathMtu,
    takeover::{Ears, Engine, GroupResources, Journal, Order, Tools},
    track,
};

const CLOCK_THREAD: &str = "probe-clock";
const TAKEOVER_THREAD: &str = "takeover";

/// All that runs, but for the keeper, which needs the programs for itself.
pub struct Started {
    pub running: Running,
    pub keeper: Keeper,
    pub path_mtus: Receiver<PathMtu>,
    /// Of the threads without which nothing is decided, or done about it.
    pub pulses: [Pulse; 2],
}

/// Starts the threads and the tasks.
#[expect(
    clippy::too_many_lines,
    reason = "the list of all that is started, in its order"
)]
pub async fn start(
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
    let of_groups = facts
        .groups()
        .iter()
        .zip(&beginnings)
        .map(|(group, it)| Monitors::new(group.monitors.len(), group.weights(), it.former));
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
