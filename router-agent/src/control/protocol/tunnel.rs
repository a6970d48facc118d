//! The tunnels of a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A tunnel and its counters; bytes are those of the inner packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelStatus {
    /// `tunN`, as configured.
    pub name: String,
    /// Prefixes on the tunnel's interface.
    pub addresses: Vec<String>,
    pub description: String,
    /// In bytes, of the inner packet.
    pub mtu: u32,
    /// Outer address of this end.
    pub local: String,
    /// Outer address of the far end.
    pub remote: String,
    /// GRE key, if the tunnel has one; zero is a key.
    pub key: Option<u32>,
    /// A number or `inherit`.
    pub ttl: String,
    /// A number or `inherit`.
    pub tos: String,
    /// The interface through which the outer packets come and go.
    pub underlay: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Why the mode is not native.
    pub xdp_mode_reason: Option<String>,
    /// Whether the configuration wants the tunnel up.
    pub admin_up: bool,
    pub link_up: bool,
    /// Whether multicast is enabled.
    pub multicast: bool,
    /// Wire format: `gre`, `gre-bridge` or `gre-udp`.
    pub encapsulation: String,
    /// The kernel programs' counters by name, as docs/operations.md lists them.
    #[serde(flatten)]
    pub counters: BTreeMap<String, u64>,
}

impl TunnelStatus {
    /// The counter called `name`; zero if the agent knows none of that name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or_default()
    }
}
