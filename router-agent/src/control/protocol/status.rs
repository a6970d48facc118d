//! What the cluster is doing, as this node sees it.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    arbiter::ArbiterStatus,
    history::{Finding, Transition},
    steps::StepTimes,
};

/// The answer to [`Command::Status`](super::Command::Status).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// This node's host name.
    pub node: String,
    /// Drawn at random when the agent started.
    pub generation: u32,
    /// How long the agent has run.
    pub agent_uptime_ms: u64,
    /// The boottime clock when the agent answered; every instant here compares with it.
    pub now_ns: u64,
    /// What drives this node's clocks, as the kernel names it.
    pub clock_source: String,
    /// Whether this is one.
    pub virtual_machine: bool,
    /// Instants of a history entry with another one are of another clock.
    pub boot_id: String,
    /// Whether that may stand still while the hypervisor has the machine paused.
    #[serde(default)]
    pub clock_may_stop: bool,
    /// In the order of the configuration.
    pub groups: Vec<GroupStatus>,
    /// The cluster's interfaces.
    pub paths: Vec<PathStatus>,
}

/// A group of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GroupStatus {
    /// Name in the configuration.
    pub group: String,
    /// This node's host name.
    pub this_node: String,
    pub primary: NodeStatus,
    pub secondary: NodeStatus,
    /// State of this node's failover core: `initializing`, `standby`, `candidate`, `active` or
    /// `fault`.
    pub state: String,
    /// Counts the changes of active; zero before the first.
    pub epoch: u32,
    /// Host name of the node that owns the group, if any does.
    pub owner: Option<String>,
    /// `never-heard`, `alive`, `alive-and-deaf`, `kernel-silent` or `agent-dead`.
    pub peer_finding: String,
    /// `availability` or `consistency`.
    pub prefer: String,
    /// What must be well so that this node can be active.
    pub monitors: Vec<MonitorStatus>,
    /// If anything tracked has a weight, on this node or on the peer.
    #[serde(default)]
    pub priorities: Option<Priorities>,
    /// In the order in which they start.
    pub services: Vec<ServiceStatus>,
    /// How long it took to move them.
    #[serde(default)]
    pub step_times: Vec<StepTimes>,
    /// Interfaces whose transit only the active node forwards.
    pub protected: Vec<String>,
    pub fence: FenceStatus,
    /// If one is configured.
    pub arbiter: Option<ArbiterStatus>,
    /// Warnings in plain words.
    pub notes: Vec<String>,
    /// The newest last, also of agents before this one.
    pub transitions: Vec<Transition>,
    /// What was found of the peer, of this node and of its clock; the newest last.
    pub findings: Vec<Finding>,
    /// How many there were since the agent started, by kind.
    #[serde(default)]
    pub finding_counts: BTreeMap<String, u64>,
}

/// A node of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// Host name.
    pub name: String,
    /// Whether it is the node that answers.
    pub this_node: bool,
    pub state: NodeState,
}

/// State of a node as operators know it; displayed in the words of Vyatta's status report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Holds the group's services.
    Active,
    /// Well, and ready to take over.
    ActiveStandby,
    Down,
    /// A monitored address does not answer.
    DownMonitorUnreachable,
    Initializing,
    /// This node, the primary, waits for the secondary.
    StartedWaitingForSecondary,
    /// This node, the secondary, waits for the primary.
    StartedWaitingForPrimary,
    InTransition,
    #[default]
    Unknown,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "Active",
            Self::ActiveStandby => "Active (standby)",
            Self::Down => "Down",
            Self::DownMonitorUnreachable => "Down (at least 1 monitor not reachable)",
            Self::Initializing => "Initializing",
            Self::StartedWaitingForSecondary => "Started (waiting for secondary)",
            Self::StartedWaitingForPrimary => "Started (waiting for primary)",
            Self::InTransition => "Node status in transition",
            Self::Unknown => "Unknown",
        })
    }
}

