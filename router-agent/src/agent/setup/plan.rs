//! What the system has of what a configuration asks for, found out without changing anything.

use std::{collections::HashMap, net::IpAddr};

use anyhow::Result;

use super::super::{
    Options, ethernets,
    keeper::fences,
    preflight::{self, Problem, Unfit},
};
use crate::{
    arbiter::{self, Etcd, Unusable},
    config::{Config, Group, Service, Track, Tracked, Way},
    net::{Address, Link, Netlink, dataplane_end},
    takeover::{
        ServiceTarget,
        command::check_executable,
        conntrack::{self, Conntrackd},
        find_script,
    },
};

/// What the system showed to be possible.
pub struct Plan {
    /// The underlay of each tunnel, in the configuration's order.
    pub underlays: Vec<Link>,
    /// The service addresses of each group.
    pub targets: Vec<Vec<ServiceTarget>>,
    /// If the connections of a group are told.
    pub conntrackd: Option<Conntrackd>,
    /// If an arbiter is configured.
    pub etcd: Option<Asking>,
}

/// What it takes to ask the arbiter.
pub struct Asking {
    pub etcd: Etcd,
    /// Of the groups' records, in the groups' order.
    pub keys: Vec<String>,
}

/// Looks at the system without changing it.
pub async fn plan(config: &Config, options: &Options, netlink: &Netlink) -> Result<Plan> {
    let mut problems = preflight::system_problems(&options.bpffs);
    let links = netlink.links().await?;
    let addresses = netlink.addresses().await?;
    let holders = holders(&links, &addresses);
    let by_name: HashMap<_, _> = links.iter().map(|link| (&*link.name, link)).collect();
    let mut underlays = Vec::new();
    for tunnel in &config.tunnels {
        match holders.get(&tunnel.local_ip) {
            Some(link) if link.leads_nowhere() => {
                let way = netlink.way(tunnel.local_ip, tunnel.remote_ip).await?;
                match links.iter().find(|link| Some(link.index) == way) {
                    Some(link) => underlays.push(link.clone()),
                    None => problems.push(Problem::new(
                        format!(
                            "tunnel {}: local-ip {} is on {}, and there is no route to remote-ip {}",
                            tunnel.name, tunnel.local_ip, link.name, tunnel.remote_ip
                        ),
                        format!("add a route; `ip route get {}` shows it", tunnel.remote_ip),
                    )),
                }
            }
            Some(link) => underlays.push(Link::clone(link)),
            None => problems.push(Problem::new(
                format!(
                    "tunnel {}: local-ip {} is on no interface of this system",
                    tunnel.name, tunnel.local_ip
                ),
                format!(
                    "add the address (`ip address add {}/24 dev eth0`), or set the local-ip that \
                     `ip address` shows",
                    tunnel.local_ip
                ),
            )),
        }
        for name in [tunnel.name.clone(), dataplane_end(&tunnel.name)] {
            if by_name.get(&*name).is_some_and(|link| !link.is_ours()) {
                problems.push(Problem::new(
                    format!("interface {name} exists already, and router-agent did not make it"),
                    format!("delete it (`ip link delete {name}`) or give the tunnel another name"),
                ));
            }
        }
    }
    problems.extend(missing_interfaces(config, &by_name));
    problems.extend(ethernets::unfit(config, &links));
    let targets = (config.groups().iter())
        .map(|group| targets(group, &links, &addresses, &mut problems))
        .collect();
    let files = conntrack::Files::of_namespace()?;
    let conntrackd = conntrackd(config, files, &links, &addresses).unwrap_or_else(|unusable| {
        problems.push(Problem::new(
            format!("service conntrack-sync: {unusable}"),
            unusable.remedy(),
        ));
        None
    });
    let etcd = asking(config).unwrap_or_else(|unusable| {
        problems.push(Problem::new(
            format!("arbiter etcd: {unusable}"),
            unusable.remedy(),
        ));
        None
    });
    if problems.is_empty() {
        Ok(Plan {
            underlays,
            targets,
            conntrackd,
            etcd,
        })
    } else {
        Err(Unfit(problems).into())
    }
}

