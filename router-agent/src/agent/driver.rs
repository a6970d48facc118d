//! The clock thread: probes on time, reads what the kernel heard, asks the cores, and passes their
//! commands on. It waits for nothing but time and its inbox.

use std::{
    io,
    sync::{
        Arc,
        atomic::{self, AtomicI32, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use router_common::{
    identity::Epoch,
    map::{EpochSlot, Fence, Granted, Lease, LocalState, SessionConfig, SessionState},
    time::BootTime,
};
use tokio::sync::{mpsc::UnboundedSender, oneshot};
use tracing::{info, warn};

use super::{
    clock_health::{ClockWatch, Reading},
    fitness::Fitness,
    pulse::{BEAT, Pulse},
    realtime::{self, Priority},
    report::{Decided, News, Report, View},
    stages::Watch,
};
use crate::{
    arbiter::Question,
    clock,
    cluster::{
        Advertisement, Answer, ArbiterFinding, Command, Core, Event, Finding, Forced, PeerFinding,
        PeerReport, Refusal, State,
    },
    dataplane::MappedArray,
    heartbeat::Prober,
    takeover::{Order, Task},
};

/// After an orderly stop the peers are told for this many probes, so that losses do not hide it.
const FAREWELL_PROBES: u32 = 3;
/// Between them, however long the keepalive interval is.
const FAREWELL_INTERVAL: Duration = Duration::from_millis(50);

/// While nodes that hand a group over wait for each other's word, they probe and look once in this time,
/// or in the sum of all sessions' shares if that is longer.
const HANDOVER_INTERVAL: Duration = Duration::from_millis(1);
const HANDOVER_SHARE: Duration = Duration::from_micros(10);
/// For so long at most: then what was asked is not answered soon.
const LONGEST_HANDOVER: Duration = Duration::from_secs(1);
/// Who took over forwards when the other has heard so and grants it.
const HANDOVER_END: Duration = Duration::from_millis(20);

/// A stop of our own shorter than this is not worth an operator's attention.
const NOTABLE_STOP: Duration = Duration::from_millis(100);

/// What reaches the clock thread from others.
#[derive(Debug)]
pub enum Input {
    Monitors {
        group: usize,
        fitness: Fitness,
    },
    TakeoverDone {
        group: usize,
        epoch: Epoch,
    },
    TakeoverFailed {
        group: usize,
        epoch: Epoch,
    },
    Arbiter {
        group: usize,
        /// Of the question.
        number: u64,
        /// Right before the question left.
        sent: BootTime,
        answer: Answer,
    },
    /// An operator wants the group here, or away.
    Force {
        group: usize,
        forced: Forced,
        decide: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Leave the groups.
    Stop,
    /// End, and leave all as it is for another agent.
    Detach,
}

/// A session of a group, over one of its paths.
#[derive(Debug)]
pub struct Session {
    /// Its place in the maps.
    pub index: u32,
    pub prober: Prober,
}

/// A group and its core.
#[derive(Debug)]
pub struct Group {
    pub name: String,
    /// The place of its fence in the map, and of its epoch.
    pub place: u32,
    pub core: Core,
    pub sessions: Vec<Session>,
    watch: Watch,
    /// It is being handed over, until then at the latest.
    hurries_until: BootTime,
    /// What was last reported.
    view: Option<View>,
}

impl Group {
    pub fn new(name: String, place: u32, core: Core, sessions: Vec<Session>) -> Self {
        Self {
            name,
            place,
            core,
            sessions,
            watch: Watch::default(),
            hurries_until: BootTime::NEVER,
            view: None,
        }
    }

    /// By their own words both may forward for a moment, and nobody waits.
    fn begins(&mut self, state: State, now: BootTime) {
        self.hurries_until = match state {
            _ if !self.core.takes_turns() => BootTime::NEVER,
            State::Candidate | State::Draining => now.after(LONGEST_HANDOVER),
            State::Standby | State::Active | State::Fault if self.hurries(now) => {
                now.after(HANDOVER_END)
            }
            State::Initializing | State::Standby | State::Active | State::Fault => BootTime::NEVER,
        };
    }

    fn hurries(&self, now: BootTime) -> bool {
        now < self.hurries_until
    }
}

/// Figures that the clock thread keeps of itself.
#[derive(Debug, Default)]
pub struct ClockStatistics {
    /// By the session's place in the maps.
    pub sessions: Vec<ProbeStatistics>,
    /// Probes that went out later than half an interval.
    pub late: AtomicU64,
    pub max_lateness_ns: AtomicU64,
}

impl ClockStatistics {
    /// For sessions with places below `places`.
    pub fn of_sessions(places: usize) -> Self {
        Self {
            sessions: (0..places).map(|_| ProbeStatistics::default()).collect(),
            ..Self::default()
        }
    }
}

/// The probes of one session.
#[derive(Debug, Default)]
pub struct ProbeStatistics {
    pub sent: AtomicU64,
    /// The error number of the last try; zero if it was sent.
    pub last_error: AtomicI32,
}

impl ProbeStatistics {
    fn note(&self, group: &str, result: &io::Result<()>) {
        let error = match result {
            Ok(()) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                0
            }
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        let before = self.last_error.swap(error, Ordering::Relaxed);
        match result {
            Err(error) if before == 0 => warn!(group, %error, "probes cannot be sent"),
            Ok(()) if before != 0 => info!(group, "probes are sent again"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Everything that the clock thread needs.
pub struct Driver {
    pub groups: Vec<Group>,
    pub keepalive: Duration,
    pub generation: u32,
    pub configs: MappedArray<SessionConfig>,
    pub sessions: Arc<MappedArray<SessionState>>,
    pub local: MappedArray<LocalState>,
    pub granted: MappedArray<Granted>,
    pub fences: MappedArray<Fence>,
    pub leases: MappedArray<Lease>,
    pub epochs: Arc<MappedArray<EpochSlot>>,
    pub statistics: Arc<ClockStatistics>,
    pub clock_watch: ClockWatch,
    pub pulse: Pulse,
    pub inbox: Receiver<Input>,
    pub orders: UnboundedSender<Order>,
    /// To the arbiter; without one nobody asks.
    pub questions: UnboundedSender<Question>,
    pub reports: UnboundedSender<Report>,
}

impl Driver {
    /// Runs until stopped, and then until the peers have been told.
    pub fn run(mut self) {
        realtime::raise(Priority::Clock);
        let mut farewell = None;
        while let Ok(input) = self.inbox.try_recv() {
            match input {
                Input::Stop => farewell = Some(self.take_leave()),
                Input::Detach => return,
                other => self.take_in(other, clock::now()),
            }
        }
        let mut next_probe = clock::now();
        while farewell != Some(0) {
            let now = clock::now();
            self.pulse.beat(now);
            self.tick(now);
            if now >= next_probe {
                self.probe();
                // Who drains has not left yet.
                if !self.drains() {
                    farewell = farewell.map(|left: u32| left - 1);
                }
                next_probe = self.next_probe(next_probe, now);
            }
            // A farewell keeps its pace, so that a burst of losses does not take all of it.
            if farewell.is_none() || self.drains() {
                next_probe = next_probe.min(now.after(self.interval(now)));
            }
            let wait = self.wake_at(next_probe).since(clock::now()).min(BEAT);
            let first = match self.inbox.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                // Nobody is left to stop us in order; the kernel answers on, and the peer sees our age.
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for input in self.with_what_came_besides(first) {
                match input {
                    Input::Stop if farewell.is_none() => {
                        farewell = Some(self.take_leave());
                        next_probe = clock::now();
                    }
                    Input::Detach => return,
                    other => self.take_in(other, clock::now()),
                }
            }
        }
        self.close();
    }

    /// Each tick looks at all groups. So that answers for many groups do not take as many ticks, what waits in the
    /// inbox is taken together, one for each group at most: probes do not wait for more.
    fn with_what_came_besides(&self, first: Option<Input>) -> Vec<Input> {
        let besides = first.as_ref().map_or(0, |_| self.groups.len());
        let waiting = self.inbox.try_iter().take(besides);
        first.into_iter().chain(waiting).collect()
    }

    /// Leaves all groups; how many more probes shall tell the peers.
    fn take_leave(&mut self) -> u32 {
        self.handle_all(Event::Stop, clock::now());
        self.keepalive = self.keepalive.min(FAREWELL_INTERVAL);
        if self.groups.is_empty() {
            0
        } else {
            FAREWELL_PROBES
        }
    }

    fn drains(&self) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|group| group.core.state() == State::Draining)
    }

    fn take_in(&mut self, input: Input, now: BootTime) {
        let (group, event) = match input {
            Input::Monitors { group, fitness } => {
                let Fitness {
                    is_fit: ok,
                    missing: _,
                    priority,
                } = fitness;
                self.groups[group].watch.monitors(fitness);
                self.handle(group, Event::Priority(priority), now);
                (group, Event::Monitors { ok })
            }
            Input::TakeoverDone { group, epoch } => (group, Event::TakeoverDone { epoch }),
            Input::TakeoverFailed { group, epoch } => (group, Event::TakeoverFailed { epoch }),
            Input::Arbiter {
                group,
                number,
                sent,
                answer,
            } => {
                self.groups[group].watch.answered(number, now);
                let event = Event::Arbiter {
                    number,
                    sent,
                    answer,
                };
                (group, event)
            }
            Input::Force {
                group,
                forced,
                decide,
            } => {
                let Group { core, name, .. } = &self.groups[group];
                let refusal = core.may_force(forced);
                info!(
                    group = name,
                    epoch = core.advertisement().claim.epoch.0,
                    ?forced,
                    ?refusal,
                    "an operator moves the group"
                );
                // Who asked may have gone; the group is moved all the same.
                let _ = decide.send(refusal);
                (group, Event::Force(forced))
            }
            // The first stop has told all; what comes after it changes nothing.
            Input::Stop | Input::Detach => return,
        };
        self.handle(group, event, now);
    }

    fn handle_all(&mut self, event: Event, now: BootTime) {
        for group in 0..self.groups.len() {
            self.handle(group, event, now);
        }
    }

    fn tick(&mut self, now: BootTime) {
        if let Some(by) = self.clock_watch.observe(Reading::now()) {
            self.tell_of_the_clock(Finding::Clock { at: now, by });
        }
        for group in 0..self.groups.len() {
            let report = self.newest_report(group);
            self.groups[group].watch.heard(report);
            self.handle(group, Event::Tick(report), now);
        }
    }

    /// What was heard, over all paths of the group.
    fn newest_report(&self, group: usize) -> PeerReport {
        let sessions = &self.groups[group].sessions;
        // First: what a grant answers was noted before it, and so is seen by who has seen the grant.
        let granted = sessions
            .iter()
            .map(|session| self.granted.newest(session.index))
            .fold(BootTime::NEVER, BootTime::max);
        let heard: Vec<_> = sessions
            .iter()
            .map(|session| self.sessions.read(session.index))
            .collect();
        let leased = self.leases.read(self.groups[group].place).granted_tx_ns;
        PeerReport::of_paths(&heard, granted, BootTime::from_ns(leased))
    }

    /// Gives the core an event; publishes what follows before anything is done about it.
    fn handle(&mut self, index: usize, event: Event, now: BootTime) {
        let group = &mut self.groups[index];
        let commands = group.core.handle(event, now);
        self.publish(index, now);
        self.tell_and_order(index, commands, now);
    }

    /// Who says that he does not forward has closed his fence before, and who opens it has said so.
    fn publish(&mut self, index: usize, now: BootTime) {
        let group = &mut self.groups[index];
        let advertisement = group.core.advertisement();
        let mandate = group.core.mandate();
        let fence = mandate.fence(&advertisement);
        let moves = fence.opened_ns != self.fences.read(group.place).opened_ns;
        if moves {
            self.fences.write(group.place, &Fence::default());
            // Every CPU's gate is closed before any CPU says so.
            atomic::fence(Ordering::SeqCst);
        }
        let Advertisement { claim, flags } = advertisement;
        let local = LocalState {
            grant_us: u64::from(mandate.grant.as_us()),
            ..LocalState::new(claim, self.generation, flags, now)
        };
        let mut ends_granting = false;
        for session in &group.sessions {
            ends_granting |= self.local.say(session.index, &local);
        }
        if ends_granting {
            group.watch.grants_closed(clock::now());
        }
        // What passes by this opening leaves under its epoch.
        self.epochs.raise_epoch(group.place, group.core.own_epoch());
        self.fences.write(group.place, &fence);
        if moves && fence.opened_ns != 0 {
            group.watch.fence_opened(clock::now());
        }
    }

    /// Tells what happened, then has it acted upon, and only then puts it into words for the log:
    /// the takeover waits for neither, and its steps find the transition that they belong to.
    fn tell_and_order(&mut self, index: usize, commands: Vec<Command>, now: BootTime) {
        let group = &mut self.groups[index];
        let transitions: Vec<_> = group.core.transitions().collect();
        if let Some(last) = transitions.last() {
            group.begins(last.to, now);
        }
        let findings: Vec<_> = group.core.findings().filter(is_notable).collect();
        let view = View {
            state: group.core.state(),
            claim: group.core.advertisement().claim,
            priority: group.core.priority(),
            peer: group.core.peer_finding(),
            dual_activity: group.core.dual_activity_since().is_some(),
            trouble: group.core.trouble(),
            arbiter: group.core.arbiter_finding(),
            record: group.core.record(),
        };
        let changed = group.view.replace(view) != Some(view);
        for finding in &findings {
            group.watch.found(finding);
        }
        let known = group.watch.known(view.peer, view.record, now);
        let decided: Vec<_> = transitions
            .iter()
            .map(|transition| Decided {
                transition: *transition,
                stages: group.watch.reached(transition),
                known: known.clone(),
            })
            .collect();
        let news = decided
            .into_iter()
            .map(News::Transition)
            .chain(findings.iter().map(|finding| News::Finding(*finding)))
            .chain(changed.then_some(News::View(view)));
        for news in news {
            // Without a reader there is nobody to tell; deciding goes on.
            let _ = self.reports.send(Report { group: index, news });
        }
        for command in commands {
            self.pass_on(index, command);
        }
        let name = &self.groups[index].name;
        let epoch = view.claim.epoch.0;
        for transition in transitions {
            info!(group = name, epoch = transition.epoch.0, "{transition}");
        }
        for finding in findings {
            if is_relief(&finding) {
                info!(group = name, epoch, "{finding}");
            } else {
                warn!(group = name, epoch, "{finding}");
            }
        }
    }

    fn pass_on(&mut self, group: usize, command: Command) {
        let (task, epoch) = match command {
            Command::Take { epoch } => (Task::Take, epoch),
            Command::Release { epoch } => (Task::Release, epoch),
            Command::Announce { epoch } => (Task::Announce, epoch),
            Command::Ask { number, request } => {
                self.groups[group].watch.asked(number, clock::now());
                let question = Question {
                    group,
                    number,
                    request,
                };
                if self.questions.send(question).is_err() {
                    let name = &self.groups[group].name;
                    warn!(group = name, ?question, "nobody asks the arbiter");
                }
                return;
            }
        };
        let order = Order { group, epoch, task };
        if self.orders.send(order).is_err() {
            let name = &self.groups[group].name;
            let epoch = epoch.0;
            warn!(
                group = name,
                epoch,
                ?task,
                "the takeover thread has gone; nothing was done"
            );
        }
    }

    /// Of all groups, for all of them live by the clock.
    fn tell_of_the_clock(&self, finding: Finding) {
        warn!("{finding}");
        for group in 0..self.groups.len() {
            let news = News::Finding(finding);
            // Without a reader there is nobody to tell.
            let _ = self.reports.send(Report { group, news });
        }
    }

    /// Sends a probe in each session. What it echoes was heard before the moment that it tells, and at
    /// which its grant is noted: this thread may be stopped at any place, and there may be hundreds of
    /// sessions before this one.
    fn probe(&mut self) {
        for group in &mut self.groups {
            for session in &mut group.sessions {
                let heard = self.sessions.read(session.index);
                let local = self.local.read(session.index);
                let now = clock::now();
                let grant = group.core.mandate().grant;
                if !grant.is_none() {
                    self.granted.raise(session.index, now);
                }
                let keys = self.configs.read(session.index).keys;
                let result = session.prober.probe(&keys, &local, &heard, grant, now);
                let statistics = self.statistics.sessions.get(session.index as usize);
                if let Some(statistics) = statistics {
                    statistics.note(&group.name, &result);
                }
            }
        }
    }

    /// The next time on the grid; times that have passed meanwhile are left out.
    fn next_probe(&self, planned: BootTime, now: BootTime) -> BootTime {
        let lateness = now.since(planned);
        let lateness_ns = u64::try_from(lateness.as_nanos()).unwrap_or(u64::MAX);
        self.statistics
            .max_lateness_ns
            .fetch_max(lateness_ns, Ordering::Relaxed);
        if lateness > self.keepalive / 2 {
            self.statistics.late.fetch_add(1, Ordering::Relaxed);
        }
        let next = planned.after(self.keepalive);
        if next > now {
            next
        } else {
            now.after(self.keepalive)
        }
    }

    /// How long the next probe may be away.
    fn interval(&self, now: BootTime) -> Duration {
        if self.groups.iter().any(|group| group.hurries(now)) {
            let sessions = self.groups.iter().map(|group| group.sessions.len());
            let sessions = u32::try_from(sessions.sum::<usize>()).unwrap_or(u32::MAX);
            HANDOVER_INTERVAL
                .max(HANDOVER_SHARE.saturating_mul(sessions))
                .min(self.keepalive)
        } else {
            let paces = self.groups.iter().map(|group| group.core.pace());
            paces.fold(self.keepalive, Duration::min)
        }
    }

    fn wake_at(&self, next_probe: BootTime) -> BootTime {
        self.groups
            .iter()
            .filter_map(|group| group.core.next_deadline())
            .fold(next_probe, BootTime::min)
    }

    /// Closes fences and sessions: the kernel answers no more in our name.
    fn close(&self) {
        for group in &self.groups {
            self.fences.write(group.place, &Fence::default());
        }
        for session in self.groups.iter().flat_map(|group| &group.sessions) {
            self.local.write(session.index, &LocalState::default());
        }
    }
}

/// What was wrong is so no longer.
fn is_relief(finding: &Finding) -> bool {
    match finding {
        Finding::Peer { to, .. } => *to == PeerFinding::Alive,
        Finding::Arbiter { is, .. } => *is == ArbiterFinding::Well,
        Finding::Stopped { .. }
        | Finding::DualActivity { .. }
        | Finding::Clock { .. }
        | Finding::Dropped { .. } => false,
    }
}

/// At millisecond timing a short stop of our own is a scheduler's delay; it has been allowed for.
fn is_notable(finding: &Finding) -> bool {
    match finding {
        Finding::Stopped { length, .. } => *length >= NOTABLE_STOP,
        Finding::DualActivity { .. }
        | Finding::Peer { .. }
        | Finding::Clock { .. }
        | Finding::Arbiter { .. }
        | Finding::Dropped { .. } => true,
    }
}
