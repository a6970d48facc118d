//! What an agent says of the cluster, with the questions that labs ask of it.

use router_agent::control::protocol::{GroupStatus, Status, Transition};
use router_common::time::BootTime;
use serde::Deserialize;

/// `routerctl show cluster status --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Document {
    pub schema_version: u32,
    pub status: Status,
}

pub fn is_active(group: &GroupStatus) -> bool {
    group.state == "active"
}

pub fn is_standby(group: &GroupStatus) -> bool {
    group.state == "standby"
}

/// The first time at or after `instant` that the node became active.
pub fn activation_after(group: &GroupStatus, instant: BootTime) -> Option<&Transition> {
    group
        .transitions
        .iter()
        .find(|change| change.to == "active" && change.at_ns >= instant.as_ns())
}

/// The first time at or after `instant` that the node ceased to be active.
pub fn release_after(group: &GroupStatus, instant: BootTime) -> Option<&Transition> {
    group
        .transitions
        .iter()
        .find(|change| change.from == "active" && change.at_ns >= instant.as_ns())
}
