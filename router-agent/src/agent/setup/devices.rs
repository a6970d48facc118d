//! The tunnels' devices: those of an agent before this one, as far as they fit, and new ones.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use router_common::map::EpochSlot;
use tracing::info;

use super::{super::ethernets, first_ipv4};
use crate::{
    clock,
    config::{Config, Tunnel},
    dataplane::Dataplane,
    net::{Link, Netlink, Pair},
    tunnel::{
        self, HeartbeatListener, Transit,
        epoch::{self, EpochSlots},
        mtu,
        state::{Device, TunnelState, Underlay},
    },
};

/// The tunnels with their devices: those that an agent before this one made, as far as they fit, and
/// new ones.
pub async fn make_devices(
    config: &Config,
    underlays: &[Link],
    netlink: &Netlink,
    dataplane: &mut Dataplane,
) -> Result<Vec<TunnelState>> {
    let devices: Vec<_> = config
        .tunnels
        .iter()
        .zip(underlays)
        .map(|(tunnel, underlay)| tunnel::device(tunnel, mtu::full(tunnel, underlay.mtu)))
        .collect();
    let egresses = dataplane.egresses()?;
    let mut kept = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let pairs = netlink
        .ensure_tunnels(&devices, |position, user, dataplane| {
            let Some(index) = tunnel::index_of_former(
                &config.tunnels[position],
                egresses.get(&user.index),
                egresses.get(&dataplane.index),
            ) else {
                return false;
            };
            let is_free = taken.insert(index);
            if is_free {
                kept.insert(position, index);
            }
            is_free
        })
        .await?;
    if dataplane.adopts() {
        let (kept, all) = (kept.len(), pairs.len());
        info!("{kept} of {all} tunnel devices are kept");
    }
    let indices = tunnel::indices(config.tunnels.len(), &kept);
    let (old, new) = indices
        .iter()
        .zip(&pairs)
        .map(|(index, pair)| (*index, pair.kept))
        .partition::<Vec<_>, _>(|(_, kept)| *kept);
    let epochs = allot_epochs(config, &kept, dataplane)?;
    let numbers = |some: Vec<(u32, bool)>| some.into_iter().map(|(index, _)| index).collect();
    dataplane.make_room(&numbers(old), &numbers(new))?;
    let has_lan = ethernets::lans(config).next().is_some();
    let now = clock::now();
    Ok(indices
        .into_iter()
        .zip(&config.tunnels)
        .zip(underlays)
        .zip(&pairs)
        .zip(epochs)
        .map(|((((index, tunnel), underlay), pair), epochs)| {
            let Pair {
                user,
                dataplane,
                kept,
            } = pair;
            let transit = Transit {
                has_lan,
                strict_reverse_path: ethernets::has_strict_reverse_path(&tunnel.name),
            };
            let state = TunnelState::new(
                tunnel.clone(),
                index,
                heartbeat_listener(config, tunnel),
                epochs,
                transit,
                Underlay::of(underlay),
                Device::of(user, dataplane),
            );
            if *kept {
                state.with_kept_device(dataplane.mtu, user.mtu, now)
            } else {
                state
            }
        })
        .collect())
}

/// Where the tunnels have their epochs, of which some are `kept`: their indices by position.
fn allot_epochs(
    config: &Config,
    kept: &BTreeMap<usize, u32>,
    dataplane: &mut Dataplane,
) -> Result<Vec<Option<EpochSlots>>> {
    let former = dataplane.epoch_slots()?;
    let former: BTreeMap<usize, u16> = kept
        .iter()
        .filter_map(|(position, index)| Some((*position, *former.get(index)?)))
        .collect();
    let epoch::Allotment { tunnels, new } = epoch::allot(config, &former);
    let received = dataplane.epochs()?;
    for place in &new {
        received.write((*place).into(), &EpochSlot::default());
    }
    // Of two domains that have become one the newest counts.
    for (position, place) in former {
        if let Some(EpochSlots { received: now, .. }) = tunnels[position]
            && !new.contains(&now)
        {
            received.raise_epoch(now.into(), received.epoch(place.into()));
        }
    }
    Ok(tunnels)
}

/// Where heartbeats in `tunnel` come to; `None` if none run there.
fn heartbeat_listener(config: &Config, tunnel: &Tunnel) -> Option<HeartbeatListener> {
    let cluster = config.cluster.as_ref()?;
    if !cluster.interfaces.contains(&tunnel.name) {
        return None;
    }
    Some(HeartbeatListener {
        address: first_ipv4(tunnel)?.octets(),
        port: cluster.heartbeat_port,
    })
}
