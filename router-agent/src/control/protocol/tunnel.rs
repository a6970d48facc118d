//! The tunnels of a node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A tunnel and its counters; bytes are those of the inner packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TunnelStatus {
    /// `tunN`, as configured.
    pub name: String,
    /// Prefixes on the tunnel's interface.
    pub addresses: Vec<String>,
    /// As configured.
    pub description: String,
    /// In bytes, of the inner packet.
    pub mtu: u32,
    /// Outer address of this end.
    pub local: String,
    /// Outer address of the far end.
    pub remote: String,
    /// GRE key, if the tunnel has one; zero is a key.
    pub key: Option<u32>,
    /// If the cluster's epoch is the GRE key.
    #[serde(default)]
    pub epoch_key: Option<EpochKeyStatus>,
    /// A number or `inherit`.
    pub ttl: String,
    /// A number or `inherit`.
    pub tos: String,
    /// The interface through which the outer packets come and go; `none` while no interface has the
    /// local address.
    pub underlay: String,
    /// `native` or `generic`; `none` while the programs are not on the underlay.
    pub xdp_mode: String,
    /// Why the mode is not native.
    pub xdp_mode_reason: Option<String>,
    /// Whether the configuration wants the tunnel up.
    pub admin_up: bool,
    /// Whether it is enabled and its interface is up.
    pub link_up: bool,
    /// Whether multicast is enabled.
    pub multicast: bool,
    /// Wire format: `gre`, `gre-bridge` or `gre-udp`.
    pub encapsulation: String,
    /// MTU of the path as a router on it told, in bytes, the outer headers included; none if it is
    /// the underlay's.
    pub path_mtu: Option<u32>,
    /// How long ago a router told that.
    pub path_mtu_age_ms: Option<u64>,
    /// If keepalives are sent.
    pub keepalive: Option<KeepaliveStatus>,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// If an operator had the counters cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared: Option<ClearedStatus>,
    /// The kernel programs' counters by name, as docs/operations.md lists them. They only grow.
    #[serde(flatten)]
    pub counters: BTreeMap<String, u64>,
}

/// The epochs of a tunnel whose key they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EpochKeyStatus {
    /// What packets carry that leave: zero from a router that is no member of a cluster, or was never
    /// active.
    pub sent: u32,
    /// Packets of lower ones are refused.
    pub newest_received: u32,
    /// Tunnels of one domain share what they received.
    pub domain: Option<String>,
}

/// What a tunnel or a session had counted when its counters were cleared. They themselves go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClearedStatus {
    /// When that was.
    pub ms_ago: u64,
    /// Those that were not zero.
    pub counters: BTreeMap<String, u64>,
}

/// Keepalives of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeepaliveStatus {
    /// Between two.
    pub interval_ms: u64,
    /// So many in a row that do not come back, and the tunnel is down.
    pub retries: u32,
    /// Whether they come back.
    pub up: bool,
    /// Sent since the last that came back, with the one that is under way.
    pub unanswered: u32,
}

impl TunnelStatus {
    /// The counter called `name`; zero if the agent knows none of that name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or_default()
    }

    /// The same since the counters were cleared.
    pub fn since_cleared(&self, name: &str) -> u64 {
        let cleared = self.cleared.as_ref();
        self.counter(name)
            .saturating_sub(cleared.map_or(0, |cleared| cleared.before(name)))
    }
}

impl ClearedStatus {
    /// What is to be taken off a counter.
    pub fn before(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or_default()
    }
}
