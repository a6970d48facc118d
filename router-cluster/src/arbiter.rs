//! What the core and the arbiter say to each other. The arbiter keeps one record per group, and
//! changes it by compare-and-swap alone; who speaks with it is the shell.

use std::{fmt, num::NonZeroU64, time::Duration};

use router_common::identity::Claim;

/// What the arbiter holds of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub claim: Claim,
    pub mode: Mode,
}

/// By what the owner of a record is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// By its peer's grants alone.
    Paired,
    /// By the record, until this long after it sent what wrote it.
    Solo { term: Duration },
}

/// Names one state of the record. Each write makes a new one, also a write of the same content
/// (etcd's `mod_revision`, which is never zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(pub NonZeroU64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Linearizable: what is found is not older than the request.
    Read,
    /// Writes `record` if the record is still at `expected`; `None`: if there is no record.
    Swap {
        expected: Option<Revision>,
        record: Record,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To a read; or to a swap that did nothing, because it found this.
    Found(Option<(Revision, Record)>),
    Swapped(Revision),
    /// Whether a swap was done is not known, and it may yet be done.
    Failed(Fault),
}

/// Why the arbiter gave no answer that the core can use. The shell keeps the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No member can be reached, or there is no leader.
    Unreachable,
    TimedOut,
    /// Wrong credentials, certificate or permission.
    Refused,
    /// There is a record, and it is not one of ours.
    Unreadable,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "cannot be reached",
            Self::TimedOut => "does not answer in time",
            Self::Refused => "refuses this node",
            Self::Unreadable => "holds a record that is not readable",
        })
    }
}
