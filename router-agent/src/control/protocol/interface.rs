//! The interfaces of a node around its tunnels.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An interface by which packets reach the tunnels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InterfaceStatus {
    /// As it is called at present; as configured while there is none.
    pub name: String,
    pub role: InterfaceRole,
    /// `native` or `generic`; `none` while the programs are not on it.
    pub xdp_mode: String,
    /// Why the mode is not native.
    pub xdp_mode_reason: Option<String>,
    /// Whether packets between it and the tunnels, or the LANs if it is an underlay, may pass by the
    /// stack.
    pub fast_path: bool,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// What an interface is there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceRole {
    /// Outer packets come and go by it.
    #[default]
    Underlay,
    /// It has `fast-path enable`.
    Lan,
    Both,
    /// One of a later agent's.
    #[serde(other)]
    Other,
}

impl fmt::Display for InterfaceRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Underlay => "underlay",
            Self::Lan => "lan",
            Self::Both => "both",
            Self::Other => "other",
        })
    }
}
