//! From the types that kernel and agent share to named fields. Pure; secrets end here.

mod sessions;
mod tunnels;

use std::net::{Ipv4Addr, Ipv6Addr};

use router_common::{
    log::{Gate, Matter},
    map::{MAX_GROUPS, Reason},
    net::Mac,
};

pub use self::sessions::flag_names;
use super::{Fields, InterfaceNames};

/// A key or value of a map that an operator can be shown.
pub trait Decode {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields;
}

/// An index that stands for an interface.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceIndex(pub u32);

/// An index into an array, named by what it counts.
#[derive(Clone, Copy, Debug)]
pub enum Index {
    Tunnel(u32),
    Session(u32),
    Group(u32),
    Reason(u32),
    /// Of what the programs may log.
    Matter(u32),
    /// Of a table in front of the tunnels.
    Slot(u32),
    /// A group's, or that of a domain of tunnels.
    Epoch(u32),
    /// Of an array with one element.
    Only(u32),
}

impl Decode for InterfaceIndex {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields {
        Fields::default()
            .with("ifindex", self.0)
            .with("interface", interfaces.name(self.0))
    }
}

impl Decode for Index {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let (name, index) = match *self {
            Self::Tunnel(index) => ("tunnel_index", index),
            Self::Session(index) => ("session_index", index),
            Self::Epoch(index) if index >= MAX_GROUPS => ("epoch_slot", index),
            Self::Group(index) | Self::Epoch(index) => ("group_index", index),
            Self::Reason(index) => return Fields::default().with("reason", reason(index)),
            Self::Matter(index) => return Fields::default().with("matter", matter(index)),
            Self::Slot(number) => ("slot", number),
            Self::Only(index) => ("index", index),
        };
        Fields::default().with(name, index)
    }
}

/// Packets of a [`Reason`], or that nothing was said of.
impl Decode for u64 {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        Fields::default().with("packets", *self)
    }
}

impl Decode for Gate {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self { is_open, due_ns } = *self;
        Fields::default()
            .with("open", is_open != 0)
            .with("due_ns", due_ns)
    }
}

fn counters(named: impl Iterator<Item = (&'static str, u64)>) -> Fields {
    named.fold(Fields::default(), |fields, (name, value)| {
        fields.with(name, value)
    })
}

fn ipv4(octets: [u8; 4]) -> String {
    Ipv4Addr::from(octets).to_string()
}

fn ipv6(octets: [u8; 16]) -> String {
    Ipv6Addr::from(octets).to_string()
}

fn mac(octets: Mac) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

fn reason(index: u32) -> String {
    Reason::ALL
        .into_iter()
        .find(|reason| *reason as u32 == index)
        .map_or_else(|| index.to_string(), |reason| reason.name().to_owned())
}

fn matter(index: u32) -> String {
    Matter::from_number(index).map_or_else(|| index.to_string(), |matter| matter.name().to_owned())
}

/// The names of the bits that are set; bits without a name as a number.
fn names(bits: u32, known: &[(u32, &str)]) -> Vec<String> {
    let mut rest = bits;
    let mut names = Vec::new();
    for (bit, name) in known {
        if bits & bit != 0 {
            names.push((*name).to_owned());
            rest &= !bit;
        }
    }
    if rest != 0 {
        names.push(format!("{rest:#x}"));
    }
    names
}

#[cfg(test)]
mod tests;
