//! Addresses that must not meet: of tunnels among each other, and of services.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::diagnostic::{Problem, Report};
use super::super::source::Place;
use super::super::tree::Branch;
use super::super::value::Value;
use super::resources::address_of;
use super::tunnels::{Checked, is_per_link};

#[derive(Clone, Copy)]
struct Use<'a> {
    net: IpNet,
    tunnel: &'a str,
    place: Place,
}

pub(super) fn check(root: &Branch, tunnels: &[Checked], report: &mut Report) {
    overlaps(tunnels, report);
    services(root, tunnels, report);
}

/// Networks are either apart or one within the other, so that after sorting only the chain of
/// those still open has to be looked at, which has an entry per length at most.
fn overlaps(tunnels: &[Checked], report: &mut Report) {
    let mut uses: Vec<Use> = tunnels
        .iter()
        .filter(|tunnel| tunnel.enabled)
        .flat_map(|tunnel| {
            tunnel.addresses.iter().map(|address| Use {
                net: address.value,
                tunnel: &tunnel.name,
                place: address.place,
            })
        })
        .filter(|u| !is_per_link(u.net.addr()))
        .collect();
    uses.sort_by_key(|u| (u.net.network(), u.net.prefix_len(), u.place.start));

    let mut open: Vec<Use> = Vec::new();
    for this in uses {
        while open
            .last()
            .is_some_and(|outer| !outer.net.contains(&this.net.trunc()))
        {
            open.pop();
        }
        let other = open.iter().rev().find(|outer| outer.tunnel != this.tunnel);
        if let Some(other) = other {
            report.add(overlap(this, *other));
        } else if open
            .last()
            .is_none_or(|outer| outer.net.trunc() != this.net.trunc())
        {
            open.push(this);
        }
    }
}

fn overlap(one: Use, other: Use) -> Problem {
    // The later line is the one to blame.
    let (first, second) = if one.place.start < other.place.start {
        (one, other)
    } else {
        (other, one)
    };
    let message = format!(
        "{} of {} and {} of {} overlap",
        second.net, second.tunnel, first.net, first.tunnel
    );
    Problem::error(second.place, message)
        .help("give each tunnel a network of its own")
        .also(first.place, format!("address of {}", first.tunnel))
}

/// An address belongs to one group, and to no tunnel.
fn services(root: &Branch, tunnels: &[Checked], report: &mut Report) {
    let Some(cluster) = root.branch("cluster") else {
        return;
    };
    let mut owners: HashMap<IpAddr, (String, Place)> = HashMap::new();
    for tunnel in tunnels {
        for address in &tunnel.addresses {
            owners.insert(
                address.value.addr(),
                (
                    format!("an address of tunnel {}", tunnel.name),
                    address.place,
                ),
            );
        }
    }
    for tunnel in root
        .branch("interfaces")
        .iter()
        .flat_map(|interfaces| interfaces.instances("tunnel"))
    {
        for end in ["local-ip", "remote-ip"] {
            if let Some(stated) = tunnel.branch.value(end)
                && let Value::Ip(address) = stated.value
            {
                let owner = format!("{end} of tunnel {}", tunnel.name);
                owners.insert(address, (owner, stated.place));
            }
        }
    }
    for group in cluster.instances("group") {
        for stated in group.branch.values("monitor") {
            if let Value::Ip(address) = stated.value {
                let owner = format!("monitor of group {}", group.name);
                owners.insert(address, (owner, stated.place));
            }
        }
    }
    for group in cluster.instances("group") {
        for stated in group.branch.values("service") {
            let Some(address) = address_of(&stated.value) else {
                continue;
            };
            if let Some((owner, place)) = owners.get(&address) {
                report.add(
                    Problem::error(stated.place, format!("{address} is {owner} already"))
                        .help("an address moves with one group only, and has no other use")
                        .also(*place, "stated first here"),
                );
            } else {
                owners.insert(
                    address,
                    (format!("a service of group {}", group.name), stated.place),
                );
            }
        }
    }
}
