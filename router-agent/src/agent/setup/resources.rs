//! What moves with the groups, and what is told and watched of it.

use std::{collections::HashSet, sync::Arc};

use anyhow::Result;
use ipnet::IpNet;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use super::{super::report::Report, groups::Beginning};
use crate::{
    cloud::Cloud,
    config::{Config, Group, Role, Service},
    duplicate::Lookout,
    net::{Address, Netlink},
    takeover::{
        AwsTarget, GroupResources, Resource, RouteTarget, ServiceTarget, conntrack::Conntrackd,
        notify::Notifier,
    },
};

/// Clears away what an earlier agent left and is not to go on; what moves with each group.
pub async fn gather(
    config: &Config,
    beginnings: &[Beginning],
    targets: Vec<Vec<ServiceTarget>>,
    mut conntrackd: Option<Conntrackd>,
    netlink: &Netlink,
) -> Vec<GroupResources> {
    let to_clear = beginnings.iter().zip(&targets);
    let to_clear = to_clear.filter(|(beginning, _)| !beginning.is_active);
    clear_services(to_clear.flat_map(|(_, targets)| targets), netlink).await;
    clear_other_services(&targets, netlink).await;
    let groups = config.groups().iter();
    let of_active = groups.clone().zip(beginnings).filter(|(_, b)| b.is_active);
    let kept = of_active.flat_map(|(group, _)| &group.routes);
    clear_routes(&kept.map(|route| route.destination).collect(), netlink).await;
    groups
        .zip(targets)
        .zip(beginnings)
        .map(|((group, targets), beginning)| {
            let of_group = group
                .conntrack_sync
                .as_ref()
                .and_then(|_| conntrackd.take());
            resources(group, targets, of_group, beginning.is_active)
        })
        .collect()
}

/// What moves with a group, in the order of [`Group::resources`].
fn resources(
    group: &Group,
    targets: Vec<ServiceTarget>,
    conntrackd: Option<Conntrackd>,
    is_active: bool,
) -> GroupResources {
    let mut targets = targets.into_iter();
    let services = group.services.iter().filter_map(|service| match service {
        Service::Address(_) => targets.next().map(Resource::Address),
        Service::Unit(name) => Some(Resource::Unit(name.clone())),
        Service::Script(call) => Some(Resource::script(call.clone())),
    });
    let routes = group.routes.iter().cloned().map(RouteTarget);
    let aws = group.aws.iter().flat_map(|aws| {
        let cloud = Arc::new(Cloud::new(aws.clone()));
        aws.resources.iter().map(move |resource| AwsTarget {
            cloud: Arc::clone(&cloud),
            resource: resource.clone(),
        })
    });
    GroupResources {
        name: group.name.clone(),
        resources: services
            .chain(routes.map(Resource::Route))
            .chain(aws.map(Resource::Aws))
            .chain(conntrackd.map(Resource::Connections))
            .collect(),
        check: group
            .is_checked()
            .then(|| group.monitor_names().count() - 1),
        is_active,
    }
}

/// What watches over the groups' service addresses, if they have any.
pub fn lookout(
    config: &Config,
    netlink: &Netlink,
    reports: &UnboundedSender<Report>,
) -> Result<Option<Lookout>> {
    let addresses: Vec<_> = config.service_addresses().collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    Lookout::open(&addresses, netlink.clone(), reports.clone()).map(Some)
}

/// Starts what tells the scripts of those groups that have one.
pub fn notifiers(config: &Config) -> Vec<Option<Notifier>> {
    /// As in keepalived, the higher one is preferred.
    const PRIORITIES: (u8, u8) = (100, 50);
    let groups = config.groups().iter();
    groups
        .map(|group| {
            let node = &config.host_name;
            let priority = match group.role_of(node) {
                Some(Role::Primary) => PRIORITIES.0,
                // The check refuses a host that is neither.
                Some(Role::Secondary) | None => PRIORITIES.1,
            };
            let script = group.notify.clone()?;
            Some(Notifier::start(
                script,
                group.name.clone(),
                node.clone(),
                priority,
            ))
        })
        .collect()
}

/// Removes the routes that an earlier agent left, but for those to `kept`.
pub async fn clear_routes(kept: &HashSet<IpNet>, netlink: &Netlink) {
    let removed = netlink.remove_active_routes(|to| !kept.contains(&to)).await;
    if let Err(error) = removed {
        warn!("cannot clear routes of before: {error:#}");
    }
}

/// Removes service addresses that an earlier agent took and the configuration does not name any more.
async fn clear_other_services(targets: &[Vec<ServiceTarget>], netlink: &Netlink) {
    let known: Vec<_> = targets
        .iter()
        .flatten()
        .map(ServiceTarget::address)
        .collect();
    match netlink.remove_other_services(&known).await {
        Ok(removed) => {
            for Address { net, .. } in removed {
                info!("{net} is no service any more, and removed");
            }
        }
        Err(error) => warn!("cannot clear services of before: {error:#}"),
    }
}

/// Removes service addresses that an earlier agent left.
pub async fn clear_services(targets: impl Iterator<Item = &ServiceTarget>, netlink: &Netlink) {
    for target in targets {
        if let Err(error) = target.release(netlink).await {
            warn!(%target, "cannot clear a service address: {error:#}");
        }
    }
}
