//! What an operator may ask: the reports of the threads, put together with what the kernel keeps.

mod force;
mod log;
mod sessions;
mod tunnels;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use router_common::{
    lease::Length,
    map::{
        EpochSlot, Fence, Granted, Lease, LocalState, Reason, RoundTrips, SessionConfig,
        SessionState,
    },
    time::BootTime,
};

use tokio::sync::oneshot;
use tracing::info;

use super::{
    cleared::{self, Cleared},
    configuration::Configuration,
    driver::{ClockStatistics, Input},
    fenced, past,
    present::Presents,
    report::{News, Report, Step, StepDone, View},
    step_times::{self, StepTimes},
    words::{
        DUPLICATE_ADDRESS, KINDS, finding_word, kind_word, own_state, owner_name, peer_state,
        priorities, state_word, unwell,
    },
};
use crate::{
    arbiter::Health,
    clock,
    cluster::{Forced, PeerFinding, State},
    config::{Cluster, Config, Group, Prefer, Role, Secrets, Tunnel, Weight},
    control::{
        protocol::{
            ConfigurationStatus, Configuring, DuplicateStatus, FenceStatus, Force, ForceBegun,
            GroupStatus, HeartbeatStatus, InterfaceStatus, LogLine, LogWanted, MonitorState,
            MonitorStatus, NodeStatus, PathStatus, Rotation, ServiceStatus, SessionRotation,
            Status, Step as StepStatus, TunnelStatus,
        },
        server::{self, Source, Step as ConfiguringStep},
    },
    dataplane::{Counters, MappedArray},
    duplicate::{Duplicate, Mac},
    heartbeat::rotation::Progress,
    history::{Entry, Past, Side},
    logging::Log,
    slow_path,
    tunnel::epoch::EpochSlots,
};

/// Stands for an interface or a mode that there is not.
pub(super) const NONE: &str = "none";

/// A tunnel's place in the maps.
#[derive(Debug)]
pub struct TunnelFacts {
    pub tunnel: Tunnel,
    /// If its key is an epoch.
    pub epochs: Option<EpochSlots>,
    pub index: u32,
}

/// A session's place in the maps.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    pub group: usize,
    pub index: u32,
    pub path: String,
}

/// What does not change while the agent runs.
pub struct Facts {
    pub config: Config,
    pub generation: u32,
    pub started: BootTime,
    pub tunnels: Vec<TunnelFacts>,
    pub epochs: Arc<MappedArray<EpochSlot>>,
    /// Of the same tunnels, what changes all the same.
    pub presents: Arc<Presents>,
    pub sessions: Vec<SessionFacts>,
    pub heard: Arc<MappedArray<SessionState>>,
    pub fences: MappedArray<Fence>,
    pub leases: MappedArray<Lease>,
    pub local: MappedArray<LocalState>,
    pub granted: MappedArray<Granted>,
    /// The sessions' keys, for the one at a time who changes them.
    pub keys: Mutex<MappedArray<SessionConfig>>,
    pub round_trips: MappedArray<RoundTrips>,
    pub counters: Counters,
    pub slow_path: Arc<slow_path::Table>,
    pub clock: Arc<ClockStatistics>,
    /// As in `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    pub log: Log,
    pub cleared: Cleared,
}

/// What the threads reported of a group.
#[derive(Debug, Default)]
struct GroupBoard {
    view: Option<View>,
    monitors: Vec<MonitorStatus>,
    services: Vec<ServiceStatus>,
    step_times: StepTimes,
    past: Past,
    arbiter: Health,
    /// How many findings there were since the agent started, by kind.
    finding_counts: BTreeMap<&'static str, u64>,
}

pub struct Board {
    facts: Facts,
    configuration: Arc<Configuration>,
    groups: Mutex<Vec<GroupBoard>>,
    /// Who decides.
    inbox: Sender<Input>,
}

