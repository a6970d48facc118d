//! Whether this node and a peer that changes sooner or later get on meanwhile.

use anyhow::{Result, bail};

use super::super::{board, pulse::BEAT};
use crate::config::{Cluster, Group, Prefer};

/// Refuses a change after which one would not hear the other. `live` has the secrets that are in force:
/// those of `old`, unless they were changed since.
pub fn keeps_talking(
    old: Option<&Cluster>,
    new: Option<&Cluster>,
    live: &board::Facts,
) -> Result<()> {
    let (Some(old), Some(new)) = (old, new) else {
        return Ok(());
    };
    if !live.peers_understand(new) {
        bail!(
            "the peer would not understand heartbeats with the new `pre-shared-secret`, for it is not known \
             to have that: state the one that is in use now (after `routerctl rotate-secret`, the one \
             that was rotated to) as `cluster previous-pre-shared-secret`, apply that on both nodes, and \
             take the line out then; or run `routerctl rotate-secret`"
        );
    }
    if old.heartbeat_port != new.heartbeat_port {
        bail!(
            "the peer sends its heartbeats to port {}, and would not be heard at {}: stop the agent of \
             the standby, restart that of the active node with the new `cluster heartbeat-port`, and \
             start the standby with it",
            old.heartbeat_port,
            new.heartbeat_port
        );
    }
    Ok(())
}

/// Refuses a change by which, until both have it, one would take the agent of the other for dead while that
/// ticks as it should.
pub fn keeps_ticking(old: Option<&Cluster>, new: Option<&Cluster>) -> Result<()> {
    let (Some(old), Some(new)) = (old, new) else {
        return Ok(());
    };
    // An agent is as old as its last tick, and one message may be lost. Of one configuration that is so anyway.
    let tick = |cluster: &Cluster| cluster.keepalive_interval.min(BEAT);
    let outlasts =
        |patient: &Cluster, other: &Cluster| patient.agent_dead_interval > 2 * tick(other);
    if !outlasts(old, new) {
        bail!(
            "until the peer has this, it takes an agent for dead that has not ticked for {:?}, and this one \
             would tick each {:?}: apply on both nodes a `cluster agent-dead-interval` of more than twice \
             that first, and the rest then",
            old.agent_dead_interval,
            tick(new)
        );
    }
    if !outlasts(new, old) {
        bail!(
            "until the peer has this, its agent ticks each {:?}, and this one would take it for dead after \
             {:?}: apply the rest on both nodes first, and the new `cluster agent-dead-interval` then",
            tick(old),
            new.agent_dead_interval
        );
    }
    Ok(())
}

/// What the operator must know of the order of the nodes, since neither node can tell whether the other has
/// changed: an agent vouches for its node by its own interval, and the peer waits by its own.
pub fn order_of_nodes(
    old: Option<&Cluster>,
    new: Option<&Cluster>,
    live: &board::Facts,
) -> Option<String> {
    let (before, after) = (old?.agent_dead_interval, new?.agent_dead_interval);
    let is_longer = after > before;
    let vouches = |group: &Group| {
        old.is_some_and(|old| old.arbiter.is_none()) && group.prefer == Prefer::Availability
    };
    let is_late = (0..)
        .zip(live.groups())
        .any(|(number, group)| vouches(group) && live.is_active(number) == is_longer);
    (before != after && is_late).then(|| {
        let other = if is_longer { "stands by" } else { "is active" };
        format!(
            "cluster agent-dead-interval: {after:?} instead of {before:?} belongs first on the node that \
             {other}; until both have it two may forward, should the agent of the active one die"
        )
    })
}

/// Refuses a change whose way back would lead to a secret that was given up since.
pub fn has_way_back(old: Option<&Cluster>, live: &board::Facts) -> Result<()> {
    if old.is_some_and(|old| !live.peers_understand(old)) {
        bail!(
            "should this fail, the configuration before comes back, whose `pre-shared-secret` the peer \
             does not use any more: apply that with the new secret first, and nothing else changed"
        );
    }
    Ok(())
}
