//! What the core leaves behind for the flight recorder.

use std::{collections::VecDeque, fmt, time::Duration};

use router_common::{
    identity::{Epoch, NodeId},
    time::BootTime,
};

use super::{
    arbiter::Fault,
    cause::{Cause, Measured},
    core::{Refusal, State},
    report::PeerFinding,
};

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    pub at: BootTime,
    pub from: State,
    pub to: State,
    /// Into and out of [`State::Active`]: the epoch taken or released; else the newest known.
    pub epoch: Epoch,
    pub cause: Cause,
    /// When the peer was last heard, as known at `at`.
    pub last_heard: BootTime,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at: _,
            from,
            to,
            epoch,
            cause,
            last_heard: _,
        } = self;
        write!(f, "{from} to {to}, epoch {}: {cause}", epoch.0)
    }
}

/// Something that happened to the group without being a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finding {
    /// We did not run from `at - length` to `at`; what we did not hear then is no evidence.
    Stopped { at: BootTime, length: Duration },
    /// Both nodes claimed the group, ended at `at` as far as this node knows.
    ///
    /// Measured on this node's clock. Since it cannot know when a peer that it did not hear began
    /// to claim, it gives both bounds: `proven` runs from the first message that said so, `at_most`
    /// from the last moment at which the peer is known not to have claimed beside us (its last
    /// message without a claim, or our own claim if that came later).
    DualActivity {
        at: BootTime,
        epoch: Epoch,
        proven: Duration,
        at_most: Duration,
    },
    /// What the peer is found to be has changed.
    Peer {
        at: BootTime,
        from: PeerFinding,
        to: PeerFinding,
    },
    /// The time of day jumped ahead of the boottime clock: that stood still, or it was set.
    Clock { at: BootTime, by: Duration },
    /// What the arbiter is found to be has changed.
    Arbiter { at: BootTime, is: ArbiterFinding },
    /// What the operator asked for is not done.
    Dropped { at: BootTime, why: Refusal },
}

/// What this node can say of its arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArbiterFinding {
    /// No answer yet.
    NeverHeard,
    Well,
    Failing(Fault),
    /// What it holds is older than what this node knows: it was wiped, or restored from a backup.
    Behind {
        found: Option<Epoch>,
        known: Epoch,
    },
    /// Its record names an owner that this node cannot wait for.
    Foreign {
        owner: NodeId,
    },
}

impl fmt::Display for ArbiterFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NeverHeard => f.write_str("has not answered yet"),
            Self::Well => f.write_str("answers"),
            Self::Failing(fault) => fault.fmt(f),
            Self::Behind { found, known } => {
                match found {
                    Some(found) => write!(f, "holds epoch {}", found.0)?,
                    None => f.write_str("holds no record")?,
                }
                write!(
                    f,
                    ", and epoch {} is known: it was wiped or restored, and nothing it holds is acted on; see that \
                     one node at most forwards, then run `routerctl force cluster active --i-know` there",
                    known.0
                )
            }
            Self::Foreign { owner } => write!(
                f,
                "names node {} as owner, which is not of this group as configured here",
                owner.0
            ),
        }
    }
}

impl Finding {
    pub const fn at(&self) -> BootTime {
        match *self {
            Self::Stopped { at, .. }
            | Self::DualActivity { at, .. }
            | Self::Peer { at, .. }
            | Self::Clock { at, .. }
            | Self::Arbiter { at, .. }
            | Self::Dropped { at, .. } => at,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Stopped { at: _, length } => {
                write!(f, "this node's agent was stopped for {}", Measured(length))
            }
            Self::DualActivity {
                at: _,
                epoch,
                proven,
                at_most,
            } => write!(
                f,
                "both nodes were active for at least {} and at most {} (our epoch {})",
                Measured(proven),
                Measured(at_most),
                epoch.0
            ),
            Self::Peer { at: _, from, to } => write!(f, "the peer was {from} and is {to}"),
            Self::Clock { at: _, by } => write!(
                f,
                "this node's clock stood still for about {}, or the time of day was set",
                Measured(by)
            ),
            Self::Arbiter { at: _, is } => write!(f, "the arbiter {is}"),
            Self::Dropped { at: _, why } => write!(f, "the operator's move was dropped: {why}"),
        }
    }
}

/// Entries that wait for the caller to drain them. Bounded: a caller that never does loses the
/// oldest ones, not its memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending<T>(VecDeque<T>);

impl<T> Pending<T> {
    const CAPACITY: usize = 256;

    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(super) fn push(&mut self, entry: T) {
        if self.0.len() == Self::CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.0.drain(..)
    }
}