impl Board {
    /// `before` is what was recorded by the agents before this one.
    pub fn new(
        facts: Facts,
        configuration: Arc<Configuration>,
        before: Vec<Entry>,
        inbox: Sender<Input>,
    ) -> Self {
        let mut groups: Vec<_> = facts.groups().iter().map(GroupBoard::new).collect();
        for entry in before {
            let named = |group: &Group| group.name == entry.group();
            if let Some(number) = facts.groups().iter().position(named) {
                groups[number].past.note(entry);
            }
        }
        Self {
            facts,
            configuration,
            groups: Mutex::new(groups),
            inbox,
        }
    }

    /// What does not change while the agent runs.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes in a report; what of it is history.
    pub fn note(&self, report: Report) -> Option<Entry> {
        let Report {
            group: number,
            news,
        } = report;
        let facts = &self.facts;
        let mut boards = self.boards();
        let board = &mut boards[number];
        board.log(&facts.groups()[number], &news);
        let entry = match news {
            News::View(view) => {
                board.view = Some(view);
                return None;
            }
            News::Monitor { index, state, why } => {
                let status = &mut board.monitors[index];
                (status.state, status.why) = (state, why);
                return None;
            }
            News::Check { resource, error } => {
                board.services[resource].error = error;
                return None;
            }
            News::Arbiter(exchange) => {
                board.arbiter.note(exchange);
                return None;
            }
            News::Step(step) => board.note_step(&facts.groups()[number].name, step),
            News::Finding(finding) => {
                let count = board.finding_counts.entry(kind_word(&finding));
                *count.or_default() += 1;
                past::finding(facts, number, &finding)
            }
            News::Duplicate {
                resource,
                duplicate,
                is_new,
            } => {
                let status = &mut board.services[resource];
                note_duplicate(&mut status.duplicates, duplicate);
                if !is_new {
                    return None;
                }
                let entry = past::duplicate(facts, number, &status.service, duplicate);
                *board.finding_counts.entry(DUPLICATE_ADDRESS).or_default() += 1;
                entry
            }
            News::Transition(decided) => past::transition(facts, number, &board.monitors, &decided),
        };
        board.past.note(entry.clone());
        Some(entry)
    }

    /// Takes in the first packet that an activation let pass, where the kernel has seen one.
    pub fn note_first_packets(&self) -> Vec<Entry> {
        let facts = &self.facts;
        let mut entries = Vec::new();
        for (number, board) in self.boards().iter_mut().enumerate() {
            let fence = facts.fence_status(number, clock::now());
            if let Some(entry) = past::first_packet(&board.past, &facts.boot_id, &fence) {
                board.past.note(entry.clone());
                entries.push(entry);
            }
        }
        entries
    }

    /// A panic elsewhere leaves whole values behind, which are still worth showing.
    fn boards(&self) -> MutexGuard<'_, Vec<GroupBoard>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupBoard {
    fn new(group: &Group) -> Self {
        let addresses = group.monitors.iter().map(|_| Weight::default());
        Self {
            monitors: group
                .monitor_names()
                .zip(addresses.chain(group.weights()))
                .map(|(address, weight)| MonitorStatus {
                    address,
                    state: MonitorState::Initializing,
                    why: None,
                    weight: weight.get(),
                })
                .collect(),
            services: group
                .resources()
                .map(|service| ServiceStatus {
                    service,
                    held: false,
                    error: None,
                    duplicates: Vec::new(),
                })
                .collect(),
            finding_counts: KINDS.map(|kind| (kind, 0)).into(),
            ..Self::default()
        }
    }

    /// Keeps what became of a service; the entry for the transition that the step was for.
    fn note_step(&mut self, group: &str, done: StepDone) -> Entry {
        self.step_times.note(&done);
        let StepDone {
            epoch,
            step,
            resource,
            kind: _,
            started,
            done,
            held,
            error,
        } = done;
        let status = &mut self.services[resource];
        status.held = held;
        status.error.clone_from(&error);
        // Watching over an address begins anew with each take, and is over with a release.
        if step != Step::Verify {
            status.duplicates.clear();
        }
        let side = match step {
            Step::Take | Step::Verify => Side::Into,
            Step::Release => Side::OutOf,
        };
        let verb = step_times::word(step);
        Entry::Step {
            group: group.to_owned(),
            epoch: epoch.0,
            side,
            step: StepStatus {
                step: format!("{verb} {}", status.service),
                started_ns: started.as_ns(),
                done_ns: done.as_ns(),
                error,
            },
        }
    }
}

