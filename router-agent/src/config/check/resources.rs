//! What moves with a group: services, routes, and what of AWS.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::super::diagnostic::{Problem, Report};
use super::super::resources::{Aws, AwsResource, KernelRoute, Service, Way};
use super::super::source::Place;
use super::super::tree::{Branch, Instance};
use super::super::value::Value;
use super::{nodes_at, or_default, text};

/// The units, scripts and addresses, in the order in which they start.
pub(super) fn services(group: &Branch) -> Vec<Service> {
    let stated = group.values("service").iter();
    stated
        .filter_map(|stated| match &stated.value {
            Value::Service(service) => Some(service.clone()),
            _ => None,
        })
        .collect()
}

/// The routes of a group, those that are stated well.
pub(super) fn routes(group: &Branch, report: &mut Report) -> Vec<KernelRoute> {
    let instances = group.instances("route").iter();
    instances
        .filter_map(|instance| route(instance, report))
        .collect()
}

fn route(instance: &Instance, report: &mut Report) -> Option<KernelRoute> {
    let Instance { name, branch } = instance;
    // The tag's type has seen to it.
    let destination: IpNet = name.parse().ok()?;
    let next_hop = branch.value("next-hop");
    let interface = text(branch, "interface");
    let way = match (next_hop, interface) {
        (Some(stated), None) => {
            let Value::Ip(address) = stated.value else {
                return None;
            };
            if address.is_ipv4() != destination.addr().is_ipv4() {
                report.add(
                    Problem::error(
                        stated.place,
                        format!("{address} cannot be the way to {destination}: one is IPv4, the other IPv6"),
                    )
                    .help("state a next-hop of the same family"),
                );
                return None;
            }
            Way::NextHop(address)
        }
        (None, Some(interface)) => Way::Interface(interface.value),
        (Some(one), Some(other)) => {
            report.add(
                Problem::error(
                    other.place,
                    format!("the route to {destination} has two ways"),
                )
                .help("keep `next-hop` or `interface`")
                .also(one.place, "the first one"),
            );
            return None;
        }
        (None, None) => {
            if !branch.is_broken("next-hop") && !branch.is_broken("interface") {
                report.add(
                    Problem::error(
                        branch.place,
                        format!("the route to {destination} leads nowhere"),
                    )
                    .help("add `next-hop ADDRESS` or `interface ethN` to it"),
                );
            }
            return None;
        }
    };
    Some(KernelRoute { destination, way })
}

/// `cluster group NAME aws`.
pub(super) fn aws(group: &Branch, report: &mut Report) -> Option<Aws> {
    let branch = group.branch("aws")?;
    let resources: Vec<_> = aws_resources(branch)
        .into_iter()
        .map(|(resource, _)| resource)
        .collect();
    let has_broken = ["route-table", "elastic-ip", "private-ip"]
        .iter()
        .any(|name| branch.is_broken(name));
    if resources.is_empty() && !has_broken {
        report.add(
            Problem::warning(branch.place, "nothing of AWS is named that moves with the group")
                .help("add `route-table rtb-… destination NETWORK`, `elastic-ip eipalloc-…` or `private-ip ADDRESS`"),
        );
    }
    let nodes = nodes_at(&["cluster", "group", "aws"]);
    let Some(Value::Number(seconds)) = or_default(Some(branch), nodes, "verify-interval") else {
        return None;
    };
    let stated = |name| text(branch, name).map(|stated| stated.value);
    Some(Aws {
        resources,
        interface: stated("interface"),
        region: stated("region"),
        endpoint: stated("endpoint"),
        verify_interval: Duration::from_secs(seconds.into()),
    })
}

fn aws_resources(aws: &Branch) -> Vec<(AwsResource, Place)> {
    let routes = aws.instances("route-table").iter().flat_map(|table| {
        let destinations = table.branch.values("destination").iter();
        destinations.filter_map(|stated| match &stated.value {
            Value::RouteDestination(destination) => Some((
                AwsResource::Route {
                    table: table.name.clone(),
                    destination: destination.clone(),
                },
                stated.place,
            )),
            _ => None,
        })
    });
    let elastic = aws.values("elastic-ip").iter();
    let elastic = elastic.filter_map(|stated| match &stated.value {
        Value::Text(allocation) => Some((AwsResource::ElasticIp(allocation.clone()), stated.place)),
        _ => None,
    });
    let private = aws.values("private-ip").iter();
    let private = private.filter_map(|stated| match stated.value {
        Value::Ipv4(address) => Some((AwsResource::PrivateIp(address), stated.place)),
        _ => None,
    });
    routes.chain(elastic).chain(private).collect()
}

/// Two groups, active on different nodes, would take it from each other for ever. Addresses have a
/// check of their own.
pub(super) fn belong_to_one_group(groups: &[Instance], report: &mut Report) {
    let mut owners = HashMap::new();
    for Instance {
        name: group,
        branch,
    } in groups
    {
        let mut claim = |what: &dyn Display, place| {
            let what = what.to_string();
            match owners.get(&what) {
                Some((owner, first)) if owner != group => report.add(
                    Problem::error(place, format!("{what} moves with group `{owner}` already"))
                        .help("keep one of the two lines: it can be in one place only")
                        .also(*first, "the first one"),
                ),
                Some(_) => {}
                None => {
                    owners.insert(what, (group.clone(), place));
                }
            }
        };
        for stated in branch.values("service") {
            if let Value::Service(service @ (Service::Unit(_) | Service::Script(_))) = &stated.value
            {
                claim(service, stated.place);
            }
        }
        for route in branch.instances("route") {
            claim(
                &format_args!("the route to {}", route.name),
                route.branch.place,
            );
        }
        for (resource, place) in branch.branch("aws").map_or_else(Vec::new, aws_resources) {
            claim(&resource, place);
        }
    }
}

/// An address of a service; `None` for what is none.
pub(super) fn address_of(value: &Value) -> Option<IpAddr> {
    match value {
        Value::Service(Service::Address(service)) => Some(service.address.addr()),
        _ => None,
    }
}
