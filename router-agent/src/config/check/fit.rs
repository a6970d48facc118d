//! What of a tunnel goes with its encapsulation, with its underlay and with its addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use router_common::net::IPV6_MINIMUM_MTU;

use super::super::diagnostic::{Problem, Report};
use super::super::model::{Encapsulation, GreKey};
use super::super::tree::{Branch, Instance, Stated};
use super::super::value::Value;
use super::endpoints::{Ends, family};
use super::tunnels::{key, parameters};

/// `encapsulation` is none if it is missing or wrong; what depends on it is not checked then.
pub(super) fn check(
    instance: &Instance,
    ends: &Ends,
    encapsulation: Option<&Stated<Encapsulation>>,
    addresses: &[Stated<IpNet>],
    report: &mut Report,
) {
    outer_header(instance, ends, report);
    keepalive(instance, ends, encapsulation, report);
    epoch(instance, report);
    if let Some(encapsulation) = encapsulation {
        adjust_mss(instance, encapsulation, report);
        bridge_group(instance, encapsulation, addresses, report);
    }
    mtu(instance, addresses, report);
}

/// Fields of the header that the underlay does not have. Each comes with the node that says the
/// same for the other header, if there is one.
const OF_IPV4: [(&str, Option<&str>); 2] = [("tos", Some("tclass")), ("ttl", Some("hoplimit"))];
const OF_IPV6: [(&str, Option<&str>); 4] = [
    ("encaplimit", None),
    ("flowlabel", None),
    ("hoplimit", Some("ttl")),
    ("tclass", Some("tos")),
];

fn outer_header(instance: &Instance, ends: &Ends, report: &mut Report) {
    let Some(end) = ends.underlay() else {
        return;
    };
    let (header, fields, other): (_, &[_], _) = if end.value.is_ipv4() {
        ("ipv6", &OF_IPV6, "ip")
    } else {
        ("ip", &OF_IPV4, "ipv6")
    };
    let name = &instance.name;
    let path = format!("set interfaces tunnel {name} parameters");
    if let Some(stated) = parameters(&instance.branch, header) {
        for (field, equivalent) in fields {
            let Some(value) = stated.value(field) else {
                continue;
            };
            let problem = Problem::error(
                value.place,
                format!(
                    "`parameters {header} {field}` is of an outer {} header, but {name} goes over {}",
                    other_family(end.value),
                    family(end.value)
                ),
            )
            .also(end.place, format!("the underlay is {}", family(end.value)));
            report.add(problem.help(match equivalent {
                Some(equivalent) => format!("write `{path} {other} {equivalent}` instead"),
                None => format!("remove the line `{path} {header} {field}`"),
            }));
        }
    }
    if !end.value.is_ipv4() {
        encapsulation_limit(parameters(&instance.branch, "ipv6"), &path, report);
    }
}

fn other_family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv6" } else { "IPv4" }
}

fn encapsulation_limit(ipv6: Option<&Branch>, path: &str, report: &mut Report) {
    if let Some(stated) = ipv6.and_then(|ipv6| ipv6.value("encaplimit"))
        && let Value::Number(limit) = stated.value
    {
        report.add(
            Problem::error(
                stated.place,
                format!(
                    "this version sends no encapsulation limit, and so not {limit}; it accepts one from the far end"
                ),
            )
            .help(format!("write `{path} ipv6 encaplimit none`")),
        );
    }
}

fn keepalive(
    instance: &Instance,
    ends: &Ends,
    encapsulation: Option<&Stated<Encapsulation>>,
    report: &mut Report,
) {
    let Some(keepalive) = instance.branch.branch("keepalive") else {
        return;
    };
    let name = &instance.name;
    let help = format!(
        "remove the lines that begin with `set interfaces tunnel {name} keepalive`; heartbeats of a cluster tell in any tunnel whether the other router lives"
    );
    if let Some(encapsulation) = encapsulation
        && encapsulation.value != Encapsulation::Gre
    {
        let message = format!(
            "only `gre` tunnels send keepalives, and {name} is `{}`",
            encapsulation.value
        );
        report.add(
            Problem::error(keepalive.place, message)
                .help(help.as_str())
                .also(encapsulation.place, "the encapsulation"),
        );
    }
    if let Some(end) = ends.underlay()
        && !end.value.is_ipv4()
    {
        report.add(
            Problem::error(
                keepalive.place,
                format!("keepalives go over IPv4 only, and {name} goes over IPv6"),
            )
            .help(help)
            .also(end.place, "the underlay is IPv6"),
        );
    }
}

