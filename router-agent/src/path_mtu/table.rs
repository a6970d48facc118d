//! What is believed of each tunnel's path, and for how long.

use std::{collections::BTreeMap, time::Duration};

use router_common::{net::IPV6_MINIMUM_MTU, time::BootTime};

/// How long a report holds (RFC 1191 §6.3, RFC 8201 §4).
pub const LIFETIME: Duration = Duration::from_mins(10);
/// The lowest path MTU that is believed, in bytes. A forged report cannot do worse.
pub const FLOOR: u32 = IPV6_MINIMUM_MTU;

/// Path MTUs by the tunnel's position, in bytes, the outer headers included.
#[derive(Debug, Default)]
pub struct PathMtuTable {
    entries: BTreeMap<usize, Entry>,
}

#[derive(Debug)]
struct Entry {
    mtu: u32,
    until: BootTime,
}

impl PathMtuTable {
    /// Takes a report for `tunnel`, whose underlay has an MTU of `underlay` bytes. The path MTU,
    /// if it is lower than before. The same report again only holds it for longer.
    pub fn note(
        &mut self,
        tunnel: usize,
        reported: u32,
        underlay: u32,
        now: BootTime,
    ) -> Option<u32> {
        let mtu = reported.max(FLOOR);
        let known = self.get(tunnel).unwrap_or(u32::MAX);
        if mtu >= underlay || mtu > known {
            return None;
        }
        let until = now.after(LIFETIME);
        self.entries.insert(tunnel, Entry { mtu, until });
        (mtu < known).then_some(mtu)
    }

    /// The path MTU; `None` if no more is known than the underlay's MTU.
    pub fn get(&self, tunnel: usize) -> Option<u32> {
        self.entries.get(&tunnel).map(|entry| entry.mtu)
    }

    /// Forgets a tunnel: its path changed, or it is gone.
    pub fn forget(&mut self, tunnel: usize) {
        self.entries.remove(&tunnel);
    }

    /// When [`PathMtuTable::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<BootTime> {
        self.entries.values().map(|entry| entry.until).min()
    }

    /// Forgets what is too old. The tunnels concerned, in their order: their path MTU is
    /// the underlay's again.
    pub fn expire(&mut self, now: BootTime) -> Vec<usize> {
        self.entries
            .extract_if(.., |_, entry| entry.until <= now)
            .map(|(tunnel, _)| tunnel)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNDERLAY: u32 = 1500;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_ns(1).after(Duration::from_secs(seconds))
    }

    #[test]
    fn only_lowers() {
        let mut table = PathMtuTable::default();
        assert_eq!(table.get(7), None);
        assert_eq!(table.note(7, 1500, UNDERLAY, at(0)), None);
        assert_eq!(table.note(7, 9000, UNDERLAY, at(0)), None);
        assert_eq!(table.get(7), None);
        assert_eq!(table.note(7, 1400, UNDERLAY, at(0)), Some(1400));
        assert_eq!(table.note(7, 1450, UNDERLAY, at(1)), None);
        assert_eq!(table.note(7, 1300, UNDERLAY, at(2)), Some(1300));
        assert_eq!(table.get(7), Some(1300));
        assert_eq!(table.get(8), None);
    }

    #[test]
    fn not_below_the_floor() {
        let mut table = PathMtuTable::default();
        assert_eq!(table.note(0, 68, UNDERLAY, at(0)), Some(FLOOR));
        assert_eq!(table.note(0, 0, UNDERLAY, at(0)), None);
        // An underlay that is narrower itself has nothing to learn.
        assert_eq!(table.note(1, 68, 576, at(0)), None);
    }

    #[test]
    fn ages_from_the_last_report_of_the_value() {
        let mut table = PathMtuTable::default();
        table.note(1, 1400, UNDERLAY, at(0));
        table.note(2, 1400, UNDERLAY, at(0));
        table.note(3, 1400, UNDERLAY, at(0));
        // The same holds longer, a higher one does not.
        assert_eq!(table.note(2, 1400, UNDERLAY, at(60)), None);
        assert_eq!(table.note(3, 1401, UNDERLAY, at(60)), None);
        assert_eq!(table.next_expiry(), Some(at(600)));
        assert!(table.expire(at(599)).is_empty());
        assert_eq!(table.expire(at(600)), [1, 3]);
        assert_eq!(
            (table.get(1), table.get(2), table.get(3)),
            (None, Some(1400), None)
        );
        assert_eq!(table.next_expiry(), Some(at(660)));
        // Raised back, it can be lowered again.
        assert_eq!(table.note(1, 1400, UNDERLAY, at(601)), Some(1400));
        table.forget(1);
        table.forget(2);
        assert_eq!(table.next_expiry(), None);
        assert!(table.expire(at(100_000)).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_reported(
            reports in prop::collection::vec((0_usize..3, any::<u32>(), 0_u64..900), 0..40),
        ) {
            let mut table = PathMtuTable::default();
            let mut now = 0;
            for (tunnel, reported, wait) in reports {
                now += wait;
                table.expire(at(now));
                let before = table.get(tunnel).unwrap_or(UNDERLAY);
                let lowered = table.note(tunnel, reported % 2000, UNDERLAY, at(now));
                let after = table.get(tunnel).unwrap_or(UNDERLAY);
                prop_assert!((FLOOR..=UNDERLAY).contains(&after) && after <= before);
                prop_assert_eq!(lowered, (after < before).then_some(after));
                let bound = at(now + LIFETIME.as_secs());
                prop_assert!(table.next_expiry().is_none_or(|t| at(now) < t && t <= bound));
            }
        }
    }
}
