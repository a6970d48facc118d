//! `interfaces tunnel`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::super::diagnostic::{Problem, Report};
use super::super::model::Tunnel;
use super::super::source::Place;
use super::super::tree::{Branch, Instance, Stated};
use super::super::value::{Value, header_byte};
use super::{nodes_at, or_default, text};

/// A tunnel as stated. What the checks of other parts need is here also if the model is not.
pub(super) struct Checked {
    pub name: String,
    pub place: Place,
    pub enabled: bool,
    pub addresses: Vec<Stated<IpNet>>,
    /// Some addresses are stated wrongly.
    pub addresses_broken: bool,
    pub multicast: Option<bool>,
    /// None if something is missing or wrong, which is reported.
    pub model: Option<Tunnel>,
}

pub(super) fn check(root: &Branch, report: &mut Report) -> Vec<Checked> {
    let Some(interfaces) = root.branch("interfaces") else {
        return Vec::new();
    };
    let instances = interfaces.instances("tunnel");
    let mut seen = HashMap::new();
    for instance in instances.iter().filter(|i| is_enabled(i)) {
        endpoints(instance, &mut seen, report);
    }
    instances.iter().map(checked).collect()
}

fn is_enabled(instance: &Instance) -> bool {
    !instance.branch.has("disable")
}

type Endpoints = (Ipv4Addr, Ipv4Addr, Option<u32>);

/// Packets find their tunnel by addresses and key, so no two tunnels may share them.
fn endpoints<'a>(
    instance: &'a Instance,
    seen: &mut HashMap<Endpoints, (&'a str, Place)>,
    report: &mut Report,
) {
    let branch = &instance.branch;
    let (Some(local), Some(remote)) = (ipv4(branch, "local-ip"), ipv4(branch, "remote-ip")) else {
        return;
    };
    let name = instance.name.as_str();
    if local.value == remote.value {
        report.add(
            Problem::error(
                remote.place,
                format!("both ends of {name} have the address {}", remote.value),
            )
            .help(format!(
                "`set interfaces tunnel {name} remote-ip` takes the address of the other router"
            ))
            .also(local.place, "the other end"),
        );
        return;
    }
    let parameters = branch.branch("parameters").and_then(|p| p.branch("ip"));
    if parameters.is_some_and(|ip| ip.is_broken("key")) {
        return;
    }
    let key = key(parameters);
    let what = match key {
        Some(key) => format!("from {} to {} with key {key}", local.value, remote.value),
        None => format!("from {} to {} without a key", local.value, remote.value),
    };
    if let Some((other, place)) = seen.get(&(local.value, remote.value, key)) {
        report.add(
            Problem::error(
                remote.place,
                format!("{name} and {other} are the same tunnel: {what}"),
            )
            .help(format!(
                "give each a key of its own, the same on both routers: `set interfaces tunnel {name} parameters ip key NUMBER`"
            ))
            .also(*place, format!("{other} is stated here")),
        );
        return;
    }
    seen.insert((local.value, remote.value, key), (name, remote.place));
}

fn key(parameters: Option<&Branch>) -> Option<u32> {
    match parameters?.value("key")?.value {
        Value::Number(key) => Some(key),
        _ => None,
    }
}

fn ipv4(branch: &Branch, name: &str) -> Option<Stated<Ipv4Addr>> {
    let stated = branch.value(name)?;
    match stated.value {
        Value::Ipv4(value) => Some(Stated {
            value,
            place: stated.place,
        }),
        _ => None,
    }
}

fn checked(instance: &Instance) -> Checked {
    let branch = &instance.branch;
    let addresses: Vec<_> = branch
        .values("address")
        .iter()
        .filter_map(|stated| match stated.value {
            Value::Net(value) => Some(Stated {
                value,
                place: stated.place,
            }),
            _ => None,
        })
        .collect();
    let multicast = match or_default(
        Some(branch),
        nodes_at(&["interfaces", "tunnel"]),
        "multicast",
    ) {
        _ if branch.is_broken("multicast") => None,
        Some(Value::Word(word)) => Some(word == "enable"),
        _ => None,
    };
    Checked {
        name: instance.name.clone(),
        place: branch.place,
        enabled: is_enabled(instance),
        addresses_broken: branch.is_broken("address"),
        multicast,
        model: model(instance, &addresses, multicast),
        addresses,
    }
}

fn model(
    instance: &Instance,
    addresses: &[Stated<IpNet>],
    multicast: Option<bool>,
) -> Option<Tunnel> {
    let branch = &instance.branch;
    let parameters = branch.branch("parameters").and_then(|p| p.branch("ip"));
    let nodes = nodes_at(&["interfaces", "tunnel", "parameters", "ip"]);
    Some(Tunnel {
        name: instance.name.clone(),
        addresses: addresses.iter().map(|stated| stated.value).collect(),
        description: text(branch, "description").map(|stated| stated.value),
        enabled: is_enabled(instance),
        local_ip: ipv4(branch, "local-ip")?.value,
        remote_ip: ipv4(branch, "remote-ip")?.value,
        mtu: match branch.value("mtu").map(|stated| &stated.value) {
            Some(Value::Number(mtu)) => u16::try_from(*mtu).ok(),
            _ => None,
        },
        multicast: multicast?,
        key: key(parameters),
        ttl: header_byte(&or_default(parameters, nodes, "ttl")?, true)?,
        tos: header_byte(&or_default(parameters, nodes, "tos")?, false)?,
    })
}

impl Checked {
    pub fn has_ipv4(&self) -> bool {
        self.addresses.iter().any(|a| a.value.addr().is_ipv4())
    }
}

/// Whether an address means something on each link by itself, so that several may have it.
pub(super) fn is_per_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
