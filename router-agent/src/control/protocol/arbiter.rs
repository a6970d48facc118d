//! How the arbiter answers.

use serde::{Deserialize, Serialize};

/// Of one group's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArbiterStatus {
    /// `not-asked`, `connected`, `no-leader`, `timed-out`, `unreachable`, `refused` or `garbled`.
    pub state: String,
    /// Which one answered or failed last.
    pub endpoint: String,
    /// Where the record lies.
    pub key: String,
    /// What it holds, as this node has last seen it.
    pub record: Option<String>,
    /// Why what it holds is not acted on.
    pub unsound: Option<String>,
    /// Why the last request failed, in etcd's words or the system's.
    pub detail: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// When it last answered; zero if it never has.
    pub answered_ns: u64,
    pub answers: u64,
    pub failures: u64,
    /// From sending to answer; of the failures it is not known.
    pub times: Option<ArbiterTimes>,
    /// An answer within this time comes before forwarding stops, should the other node die.
    pub wanted_us: u64,
    pub term_ms: u64,
    pub timeout_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArbiterTimes {
    pub last_us: u64,
    pub min_us: u64,
    pub avg_us: u64,
    pub max_us: u64,
}
