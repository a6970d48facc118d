//! What becomes of the interfaces around the tunnels, as the kernel tells it, and of the ways by which
//! the tunnels' packets leave.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use anyhow::Result;
use tracing::{info, warn};

use super::Keeper;
use crate::{
    net::{
        Link, LinkEvent,
        watch::{Change, Finding, Watch},
    },
    tunnel::state::{TunnelState, Underlay},
};

/// So many routes are asked for at one look, in turn.
const ROUTES_AT_A_LOOK: usize = 256;

impl Keeper {
    pub(super) async fn hear(&mut self, event: Result<LinkEvent>) {
        let findings = match event {
            Ok(LinkEvent::Resync) => {
                info!("changes of interfaces were lost; all are looked at anew");
                self.list_anew().await
            }
            Ok(event) => self.watch.observe(event),
            Err(error) => {
                warn!("{error:#}; interfaces are looked at from time to time");
                self.monitor = None;
                return;
            }
        };
        self.take_in(findings);
    }

    pub(super) async fn list_anew(&mut self) -> Vec<Finding> {
        let listing = async {
            let links = self.netlink.links().await?;
            anyhow::Ok((links, self.netlink.addresses().await?))
        };
        match listing.await {
            Ok((links, addresses)) => self.watch.resync(links, &addresses),
            Err(error) => {
                warn!("{error:#}");
                // The next look opens a new one, and lists.
                self.monitor = None;
                Vec::new()
            }
        }
    }

    pub(super) fn take_in(&mut self, findings: Vec<Finding>) {
        let first_device = self.locals.len();
        let first_lan = first_device + self.tunnels.len();
        let first_protected = first_lan + self.lans.len();
        let mut parts_changed = false;
        for Finding { dependency, change } in findings {
            let link = self.watch.link(dependency);
            let name = link.map(|link| link.name.as_str());
            if let Some(local) = self.locals.get(dependency) {
                log_underlay(*local, name, &change);
                self.refresh_underlay(dependency);
                parts_changed = true;
            } else if dependency < first_lan {
                self.refresh_device(dependency - first_device, &change);
            } else if dependency >= first_protected {
                // The next look, which is at once, is for fences, too.
                parts_changed = true;
            } else {
                log_lan(&self.lans[dependency - first_lan], name, &change);
                parts_changed = true;
            }
        }
        if parts_changed {
            self.want_attachments();
        }
    }

    /// Takes in what the interface with a tunnels' address is now.
    pub(super) fn refresh_underlay(&mut self, dependency: usize) {
        for &position in &self.tunnels_of[dependency] {
            let underlay =
                underlay_of(&self.watch, &self.ways, dependency, position).map(Underlay::of);
            let state = &mut self.tunnels[position];
            let before = state.underlay().map(|underlay| underlay.ifindex);
            let now = underlay.as_ref().map(|underlay| underlay.ifindex);
            if before != now {
                // Another way, perhaps.
                self.paths.forget(position);
                state.set_path_mtu(None);
            }
            state.set_underlay(underlay);
            self.dirty.insert(position);
        }
    }

    /// Asks for the routes of tunnels whose address is on an interface that leads nowhere.
    pub(super) async fn refresh_ways(&mut self) {
        let mut candidates = Vec::new();
        for (dependency, positions) in self.tunnels_of.iter().enumerate() {
            if self.watch.link(dependency).is_some_and(Link::leads_nowhere) {
                candidates.extend(positions.iter().map(|&position| (dependency, position)));
            }
        }
        let mut changed = BTreeSet::new();
        for number in in_turn(&mut self.next_way, candidates.len(), ROUTES_AT_A_LOOK) {
            let (dependency, position) = candidates[number];
            let tunnel = self.tunnels[position].tunnel();
            let Ok(way) = self.netlink.way(tunnel.local_ip, tunnel.remote_ip).await else {
                continue;
            };
            let known = match way {
                Some(index) => self.ways.insert(position, index),
                None => self.ways.remove(&position),
            };
            let now = way.and_then(|index| self.watch.interface(index));
            let now = now.map(Underlay::of);
            if known != way || self.tunnels[position].underlay() != now.as_ref() {
                changed.insert(dependency);
            }
        }
        for &dependency in &changed {
            self.refresh_underlay(dependency);
        }
        if !changed.is_empty() {
            self.want_attachments();
        }
    }

