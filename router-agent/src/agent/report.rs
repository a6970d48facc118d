//! What the agent's threads tell of their work, for status and history.

use router_common::{
    identity::{Claim, Epoch, Priority},
    time::BootTime,
};

use super::stages::{Known, Stages};
use crate::{
    arbiter::Exchange,
    cluster::{ArbiterFinding, Cause, Finding, PeerFinding, Record, State, Transition},
    control::protocol::MonitorState,
    duplicate::Duplicate,
};

/// Something that happened in group number `group`.
#[derive(Debug)]
pub struct Report {
    pub group: usize,
    pub news: News,
}

#[derive(Debug)]
pub enum News {
    View(View),
    Transition(Decided),
    Finding(Finding),
    Step(StepDone),
    /// Why this node could not take a resource now; none if it could.
    Check {
        resource: usize,
        error: Option<String>,
    },
    Monitor {
        index: usize,
        state: MonitorState,
        why: Option<String>,
    },
    Arbiter(Exchange),
    /// Somebody else uses an address that this node holds.
    Duplicate {
        resource: usize,
        duplicate: Duplicate,
        /// It was not told of before.
        is_new: bool,
    },
}

/// A transition, the way to it, and what was known.
#[derive(Clone, Debug)]
pub struct Decided {
    pub transition: Transition,
    pub stages: Stages,
    pub known: Known,
}

/// How the core stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub state: State,
    pub claim: Claim,
    pub priority: Priority,
    pub peer: PeerFinding,
    /// Whether both nodes are known to be active at this moment.
    pub dual_activity: bool,
    /// Why this node must not become active, or, being active, would yield.
    pub trouble: Option<Cause>,
    pub arbiter: ArbiterFinding,
    /// What the arbiter holds, as last seen.
    pub record: Option<Record>,
}

/// A takeover step that has ended.
#[derive(Debug)]
pub struct StepDone {
    pub epoch: Epoch,
    pub step: Step,
    /// Place of the resource in its group.
    pub resource: usize,
    /// What it is: `address`, `route`, `aws`, `unit` or `script`.
    pub kind: &'static str,
    pub started: BootTime,
    pub done: BootTime,
    /// Whether this node holds it now.
    pub held: bool,
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Take,
    /// Told only if something was amiss, or is no more.
    Verify,
    Release,
}
