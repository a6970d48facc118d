//! `maps dump`: reads a map and decodes it.

use bytemuck::{NoUninit, bytes_of};
use router_common::{
    log::Gate,
    map::{
        EpochSlot, Fence, FenceCounters, Granted, Interface, Lease, LocalState, RoundTrips,
        Sequence, SessionConfig, SessionKey, SessionState, Settings, Traffic, TunnelDevice,
        TunnelEgress, TunnelEvents, TunnelIngress, TunnelKey, TunnelKey6,
    },
    slot::{TunnelSlot, TunnelSlot6},
};
use serde::Serialize;

use super::{
    Decode, Fields, InterfaceNames, MapsError, PinnedMaps,
    catalogue::Known,
    decode::{Index, InterfaceIndex},
    read::{array, hash, per_cpu},
};

/// What a map holds.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dump {
    /// Its name.
    pub map: &'static str,
    /// The boottime clock when the map was read; instants in the entries compare with it.
    pub now_ns: u64,
    /// What it holds, decoded.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// Fields by name.
    #[cfg_attr(test, schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    pub key: Fields,
    /// The same.
    #[cfg_attr(test, schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    pub value: Fields,
}

/// Reads the map `name`, in upper or lower case. Of arrays the entries that are all zero are
/// left out unless `all`; values that each CPU has for itself are summed.
pub fn dump(
    pins: &PinnedMaps,
    name: &str,
    all: bool,
    interfaces: &dyn InterfaceNames,
) -> Result<Dump, MapsError> {
    let known = Known::from_name(name)?;
    let name = known.name();
    let failed = |source| MapsError::Read { name, source };
    let map = pins.open_known(known)?;
    let show = Show { all, interfaces };
    let entries = match known {
        Known::Tunnels => hash::<TunnelKey, TunnelIngress>(map).map(|read| show.every(read)),
        Known::Tunnels6 => hash::<TunnelKey6, TunnelIngress>(map).map(|read| show.every(read)),
        Known::Slots => array::<TunnelSlot>(map).map(|read| show.used(read, Index::Slot)),
        Known::Slots6 => array::<TunnelSlot6>(map).map(|read| show.used(read, Index::Slot)),
        Known::Devices => array::<TunnelDevice>(map).map(|read| show.used(read, Index::Tunnel)),
        Known::Sequences => array::<Sequence>(map).map(|read| show.used(read, Index::Tunnel)),
        Known::Settings => array::<Settings>(map).map(|read| show.used(read, Index::Only)),
        Known::Ends => hash::<u32, u32>(map).map(|read| {
            let named = |(ifindex, index)| (InterfaceIndex(ifindex), Index::Tunnel(index));
            show.every(read.into_iter().map(named))
        }),
        Known::Egress => array::<TunnelEgress>(map).map(|read| show.used(read, Index::Tunnel)),
        Known::Interfaces => hash::<u32, Interface>(map)
            .map(|read| show.every(read.into_iter().map(|(k, v)| (InterfaceIndex(k), v)))),
        Known::Traffic => per_cpu::<Traffic>(map).map(|read| show.used(read, Index::Tunnel)),
        Known::Counters => per_cpu::<TunnelEvents>(map).map(|read| show.used(read, Index::Tunnel)),
        Known::Reasons => per_cpu::<u64>(map).map(|read| show.used(read, Index::Reason)),
        Known::SessionIndex => hash::<SessionKey, u32>(map)
            .map(|read| show.every(read.into_iter().map(|(k, v)| (k, Index::Session(v))))),
        Known::SessionConfig => {
            array::<SessionConfig>(map).map(|read| show.used(read, Index::Session))
        }
        Known::Sessions => array::<SessionState>(map).map(|read| show.used(read, Index::Session)),
        Known::RoundTrips => array::<RoundTrips>(map).map(|read| show.used(read, Index::Session)),
        Known::Local => array::<LocalState>(map).map(|read| show.used(read, Index::Session)),
        Known::Granted => array::<Granted>(map).map(|read| show.used(read, Index::Session)),
        Known::Fences => array::<Fence>(map).map(|read| show.used(read, Index::Group)),
        Known::Leases => array::<Lease>(map).map(|read| show.used(read, Index::Group)),
        Known::FenceCounters => {
            per_cpu::<FenceCounters>(map).map(|read| show.used(read, Index::Group))
        }
        Known::Epochs => array::<EpochSlot>(map).map(|read| show.used(read, Index::Epoch)),
        Known::LogGates => array::<Gate>(map).map(|read| show.used(read, Index::Matter)),
        Known::LogSuppressed => per_cpu::<u64>(map).map(|read| show.used(read, Index::Matter)),
        Known::Protected => hash::<u32, u32>(map).map(|read| {
            let named = |(ifindex, group)| (InterfaceIndex(ifindex), Index::Group(group));
            show.every(read.into_iter().map(named))
        }),
    }
    .map_err(failed)?;
    Ok(Dump {
        map: name,
        now_ns: crate::clock::now().as_ns(),
        entries,
    })
}

struct Show<'a> {
    all: bool,
    interfaces: &'a dyn InterfaceNames,
}

impl Show<'_> {
    /// The entries of a hash map.
    fn every<K: Decode, V: Decode>(&self, read: impl IntoIterator<Item = (K, V)>) -> Vec<Entry> {
        read.into_iter()
            .map(|(key, value)| Entry {
                key: key.decode(self.interfaces),
                value: value.decode(self.interfaces),
            })
            .collect()
    }

    /// The entries of an array that are in use.
    fn used<V: Decode + NoUninit>(
        &self,
        read: impl IntoIterator<Item = (u32, V)>,
        index: fn(u32) -> Index,
    ) -> Vec<Entry> {
        let used = |value: &V| bytes_of(value).iter().any(|byte| *byte != 0);
        self.every(
            read.into_iter()
                .filter(|(_, value)| self.all || used(value))
                .map(|(key, value)| (index(key), value)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::KernelInterfaces;

    #[test]
    fn unused_entries_of_arrays_are_left_out() {
        let interfaces = KernelInterfaces::open();
        let read = [(0, 5_u64), (1, 0)];
        let entries = |all| {
            let show = Show {
                all,
                interfaces: &interfaces,
            };
            show.used(read, Index::Reason).len()
        };
        assert_eq!((entries(false), entries(true)), (1, 2));
    }
}
