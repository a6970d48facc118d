//! The two ends of a tunnel: of one family, not the same, and with the key no other tunnel's.

use std::collections::HashMap;
use std::net::IpAddr;

use super::super::diagnostic::{Problem, Report};
use super::super::model::{Encapsulation, GreKey};
use super::super::source::Place;
use super::super::tree::{Branch, Instance, Stated};
use super::super::value::Value;

/// The outer addresses, as far as they are stated and right.
pub(super) struct Ends {
    pub local: Option<Stated<IpAddr>>,
    pub remote: Option<Stated<IpAddr>>,
}

impl Ends {
    pub fn of(branch: &Branch) -> Self {
        let end = |name| {
            let stated = branch.value(name)?;
            match stated.value {
                Value::Ip(value) => Some(Stated {
                    value,
                    place: stated.place,
                }),
                _ => None,
            }
        };
        Self {
            local: end("local-ip"),
            remote: end("remote-ip"),
        }
    }

    /// Both, if they are of one family.
    pub fn both(&self) -> Option<(&Stated<IpAddr>, &Stated<IpAddr>)> {
        let (local, remote) = (self.local.as_ref()?, self.remote.as_ref()?);
        (local.value.is_ipv4() == remote.value.is_ipv4()).then_some((local, remote))
    }

    /// An end that shows what family the underlay is; none if that is not to be known.
    pub fn underlay(&self) -> Option<&Stated<IpAddr>> {
        match (&self.local, &self.remote) {
            (Some(_), Some(_)) => self.both().map(|(local, _)| local),
            (local, remote) => local.as_ref().or(remote.as_ref()),
        }
    }
}

/// IPv4 or IPv6, as it is called in messages.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// What tells the packets of one tunnel from another's. `gre` and `gre-bridge` are the same
/// there: a device receives both payloads by the same addresses and key.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    in_udp: bool,
    local: IpAddr,
    remote: IpAddr,
    key: Option<GreKey>,
}

/// What tells two tunnels between the same ends apart.
#[derive(Clone, Copy)]
pub(super) struct Wire {
    pub encapsulation: Encapsulation,
    pub key: Option<GreKey>,
}

/// The tunnels met so far.
#[derive(Default)]
pub(super) struct Seen<'a>(HashMap<Identity, Other<'a>>);

struct Other<'a> {
    name: &'a str,
    encapsulation: Encapsulation,
    place: Place,
}

impl<'a> Seen<'a> {
    /// `wire` is none if something of it is missing or wrong.
    pub fn check(
        &mut self,
        instance: &'a Instance,
        ends: &Ends,
        wire: Option<Wire>,
        report: &mut Report,
    ) {
        let name = instance.name.as_str();
        let (Some(local), Some(remote)) = (&ends.local, &ends.remote) else {
            return;
        };
        let Some(problem) = unfit_for_each_other(name, local, remote) else {
            if let Some(wire) = wire
                && !instance.branch.has("disable")
            {
                self.unique(name, local, remote, wire, report);
            }
            return;
        };
        report.add(problem);
    }

    fn unique(
        &mut self,
        name: &'a str,
        local: &Stated<IpAddr>,
        remote: &Stated<IpAddr>,
        wire: Wire,
        report: &mut Report,
    ) {
        let Wire { encapsulation, key } = wire;
        let identity = Identity {
            in_udp: encapsulation == Encapsulation::GreUdp,
            local: local.value,
            remote: remote.value,
            key,
        };
        let Some(other) = self.0.get(&identity) else {
            let this = Other {
                name,
                encapsulation,
                place: remote.place,
            };
            self.0.insert(identity, this);
            return;
        };
        let with = key.map_or_else(
            || "without a key".to_owned(),
            |key| format!("with key {key}"),
        );
        let kinds = if other.encapsulation == encapsulation {
            String::new()
        } else {
            format!(
                ", which does not tell `{encapsulation}` from `{}`",
                other.encapsulation
            )
        };
        let message = format!(
            "{name} and {} are the same tunnel: from {} to {} {with}{kinds}",
            other.name, local.value, remote.value
        );
        report.add(
            Problem::error(remote.place, message)
                .help(format!(
                    "give each a key of its own, the same on both routers: `set interfaces tunnel {name} parameters ip key NUMBER`"
                ))
                .also(other.place, format!("{} is stated here", other.name)),
        );
    }
}

fn unfit_for_each_other(
    name: &str,
    local: &Stated<IpAddr>,
    remote: &Stated<IpAddr>,
) -> Option<Problem> {
    if local.value == remote.value {
        return Some(
            Problem::error(
                remote.place,
                format!("both ends of {name} have the address {}", remote.value),
            )
            .help(format!(
                "`set interfaces tunnel {name} remote-ip` takes the address of the other router"
            ))
            .also(local.place, "the other end"),
        );
    }
    if local.value.is_ipv4() != remote.value.is_ipv4() {
        return Some(
            Problem::error(
                remote.place,
                format!(
                    "the ends of {name} are of two families: {} is {}, {} is {}",
                    local.value,
                    family(local.value),
                    remote.value,
                    family(remote.value)
                ),
            )
            .help("state two IPv4 or two IPv6 addresses")
            .also(local.place, "the other end"),
        );
    }
    None
}
