//! How the arbiter answers.

use serde::{Deserialize, Serialize};

/// Of one group's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Requests that were answered, since the agent began.
    pub answers: u64,
    /// Requests that failed, since the agent began.
    pub failures: u64,
    /// From sending to answer; of the failures it is not known.
    pub times: Option<ArbiterTimes>,
    /// An answer within this time comes before forwarding stops, should the other node die.
    pub wanted_us: u64,
    /// How long this node, alone, is active after a write.
    pub term_ms: u64,
    /// How long an answer is waited for.
    pub timeout_ms: u64,
}

/// From sending to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ArbiterTimes {
    /// Of the newest answer.
    pub last_us: u64,
    /// The shortest.
    pub min_us: u64,
    /// On average.
    pub avg_us: u64,
    /// The longest.
    pub max_us: u64,
}
