//! Neighbours whose Ethernet address only the programs use.
//!
//! The kernel asks again for an address that has not been confirmed for a while (`NUD_STALE`) when the stack
//! sends to it. `bpf_fib_lookup` hands such an address out like any other, and asks nothing.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    neighbour::{
        NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use super::{Netlink, requests::Request};

impl Netlink {
    /// Has the kernel find out whether the stale neighbours on `interfaces` are still where they were, as
    /// if the stack had sent to them.
    pub async fn confirm_neighbours(&self, interfaces: &BTreeSet<u32>) -> Result<()> {
        let neighbours = self
            .list(|handle| handle.neighbours().get().execute())
            .await
            .context("cannot list the neighbours")?;
        let questions = neighbours
            .iter()
            .filter(|neighbour| interfaces.contains(&neighbour.header.ifindex))
            .filter_map(question)
            .collect();
        // One that has gone meanwhile is none to ask for.
        self.requests.execute(questions).await?;
        Ok(())
    }
}

/// `None` if the neighbour needs none.
fn question(neighbour: &NeighbourMessage) -> Option<Request> {
    let is_managed = |attribute: &NeighbourAttribute| match attribute {
        NeighbourAttribute::ExtFlags(flags) => flags.contains(NeighbourExtFlags::Managed),
        _ => false,
    };
    // For those that are managed the kernel asks by itself (Linux 5.16).
    if neighbour.header.state != NeighbourState::Stale
        || neighbour.attributes.iter().any(is_managed)
    {
        return None;
    }
    let destination = neighbour
        .attributes
        .iter()
        .find(|attribute| matches!(attribute, NeighbourAttribute::Destination(_)))?;
    let mut message = NeighbourMessage::default();
    message.header = neighbour.header.clone();
    message.header.flags |= NeighbourFlags::Use;
    message.attributes = vec![destination.clone()];
    Some(Request::new(
        "confirm a neighbour".to_owned(),
        RouteNetlinkMessage::NewNeighbour(message),
        0,
    ))
}
