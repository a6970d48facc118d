//! What an operator may ask: the reports of the threads, put together with what the kernel keeps.

mod sessions;
mod tunnels;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use router_common::{
    map::{
        EpochSlot, Fence, Granted, Lease, LocalState, Reason, RoundTrips, SessionConfig,
        SessionState,
    },
    time::BootTime,
};

use tracing::info;

use super::{
    clock_health::ClockHealth,
    driver::ClockStatistics,
    fenced,
    present::Presents,
    report::{News, Report, Step, StepDone, View},
    words::{KINDS, finding_word, kind_word, own_state, owner_name, peer_state, state_word},
};
use crate::{
    clock,
    cluster::{Finding, PeerFinding, State},
    config::{Cluster, Config, Group, Prefer, Role, Tunnel},
    control::{
        protocol::{
            FenceStatus, Finding as FindingStatus, GroupStatus, HeartbeatStatus, InterfaceStatus,
            MonitorState, MonitorStatus, NodeStatus, PathStatus, Rotation, ServiceStatus,
            SessionRotation, Status, Step as StepStatus, Transition, TunnelStatus,
        },
        server::Source,
    },
    dataplane::{Counters, MappedArray},
    heartbeat::rotation::Progress,
    logging::LogLevel,
    slow_path,
    tunnel::epoch::EpochSlots,
};

/// Transitions and findings kept of each group.
const HISTORY: usize = 64;
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
    pub clock_health: ClockHealth,
    pub log_level: LogLevel,
}

/// What the threads reported of a group.
#[derive(Debug, Default)]
struct GroupBoard {
    view: Option<View>,
    monitors: Vec<MonitorStatus>,
    services: Vec<ServiceStatus>,
    transitions: VecDeque<Transition>,
    findings: VecDeque<Finding>,
    /// How many there were, by kind.
    finding_counts: BTreeMap<&'static str, u64>,
}

pub struct Board {
    facts: Facts,
    groups: Mutex<Vec<GroupBoard>>,
}

impl Board {
    pub fn new(facts: Facts) -> Self {
        let groups = facts.groups().iter().map(GroupBoard::new).collect();
        Self {
            facts,
            groups: Mutex::new(groups),
        }
    }

    /// What does not change while the agent runs.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes in a report.
    pub fn note(&self, report: Report) {
        let Report { group, news } = report;
        let name = self.facts.groups()[group].name.clone();
        self.boards()[group].note(&name, news);
    }

    /// A panic elsewhere leaves whole values behind, which are still worth showing.
    fn boards(&self) -> MutexGuard<'_, Vec<GroupBoard>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupBoard {
    fn new(group: &Group) -> Self {
        Self {
            monitors: group
                .monitors
                .iter()
                .map(|address| MonitorStatus {
                    address: address.to_string(),
                    state: MonitorState::Initializing,
                })
                .collect(),
            services: group
                .services
                .iter()
                .map(|service| ServiceStatus {
                    service: service.to_string(),
                    held: false,
                    error: None,
                })
                .collect(),
            finding_counts: KINDS.map(|kind| (kind, 0)).into(),
            ..Self::default()
        }
    }

    fn note(&mut self, group: &str, news: News) {
        match news {
            News::View(view) => self.view = Some(view),
            News::Monitor { index, state } => self.monitors[index].state = state,
            News::Finding(finding) => {
                *self.finding_counts.entry(kind_word(&finding)).or_default() += 1;
                keep(&mut self.findings, finding);
            }
            News::Step(step) => self.note_step(step),
            News::Transition(transition) => keep(
                &mut self.transitions,
                Transition {
                    at_ns: transition.at.as_ns(),
                    group: group.to_owned(),
                    from: state_word(transition.from).to_owned(),
                    to: state_word(transition.to).to_owned(),
                    epoch: transition.epoch.0,
                    cause: transition.cause.to_string(),
                    last_heard_ns: transition.last_heard.as_ns(),
                    decided_ns: transition.at.as_ns(),
                    steps: Vec::new(),
                },
            ),
        }
    }

