//! What happened, and what was known when it was decided. Kept on disk in this form.

use serde::{Deserialize, Serialize};

/// A change of state of this node's failover core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Transition {
    /// When the state changed.
    pub at_ns: u64,
    /// In which.
    pub group: String,
    /// State left, in the words of the group's `state`.
    pub from: String,
    /// State entered.
    pub to: String,
    /// Epoch after the change.
    pub epoch: u32,
    /// In plain words.
    pub cause: String,
    /// When the peer was last heard before; zero if never.
    pub last_heard_ns: u64,
    /// When the change was decided.
    pub decided_ns: u64,
    /// What was done for it, in order.
    pub steps: Vec<Step>,
    /// Milliseconds since 1970 by the time of day, for people.
    pub at_unix_ms: u64,
    /// The boot whose clock the instants are of.
    pub boot_id: String,
    pub stages: Stages,
    pub known: Known,
}

/// The way to a change of state. Zero is what did not happen on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Stages {
    /// When the peer was first found to be other than alive.
    pub suspected_ns: u64,
    /// When this node ceased to grant.
    pub grants_closed_ns: u64,
    /// The last question to the arbiter.
    pub arbiter_asked_ns: u64,
    /// Its answer.
    pub arbiter_answered_ns: u64,
    /// When the fence let packets pass.
    pub fence_open_ns: u64,
    /// The first protected packet that passed, as the kernel stamped it.
    pub first_forwarded_ns: u64,
}

/// What this node knew when it decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Known {
    /// In the words of the group's `peer_finding`.
    pub peer_finding: String,
    /// Since the peer's last message; zero if none had come.
    pub silence_ns: u64,
    /// Since the newest of our messages that the peer had heard was sent; zero if it had heard none.
    pub echo_age_ns: u64,
    /// Age of the peer's agent, as its last message told.
    pub agent_age_ns: u64,
    /// The epoch that the peer's last message named.
    pub peer_epoch: u32,
    /// Whether enough of them were reachable for this node to be active.
    pub monitors_ok: bool,
    /// The monitors that were not reachable, also if the node could do without them.
    #[serde(default)]
    pub monitors_missing: Vec<String>,
    /// The arbiter's record as last seen.
    pub record: Option<String>,
}

/// The kind of a finding: what an operator asked for is not done.
pub const DROPPED_ORDER: &str = "order";

/// Something that was found, without being a change of state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// When it was found.
    pub at_ns: u64,
    /// In which.
    pub group: String,
    /// `peer`, `stopped`, `dual-activity`, `duplicate-address`, `clock`, `arbiter` or `order`.
    pub kind: String,
    /// In plain words.
    pub text: String,
    /// Milliseconds since 1970 by the time of day, for people.
    pub at_unix_ms: u64,
    /// The boot whose clock the instant is of.
    pub boot_id: String,
}

/// A step of a takeover or release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Step {
    /// What was done.
    pub step: String,
    /// When it was begun, the last time.
    #[serde(default)]
    pub started_ns: u64,
    /// When it ended, well or not; zero while it has not.
    pub done_ns: u64,
    /// Why it failed.
    pub error: Option<String>,
}