    fn refresh_device(&mut self, position: usize, change: &Change) {
        let state = &mut self.tunnels[position];
        let name = &state.tunnel().name;
        let present = self.watch.link(self.locals.len() + position);
        match change {
            Change::Renamed { from, to } => {
                warn!(tunnel = name, from, to, "the tunnel's device was renamed");
            }
            Change::MacChanged { to } => {
                let mac = *to;
                state.set_user_mac(mac);
            }
            Change::Gone | Change::Reappeared { .. } => {
                let ours = state.device().map(|device| device.user_ifindex);
                if ours.is_some() && ours != present.map(|link| link.index) {
                    warn!(
                        tunnel = name,
                        "the tunnel's device is gone; it is made again"
                    );
                    state.lose_device();
                }
            }
            Change::Down => {
                warn!(tunnel = name, "down");
                state.set_device_up(false);
            }
            Change::Up => {
                info!(tunnel = name, "up");
                state.set_device_up(true);
            }
            Change::MtuChanged { .. } | Change::ControllerChanged | Change::XdpDetached => return,
        }
        self.dirty.insert(position);
    }
}

/// Where the devices were made for, which [`Keeper::refresh_underlay`] only heeds where it must.
pub fn ways(tunnels: &[TunnelState]) -> HashMap<usize, u32> {
    let underlays = tunnels.iter().filter_map(TunnelState::underlay);
    underlays
        .map(|underlay| underlay.ifindex)
        .enumerate()
        .collect()
}

/// The interface with a tunnel's address, or the one by which its packets leave if that leads
/// nowhere.
fn underlay_of<'a>(
    watch: &'a Watch,
    ways: &HashMap<usize, u32>,
    dependency: usize,
    position: usize,
) -> Option<&'a Link> {
    let holder = watch.link(dependency)?;
    if holder.leads_nowhere() {
        watch.interface(*ways.get(&position)?)
    } else {
        Some(holder)
    }
}

/// The underlays of all tunnels, each once.
pub fn underlays<'a>(
    watch: &'a Watch,
    tunnels_of: &[Vec<usize>],
    ways: &HashMap<usize, u32>,
) -> Vec<&'a Link> {
    let mut links = BTreeMap::new();
    for (dependency, positions) in tunnels_of.iter().enumerate() {
        for position in positions {
            if let Some(link) = underlay_of(watch, ways, dependency, *position) {
                links.insert(link.index, link);
            }
        }
    }
    links.into_values().collect()
}

fn log_underlay(local: IpAddr, name: Option<&str>, change: &Change) {
    match change {
        Change::Gone => warn!("no interface has the address {local} any more"),
        Change::Reappeared { index } => info!(index, name, "underlay of {local}"),
        Change::Renamed { from, to } => info!(from, to, "underlay of {local} renamed"),
        Change::MtuChanged { from, to } => info!(name, from, to, "MTU of {local}'s underlay"),
        Change::MacChanged { .. } => info!(name, "another hardware address"),
        Change::Down => warn!(name, "underlay of {local} is down"),
        Change::Up => info!(name, "underlay of {local} is up"),
        Change::ControllerChanged | Change::XdpDetached => {}
    }
}

fn log_lan(configured: &str, name: Option<&str>, change: &Change) {
    match change {
        Change::Gone => warn!("there is no interface {configured} any more"),
        Change::Reappeared { index } => info!(index, name, "interface {configured}"),
        Change::Renamed { from, to } => info!(from, to, "interface {configured} renamed"),
        Change::MacChanged { .. } => info!(name, "another hardware address"),
        Change::Down => warn!(name, "down"),
        Change::Up => info!(name, "up"),
        // What the last one means for its part is told with that.
        Change::MtuChanged { .. } | Change::XdpDetached | Change::ControllerChanged => {}
    }
}

/// Up to `most` of the numbers below `count`, going on after those of the last time.
pub fn in_turn(next: &mut usize, count: usize, most: usize) -> Vec<usize> {
    let most = most.min(count);
    let turn = (0..most).map(|step| (*next + step) % count).collect();
    *next = (*next + most).checked_rem(count).unwrap_or(0);
    turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn() {
        let mut next = 0;
        assert_eq!(in_turn(&mut next, 5, 3), [0, 1, 2]);
        assert_eq!(in_turn(&mut next, 5, 3), [3, 4, 0]);
        // There are fewer now.
        assert_eq!(in_turn(&mut next, 1, 3), [0]);
        assert_eq!(in_turn(&mut next, 0, 3), [0; 0]);
        assert_eq!(in_turn(&mut next, 2, 3), [0, 1]);
    }
}
