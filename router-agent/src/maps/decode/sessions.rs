//! Sessions, grants and fences. Secrets end here.

use router_common::{
    identity::{Claim, Flags, NodeId},
    keys::Named,
    map::{
        EpochSlot, Fence, FenceCounters, Granted, Lease, LocalState, RoundTrips, SessionConfig,
        SessionKey, SessionState,
    },
    net::ipv4_from_word,
};

use super::{Decode, Fields, InterfaceNames, counters, ipv4, names};

/// Shown in place of a key.
const SECRET: &str = "***";

impl Decode for SessionKey {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            tunnel_index,
            session,
        } = *self;
        Fields::default()
            .with("tunnel_index", tunnel_index)
            .with("session", session_id(session))
    }
}

impl Decode for SessionConfig {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            keys,
            session,
            local_node,
            peer_node,
            local_address,
            group,
            padding: _,
        } = *self;
        Fields::default()
            .with("session", session_id(session))
            .with("local_node", local_node)
            .with("peer_node", peer_node)
            .with("local_address", ipv4(local_address))
            .with("group_index", group)
            .with(
                "secrets",
                keys.slots.iter().filter(|slot| !slot.is_empty()).count(),
            )
            .with("keys", SECRET)
    }
}

impl Decode for SessionState {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            last_heard_ns,
            last_reply_ns,
            peer_tx_ns,
            peer_generation,
            peer_claim: _,
            peer_status: _,
            peer_address,
            newest_echo_ns,
            peer_keys: _,
            probe_sequence,
            reply_sequence,
            first_probe_sequence,
            first_reply_sequence,
            probes,
            replies,
            rtt_last_ns,
            rtt_min_ns,
            rtt_max_ns,
            rtt_sum_ns,
            transit_ns,
            jitter_16ths,
            mac_failures,
            last_mac_failure_ns,
            stale,
            unproven,
            wrong_sender,
            not_understood,
        } = *self;
        // Numbers, which every message tells.
        let Named { used, wanted } = self.peer_keys();
        claim(
            Fields::default()
                .with(
                    "peer_address",
                    ipv4_from_word(peer_address).map(|address| address.to_string()),
                )
                .with("peer_generation", peer_generation),
            self.claim(),
        )
        .with("used_secret", used)
        .with("wanted_secret", wanted)
        .with("flags", flag_names(self.flags()))
        .with("agent_age_us", as_us(self.agent_age()))
        .with("last_heard_ns", last_heard_ns)
        .with("last_reply_ns", last_reply_ns)
        .with("peer_tx_ns", peer_tx_ns)
        .with("newest_echo_ns", newest_echo_ns)
        .with("probe_sequence", probe_sequence)
        .with("reply_sequence", reply_sequence)
        .with("first_probe_sequence", first_probe_sequence)
        .with("first_reply_sequence", first_reply_sequence)
        .with("probes", probes)
        .with("replies", replies)
        .with("rtt_last_ns", rtt_last_ns)
        .with("rtt_min_ns", rtt_min_ns)
        .with("rtt_max_ns", rtt_max_ns)
        .with("rtt_sum_ns", rtt_sum_ns)
        .with("transit_ns", transit_ns)
        .with("jitter_ns", jitter_16ths / 16)
        .with("mac_failures", mac_failures)
        .with("last_mac_failure_ns", last_mac_failure_ns)
        .with("stale", stale)
        .with("unproven", unproven)
        .with("wrong_sender", wrong_sender)
        .with("not_understood", not_understood)
    }
}

/// Its quantiles: the buckets themselves are too many to be read.
impl Decode for RoundTrips {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        [
            ("p50_ns", 500),
            ("p99_ns", 990),
            ("p999_ns", 999),
            ("max_ns", 1_000),
        ]
        .into_iter()
        .fold(
            Fields::default().with("replies", self.count()),
            |fields, (name, per_mille)| fields.with(name, self.quantile_ns(per_mille)),
        )
    }
}

impl Decode for LocalState {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        claim(
            Fields::default().with("generation", self.generation()),
            self.claim(),
        )
        .with("flags", flag_names(self.flags()))
        .with("agent_beat_ns", self.agent_beat().as_ns())
        .with("grant_us", self.grant().as_us())
    }
}

impl Decode for Granted {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self { granted_ns, grants } = *self;
        Fields::default()
            .with("granted_ns", granted_ns)
            .with("grants", grants)
    }
}

impl Decode for Fence {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            authority_end_ns,
            lease_ns,
            claim: word,
            opened_ns,
        } = *self;
        claim(
            Fields::default()
                .with("open", opened_ns != 0)
                .with("opened_ns", opened_ns)
                .with("authority_end_ns", authority_end_ns)
                .with("lease_ns", lease_ns),
            Claim::from_word(word),
        )
    }
}

impl Decode for Lease {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            granted_tx_ns,
            renewals,
            not_for_us,
            too_short,
            first_passed_ns,
            padding: _,
        } = *self;
        Fields::default()
            .with("granted_tx_ns", granted_tx_ns)
            .with("renewals", renewals)
            .with("not_for_us", not_for_us)
            .with("too_short", too_short)
            .with("first_passed_ns", first_passed_ns)
    }
}

impl Decode for FenceCounters {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        counters(self.named())
    }
}

impl Decode for EpochSlot {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self { epoch } = *self;
        Fields::default().with("epoch", epoch)
    }
}

fn session_id(session: u32) -> String {
    format!("{session:#010x}")
}

fn as_us(age: std::time::Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

fn claim(fields: Fields, claim: Claim) -> Fields {
    let Claim { epoch, owner } = claim;
    fields
        .with("epoch", epoch.0)
        .with("owner_node", (owner != NodeId::NONE).then_some(owner.0))
}

/// What a node says of itself, by names.
pub fn flag_names(flags: Flags) -> Vec<String> {
    let mut names = names(
        u32::from(flags.0 & 0xff),
        &[
            (u32::from(Flags::FORWARDING.0), "forwarding"),
            (u32::from(Flags::ELIGIBLE.0), "eligible"),
            (u32::from(Flags::CANDIDATE.0), "candidate"),
            (u32::from(Flags::DRAINING.0), "draining"),
            (u32::from(Flags::FORCED.0), "forced"),
            (u32::from(Flags::STANDS_BACK.0), "stands-back"),
        ],
    );
    names.extend(flags.priority().map(|it| format!("priority {}", it.get())));
    names
}
