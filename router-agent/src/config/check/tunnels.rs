//! `interfaces tunnel`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::super::diagnostic::Report;
use super::super::model::{
    AdjustMss, BridgePort, Encapsulation, FlowLabel, GreKey, HeaderByte, Keepalive, Tunnel,
};
use super::super::schema::Node;
use super::super::source::Place;
use super::super::tree::{Branch, Instance, Stated};
use super::super::value::{Value, header_byte};
use super::endpoints::{Ends, Seen, Wire};
use super::{below, fit, is_enable, nodes_at, or_default, text};

/// A tunnel as stated. What the checks of other parts need is here also if the model is not.
pub(super) struct Checked {
    pub name: String,
    pub place: Place,
    pub enabled: bool,
    pub addresses: Vec<Stated<IpNet>>,
    /// Some addresses are stated wrongly.
    pub addresses_broken: bool,
    pub multicast: Option<bool>,
    /// None if it is missing or wrong.
    pub encapsulation: Option<Stated<Encapsulation>>,
    /// Where it is stated, if it is.
    pub checksum: Option<Place>,
    pub sequence: Option<Place>,
    /// Where it is stated that the key is an epoch, if it is.
    pub epoch_key: Option<Place>,
    /// None if something is missing or wrong, which is reported.
    pub model: Option<Tunnel>,
}

pub(super) fn check(root: &Branch, report: &mut Report) -> Vec<Checked> {
    let Some(interfaces) = root.branch("interfaces") else {
        return Vec::new();
    };
    let mut seen = Seen::default();
    interfaces
        .instances("tunnel")
        .iter()
        .map(|instance| checked(instance, &mut seen, report))
        .collect()
}

/// `parameters ip` or `parameters ipv6`, if something of it is stated.
pub(super) fn parameters<'a>(tunnel: &'a Branch, header: &str) -> Option<&'a Branch> {
    tunnel.branch("parameters")?.branch(header)
}

fn checked<'a>(instance: &'a Instance, seen: &mut Seen<'a>, report: &mut Report) -> Checked {
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
    let ends = Ends::of(branch);
    let encapsulation = encapsulation(branch);
    let gre = parameters(branch, "ip");
    let key_is_broken = gre.is_some_and(|gre| gre.is_broken("key"));
    let wire = match &encapsulation {
        Some(encapsulation) if !key_is_broken => Some(Wire {
            encapsulation: encapsulation.value,
            key: gre.and_then(key),
        }),
        _ => None,
    };
    seen.check(instance, &ends, wire, report);
    fit::check(instance, &ends, encapsulation.as_ref(), &addresses, report);
    let flag = |name| gre?.value(name).map(|stated| stated.place);
    let is_epoch = gre.and_then(key) == Some(GreKey::ClusterEpoch);
    let mut checked = Checked {
        name: instance.name.clone(),
        place: branch.place,
        enabled: !branch.has("disable"),
        addresses,
        addresses_broken: branch.is_broken("address"),
        multicast: (!branch.is_broken("multicast"))
            .then(|| is_enable(Some(branch), tunnel_nodes(&[]), "multicast"))
            .flatten(),
        encapsulation,
        checksum: flag("checksum"),
        sequence: flag("sequence"),
        epoch_key: flag("key").filter(|_| is_epoch),
        model: None,
    };
    checked.model = model(branch, &checked, &ends);
    checked
}

fn encapsulation(branch: &Branch) -> Option<Stated<Encapsulation>> {
    let stated = branch.value("encapsulation")?;
    let value = match stated.value {
        Value::Word("gre") => Encapsulation::Gre,
        Value::Word("gre-bridge") => Encapsulation::GreBridge,
        Value::Word("gre-udp") => Encapsulation::GreUdp,
        _ => return None,
    };
    Some(Stated {
        value,
        place: stated.place,
    })
}

