//! What the agent logged last.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Which lines a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogWanted {
    /// Only later ones than this instant of the boottime clock.
    #[serde(default)]
    pub after_ns: u64,
    /// So many of the newest; none: all that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<usize>,
    /// Only those that weigh as much or more.
    #[serde(default)]
    pub level: LogSeverity,
    /// Only those about a group.
    #[serde(default)]
    pub cluster: bool,
}

/// A line of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogLine {
    /// No two lines have the same.
    pub at_ns: u64,
    /// Milliseconds since 1970 by the time of day.
    pub at_unix_ms: u64,
    pub level: LogSeverity,
    /// The part of the agent that says it.
    pub target: String,
    /// What is said.
    pub message: String,
    /// What is said besides, such as the group and the epoch.
    pub fields: BTreeMap<String, String>,
}

/// How much a line weighs, the lightest first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LogSeverity {
    #[default]
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl fmt::Display for LogSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        })
    }
}

impl From<&tracing::Level> for LogSeverity {
    fn from(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::TRACE => Self::Trace,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::INFO => Self::Info,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::ERROR => Self::Error,
        }
    }
}
