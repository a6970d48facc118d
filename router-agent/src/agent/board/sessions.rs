//! The heartbeat sessions as an operator sees them.

use std::{io, sync::atomic::Ordering, time::Duration};

use router_common::{map::SessionState, net::ipv4_from_word, time::BootTime};

use super::{Facts, SessionFacts};
use crate::{
    agent::{
        cleared::{Counter, Counters},
        driver::ProbeStatistics,
        words::{expected, in_ms, in_us, owner_name},
    },
    cluster::said_last,
    config::Cluster,
    control::protocol::{HeartbeatStatus, Life, loss_percent},
    maps::flag_names,
};

/// MAC failures newer than this are worth a warning even if the session is up.
const RECENT: Duration = Duration::from_secs(10);

impl Facts {
    pub(super) fn session_is_up(&self, state: &SessionState, now: BootTime) -> bool {
        let dead = self.cluster().map_or(Duration::ZERO, |c| c.dead_interval);
        !state.last_heard().is_never() && now.since(state.last_heard()) < dead
    }

    fn probes(&self, session: &SessionFacts) -> Option<&ProbeStatistics> {
        self.clock.sessions.get(session.index as usize)
    }

    /// Why a session is not up, or what else is wrong with it.
    pub(super) fn session_note(&self, session: &SessionFacts, now: BootTime) -> Option<String> {
        let state = &self.heard.read(session.index);
        let up = self.session_is_up(state, now);
        let send_error = self
            .probes(session)
            .map_or(0, |probes| probes.last_error.load(Ordering::Relaxed));
        if send_error != 0 {
            return Some(format!(
                "our probes cannot be sent: {}",
                io::Error::from_raw_os_error(send_error)
            ));
        }
        let last_failure = BootTime::from_ns(state.last_mac_failure_ns);
        if !last_failure.is_never() && now.since(last_failure) < RECENT {
            Some(format!(
                "messages arrive with a wrong MAC ({} so far): the pre-shared-secret or the host \
                 names of the two nodes differ",
                state.mac_failures
            ))
        } else if up {
            None
        } else if state.last_heard().is_never() && state.unproven > 0 {
            Some(
                "the peer's messages arrive, but do not echo ours: ours do not reach it".to_owned(),
            )
        } else {
            Some(
                "nothing arrives from the peer: its agent does not run, or the network lets no GRE \
                 (IP protocol 47) through"
                    .to_owned(),
            )
        }
    }

    /// What the peer said last, over all paths of a group.
    pub(super) fn said_last(&self, group: usize) -> SessionState {
        let paths = self
            .sessions
            .iter()
            .filter(|session| session.group == group)
            .map(|session| self.heard.read(session.index));
        said_last(&paths.collect::<Vec<_>>())
    }

    /// As operators call it.
    pub(super) fn session_name(&self, session: &SessionFacts) -> String {
        let group = &self.groups()[session.group];
        format!("{} over {}", group.name, session.path)
    }

    pub(super) fn session_counters(&self, status: &mut HeartbeatStatus) -> Counters {
        let (agent, peer) = (self.generation, status.peer_generation);
        let counters = status.counters_mut().map(|(name, life, value)| {
            let life = match life {
                Life::Maps => 0,
                Life::Agent => agent,
                Life::PeerGeneration => peer,
            };
            (
                name,
                Counter {
                    value: *value,
                    life,
                },
            )
        });
        counters.into()
    }

    pub(super) fn heartbeat_status(
        &self,
        cluster: &Cluster,
        session: &SessionFacts,
        now: BootTime,
    ) -> HeartbeatStatus {
        let state = self.heard.read(session.index);
        let group = &cluster.groups[session.group];
        let sent = self
            .probes(session)
            .map_or(0, |probes| probes.sent.load(Ordering::Relaxed));
        let claim = state.claim();
        let granted = self.granted.read(session.index);
        let granted_at = BootTime::from_ns(granted.granted_ns);
        let local = self.local.read(session.index);
        let bound = self.bound_by_grants(session.group);
        let replied = state.replies > 0;
        let round_trips = self.round_trips.read(session.index);
        let quantile = |per_mille| round_trips.quantile_ns(per_mille).map(in_us);
        let replies_expected = expected(
            state.first_reply_sequence,
            state.reply_sequence,
            state.replies,
        );
        let peer_probes_expected = expected(
            state.first_probe_sequence,
            state.probe_sequence,
            state.probes,
        );
        let mut status = HeartbeatStatus {
            group: group.name.clone(),
            path: session.path.clone(),
            peer: self.peer(group).to_owned(),
            peer_address: ipv4_from_word(state.peer_address).map(|address| address.to_string()),
            last_heard_ms_ago: (!state.last_heard().is_never())
                .then(|| in_ms(now.since(state.last_heard()))),
            peer_generation: state.generation(),
            peer_agent_age_ms: in_ms(state.agent_age()),
            peer_epoch: claim.epoch.0,
            peer_owner: owner_name(claim, group),
            peer_flags: flag_names(state.flags()),
            granting_us: local.grant_us,
            last_granted_ms_ago: (!granted_at.is_never()).then(|| in_ms(now.since(granted_at))),
            promised_ms: in_ms(bound.promised_until(granted_at).since(now)),
            grants_given: granted.grants,
            fence: self.fence_status(session.group, now),
            now_ns: now.as_ns(),
            rtt_last_us: replied.then(|| in_us(state.rtt_last_ns)),
            rtt_min_us: replied.then(|| in_us(state.rtt_min_ns)),
            rtt_avg_us: state.rtt_sum_ns.checked_div(state.replies).map(in_us),
            rtt_max_us: replied.then(|| in_us(state.rtt_max_ns)),
            rtt_p50_us: quantile(500),
            rtt_p90_us: quantile(900),
            rtt_p99_us: quantile(990),
            rtt_p999_us: quantile(999),
            jitter_us: (state.replies > 1).then(|| in_us(state.jitter_16ths / 16)),
            probes_sent: sent,
            replies_received: state.replies,
            replies_expected,
            peer_probes_received: state.probes,
            peer_probes_expected,
            round_trip_loss_percent: loss_percent(replies_expected, state.replies),
            inbound_loss_percent: loss_percent(peer_probes_expected, state.probes),
            mac_failures: state.mac_failures,
            stale: state.stale,
            unproven: state.unproven,
            wrong_sender: state.wrong_sender,
            not_understood: state.not_understood,
            keepalive_interval_ms: in_ms(cluster.keepalive_interval),
            dead_interval_ms: in_ms(cluster.dead_interval),
            late_ticks: self.clock.late.load(Ordering::Relaxed),
            max_tick_lateness_us: in_us(self.clock.max_lateness_ns.load(Ordering::Relaxed)),
            session_up: self.session_is_up(&state, now),
            secret_rotation: self.rotation(session).to_string(),
            note: self.session_note(session, now),
            cleared: None,
        };
        let counters = self.session_counters(&mut status);
        status.cleared = self.cleared.of(&self.session_name(session), &counters, now);
        status
    }
}
