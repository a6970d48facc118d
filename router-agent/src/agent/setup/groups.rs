//! The groups as they begin: what of a former life goes on in them, and by which policy they are led.

use std::{net::IpAddr, sync::Arc, time::Duration};

use router_common::{
    identity::{Epoch, NodeId},
    lease::Length,
};
use tracing::info;

use super::{
    super::{
        driver::{Group as DrivenGroup, Session},
        fitness::Former,
    },
    sessions::{Members, OpenSession, members},
};
use crate::{
    clock,
    cluster::{ArbiterPolicy, Core, FormerLife, Policy, State},
    config::{Cluster, Config, Group},
    monitor::Monitor,
    track,
};

/// At millisecond timing too, a starting node gives its peer this long to be heard.
const SHORTEST_INITIAL_WAIT: Duration = Duration::from_secs(1);
/// How long both nodes must be well before a failback: this, or ten dead-intervals if longer.
const SHORTEST_FAILBACK_HOLD: Duration = Duration::from_secs(1);
/// How long a node whose takeover failed leaves the group to its peer.
const FAULT_HOLD: Duration = Duration::from_secs(10);

/// A group with its core, and what of a former life goes on in it.
pub struct Beginning {
    pub group: DrivenGroup,
    /// Its services, if it is active, stay where they are.
    pub is_active: bool,
    /// What was said of its node a moment ago, if it goes on.
    pub former: Option<Former>,
}

/// The groups as they begin; no epoch up to `newest` is used again.
pub fn driven_groups(config: &Config, sessions: Vec<OpenSession>, newest: Epoch) -> Vec<Beginning> {
    let Some(cluster) = &config.cluster else {
        return Vec::new();
    };
    let mut of_groups: Vec<Vec<OpenSession>> = Vec::new();
    of_groups.resize_with(cluster.groups.len(), Vec::new);
    for session in sessions {
        of_groups[session.facts.group].push(session);
    }
    (0..)
        .zip(&cluster.groups)
        .zip(of_groups)
        .map(|((place, group), sessions)| {
            let Members { node, peer, .. } = members(group, &config.host_name);
            let formers = || sessions.iter().map(|session| session.former);
            let granted = formers().map(|life| life.grant).max();
            let former = FormerLife {
                grant: granted.unwrap_or_default(),
                ..formers().max_by_key(|life| life.beat).unwrap_or_default()
            };
            let policy = policy(cluster, group, node, peer);
            let lease = policy.lease;
            let core = Core::resumed(policy, &former, newest, clock::now());
            let state = core.state();
            if state != State::Initializing {
                info!(
                    group = group.name,
                    epoch = former.claim.epoch.0,
                    "goes on as {state}"
                );
                if core.lease() != lease && (state == State::Active) == (core.lease() < lease) {
                    info!(
                        group = group.name,
                        epoch = former.claim.epoch.0,
                        "grants last {:?} here until the group moves, as before, and {:?} from then on",
                        core.lease().duration(),
                        lease.duration()
                    );
                }
            }
            let sessions = sessions.into_iter().map(|session| Session {
                index: session.facts.index,
                prober: session.prober,
            });
            Beginning {
                is_active: state == State::Active,
                former: (state != State::Initializing).then(|| Former {
                    was_fit: former.was_well(),
                    // One that knew of none had no weights either.
                    priority: former.flags.priority().unwrap_or_default(),
                }),
                group: DrivenGroup::new(group.name.clone(), place, core, sessions.collect()),
            }
        })
        .collect()
}

fn policy(cluster: &Cluster, group: &Group, node: NodeId, peer: NodeId) -> Policy {
    let dead = cluster.dead_interval;
    Policy {
        node,
        peer,
        keepalive: cluster.keepalive_interval,
        dead,
        prefer: group.prefer,
        arbiter: cluster.arbiter.as_ref().map(|etcd| ArbiterPolicy {
            term: etcd.term,
            timeout: etcd.timeout,
            contenders: 2,
        }),
        lease: Length::by_default(dead),
        agent_dead: cluster.agent_dead_interval,
        initial_wait: SHORTEST_INITIAL_WAIT.max(dead * 2),
        auto_failback: group.auto_failback,
        failback_hold: SHORTEST_FAILBACK_HOLD.max(dead * 10),
        fault_hold: FAULT_HOLD,
    }
}

pub fn monitors(cluster: &Cluster) -> Vec<Monitor> {
    let mut monitors = Vec::new();
    for (number, group) in cluster.groups.iter().enumerate() {
        for (index, address) in group.monitors.iter().enumerate() {
            monitors.push(Monitor {
                group: number,
                index,
                address: IpAddr::clone(address),
                interval: cluster.monitor_interval,
                dead: cluster.monitor_dead_interval,
            });
        }
    }
    monitors
}

/// What the groups track.
pub fn tracks(config: &Config, beginnings: &[Beginning]) -> Vec<track::Target> {
    let groups = config.groups().iter();
    groups
        .zip(beginnings)
        .enumerate()
        .flat_map(|(number, (group, beginning))| {
            let name: Arc<str> = group.name.as_str().into();
            let first = group.monitors.len();
            (first..)
                .zip(&group.tracks)
                .map(move |(index, tracked)| track::Target {
                    group: number,
                    group_name: Arc::clone(&name),
                    index,
                    // What has a weight may have been unwell beside a node that was fit.
                    was_well: tracked.weight.is_mandatory()
                        && beginning.former.is_some_and(|former| former.was_fit),
                    track: tracked.track.clone(),
                })
        })
        .collect()
}
