//! Which programs the interfaces have, and what programs and operators are told of the part that each
//! takes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use router_common::time::BootTime;
use tracing::{info, warn};

use super::{
    super::ethernets,
    Keeper,
    interfaces::underlays,
    parts::{self, Part},
};
use crate::{
    control::protocol::{InterfaceRole, InterfaceStatus},
    dataplane::Dataplane,
    net::{Link, watch::Watch},
};

impl Keeper {
    /// Finds out which interfaces shall have the programs; the next look is at once.
    pub(super) fn want_attachments(&mut self) {
        let Self {
            netlink,
            watch,
            tunnels_of,
            ways,
            attachments,
            choose_mode,
            next_look,
            ..
        } = self;
        let sees_tags = |parent: &str| match ethernets::keep_tags(parent, netlink) {
            Ok(()) => true,
            Err(error) => {
                warn!("{error:#}; its VLANs' frames are seen later, on their own devices");
                false
            }
        };
        let links = underlays(watch, tunnels_of, ways);
        self.underlays = links.iter().map(|link| link.index).collect();
        let with_vlans = with_vlans(watch);
        for link in links.iter().filter(|link| with_vlans.contains(&link.index)) {
            if let Err(error) = ethernets::keep_tags(&link.name, netlink) {
                warn!(
                    "{error:#}; heartbeats and packets that pass by the stack are taken whatever their VLAN"
                );
            }
        }
        let first_lan = self.locals.len() + self.tunnels.len();
        let lans = (first_lan..).zip(&self.lans).filter_map(|(lan, name)| {
            let link = watch.link(lan)?;
            // A LAN that was renamed is still what its old name says.
            ethernets::obstacle(link, |index| watch.interface(index))
                .is_none()
                .then(|| (link, choose_mode(name)))
        });
        attachments.want(links.into_iter(), lans, watch, &**choose_mode, sees_tags);
        *next_look = BootTime::NEVER;
    }

    /// Before anything of a new interface is made use of: what it must not forward it must not for a
    /// moment.
    pub(super) fn fence(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        let first = self.locals.len() + self.tunnels.len() + self.lans.len();
        let present: Vec<_> = (first..first + self.fences.dependencies().count())
            .map(|dependency| self.watch.link(dependency))
            .collect();
        let outcome = self.fences.act(&present, dataplane);
        self.presents.set_fence_notes(self.fences.notes());
        outcome
    }

    pub(super) fn attach(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        self.attachments.act(dataplane)
    }

    /// Tells the programs and an operator which part interfaces have in forwarding by the stack.
    pub(super) fn tell_parts(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        let Self {
            watch,
            attachments,
            register,
            presents,
            fences,
            ..
        } = self;
        let first_lan = self.locals.len() + self.tunnels.len();
        let lans: BTreeMap<u32, &Link> = (first_lan..first_lan + self.lans.len())
            .filter_map(|lan| watch.link(lan))
            .map(|link| (link.index, link))
            .collect();
        let with_vlans = with_vlans(watch);
        let indices: BTreeSet<u32> = self.underlays.iter().chain(lans.keys()).copied().collect();
        let parts: Vec<Part> = indices
            .into_iter()
            .filter_map(|index| {
                let link = watch.interface(index)?;
                let role = match (self.underlays.contains(&index), lans.contains_key(&index)) {
                    (true, true) => InterfaceRole::Both,
                    (false, true) => InterfaceRole::Lan,
                    (_, false) => InterfaceRole::Underlay,
                };
                let obstacle = if role == InterfaceRole::Underlay {
                    None
                } else {
                    ethernets::obstacle(link, |index| watch.interface(index)).or_else(|| {
                        let error = with_vlans
                            .contains(&index)
                            .then(|| ethernets::keep_tags(&link.name, &self.netlink).err())??;
                        Some(format!("no fast-path: {error:#}"))
                    })
                };
                Some(Part {
                    link,
                    role,
                    obstacle,
                    mode: attachments.mode(link, watch),
                    own_mode: attachments.own_mode(index),
                    has_strict_reverse_path: ethernets::has_strict_reverse_path(&link.name),
                    protected_by: fences.protected_by(index),
                })
            })
            .collect();
        // Without LANs nothing passes by the stack.
        let wanted = if self.lans.is_empty() {
            BTreeMap::new()
        } else {
            let any_native = attachments.any_native();
            let interfaces = parts
                .iter()
                .filter_map(|part| Some((part.link.index, part.interface(any_native)?)));
            interfaces.collect()
        };
        let outcome = register.act(&wanted, dataplane);
        let before = presents.interfaces();
        let mut statuses = Vec::new();
        for part in parts {
            let link = part.link;
            let mut status = part.status(register.get(link.index));
            log_part(&status, before.iter().find(|old| old.name == link.name));
            status.notes.extend(attachments.notes(link, "it"));
            if !link.is_up() {
                status.notes.push("it is down".to_owned());
            }
            statuses.push(status);
        }
        statuses.extend(
            (first_lan..)
                .zip(&self.lans)
                .filter(|(lan, _)| watch.link(*lan).is_none())
                .map(|(_, name)| parts::missing(name)),
        );
        presents.set_interfaces(statuses);
        outcome
    }
}

/// Indices of the interfaces that VLANs' devices lie on.
fn with_vlans(watch: &Watch) -> BTreeSet<u32> {
    watch
        .interfaces()
        .filter(|link| link.vlan_id.is_some())
        .filter_map(|link| link.parent)
        .collect()
}

/// Logs what is new of an interface's part in forwarding by the stack.
fn log_part(now: &InterfaceStatus, before: Option<&InterfaceStatus>) {
    let InterfaceStatus {
        name: interface,
        role,
        fast_path,
        notes,
        ..
    } = now;
    let was_fast = before.is_some_and(|before| before.fast_path);
    if *role != InterfaceRole::Underlay && *fast_path && !was_fast {
        info!(interface, "fast-path enabled");
    }
    for note in notes {
        if before.is_none_or(|before| !before.notes.contains(note)) {
            warn!(interface, "{note}");
        }
    }
}
