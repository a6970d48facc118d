//! How long what moves with a group took to move.

use serde::{Deserialize, Serialize};

/// Steps of one sort, since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StepTimes {
    /// `take`, `release`, or `verify` where that found something amiss.
    pub step: String,
    /// `address`, `route`, `aws`, `unit` or `script`.
    pub kind: String,
    /// Whether these are the ones that failed.
    pub failed: bool,
    /// How many.
    pub steps: u64,
    /// All of them together.
    pub total_ns: u64,
    /// In ascending order. Each step is in the first that it fits; one that took longer is in none.
    pub buckets: Vec<StepBucket>,
}

/// How many took no longer than this, and longer than the bucket before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StepBucket {
    /// What none of these exceeded.
    pub at_most_ns: u64,
    /// How many.
    pub steps: u64,
}
