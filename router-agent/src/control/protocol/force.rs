//! Moving a group by hand.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an operator wants of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Force {
    /// None: the only group that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub to: Forced,
    /// To active although the arbiter cannot be relied on; refused with standby.
    #[serde(default)]
    pub i_know: bool,
}

/// What this node shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Forced {
    Active,
    Standby,
}

impl fmt::Display for Forced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Standby => "standby",
        })
    }
}

/// What was begun. Whether it came about is told by the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForceBegun {
    /// The one that moves.
    pub group: String,
    /// In plain words.
    pub text: String,
}
