//! How long what moves with a group took to move.

use serde::{Deserialize, Serialize};

/// Steps of one sort, since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTimes {
    /// `take`, `release`, or `verify` where that found something amiss.
    pub step: String,
    /// `address`, `route`, `aws`, `unit` or `script`.
    pub kind: String,
    pub failed: bool,
    pub steps: u64,
    /// All of them together.
    pub total_ns: u64,
    /// In ascending order. Each step is in the first that it fits; one that took longer is in none.
    pub buckets: Vec<StepBucket>,
}

/// How many took no longer than this, and longer than the bucket before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepBucket {
    pub at_most_ns: u64,
    pub steps: u64,
}
