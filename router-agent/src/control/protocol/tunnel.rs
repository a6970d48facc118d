//! The tunnels of a node.

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
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Packets that could not be decapsulated.
    pub rx_errors: u64,
    /// Packets that could not be encapsulated or had no route.
    pub tx_errors: u64,
    /// Packets of a protocol that this version does not carry.
    pub rx_unsupported: u64,
    pub tx_unsupported: u64,
}