/// Puts what is known of one who uses the address, too, in the place of what was.
fn note_duplicate(duplicates: &mut Vec<DuplicateStatus>, found: Duplicate) {
    let mac = Mac(found.mac).to_string();
    duplicates.retain(|known| known.mac != mac);
    duplicates.push(DuplicateStatus {
        mac,
        claims: found.claims,
        last_ns: found.last.as_ns(),
    });
}

impl Facts {
    pub(super) fn cluster(&self) -> Option<&Cluster> {
        self.config.cluster.as_ref()
    }

    pub(super) fn groups(&self) -> &[Group] {
        self.config.groups()
    }

    /// Has the counters of these shown from now on; their names.
    fn clear(&self, counted: Vec<(String, cleared::Counters)>) -> Result<Vec<String>, String> {
        self.cleared
            .clear(&counted, clock::now())
            .map_err(|error| format!("{error:#}"))?;
        Ok(counted.into_iter().map(|(name, _)| name).collect())
    }

    /// Whether this node holds group `number`, or is handing it over.
    pub(super) fn is_active(&self, number: u32) -> bool {
        self.fences.read(number).opened_ns != 0
    }

    fn role(&self, group: &Group) -> Role {
        group
            .role_of(&self.config.host_name)
            .unwrap_or(Role::Secondary)
    }

