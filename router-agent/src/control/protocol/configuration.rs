//! The configuration that runs, and its change.

use serde::{Deserialize, Serialize};

use super::rotation::exposed;
use crate::config::{Change, Secret, Statement};

/// What the agent runs by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConfigurationStatus {
    /// The file that the agent starts with.
    pub file: String,
    /// What is stated; where it was asked for, the defaults that hold besides.
    pub statements: Vec<Statement>,
    /// The time until the configuration before this one comes back, unless it is confirmed.
    pub unconfirmed_for_ms: Option<u64>,
    /// How the last change ended, if there was one.
    pub last_change: Option<LastChange>,
}

/// How the last change that was asked for ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastChange {
    /// As [`Configured`] told it.
    pub ticket: u32,
    /// Why the configuration before it came back; none if the change holds.
    pub rolled_back: Option<String>,
}

/// A step of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Configuring {
    /// Run by this text.
    Apply {
        /// What the text is called in messages.
        name: String,
        #[serde(with = "exposed")]
        #[cfg_attr(test, schemars(with = "String"))]
        text: Secret,
        /// Go back unless it is confirmed in this time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_within_s: Option<u32>,
        /// Only say what it would change.
        #[serde(default)]
        dry_run: bool,
    },
    /// Keep what was applied.
    Confirm,
    /// Go back now.
    RollBack,
}

/// What a step does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Configured {
    /// What it states otherwise than the one before.
    pub changes: Vec<Change>,
    /// Of the check, as text; empty if there are none.
    pub warnings: String,
    /// If the agent begins anew, by which [`LastChange`] tells how that ended.
    pub ticket: Option<u32>,
}
