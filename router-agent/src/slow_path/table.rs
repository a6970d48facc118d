//! The tunnels that the slow path serves.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use router_common::{
    gre::{AnyKey, Format},
    map::Sequence,
    time::BootTime,
};

use super::{
    bucket::TokenBucket,
    counters::{Totals, TunnelCounters},
};
use crate::tunnel::Entries;

/// Packets in a second that are taken of one tunnel; as many at once.
pub const TUNNEL_PACKETS_PER_S: u32 = 2_000;

/// Whoever tells the programs of a tunnel tells this table too.
#[derive(Debug, Default)]
pub struct Table {
    served: RwLock<Served>,
    totals: Totals,
}

#[derive(Debug, Default)]
struct Served {
    tunnels: HashMap<AnyKey, Arc<Tunnel>>,
    /// How many tunnels begin at an address of ours.
    locals: HashMap<IpAddr, usize>,
}

/// A tunnel, and what lasts longer than one of its packets.
#[derive(Debug)]
pub struct Tunnel {
    pub entries: Entries,
    state: Arc<Mutex<State>>,
    counters: Arc<TunnelCounters>,
}

/// After so long without a packet here, the numbers may have gone on by the fast path to where they look like old ones:
/// by 2³¹, which takes minutes at least.
const SEQUENCE_LASTS: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct State {
    sequence: Sequence,
    /// When it was last asked for.
    sequence_at: BootTime,
    pub bucket: TokenBucket,
}

impl State {
    /// What a packet's number is compared with that comes at `now` to a tunnel of `format`.
    pub fn sequence(&mut self, format: Format, now: BootTime) -> &mut Sequence {
        let all_come_here = format.has(Format::CHECKSUM);
        if !all_come_here && now.since(self.sequence_at) > SEQUENCE_LASTS {
            self.sequence = Sequence::default();
        }
        self.sequence_at = now;
        &mut self.sequence
    }
}

impl Table {
    /// Serves a tunnel, or serves it as `entries` now says. What was counted of it stays.
    pub fn set(&self, entries: &Entries) {
        let mut served = self.write();
        let known = served.tunnels.get(&entries.key);
        let tunnel = Tunnel {
            entries: *entries,
            state: known.map_or_else(Arc::default, |known| Arc::clone(&known.state)),
            counters: known.map_or_else(Arc::default, |known| Arc::clone(&known.counters)),
        };
        let replaced = served.tunnels.insert(entries.key, Arc::new(tunnel));
        if replaced.is_none() {
            *served.locals.entry(local(&entries.key)).or_default() += 1;
        }
    }

    /// Serves a tunnel no longer.
    pub fn remove(&self, key: &AnyKey) {
        let mut served = self.write();
        if served.tunnels.remove(key).is_none() {
            return;
        }
        let local = local(key);
        if let Some(count) = served.locals.get_mut(&local) {
            *count -= 1;
            if *count == 0 {
                served.locals.remove(&local);
            }
        }
    }

    /// The tunnel that a packet of `key` belongs to.
    pub fn find(&self, key: &AnyKey) -> Option<Arc<Tunnel>> {
        self.get(key).or_else(|| self.get(&key.of_epoch()?))
    }

    pub fn get(&self, key: &AnyKey) -> Option<Arc<Tunnel>> {
        self.read().tunnels.get(key).cloned()
    }

    /// Whether a tunnel begins at `address`.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.read().locals.contains_key(&address)
    }

    /// What was counted of a tunnel; `None` if it is not served.
    pub fn counters(&self, key: &AnyKey) -> Option<Arc<TunnelCounters>> {
        self.get(key).map(|tunnel| Arc::clone(&tunnel.counters))
    }

    /// What was counted of no tunnel.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// A panic elsewhere leaves whole values behind.
    fn read(&self) -> RwLockReadGuard<'_, Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Served> {
        self.served.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tunnel {
    pub fn counters(&self) -> &TunnelCounters {
        &self.counters
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            sequence: Sequence::default(),
            sequence_at: BootTime::default(),
            bucket: TokenBucket::new(TUNNEL_PACKETS_PER_S, TUNNEL_PACKETS_PER_S),
        }
    }
}

fn local(key: &AnyKey) -> IpAddr {
    match key {
        AnyKey::Ipv4(key) => key.local.into(),
        AnyKey::Ipv6(key) => key.addresses.local.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture, *};

    #[test]
    fn an_address_is_ours_while_a_tunnel_begins_there() {
        let table = Table::default();
        let entries = [Format::default(), Format::KEY].map(fixture::entries);
        let ours = fixture::ours();
        assert!(!table.is_local(ours));
        for entries in &entries {
            table.set(entries);
            table.set(entries);
        }
        table.remove(&entries[0].key);
        table.remove(&entries[0].key);
        assert!(table.is_local(ours) && table.get(&entries[0].key).is_none());
        table.remove(&entries[1].key);
        assert!(!table.is_local(ours));
    }

    #[test]
    fn a_tunnel_that_changes_keeps_its_past() {
        let table = Table::default();
        let mut entries = fixture::entries(Format::CHECKSUM);
        table.set(&entries);
        let before = table.get(&entries.key).unwrap();
        before.counters().packets.add(3);
        let now = BootTime::default();
        let format = entries.ingress.format;
        before.state().sequence(format, now).accept(7);
        entries.device.mtu = 1400;
        table.set(&entries);
        let after = table.get(&entries.key).unwrap();
        assert_eq!(after.entries.device.mtu, 1400);
        assert_eq!(after.counters().packets.get(), 3);
        assert!(!after.state().sequence(format, now).accept(7));
        assert_eq!(table.counters(&entries.key).unwrap().packets.get(), 3);
    }

    /// By the fast path 2³¹ have come meanwhile.
    #[test]
    fn numbers_last_as_long_as_packets_come_here() {
        let first = BootTime::default();
        let soon = first.after(SEQUENCE_LASTS);
        let late = soon.after(SEQUENCE_LASTS * 2);
        for (format, forgotten) in [(Format::UDP, true), (Format::CHECKSUM, false)] {
            let mut state = State::default();
            let mut accept = |number, now| state.sequence(format, now).accept(number);
            assert!(accept(5, first));
            assert!(!accept(5, soon));
            assert_eq!(accept(6 + (1 << 31), late), forgotten);
        }
    }
}