    pub(super) fn peer<'a>(&self, group: &'a Group) -> &'a str {
        match self.role(group) {
            Role::Primary => &group.secondary,
            Role::Secondary => &group.primary,
        }
    }

    fn group_status(&self, number: usize, board: &GroupBoard, now: BootTime) -> GroupStatus {
        let group = &self.groups()[number];
        let view = board.view;
        let peer_state = peer_state(view, self.said_last(number).flags());
        let role = self.role(group);
        let own_state = own_state(view, role, &board.monitors);
        let node = |name: &String, this_node| NodeStatus {
            name: name.clone(),
            this_node,
            state: if this_node { own_state } else { peer_state },
        };
        let claim = view.map(|view| view.claim).unwrap_or_default();
        GroupStatus {
            group: group.name.clone(),
            this_node: self.config.host_name.clone(),
            primary: node(&group.primary, role == Role::Primary),
            secondary: node(&group.secondary, role == Role::Secondary),
            state: state_word(view.map_or(State::Initializing, |view| view.state)).to_owned(),
            epoch: claim.epoch.0,
            owner: owner_name(claim, group),
            peer_finding: finding_word(view.map_or(PeerFinding::NeverHeard, |view| view.peer))
                .to_owned(),
            prefer: group.prefer.word().to_owned(),
            monitors: board.monitors.clone(),
            priorities: priorities(group, view, self.said_last(number).flags()),
            services: board.services.clone(),
            step_times: board.step_times.status(),
            protected: group.protected.clone(),
            fence: self.fence_status(number, now),
            notes: self.notes(number, view, board, now),
            arbiter: self.arbiter_status(number, view, &board.arbiter),
            transitions: board.past.transitions().cloned().collect(),
            findings: board.past.findings().cloned().collect(),
            finding_counts: board
                .finding_counts
                .iter()
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
        }
    }

    /// How long the newest grant to a group's owner binds this node; none if it binds no more.
    fn bound_by_grants(&self, group: usize) -> Length {
        let fence =
            u32::try_from(group).map_or_else(|_| Fence::default(), |it| self.fences.read(it));
        if fence.opened_ns == 0 {
            Length::of(Duration::from_nanos(fence.lease_ns))
        } else {
            Length::NONE
        }
    }

    fn fence_status(&self, group: usize, now: BootTime) -> FenceStatus {
        let Ok(group) = u32::try_from(group) else {
            return FenceStatus::default();
        };
        fenced::status(
            &self.fences.read(group),
            &self.leases.read(group),
            // The map was there when the agent started.
            &self.counters.of_fence(group).unwrap_or_default(),
            now,
        )
    }

    /// What the driver refuses to the programs, if it does.
    fn driver_trouble(&self) -> Option<String> {
        // The map was there when the agent started.
        let dropped = self.counters.reason(Reason::NoHeadroom).unwrap_or_default();
        (dropped > 0).then(|| {
            format!(
                "{dropped} packets were dropped because the driver cannot move a packet's start: \
                 start with --xdp-mode generic"
            )
        })
    }

    fn notes(
        &self,
        group: usize,
        view: Option<View>,
        board: &GroupBoard,
        now: BootTime,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        match view {
            Some(view) if view.dual_activity && view.peer == PeerFinding::AgentDead => notes.push(
                "the peer's agent does not run, but its kernel still holds the group's services"
                    .to_owned(),
            ),
            Some(view) if view.dual_activity => {
                notes.push("both nodes are active; one of them is about to yield".to_owned());
            }
            Some(_) | None => {}
        }
        notes.extend(view.and_then(|view| unwell(view, &board.monitors)));
        for session in self
            .sessions
            .iter()
            .filter(|session| session.group == group)
        {
            let state = self.heard.read(session.index);
            if self.rotation(session) != Progress::None {
                notes.push(format!(
                    "{}: two secrets are accepted, for the change of pre-shared-secret is not \
                     finished: see `routerctl show heartbeat`",
                    session.path
                ));
            }
            // Of a session that is down, its path says why.
            if self.session_is_up(&state, now)
                && let Some(note) = self.session_note(session, now)
            {
                notes.push(format!("{}: {note}", session.path));
            }
        }
        notes.extend(self.driver_trouble());
        let fences = self.presents.fence_notes().into_iter();
        notes.extend(
            fences
                .filter(|(of, _)| usize::try_from(*of) == Ok(group))
                .map(|(_, note)| note),
        );
        let Group {
            prefer, protected, ..
        } = &self.groups()[group];
        if *prefer == Prefer::Consistency || !protected.is_empty() {
            notes.extend(self.presents.clock().warning());
        }
        notes.extend(self.arbiter_note(&board.arbiter));
        if let Some(text) = past::last_finding(&board.past, self) {
            notes.push(format!("last finding: {text}"));
        }
        notes
    }
}

