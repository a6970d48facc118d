//! The heartbeat sessions of a node.

use serde::{Deserialize, Serialize};

use super::FenceStatus;

/// The session with one peer, for one group, over one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HeartbeatStatus {
    pub group: String,
    /// Interface through which the messages go.
    pub path: String,
    /// Host name of the peer.
    pub peer: String,
    /// Source of its newest message.
    pub peer_address: Option<String>,
    /// `None` if it was never heard.
    pub last_heard_ms_ago: Option<f64>,
    /// Zero if no message of the peer has been believed yet.
    pub peer_generation: u32,
    /// Age of the peer's agent, as its newest message told it.
    pub peer_agent_age_ms: f64,
    /// Of the claim in its newest message.
    pub peer_epoch: u32,
    /// Host name of the node that owns the group by that claim.
    pub peer_owner: Option<String>,
    /// What it said of itself: `forwarding`, `eligible`, `candidate`; others by their bits.
    pub peer_flags: Vec<String>,
    /// How long the owner of our own claim may forward by each of our messages; zero grants nothing.
    pub granting_us: u64,
    /// `None` if nothing was granted yet.
    pub last_granted_ms_ago: Option<f64>,
    /// For how long that still binds us.
    pub promised_ms: f64,
    /// Messages that granted, since the maps were made.
    pub grants_given: u64,
    /// What the group's protected packets pass by, and the grants that came, over all paths.
    pub fence: FenceStatus,
    /// The boottime clock when the agent answered.
    pub now_ns: u64,
    pub rtt_last_us: Option<f64>,
    pub rtt_min_us: Option<f64>,
    pub rtt_avg_us: Option<f64>,
    pub rtt_max_us: Option<f64>,
    /// Of all replies since the agent started: what half of them did not exceed; within a quarter, as
    /// the kernel counts them.
    pub rtt_p50_us: Option<f64>,
    pub rtt_p90_us: Option<f64>,
    pub rtt_p99_us: Option<f64>,
    pub rtt_p999_us: Option<f64>,
    /// Of replies on their way from the peer's kernel to ours (RFC 3550 §6.4.1).
    pub jitter_us: Option<f64>,
    pub probes_sent: u64,
    pub replies_received: u64,
    /// Of our probes from the first that was answered to the last, those that brought no reply.
    pub round_trip_loss_percent: Option<f64>,
    /// Of the peer's probes, those that did not arrive.
    pub inbound_loss_percent: Option<f64>,
    /// Messages with a wrong MAC, or under a secret that this node does not have.
    pub mac_failures: u64,
    /// Authentic messages that were old or repeated.
    pub stale: u64,
    /// Authentic messages of a new generation that did not prove to be recent.
    pub unproven: u64,
    /// Authentic messages of another node than the peer.
    pub wrong_sender: u64,
    /// Authentic messages of a version or kind that this node does not speak.
    pub not_understood: u64,
    pub keepalive_interval_ms: f64,
    pub dead_interval_ms: f64,
    /// Times at which our own probe clock was late.
    pub late_ticks: u64,
    pub max_tick_lateness_us: f64,
    /// Whether the peer's messages are being heard and believed.
    pub session_up: bool,
    /// How far a change of the secret is: `none`, `peer-lacks-it`, `peer-has-it` or `both-use-it`.
    pub secret_rotation: String,
    /// Why there is no session, in plain words.
    pub note: Option<String>,
}
