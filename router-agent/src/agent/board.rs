//! What an operator may ask: the reports of the threads, put together with what the kernel keeps.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering, mpsc::Sender},
    time::Duration,
};

use router_common::{
    map::{EpochSlot, Fence, Lease, Reason, RoundTrips, SessionConfig, SessionState},
    net::ipv4_from_word,
    time::BootTime,
};

use tokio::sync::oneshot;
use tracing::info;

use super::{
    clock_health::ClockHealth,
    driver::{ClockStatistics, Input, ProbeStatistics},
    fenced, past,
    present::{Present, Presents},
    report::{News, Report, Step, StepDone, View},
    words::{
        finding_word, header_byte, in_ms, in_us, interface_is_up, loss_percent, own_state,
        owner_name, peer_state, state_word,
    },
};
use crate::{
    arbiter::Health,
    clock,
    cluster::{Forced, PeerFinding, State},
    config::{Cluster, Config, GreKey, Group, Keepalive, Prefer, Role, Tunnel},
    control::{
        protocol::{
            self, EpochKeyStatus, FenceStatus, Force, ForceBegun, GroupStatus, HeartbeatStatus,
            InterfaceStatus, KeepaliveStatus, MonitorState, MonitorStatus, NodeStatus, PathStatus,
            Rotation, ServiceStatus, SessionRotation, Status, Step as StepStatus, TunnelStatus,
        },
        server::{self, Source},
    },
    dataplane::{Counters, MappedArray, Mode},
    heartbeat::rotation::Progress,
    history::{Entry, Past, Side},
    slow_path,
    tunnel::{self, epoch::EpochSlots},
};

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
    /// As in `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// What the threads reported of a group.
#[derive(Debug, Default)]
struct GroupBoard {
    view: Option<View>,
    monitors: Vec<MonitorStatus>,
    services: Vec<ServiceStatus>,
    past: Past,
    arbiter: Health,
}

pub struct Board {
    facts: Facts,
    groups: Mutex<Vec<GroupBoard>>,
    /// Who decides.
    inbox: Sender<Input>,
}

impl Board {
    /// `before` is what was recorded by the agents before this one.
    pub fn new(facts: Facts, before: Vec<Entry>, inbox: Sender<Input>) -> Self {
        let mut groups: Vec<_> = facts.groups().iter().map(GroupBoard::new).collect();
        for entry in before {
            let named = |group: &Group| group.name == entry.group();
            if let Some(number) = facts.groups().iter().position(named) {
                groups[number].past.note(entry);
            }
        }
        Self {
            facts,
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
        let entry = match news {
            News::View(view) => {
                board.view = Some(view);
                return None;
            }
            News::Monitor { index, state } => {
                board.monitors[index].state = state;
                return None;
            }
            News::Arbiter(exchange) => {
                board.arbiter.note(exchange);
                return None;
            }
            News::Step(step) => board.note_step(&facts.groups()[number].name, step),
            News::Finding(finding) => past::finding(facts, number, &finding),
            News::Transition(decided) => past::transition(facts, number, &decided),
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
            ..Self::default()
        }
    }

    /// Keeps what became of a service; the entry for the transition that the step was for.
    fn note_step(&mut self, group: &str, done: StepDone) -> Entry {
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
        let (verb, side) = match step {
            Step::Take => ("take", Side::Into),
            Step::Release => ("release", Side::OutOf),
        };
        Entry::Step {
            group: group.to_owned(),
            epoch: epoch.0,
            side,
            step: StepStatus {
                step: format!("{verb} {}", status.service),
                done_ns: done.as_ns(),
                error,
            },
        }
    }
}

impl Facts {
    pub(super) fn cluster(&self) -> Option<&Cluster> {
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
            arbiter: self.arbiter_status(number, view, &board.arbiter),
            transitions: board.past.transitions().cloned().collect(),
            findings: board.past.findings().cloned().collect(),
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
        notes.extend(self.arbiter_note(&board.arbiter));
        if let Some(text) = past::last_finding(&board.past, self) {
            notes.push(format!("last finding: {text}"));
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

pub(super) fn whole_ms(duration: Duration) -> u64 {
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
        let number = match (&force.group, &*names) {
            (Some(name), _) => names
                .iter()
                .position(|known| known == name)
                .ok_or_else(|| {
                    format!("there is no group {name}; there are: {}", names.join(", "))
                })?,
            (None, [_]) => 0,
            (None, []) => return Err("no group is configured".to_owned()),
            (None, _) => return Err(format!("name one of the groups: {}", names.join(", "))),
        };
        let group = &groups[number];
        let peer = self.facts.peer(group);
        let (forced, text) = match force.to {
            protocol::Forced::Active => (
                Forced::Active {
                    anyway: force.i_know,
                },
                format!("takes the group, from {peer} if that owns it"),
            ),
            protocol::Forced::Standby => {
                (Forced::Standby, format!("hands the group over to {peer}"))
            }
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
