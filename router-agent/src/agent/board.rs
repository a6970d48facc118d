//! What an operator may ask: the reports of the threads, put together with what the kernel keeps.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use router_common::{
    map::{EpochSlot, Fence, Lease, Reason, RoundTrips, SessionConfig, SessionState},
    net::ipv4_from_word,
    time::BootTime,
};

use tracing::info;

use super::{
    clock_health::ClockHealth,
    driver::{ClockStatistics, ProbeStatistics},
    fenced,
    present::{Present, Presents},
    report::{News, Report, Step, StepDone, View},
    words::{
        finding_word, header_byte, in_ms, in_us, interface_is_up, kind_word, loss_percent,
        own_state, owner_name, peer_state, state_word,
    },
};
use crate::{
    clock,
    cluster::{Finding, PeerFinding, State},
    config::{Cluster, Config, GreKey, Group, Keepalive, Prefer, Role, Tunnel},
    control::{
        protocol::{
            EpochKeyStatus, FenceStatus, Finding as FindingStatus, GroupStatus, HeartbeatStatus,
            InterfaceStatus, KeepaliveStatus, MonitorState, MonitorStatus, NodeStatus, PathStatus,
            Rotation, ServiceStatus, SessionRotation, Status, Step as StepStatus, Transition,
            TunnelStatus,
        },
        server::Source,
    },
    dataplane::{Counters, MappedArray, Mode},
    heartbeat::rotation::Progress,
    slow_path,
    tunnel::{self, epoch::EpochSlots},
};

/// Transitions and findings kept of each group.
const HISTORY: usize = 64;
/// Stands for an interface or a mode that there is not.
pub(super) const NONE: &str = "none";
/// MAC failures newer than this are worth a warning even if the session is up.
const RECENT: Duration = Duration::from_secs(10);

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
    /// The sessions' keys, for the one at a time who changes them.
    pub keys: Mutex<MappedArray<SessionConfig>>,
    pub round_trips: MappedArray<RoundTrips>,
    pub counters: Counters,
    pub slow_path: Arc<slow_path::Table>,
    pub clock: Arc<ClockStatistics>,
    pub clock_health: ClockHealth,
}