/// The service addresses of a group. What else it needs of the system, and lacks, is a problem.
fn targets(
    group: &Group,
    links: &[Link],
    addresses: &[Address],
    problems: &mut Vec<Problem>,
) -> Vec<ServiceTarget> {
    let mut found = Vec::new();
    for service in &group.services {
        let (error, remedy) = match service {
            Service::Address(address) => match ServiceTarget::find(address, links, addresses) {
                Ok(target) => {
                    found.push(target);
                    continue;
                }
                Err(error) => (error, "`ip link` and `ip address` show what there is"),
            },
            Service::Script(call) => match find_script(call) {
                Ok(_) => continue,
                Err(error) => (error, "install the script, or correct its name"),
            },
            // Whether systemd knows it is asked again and again.
            Service::Unit(_) => continue,
        };
        problems.push(Problem::new(
            format!("group {}: {error}", group.name),
            remedy,
        ));
    }
    for Tracked { track, weight: _ } in &group.tracks {
        if let Track::Script { program, .. } = track
            && let Err(error) = check_executable(program)
        {
            problems.push(Problem::new(
                format!("group {}: {track}: {error:#}", group.name),
                "install the script, or correct its path",
            ));
        }
    }
    found
}

/// What tells of connections, if they are to be told.
fn conntrackd(
    config: &Config,
    files: conntrack::Files,
    links: &[Link],
    addresses: &[Address],
) -> Result<Option<Conntrackd>, conntrack::Unusable> {
    let mut groups = config.groups().iter();
    let Some(sync) = groups.find_map(|group| group.conntrack_sync.as_ref()) else {
        return Ok(None);
    };
    let ways = conntrack::Ways::find(sync, config, links, addresses)?;
    Conntrackd::new(&ways, files).map(Some)
}

/// Reads what the configuration names of certificates and passwords.
fn asking(config: &Config) -> Result<Option<Asking>, Unusable> {
    let Some(cluster) = &config.cluster else {
        return Ok(None);
    };
    let Some(etcd) = &cluster.arbiter else {
        return Ok(None);
    };
    let key = |group| arbiter::key(etcd, group);
    Ok(Some(Asking {
        etcd: arbiter::client(etcd)?,
        keys: cluster.groups.iter().map(key).collect(),
    }))
}

/// Interfaces that the configuration names and the system does not have.
fn missing_interfaces(config: &Config, by_name: &HashMap<&str, &Link>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for tunnel in &config.tunnels {
        let Some(port) = &tunnel.bridge else {
            continue;
        };
        let bridge = &port.bridge;
        if by_name
            .get(&**bridge)
            .is_none_or(|link| link.kind.as_deref() != Some("bridge"))
        {
            problems.push(Problem::new(
                format!("tunnel {}: there is no bridge {bridge}", tunnel.name),
                format!("create it (`ip link add {bridge} type bridge`), or name one that `ip link show type bridge` shows"),
            ));
        }
    }
    for fences::Protected { interface, .. } in fences::protected(config) {
        match by_name.get(&*interface) {
            None => problems.push(Problem::new(
                format!("interface {interface}, which is to be protected, does not exist"),
                "`ip link` shows what there is",
            )),
            Some(link) => problems.extend(unfit_for_a_fence(link, by_name)),
        }
    }
    let groups = config.groups().iter();
    for route in groups.flat_map(|group| &group.routes) {
        if let Way::Interface(name) = &route.way
            && !by_name.contains_key(&**name)
        {
            problems.push(Problem::new(
                format!("{route}: there is no interface {name}"),
                "`ip link` shows what there is",
            ));
        }
    }
    for ethernet in &config.ethernets {
        if !by_name.contains_key(&*ethernet.name) {
            problems.push(Problem::new(
                format!("interface {} does not exist", ethernet.name),
                "`ip link` shows what there is",
            ));
        }
    }
    problems
}

/// Why a fence on an interface would not see what is forwarded.
fn unfit_for_a_fence(link: &Link, by_name: &HashMap<&str, &Link>) -> Option<Problem> {
    let name = &link.name;
    if link.is_vrf() {
        return Some(Problem::new(
            format!(
                "interface {name} is a VRF: what is forwarded passes its members, and not itself"
            ),
            format!("protect those of its members that `ip link show master {name}` shows"),
        ));
    }
    let find = |index| by_name.values().copied().find(|link| link.index == index);
    ethernets::is_port(link, find).then(|| {
        Problem::new(
            format!("interface {name} is part of another: its packets are not its own"),
            "protect the bridge or bond that `ip link` shows behind `master`",
        )
    })
}

/// The first interface that has each address.
fn holders<'a>(links: &'a [Link], addresses: &[Address]) -> HashMap<IpAddr, &'a Link> {
    let by_index: HashMap<_, _> = links.iter().map(|link| (link.index, link)).collect();
    let mut holders = HashMap::new();
    for Address { link_index, net } in addresses {
        if let Some(link) = by_index.get(link_index) {
            holders.entry(net.addr()).or_insert(*link);
        }
    }
    holders
}
