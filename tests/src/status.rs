//! `routerctl show cluster status --json`, as far as labs need it.

use router_common::time::BootTime;
use serde::Deserialize;
use serde_json::Value;

#[derive(Clone, Debug, Deserialize)]
pub struct Document {
    pub status: Status,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    pub node: String,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    pub group: String,
    pub state: String,
    pub epoch: u32,
    #[serde(default)]
    pub peer_finding: Value,
    #[serde(default)]
    pub services: Vec<Service>,
    /// Oldest first.
    #[serde(default)]
    pub transitions: Vec<Transition>,
    #[serde(default)]
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Service {
    pub service: String,
    pub held: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Transition {
    pub at_ns: u64,
    pub from: String,
    pub to: String,
    #[serde(default)]
    pub cause: Value,
    #[serde(default)]
    pub last_heard_ns: Option<u64>,
    #[serde(default)]
    pub decided_ns: Option<u64>,
    #[serde(default)]
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    pub step: String,
    pub done_ns: Option<u64>,
    pub error: Option<String>,
}

impl Group {
    pub fn is_active(&self) -> bool {
        self.state == "active"
    }

    pub fn is_standby(&self) -> bool {
        self.state == "standby"
    }

    /// The first time at or after `instant` that the node became active.
    pub fn activation_after(&self, instant: BootTime) -> Option<&Transition> {
        self.transitions
            .iter()
            .find(|transition| transition.to == "active" && transition.at_ns >= instant.as_ns())
    }

    /// The first time at or after `instant` that the node ceased to be active.
    pub fn release_after(&self, instant: BootTime) -> Option<&Transition> {
        self.transitions
            .iter()
            .find(|transition| transition.from == "active" && transition.at_ns >= instant.as_ns())
    }
}
