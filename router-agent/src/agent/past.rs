//! What happened, as it is told and recorded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use router_common::time::BootTime;

use super::{
    board::{Facts, whole_ms},
    fitness::Fitness,
    report::Decided,
    stages,
    words::{DUPLICATE_ADDRESS, finding_word, kind_word, record, state_word, trouble},
};
use crate::{
    clock,
    cluster::{Finding, State, Transition},
    control::protocol::{self, FenceStatus, MonitorStatus},
    duplicate::{self, Duplicate},
    history::{Entry, Past},
};

/// `monitors` are their names, by their places.
pub(super) fn transition(
    facts: &Facts,
    group: usize,
    monitors: &[MonitorStatus],
    decided: &Decided,
) -> Entry {
    let Decided {
        transition:
            Transition {
                at,
                from,
                to,
                epoch,
                cause,
                last_heard,
            },
        stages,
        known,
    } = decided;
    let group = &facts.groups()[group];
    let stages::Stages {
        suspected,
        grants_closed,
        arbiter_asked,
        arbiter_answered,
        fence_open,
    } = *stages;
    let stages::Known {
        peer,
        silence,
        echo_age,
        agent_age,
        peer_epoch,
        monitors:
            Fitness {
                is_fit,
                missing,
                priority: _,
            },
        record: known_record,
    } = known;
    let missing: Vec<_> = missing
        .iter()
        .filter_map(|&place| Some(monitors.get(place)?.address.clone()))
        .collect();
    Entry::Transition(protocol::Transition {
        at_ns: at.as_ns(),
        group: group.name.clone(),
        from: state_word(*from).to_owned(),
        to: state_word(*to).to_owned(),
        epoch: epoch.0,
        cause: trouble(*cause, &missing),
        last_heard_ns: last_heard.as_ns(),
        decided_ns: at.as_ns(),
        steps: Vec::new(),
        at_unix_ms: unix_ms(*at),
        boot_id: facts.boot_id.clone(),
        stages: protocol::Stages {
            suspected_ns: suspected.as_ns(),
            grants_closed_ns: grants_closed.as_ns(),
            arbiter_asked_ns: arbiter_asked.as_ns(),
            arbiter_answered_ns: arbiter_answered.as_ns(),
            fence_open_ns: fence_open.as_ns(),
            first_forwarded_ns: 0,
        },
        known: protocol::Known {
            peer_finding: finding_word(*peer).to_owned(),
            silence_ns: silence.map_or(0, whole_ns),
            echo_age_ns: echo_age.map_or(0, whole_ns),
            agent_age_ns: whole_ns(*agent_age),
            peer_epoch: peer_epoch.0,
            monitors_ok: *is_fit,
            monitors_missing: missing,
            record: known_record.map(|known| record(&known, group)),
        },
    })
}

pub(super) fn finding(facts: &Facts, group: usize, finding: &Finding) -> Entry {
    Entry::Finding(protocol::Finding {
        at_ns: finding.at().as_ns(),
        group: facts.groups()[group].name.clone(),
        kind: kind_word(finding).to_owned(),
        text: finding.to_string(),
        at_unix_ms: unix_ms(finding.at()),
        boot_id: facts.boot_id.clone(),
    })
}

pub(super) fn duplicate(facts: &Facts, group: usize, service: &str, found: Duplicate) -> Entry {
    Entry::Finding(protocol::Finding {
        at_ns: found.last.as_ns(),
        group: facts.groups()[group].name.clone(),
        kind: DUPLICATE_ADDRESS.to_owned(),
        text: duplicate::words(service, found.mac),
        at_unix_ms: unix_ms(found.last),
        boot_id: facts.boot_id.clone(),
    })
}

/// If the group's last activation has let a packet pass, and that is not noted yet.
pub(super) fn first_packet(past: &Past, boot_id: &str, fence: &FenceStatus) -> Option<Entry> {
    let last = past.transitions().next_back()?;
    let is_new = last.to == state_word(State::Active)
        && last.boot_id == boot_id
        && last.stages.first_forwarded_ns == 0
        && fence.first_passed_ns >= last.at_ns;
    is_new.then(|| Entry::FirstForwarded {
        group: last.group.clone(),
        epoch: last.epoch,
        at_ns: fence.first_passed_ns,
    })
}

/// The last one of this agent's life, but for those about the peer and the arbiter, which have their own
/// places in the status.
pub(super) fn last_finding<'a>(past: &'a Past, facts: &Facts) -> Option<&'a str> {
    past.findings()
        .rev()
        .take_while(|finding| {
            finding.boot_id == facts.boot_id && finding.at_ns >= facts.started.as_ns()
        })
        .find(|finding| !["peer", "arbiter"].contains(&finding.kind.as_str()))
        .map(|finding| &*finding.text)
}

/// The time of day at an instant that is not long ago.
fn unix_ms(at: BootTime) -> u64 {
    let now = SystemTime::now();
    let ago = clock::now().since(at);
    let then = now.checked_sub(ago).unwrap_or(now);
    whole_ms(then.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
}

fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
