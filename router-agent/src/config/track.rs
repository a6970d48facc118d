//! What of the host a group tracks, as plain data.

use std::{fmt, path::PathBuf, time::Duration};

/// `cluster group NAME track`, and what it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    pub track: Track,
    pub weight: Weight,
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.track.fmt(f)
    }
}

/// What a track counts: -253 to 253. Zero: it must be well for its host to be fit. Below zero: it takes so much
/// from the node's priority while it is not well; above: it adds so much while it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Weight(i16);

impl Weight {
    /// As far as a priority goes.
    pub(super) const MOST: i16 = 253;

    /// None: out of bounds.
    pub fn new(weight: i16) -> Option<Self> {
        (-Self::MOST..=Self::MOST)
            .contains(&weight)
            .then_some(Self(weight))
    }

    pub const fn get(self) -> i16 {
        self.0
    }

    /// Whether what it belongs to must be well.
    pub const fn is_mandatory(self) -> bool {
        self.0 == 0
    }

    /// What it adds to the priority.
    pub fn share(self, is_well: bool) -> i32 {
        let counts = if is_well { self.0 > 0 } else { self.0 < 0 };
        if counts { self.0.into() } else { 0 }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something of this host that is well or not. Displays as it is written: `interface eth1`.
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