pub(super) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Source for Board {
    fn status(&self) -> Status {
        let now = clock::now();
        let boards = self.boards();
        let facts = &self.facts;
        let clock = facts.presents.clock();
        Status {
            node: facts.config.host_name.clone(),
            generation: facts.generation,
            agent_uptime_ms: whole_ms(now.since(facts.started)),
            now_ns: now.as_ns(),
            clock_may_stop: clock.warning().is_some(),
            clock_source: clock.source,
            virtual_machine: clock.virtual_machine,
            boot_id: facts.boot_id.clone(),
            groups: boards
                .iter()
                .enumerate()
                .map(|(number, board)| facts.group_status(number, board, now))
                .collect(),
            paths: facts
                .sessions
                .iter()
                .map(|session| {
                    let state = facts.heard.read(session.index);
                    PathStatus {
                        group: facts.groups()[session.group].name.clone(),
                        interface: session.path.clone(),
                        peer: facts.peer(&facts.groups()[session.group]).to_owned(),
                        session_up: facts.session_is_up(&state, now),
                        note: facts.session_note(session, now),
                    }
                })
                .collect(),
        }
    }

    fn tunnels(&self) -> Vec<TunnelStatus> {
        let facts = &self.facts;
        let now = clock::now();
        facts
            .tunnels
            .iter()
            .zip(facts.presents.all())
            .map(|(tunnel, present)| facts.tunnel_status(tunnel, present, now))
            .collect()
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        self.facts.presents.interfaces()
    }

    fn heartbeat(&self) -> Vec<HeartbeatStatus> {
        let now = clock::now();
        let facts = &self.facts;
        facts.cluster().map_or_else(Vec::new, |cluster| {
            facts
                .sessions
                .iter()
                .map(|session| facts.heartbeat_status(cluster, session, now))
                .collect()
        })
    }

    fn force(
        &self,
        force: &Force,
    ) -> Result<(ForceBegun, oneshot::Receiver<server::Verdict>), String> {
        let groups = self.facts.groups();
        let names: Vec<_> = groups.iter().map(|group| &*group.name).collect();
        let (number, forced) = force::meant(force, &names)?;
        let group = &groups[number];
        let peer = self.facts.peer(group);
        let text = match forced {
            Forced::Active { .. } => format!("takes the group, from {peer} if that owns it"),
            Forced::Standby => format!("hands the group over to {peer}"),
        };
        let (decide, decided) = oneshot::channel();
        self.inbox
            .send(Input::Force {
                group: number,
                forced,
                decide,
            })
            .map_err(|_| "the agent is stopping".to_owned())?;
        let begun = ForceBegun {
            group: group.name.clone(),
            text: format!("{} {text}", self.facts.config.host_name),
        };
        Ok((begun, decided))
    }

    fn rotate(&self, rotation: Rotation) -> BoxFuture<'_, Result<Vec<SessionRotation>, String>> {
        async move {
            let facts = &self.facts;
            let (outcome, step) = match rotation {
                Rotation::Begin(secret) => {
                    (facts.begin_rotation(&secret), "two secrets are accepted")
                }
                Rotation::Finish { force } => {
                    let next = self.configuration.next_cluster().await;
                    let outcome = facts.finish_rotation(force, next.as_ref());
                    (outcome, "one secret is accepted")
                }
            };
            outcome.map_err(|refusal| refusal.to_string())?;
            info!("the pre-shared secret is being changed: {step}");
            Ok(facts
                .sessions
                .iter()
                .map(|session| {
                    let group = &facts.groups()[session.group];
                    SessionRotation {
                        group: group.name.clone(),
                        path: session.path.clone(),
                        peer: facts.peer(group).to_owned(),
                        progress: facts.rotation(session).to_string(),
                    }
                })
                .collect())
        }
        .boxed()
    }

    fn configuration(&self, secrets: Secrets, with_defaults: bool) -> ConfigurationStatus {
        self.configuration.status(secrets, with_defaults)
    }

    fn configure(&self, step: Configuring) -> BoxFuture<'_, Result<ConfiguringStep, String>> {
        self.configuration.step(step, &self.facts)
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        self.facts
            .log
            .level
            .set(level)
            .map_err(|refusal| refusal.to_string())?;
        info!(level, "another level of the log");
        Ok(())
    }

    fn log(&self, wanted: &LogWanted) -> Vec<LogLine> {
        self.facts.log.recent.lines(wanted)
    }

    fn clear_counters(&self, tunnel: Option<&str>) -> Result<Vec<String>, String> {
        let facts = &self.facts;
        let is_meant = |of: &&TunnelFacts| tunnel.is_none_or(|name| of.tunnel.name == name);
        let tunnels = facts.tunnels.iter().filter(is_meant);
        let counted: Vec<_> = tunnels
            .map(|of| (of.tunnel.name.clone(), facts.tunnel_counters(of)))
            .collect();
        match tunnel {
            Some(name) if counted.is_empty() => Err(format!(
                "there is no tunnel {name}; `routerctl show interfaces tunnel` lists those that there are"
            )),
            _ => facts.clear(counted),
        }
    }

    fn clear_heartbeat_counters(&self) -> Result<Vec<String>, String> {
        let facts = &self.facts;
        let sessions = facts.sessions.iter().zip(self.heartbeat());
        let counted = sessions.map(|(session, mut status)| {
            let counters = facts.session_counters(&mut status);
            (facts.session_name(session), counters)
        });
        facts.clear(counted.collect())
    }
}
