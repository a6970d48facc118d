//! What of the host a group tracks, as plain data.

use std::{fmt, path::PathBuf, time::Duration};

/// `cluster group NAME track`: something of this host that must be well for it to be fit. Displays as it is
/// written: `interface eth1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Track {
    /// It must be up and have a carrier.
    Interface(String),
    /// One of this name must run.
    Process { name: String, pace: Pace },
    /// It must end with exit status 0.
    Script {
        name: String,
        program: PathBuf,
        /// As they are, without a shell.
        arguments: Vec<String>,
        /// 100 ms to 60 s, default 1 s.
        timeout: Duration,
        pace: Pace,
    },
}

impl fmt::Display for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => write!(f, "interface {name}"),
            Self::Process { name, .. } => write!(f, "process {name}"),
            Self::Script { name, .. } => write!(f, "script {name}"),
        }
    }
}

/// How often it is looked at, and how many times in a row it must be found otherwise to count as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// 100 ms to 60 s, default 1 s.
    pub interval: Duration,
    /// To be well again: 1 to 255, default 1.
    pub rise: u32,
    /// To be well no more: 1 to 255, default 1.
    pub fall: u32,
}
