//! The flight recorder: what happened to each group, in memory for who asks, and on disk for who asks
//! after a restart.
//!
//! Both are made of the same entries: what is read back at the start goes the way of what happens.

mod disk;
mod past;

pub use self::{
    disk::{DEFAULT_DIRECTORY, Recorder, read},
    past::Past,
};

use serde::{Deserialize, Serialize};

use crate::control::protocol::{Finding, Step, Transition};

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "none is kept in this form: it is written, and taken apart"
)]
pub enum Entry {
    Transition(Transition),
    Finding(Finding),
    /// A step of the transition into or out of `epoch`.
    Step {
        group: String,
        epoch: u32,
        side: Side,
        step: Step,
    },
    /// The first packet that passed after the transition into `epoch`.
    FirstForwarded {
        group: String,
        epoch: u32,
        at_ns: u64,
    },
}

impl Entry {
    pub fn group(&self) -> &str {
        match self {
            Self::Transition(transition) => &transition.group,
            Self::Finding(finding) => &finding.group,
            Self::Step { group, .. } | Self::FirstForwarded { group, .. } => group,
        }
    }
}

/// Which transition of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// That made this node active.
    Into,
    /// That ended it.
    OutOf,
}