    /// Keeps what became of a service, and notes the step at the transition that it was for.
    fn note_step(&mut self, done: StepDone) {
        let StepDone {
            epoch,
            step,
            service,
            done,
            error,
        } = done;
        let status = &mut self.services[service];
        if error.is_none() {
            status.held = step == Step::Take;
        }
        status.error.clone_from(&error);
        let verb = match step {
            Step::Take => "take",
            Step::Release => "release",
        };
        let text = format!("{verb} {}", status.service);
        let active = state_word(State::Active);
        let transition = self.transitions.iter_mut().rev().find(|transition| {
            let side = match step {
                Step::Take => &transition.to,
                Step::Release => &transition.from,
            };
            transition.epoch == epoch.0 && side == active
        });
        if let Some(transition) = transition {
            // A step that is tried again replaces its last try.
            transition.steps.retain(|step| step.step != text);
            transition.steps.push(StepStatus {
                step: text,
                done_ns: done.as_ns(),
                error,
            });
        }
    }
}

fn keep<T>(ring: &mut VecDeque<T>, entry: T) {
    if ring.len() == HISTORY {
        ring.pop_front();
    }
    ring.push_back(entry);
}

impl Facts {
    fn cluster(&self) -> Option<&Cluster> {
        self.config.cluster.as_ref()
    }

    pub(super) fn groups(&self) -> &[Group] {
        self.cluster().map_or(&[], |cluster| &cluster.groups)
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
        let peer_state = peer_state(view, self.newest(number).flags());
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
            services: board.services.clone(),
            protected: group.protected.clone(),
            fence: self.fence_status(number, now),
            notes: self.notes(number, view, board, now),
            transitions: board.transitions.iter().cloned().collect(),
            findings: board
                .findings
                .iter()
                .map(|finding| FindingStatus {
                    at_ns: finding.at().as_ns(),
                    group: group.name.clone(),
                    kind: kind_word(finding).to_owned(),
                    text: finding.to_string(),
                })
                .collect(),
            finding_counts: board
                .finding_counts
                .iter()
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
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
        let Group {
            prefer, protected, ..
        } = &self.groups()[group];
        if *prefer == Prefer::Consistency || !protected.is_empty() {
            notes.extend(self.clock_health.warning());
        }
        // What the peer is stands above.
        let of_us = |finding: &&Finding| !matches!(finding, Finding::Peer { .. });
        if let Some(finding) = board.findings.iter().rev().find(of_us) {
            notes.push(format!("last finding: {finding}"));
        }
        notes
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Source for Board {
    fn status(&self) -> Status {
        let now = clock::now();
        let boards = self.boards();
        let facts = &self.facts;
        Status {
            node: facts.config.host_name.clone(),
            generation: facts.generation,
            agent_uptime_ms: whole_ms(now.since(facts.started)),
            now_ns: now.as_ns(),
            clock_source: facts.clock_health.source.clone(),
            virtual_machine: facts.clock_health.virtual_machine,
            clock_may_stop: facts.clock_health.warning().is_some(),
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

    fn rotate(&self, rotation: &Rotation) -> Result<Vec<SessionRotation>, String> {
        let facts = &self.facts;
        match rotation {
            Rotation::Begin(secret) => facts.begin_rotation(secret),
            Rotation::Finish { force } => facts.finish_rotation(*force),
        }
        .map_err(|refusal| refusal.to_string())?;
        let step = match rotation {
            Rotation::Begin(_) => "two secrets are accepted",
            Rotation::Finish { .. } => "one secret is accepted",
        };
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

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        self.facts
            .log_level
            .set(level)
            .map_err(|refusal| refusal.to_string())?;
        info!(level, "another level of the log");
        Ok(())
    }
}