fn model(branch: &Branch, checked: &Checked, ends: &Ends) -> Option<Tunnel> {
    let (local, remote) = ends.both()?;
    let gre = parameters(branch, "ip");
    let OuterHeader {
        ttl,
        tos,
        flow_label,
    } = outer_header(branch, local.value)?;
    Some(Tunnel {
        name: checked.name.clone(),
        addresses: checked.addresses.iter().map(|a| a.value).collect(),
        description: text(branch, "description").map(|stated| stated.value),
        enabled: checked.enabled,
        encapsulation: checked.encapsulation.as_ref()?.value,
        local_ip: local.value,
        remote_ip: remote.value,
        mtu: number(Some(branch), "mtu").and_then(|mtu| u16::try_from(mtu).ok()),
        multicast: checked.multicast?,
        key: gre.and_then(key),
        epoch_domain: gre
            .and_then(|gre| text(gre, "epoch-domain"))
            .map(|stated| stated.value),
        checksum: checked.checksum.is_some(),
        sequence: checked.sequence.is_some(),
        ttl,
        tos,
        flow_label,
        adjust_mss: gre.and_then(adjust_mss),
        bridge: match gre.and_then(|gre| gre.branch("bridge-group")) {
            Some(group) => Some(bridge_port(group)?),
            None => None,
        },
        keepalive: match branch.branch("keepalive") {
            Some(keepalive) => Some(self::keepalive(keepalive)?),
            None => None,
        },
        fast_path: is_enable(Some(branch), tunnel_nodes(&[]), "fast-path")?,
    })
}

struct OuterHeader {
    ttl: HeaderByte,
    tos: HeaderByte,
    flow_label: FlowLabel,
}

fn outer_header(tunnel: &Branch, local: IpAddr) -> Option<OuterHeader> {
    let (header, ttl, tos) = if local.is_ipv4() {
        ("ip", "ttl", "tos")
    } else {
        ("ipv6", "hoplimit", "tclass")
    };
    let stated = parameters(tunnel, header);
    let nodes = tunnel_nodes(&["parameters", header]);
    let flow_label = if local.is_ipv4() {
        FlowLabel::Fixed(0)
    } else {
        match or_default(stated, nodes, "flowlabel")? {
            Value::Number(label) => FlowLabel::Fixed(label),
            _ => FlowLabel::Inherit,
        }
    };
    Some(OuterHeader {
        ttl: header_byte(&or_default(stated, nodes, ttl)?, true)?,
        tos: header_byte(&or_default(stated, nodes, tos)?, false)?,
        flow_label,
    })
}

pub(super) fn key(gre: &Branch) -> Option<GreKey> {
    Some(match gre.value("key")?.value {
        Value::Number(key) => GreKey::Fixed(key),
        _ => GreKey::ClusterEpoch,
    })
}

fn adjust_mss(gre: &Branch) -> Option<AdjustMss> {
    match gre.value("adjust-mss")?.value {
        Value::Number(size) => u16::try_from(size).ok().map(AdjustMss::Fixed),
        _ => Some(AdjustMss::Auto),
    }
}

fn bridge_port(group: &Branch) -> Option<BridgePort> {
    Some(BridgePort {
        bridge: text(group, "bridge")?.value,
        cost: number(Some(group), "cost").and_then(|cost| u16::try_from(cost).ok()),
        priority: number(Some(group), "priority").and_then(|p| u8::try_from(p).ok()),
    })
}

fn keepalive(keepalive: &Branch) -> Option<Keepalive> {
    let number = |name| match or_default(Some(keepalive), tunnel_nodes(&["keepalive"]), name)? {
        Value::Number(number) => Some(number),
        _ => None,
    };
    Some(Keepalive {
        interval: Duration::from_secs(number("interval")?.into()),
        retries: number("retries")?,
    })
}

/// The number stated, if one is.
fn number(branch: Option<&Branch>, name: &str) -> Option<u32> {
    match branch?.value(name)?.value {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

/// The nodes at `path` below a tunnel.
fn tunnel_nodes(path: &[&str]) -> &'static [Node] {
    below(nodes_at(&["interfaces", "tunnel"]), path)
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