fn epoch(instance: &Instance, report: &mut Report) {
    let name = &instance.name;
    let Some(gre) = parameters(&instance.branch, "ip") else {
        return;
    };
    let is_epoch = key(gre) == Some(GreKey::ClusterEpoch);
    if let Some(domain) = gre.value("epoch-domain")
        && !is_epoch
        && !gre.is_broken("key")
    {
        report.add(
            Problem::error(
                domain.place,
                format!("{name} receives no epochs, of whichever domain"),
            )
            .help(format!(
                "add `set interfaces tunnel {name} parameters ip key cluster-epoch`, or remove the line"
            )),
        );
    }
    if let Some(stated) = gre.value("key").filter(|_| is_epoch)
        && let Some(keepalive) = instance.branch.branch("keepalive")
    {
        report.add(
            Problem::error(
                keepalive.place,
                format!("keepalives would not come back to {name}: nobody renews the epoch in them"),
            )
            .help(format!(
                "remove the lines that begin with `set interfaces tunnel {name} keepalive`, or give the tunnel a key that is a number"
            ))
            .also(stated.place, "the key is an epoch"),
        );
    }
}

fn adjust_mss(instance: &Instance, encapsulation: &Stated<Encapsulation>, report: &mut Report) {
    if encapsulation.value != Encapsulation::GreBridge {
        return;
    }
    let stated = parameters(&instance.branch, "ip").and_then(|ip| ip.value("adjust-mss"));
    if let Some(stated) = stated {
        let name = &instance.name;
        report.add(
            Problem::error(
                stated.place,
                format!("{name} carries whole frames, whose TCP it does not look into"),
            )
            .help(format!(
                "remove the line `set interfaces tunnel {name} parameters ip adjust-mss`, and adjust where the packets are routed"
            ))
            .also(encapsulation.place, "the encapsulation"),
        );
    }
}

fn bridge_group(
    instance: &Instance,
    encapsulation: &Stated<Encapsulation>,
    addresses: &[Stated<IpNet>],
    report: &mut Report,
) {
    let group = parameters(&instance.branch, "ip").and_then(|ip| ip.branch("bridge-group"));
    let Some(group) = group else {
        return;
    };
    let name = &instance.name;
    if encapsulation.value != Encapsulation::GreBridge {
        report.add(
            Problem::error(
                group.place,
                format!(
                    "a port of a bridge carries whole frames, and {name} is `{}`",
                    encapsulation.value
                ),
            )
            .help(format!(
                "write `set interfaces tunnel {name} encapsulation gre-bridge`, on both routers, or remove the lines of `bridge-group`"
            ))
            .also(encapsulation.place, "the encapsulation"),
        );
        return;
    }
    let bridge = group.value("bridge").map(|stated| &stated.value);
    let Some(Value::Text(bridge)) = bridge else {
        return;
    };
    // The stack hands what a port receives to the bridge: nothing would answer at the address.
    for address in addresses {
        report.add(
            Problem::error(
                address.place,
                format!(
                    "{name} is a port of bridge {bridge}, and a port has no address of its own"
                ),
            )
            .help(format!(
                "remove the line, and give the bridge the address (`ip address add {} dev {bridge}`)",
                address.value
            ))
            .also(group.place, "the port is stated here"),
        );
    }
}

fn mtu(instance: &Instance, addresses: &[Stated<IpNet>], report: &mut Report) {
    let ipv6 = addresses.iter().find(|a| a.value.addr().is_ipv6());
    let (Some(ipv6), Some(stated)) = (ipv6, instance.branch.value("mtu")) else {
        return;
    };
    if let Value::Number(mtu) = stated.value
        && mtu < IPV6_MINIMUM_MTU
    {
        let name = &instance.name;
        report.add(
            Problem::error(
                stated.place,
                format!("{name} has an IPv6 address, and IPv6 needs an MTU of {IPV6_MINIMUM_MTU} bytes at least, not {mtu}"),
            )
            .help(format!(
                "write `set interfaces tunnel {name} mtu {IPV6_MINIMUM_MTU}` or more, or remove the IPv6 address"
            ))
            .also(ipv6.place, "the IPv6 address"),
        );
    }
}
