//! The heartbeat sessions of a node.

use serde::{Deserialize, Serialize};

use super::{ClearedStatus, FenceStatus};

/// The session with one peer, for one group, over one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HeartbeatStatus {
    /// Its name.
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
    /// From the newest probe that was answered to its reply.
    pub rtt_last_us: Option<f64>,
    /// The shortest round trip.
    pub rtt_min_us: Option<f64>,
    /// Their average.
    pub rtt_avg_us: Option<f64>,
    /// The longest.
    pub rtt_max_us: Option<f64>,
    /// Of all replies since the session began, also in the time of agents before: what half of them did
    /// not exceed; within a quarter, as the kernel counts them.
    pub rtt_p50_us: Option<f64>,
    /// The same of 90 %.
    pub rtt_p90_us: Option<f64>,
    /// The same of 99 %.
    pub rtt_p99_us: Option<f64>,
    /// The same of 99.9 %.
    pub rtt_p999_us: Option<f64>,
    /// Of replies on their way from the peer's kernel to ours (RFC 3550 §6.4.1).
    pub jitter_us: Option<f64>,
    /// Our probes, since the agent began.
    pub probes_sent: u64,
    /// Answers to our probes, in the peer's present generation.
    pub replies_received: u64,
    /// Our probes from the first that was answered to the last.
    #[serde(default)]
    pub replies_expected: u64,
    /// The peer's probes, in its present generation.
    #[serde(default)]
    pub peer_probes_received: u64,
    /// The peer's probes from the first that arrived to the last.
    #[serde(default)]
    pub peer_probes_expected: u64,
    /// Of the replies expected, those that were not received.
    pub round_trip_loss_percent: Option<f64>,
    /// Of the peer's probes expected, those that were not received.
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
    /// Between two of our messages.
    pub keepalive_interval_ms: f64,
    /// Silence after which the peer is dead.
    pub dead_interval_ms: f64,
    /// Times at which our own probe clock was late.
    pub late_ticks: u64,
    /// The most that it was late by.
    pub max_tick_lateness_us: f64,
    /// Whether the peer's messages are being heard and believed.
    pub session_up: bool,
    /// How far a change of the secret is: `none`, `peer-lacks-it`, `peer-has-it` or `both-use-it`.
    pub secret_rotation: String,
    /// Why there is no session, in plain words.
    pub note: Option<String>,
    /// If an operator had the counters cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared: Option<ClearedStatus>,
}

/// With what a counter begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Maps,
    Agent,
    PeerGeneration,
}

impl HeartbeatStatus {
    /// All counters, by the names of their fields.
    pub fn counters_mut(&mut self) -> [(&'static str, Life, &mut u64); 18] {
        let Self { fence, .. } = self;
        [
            ("probes_sent", Life::Agent, &mut self.probes_sent),
            ("late_ticks", Life::Agent, &mut self.late_ticks),
            (
                "replies_received",
                Life::PeerGeneration,
                &mut self.replies_received,
            ),
            (
                "replies_expected",
                Life::PeerGeneration,
                &mut self.replies_expected,
            ),
            (
                "peer_probes_received",
                Life::PeerGeneration,
                &mut self.peer_probes_received,
            ),
            (
                "peer_probes_expected",
                Life::PeerGeneration,
                &mut self.peer_probes_expected,
            ),
            ("mac_failures", Life::Maps, &mut self.mac_failures),
            ("stale", Life::Maps, &mut self.stale),
            ("unproven", Life::Maps, &mut self.unproven),
            ("wrong_sender", Life::Maps, &mut self.wrong_sender),
            ("not_understood", Life::Maps, &mut self.not_understood),
            ("grants_given", Life::Maps, &mut self.grants_given),
            ("grants_counted", Life::Maps, &mut fence.grants_counted),
            (
                "grants_not_for_us",
                Life::Maps,
                &mut fence.grants_not_for_us,
            ),
            ("grants_too_short", Life::Maps, &mut fence.grants_too_short),
            ("dropped_in", Life::Maps, &mut fence.dropped_in),
            ("dropped_out", Life::Maps, &mut fence.dropped_out),
            ("dropped_transit", Life::Maps, &mut fence.dropped_transit),
        ]
    }

    /// As if all that is counted had begun when the counters were cleared, losses included.
    #[must_use]
    pub fn since_cleared(&self) -> Self {
        let mut since = self.clone();
        let Some(cleared) = &self.cleared else {
            return since;
        };
        for (name, _, value) in since.counters_mut() {
            *value = value.saturating_sub(cleared.before(name));
        }
        since.round_trip_loss_percent =
            loss_percent(since.replies_expected, since.replies_received);
        since.inbound_loss_percent =
            loss_percent(since.peer_probes_expected, since.peer_probes_received);
        since
    }
}

/// Of the messages expected, those that did not arrive; none if none was expected.
#[expect(clippy::cast_precision_loss, reason = "a percentage of some digits")]
pub fn loss_percent(expected: u64, arrived: u64) -> Option<f64> {
    (expected > 0).then(|| 100.0 * expected.saturating_sub(arrived) as f64 / expected as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_those_of_the_messages_since_the_clearing() {
        let mut session = HeartbeatStatus {
            replies_expected: 1_000,
            replies_received: 900,
            peer_probes_expected: 500,
            peer_probes_received: 500,
            round_trip_loss_percent: loss_percent(1_000, 900),
            inbound_loss_percent: loss_percent(500, 500),
            fence: FenceStatus {
                dropped_in: 7,
                ..FenceStatus::default()
            },
            ..HeartbeatStatus::default()
        };
        assert_eq!(session.since_cleared(), session);
        let counters = session
            .counters_mut()
            .map(|(name, _, value)| (name.to_owned(), *value));
        session.cleared = Some(ClearedStatus {
            ms_ago: 0,
            counters: counters.into(),
        });
        let since = session.since_cleared();
        assert_eq!(since.round_trip_loss_percent, None);
        assert_eq!(since.fence.dropped_in, 0);

        session.replies_expected += 200;
        session.replies_received += 150;
        session.peer_probes_expected += 10;
        session.peer_probes_received += 10;
        let since = session.since_cleared();
        assert_eq!(since.round_trip_loss_percent, Some(25.0));
        assert_eq!(since.inbound_loss_percent, Some(0.0));
        assert_eq!(since.replies_received, 150);
    }
}
