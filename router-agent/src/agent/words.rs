//! The words in which an operator reads what the agent knows.

use std::time::Duration;

use router_common::identity::{Claim, Flags, NodeId, Priority};

use super::report::View;
use crate::{
    cluster::{Cause, Finding, Mode, PeerFinding, Record, State},
    config::{Group, HeaderByte, Role},
    control::protocol::{DROPPED_ORDER, MonitorState, MonitorStatus, NodeState, Priorities},
};

/// The operator's word for what this node is.
pub(super) fn own_state(view: Option<View>, role: Role, monitors: &[MonitorStatus]) -> NodeState {
    let Some(view) = view else {
        return NodeState::Initializing;
    };
    match view.state {
        State::Initializing if view.peer == PeerFinding::NeverHeard => match role {
            Role::Primary => NodeState::StartedWaitingForSecondary,
            Role::Secondary => NodeState::StartedWaitingForPrimary,
        },
        State::Initializing => NodeState::Initializing,
        State::Standby => NodeState::ActiveStandby,
        State::Candidate | State::Draining => NodeState::InTransition,
        State::Active => NodeState::Active,
        State::Fault => {
            let unreachable = |monitor: &MonitorStatus| monitor.state == MonitorState::Unreachable;
            // One that most can do without is not why.
            if view.trouble == Some(Cause::MonitorsUnreachable) && monitors.iter().any(unreachable)
            {
                NodeState::DownMonitorUnreachable
            } else {
                NodeState::Down
            }
        }
    }
}

/// A cause, with the names of the monitors that are missing if it is about them.
pub(super) fn trouble(cause: Cause, missing: &[String]) -> String {
    if cause == Cause::MonitorsUnreachable && !missing.is_empty() {
        format!("{cause}: {}", missing.join(", "))
    } else {
        cause.to_string()
    }
}

/// Why this node yields to one that is well, if it does.
pub(super) fn unwell(view: View, monitors: &[MonitorStatus]) -> Option<String> {
    let cause = view.trouble.filter(|cause| *cause != Cause::Stopping)?;
    let missing: Vec<_> = monitors
        .iter()
        .filter(|monitor| monitor.weight == 0 && monitor.state != MonitorState::Reachable)
        .map(|monitor| monitor.address.clone())
        .collect();
    Some(format!(
        "this node is not well: {}",
        trouble(cause, &missing)
    ))
}

/// The operator's word for what the peer is, as far as it told us.
pub(super) fn peer_state(view: Option<View>, flags: Flags) -> NodeState {
    let Some(view) = view else {
        return NodeState::Unknown;
    };
    match view.peer {
        PeerFinding::NeverHeard if view.state == State::Initializing => NodeState::Unknown,
        PeerFinding::NeverHeard | PeerFinding::KernelSilent | PeerFinding::AgentDead => {
            NodeState::Down
        }
        PeerFinding::Alive | PeerFinding::AliveAndDeaf => {
            if flags.contains(Flags::FORWARDING) && !flags.contains(Flags::DRAINING) {
                NodeState::Active
            } else if flags.contains(Flags::CANDIDATE) || flags.contains(Flags::DRAINING) {
                NodeState::InTransition
            } else if flags.contains(Flags::ELIGIBLE) {
                NodeState::ActiveStandby
            } else {
                NodeState::Down
            }
        }
    }
}

/// The nodes' priorities, if either is about to differ from the other's.
pub(super) fn priorities(group: &Group, view: Option<View>, peer: Flags) -> Option<Priorities> {
    let own = view.map_or(Priority::BASE, |view| view.priority);
    let peer = peer.priority();
    let weighs = group.weights().iter().any(|weight| !weight.is_mandatory());
    let differs = peer.is_some_and(|peer| own != peer);
    (weighs || differs).then(|| Priorities {
        own: own.get(),
        peer: peer.map(Priority::get),
    })
}

pub(super) fn owner_name(claim: Claim, group: &Group) -> Option<String> {
    match claim.owner {
        NodeId::PRIMARY => Some(group.primary.clone()),
        NodeId::NONE => None,
        NodeId(_) => Some(group.secondary.clone()),
    }
}

/// The arbiter's record, for people.
pub(super) fn record(record: &Record, group: &Group) -> String {
    let Record { claim, mode } = *record;
    let owner = owner_name(claim, group).unwrap_or_else(|| "nobody".to_owned());
    let mode = match mode {
        Mode::Paired => "paired".to_owned(),
        Mode::Solo { term } => format!("solo for {} ms", term.as_millis()),
    };
    format!("epoch {}, {owner}, {mode}", claim.epoch.0)
}

pub(crate) fn state_word(state: State) -> &'static str {
    match state {
        State::Initializing => "initializing",
        State::Standby => "standby",
        State::Candidate => "candidate",
        State::Active => "active",
        State::Draining => "draining",
        State::Fault => "fault",
    }
}

pub(crate) fn finding_word(finding: PeerFinding) -> &'static str {
    match finding {
        PeerFinding::NeverHeard => "never-heard",
        PeerFinding::Alive => "alive",
        PeerFinding::AliveAndDeaf => "alive-and-deaf",
        PeerFinding::KernelSilent => "kernel-silent",
        PeerFinding::AgentDead => "agent-dead",
    }
}

/// A finding that is not the core's.
pub(super) const DUPLICATE_ADDRESS: &str = "duplicate-address";

/// [`DUPLICATE_ADDRESS`], and the words of [`kind_word`].
pub(super) const KINDS: [&str; 7] = [
    "stopped",
    "dual-activity",
    DUPLICATE_ADDRESS,
    "peer",
    "clock",
    "arbiter",
    DROPPED_ORDER,
];

pub(super) fn kind_word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Stopped { .. } => "stopped",
        Finding::DualActivity { .. } => "dual-activity",
        Finding::Peer { .. } => "peer",
        Finding::Clock { .. } => "clock",
        Finding::Arbiter { .. } => "arbiter",
        Finding::Dropped { .. } => DROPPED_ORDER,
    }
}

pub(super) fn header_byte(byte: HeaderByte) -> String {
    match byte {
        HeaderByte::Fixed(value) => value.to_string(),
        HeaderByte::Inherit => "inherit".to_owned(),
    }
}

pub(super) fn interface_is_up(name: &str) -> bool {
    std::fs::read_to_string(format!("/sys/class/net/{name}/operstate"))
        .is_ok_and(|state| state.trim_end() == "up")
}

pub(super) fn in_ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(super) fn in_us(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e6
}

/// Messages numbered `first` to `last`, of which some have arrived.
pub(super) fn expected(first: u64, last: u64, arrived: u64) -> u64 {
    if arrived == 0 {
        0
    } else {
        last.saturating_sub(first).saturating_add(1)
    }
}
