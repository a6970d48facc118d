//! `service conntrack-sync`, as plain data.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// How the nodes of a group tell each other of connections. Displays as the resource that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackSync {
    /// One to [`ConntrackSync::MOST_LINKS`], in the order in which they are preferred.
    pub links: Vec<SyncLink>,
    /// As they are written; empty means all.
    pub protocols: Vec<&'static str>,
    pub ignored: Vec<IpAddr>,
    pub mcast_group: Ipv4Addr,
    pub event_queue_bytes: u32,
    pub sync_queue_bytes: u32,
}

/// One way between the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncLink {
    pub interface: String,
    /// None means multicast.
    pub peer: Option<Ipv4Addr>,
    /// UDP.
    pub port: u16,
}

impl ConntrackSync {
    /// conntrackd knows no more.
    pub const MOST_LINKS: usize = 4;
}

impl fmt::Display for ConntrackSync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conntrack-sync")
    }
}
