//! Whether this node and a peer that changes sooner or later get on meanwhile.

use anyhow::{Result, bail};

use super::super::board;
use crate::config::Cluster;

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