/// What the threads reported of a group.
#[derive(Debug, Default)]
struct GroupBoard {
    view: Option<View>,
    monitors: Vec<MonitorStatus>,
    services: Vec<ServiceStatus>,
    transitions: VecDeque<Transition>,
    findings: VecDeque<Finding>,
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
                .map(ToString::to_string)
                .chain(group.is_checked().then(|| "resources".to_owned()))
                .map(|address| MonitorStatus {
                    address,
                    state: MonitorState::Initializing,
                })
                .collect(),
            services: group
                .resources()
                .map(|service| ServiceStatus {
                    service,
                    held: false,
                    error: None,
                })
                .collect(),
            ..Self::default()
        }
    }

    fn note(&mut self, group: &str, news: News) {
        match news {
            News::View(view) => self.view = Some(view),
            News::Monitor { index, state } => self.monitors[index].state = state,
            News::Finding(finding) => keep(&mut self.findings, finding),
            News::Step(step) => self.note_step(step),
            News::Check { resource, error } => self.services[resource].error = error,
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
            resource,
            started,
            done,
            held,
            error,
        } = done;
        let status = &mut self.services[resource];
        status.held = held;
        status.error.clone_from(&error);
        let verb = match step {
            Step::Take => "take",
            Step::Verify => "verify",
            Step::Release => "release",
        };
        let text = format!("{verb} {}", status.service);
        let active = state_word(State::Active);
        let transition = self.transitions.iter_mut().rev().find(|transition| {
            let side = match step {
                Step::Take | Step::Verify => &transition.to,
                Step::Release => &transition.from,
            };
            transition.epoch == epoch.0 && side == active
        });
        if let Some(transition) = transition {
            // A step that is tried again replaces its last try.
            transition.steps.retain(|step| step.step != text);
            transition.steps.push(StepStatus {
                step: text,
                started_ns: started.as_ns(),
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

    fn session_is_up(&self, state: &SessionState, now: BootTime) -> bool {
        let dead = self.cluster().map_or(Duration::ZERO, |c| c.dead_interval);
        !state.last_heard().is_never() && now.since(state.last_heard()) < dead
    }

    fn probes(&self, session: &SessionFacts) -> Option<&ProbeStatistics> {
        self.clock.sessions.get(session.index as usize)
    }

    /// Why a session is not up, or what else is wrong with it.
    fn session_note(&self, session: &SessionFacts, now: BootTime) -> Option<String> {
        let state = &self.heard.read(session.index);
        let up = self.session_is_up(state, now);
        let send_error = self
            .probes(session)
            .map_or(0, |probes| probes.last_error.load(Ordering::Relaxed));
        if send_error != 0 {
            return Some(format!(
                "our probes cannot be sent: {}",
                io::Error::from_raw_os_error(send_error)
            ));
        }
        let last_failure = BootTime::from_ns(state.last_mac_failure_ns);
        if !last_failure.is_never() && now.since(last_failure) < RECENT {
            Some(format!(
                "messages arrive with a wrong MAC ({} so far): the pre-shared-secret or the host \
                 names of the two nodes differ",
                state.mac_failures
            ))
        } else if up {
            None
        } else if state.last_heard().is_never() && state.unproven > 0 {
            Some(
                "the peer's messages arrive, but do not echo ours: ours do not reach it".to_owned(),
            )
        } else {
            Some(
                "nothing arrives from the peer: its agent does not run, or the network lets no GRE \
                 (IP protocol 47) through"
                    .to_owned(),
            )
        }
    }

    /// The newest message of the peer, over all paths of a group.
    fn newest(&self, group: usize) -> SessionState {
        self.sessions
            .iter()
            .filter(|session| session.group == group)
            .map(|session| self.heard.read(session.index))
            .max_by_key(|state| state.last_heard_ns)
            .unwrap_or_default()
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

    fn heartbeat_status(
        &self,
        cluster: &Cluster,
        session: &SessionFacts,
        now: BootTime,
    ) -> HeartbeatStatus {
        let state = self.heard.read(session.index);
        let group = &cluster.groups[session.group];
        let sent = self
            .probes(session)
            .map_or(0, |probes| probes.sent.load(Ordering::Relaxed));
        let replied = state.replies > 0;
        let round_trips = self.round_trips.read(session.index);
        let quantile = |per_mille| round_trips.quantile_ns(per_mille).map(in_us);
        HeartbeatStatus {
            group: group.name.clone(),
            path: session.path.clone(),
            peer: self.peer(group).to_owned(),
            peer_address: ipv4_from_word(state.peer_address).map(|address| address.to_string()),
            last_heard_ms_ago: (!state.last_heard().is_never())
                .then(|| in_ms(now.since(state.last_heard()))),
            peer_generation: state.generation(),
            peer_agent_age_ms: in_ms(state.agent_age()),
            rtt_last_us: replied.then(|| in_us(state.rtt_last_ns)),
            rtt_min_us: replied.then(|| in_us(state.rtt_min_ns)),
            rtt_avg_us: state.rtt_sum_ns.checked_div(state.replies).map(in_us),
            rtt_max_us: replied.then(|| in_us(state.rtt_max_ns)),
            rtt_p50_us: quantile(500),
            rtt_p90_us: quantile(900),
            rtt_p99_us: quantile(990),
            rtt_p999_us: quantile(999),
            jitter_us: (state.replies > 1).then(|| in_us(state.jitter_16ths / 16)),
            probes_sent: sent,
            replies_received: state.replies,
            round_trip_loss_percent: loss_percent(
                state.first_reply_sequence,
                state.reply_sequence,
                state.replies,
            ),
            inbound_loss_percent: loss_percent(
                state.first_probe_sequence,
                state.probe_sequence,
                state.probes,
            ),
            mac_failures: state.mac_failures,
            stale: state.stale,
            unproven: state.unproven,
            wrong_sender: state.wrong_sender,
            not_understood: state.not_understood,
            keepalive_interval_ms: in_ms(cluster.keepalive_interval),
            dead_interval_ms: in_ms(cluster.dead_interval),
            late_ticks: self.clock.late.load(Ordering::Relaxed),
            max_tick_lateness_us: in_us(self.clock.max_lateness_ns.load(Ordering::Relaxed)),
            session_up: self.session_is_up(&state, now),
            secret_rotation: self.rotation(session).to_string(),
            note: self.session_note(session, now),
        }
    }

    fn tunnel_status(&self, facts: &TunnelFacts, present: Present, now: BootTime) -> TunnelStatus {
        let TunnelFacts {
            tunnel,
            index,
            epochs,
        } = facts;
        let Present {
            mtu,
            path_mtu,
            underlay,
            mode,
            keepalive,
            notes,
        } = present;
        // The map was there when the agent started; without it the counters stay at zero.
        let counters = self.counters.of(*index).unwrap_or_default();
        let mode_name = mode.as_ref().map_or(NONE, Mode::name);
        let mode_reason = mode.as_ref().and_then(Mode::reason);
        let slow = self.slow_path.counters(&tunnel::key(tunnel));
        TunnelStatus {
            name: tunnel.name.clone(),
            addresses: tunnel.addresses.iter().map(ToString::to_string).collect(),
            description: tunnel.description.clone().unwrap_or_default(),
            mtu,
            local: tunnel.local_ip.to_string(),
            remote: tunnel.remote_ip.to_string(),
            key: tunnel.key.and_then(GreKey::fixed),
            epoch_key: epochs.map(|EpochSlots { sent, received }| EpochKeyStatus {
                sent: sent.map_or(0, |slot| self.epochs.epoch(slot.into()).0),
                newest_received: self.epochs.epoch(received.into()).0,
                domain: tunnel.epoch_domain.clone(),
            }),
            ttl: header_byte(tunnel.ttl),
            tos: header_byte(tunnel.tos),
            underlay: underlay.unwrap_or_else(|| NONE.to_owned()),
            xdp_mode: mode_name.to_owned(),
            xdp_mode_reason: self.driver_trouble().or(mode_reason.map(ToOwned::to_owned)),
            admin_up: tunnel.enabled,
            link_up: tunnel.enabled && interface_is_up(&tunnel.name),
            multicast: tunnel.multicast,
            encapsulation: tunnel.encapsulation.to_string(),
            path_mtu: path_mtu.map(|learnt| learnt.mtu),
            path_mtu_age_ms: path_mtu.map(|learnt| whole_ms(now.since(learnt.at))),
            keepalive: keepalive.map(|keepalive| {
                let Keepalive { interval, retries } = keepalive.config();
                KeepaliveStatus {
                    interval_ms: whole_ms(interval),
                    retries,
                    up: keepalive.is_up(),
                    unanswered: keepalive.unanswered(),
                }
            }),
            notes,
            counters: counters
                .named()
                .chain(slow.iter().flat_map(|slow| slow.named()))
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
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
}