/// What tells this node whether it is fit for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MonitorStatus {
    /// An address that is pinged, what is tracked (`interface eth1`), or `resources`.
    pub address: String,
    pub state: MonitorState,
    /// Why it is not reachable, if more is known than that.
    #[serde(default)]
    pub why: Option<String>,
    /// What it counts for the node's priority; zero: it counts for the node's fitness.
    #[serde(default)]
    pub weight: i16,
}

/// Whether a monitored address answers, or what else is monitored is well; displayed in Vyatta's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MonitorState {
    Reachable,
    Unreachable,
    Initializing,
    #[default]
    Unknown,
}

impl fmt::Display for MonitorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reachable => "Reachable",
            Self::Unreachable => "Unreachable",
            Self::Initializing => "Initializing",
            Self::Unknown => "Unknown",
        })
    }
}

/// How much the nodes of a group are to be preferred, of two that are well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Priorities {
    /// This node's.
    pub own: u8,
    /// What the peer told last; nothing if it knows of none.
    pub peer: Option<u8>,
}

/// A service of a group, on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ServiceStatus {
    /// As configured.
    pub service: String,
    /// Whether this node holds it.
    pub held: bool,
    /// Why it could not be taken or released.
    pub error: Option<String>,
    /// Who else has used the address since it was taken.
    #[serde(default)]
    pub duplicates: Vec<DuplicateStatus>,
}

/// Another node of the LAN that uses a service address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DuplicateStatus {
    /// Its hardware address.
    pub mac: String,
    /// How often it has said that the address is its own.
    pub claims: u64,
    /// When it last did.
    pub last_ns: u64,
}

/// What keeps this node from forwarding protected packets without authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FenceStatus {
    pub gate: GateState,
    /// By whose word it was opened; none while it is closed.
    pub authority: Option<Authority>,
    /// Until when that word holds or held; zero if it was not given yet.
    pub end_ns: u64,
    /// When the first protected packet passed since it was opened; zero if none has.
    pub first_passed_ns: u64,
    /// Under which epoch it was opened; zero while it is closed.
    pub epoch: u32,
    /// How long a grant counts from the transmit time that it echoes; zero if grants do not count.
    pub lease_us: u64,
    /// Grants of the peer that renewed the lease.
    pub grants_counted: u64,
    /// Grants of the peer that do not count, as they are for another claim or an earlier activity.
    pub grants_not_for_us: u64,
    /// Grants of the peer that do not count, as they hold for a shorter time than ours.
    pub grants_too_short: u64,
    /// Packets that came by a protected interface, to be forwarded, and were dropped.
    pub dropped_in: u64,
    /// Packets that were to leave by one.
    pub dropped_out: u64,
    /// Packets on the way past the stack.
    pub dropped_transit: u64,
}

/// Whether protected packets pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum GateState {
    Open,
    /// The fence was opened, but neither authority is in force: each has ended, or was not given since.
    Expired,
    #[default]
    Closed,
}

/// Who vouches for an active node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Authority {
    OwnAgent,
    /// Its peer.
    Grants,
}

/// A path of the cluster to a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PathStatus {
    /// Group of the session.
    pub group: String,
    /// The tunnel that carries the messages.
    pub interface: String,
    /// Host name of the peer.
    pub peer: String,
    /// Whether the peer's messages are being heard and believed.
    pub session_up: bool,
    /// Why not.
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_states_are_vyattas_words() {
        let words = [
            (NodeState::Active, "Active"),
            (NodeState::ActiveStandby, "Active (standby)"),
            (NodeState::Down, "Down"),
            (
                NodeState::DownMonitorUnreachable,
                "Down (at least 1 monitor not reachable)",
            ),
            (NodeState::Initializing, "Initializing"),
            (
                NodeState::StartedWaitingForSecondary,
                "Started (waiting for secondary)",
            ),
            (
                NodeState::StartedWaitingForPrimary,
                "Started (waiting for primary)",
            ),
            (NodeState::InTransition, "Node status in transition"),
            (NodeState::Unknown, "Unknown"),
        ];
        for (state, expected) in words {
            assert_eq!(state.to_string(), expected);
        }
    }
}
