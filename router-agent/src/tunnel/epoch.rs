//! Which epochs the key of a tunnel is, and which it is compared with.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use router_common::map::{MAX_EPOCHS, MAX_GROUPS};

use crate::config::{Config, GreKey, Tunnel};

/// Places of a tunnel's epochs in their map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSlots {
    /// Of the group whose epoch is sent; none if this router is no member of a cluster, and sends
    /// zero.
    pub sent: Option<u16>,
    /// Of the newest epoch that came by the tunnels of its domain.
    pub received: u16,
}

/// Where all tunnels have their epochs.
#[derive(Debug, PartialEq, Eq)]
pub struct Allotment {
    /// Of each tunnel, in the configuration's order; none for one whose key is no epoch.
    pub tunnels: Vec<Option<EpochSlots>>,
    /// Places of domains that begin, which have received nothing whatever is in their map.
    pub new: Vec<u16>,
}

/// A domain goes on in the place in which its tunnels received before: `former`, by their positions. The
/// map outlives the agent, and its configuration may have changed.
pub fn allot(config: &Config, former: &BTreeMap<usize, u16>) -> Allotment {
    // The check lets only one group have such tunnels.
    let sent = config.cluster.as_ref().map(|_| 0);
    let keyed = |tunnel: &Tunnel| tunnel.key == Some(GreKey::ClusterEpoch);
    let mut places = HashMap::new();
    let mut kept = BTreeSet::new();
    for (position, place) in former {
        let tunnel = config
            .tunnels
            .get(*position)
            .filter(|&tunnel| keyed(tunnel));
        if let Some(Tunnel { epoch_domain, .. }) = tunnel
            && !places.contains_key(epoch_domain)
            && kept.insert(*place)
        {
            places.insert(epoch_domain, *place);
        }
    }
    let left: BTreeSet<u16> = former.values().copied().collect();
    // Until all tunnels have been told, a former one may still receive where it did.
    let mut free = received_places()
        .filter(|place| !left.contains(place))
        .chain(received_places().filter(|place| left.contains(place) && !kept.contains(place)));
    let mut new = Vec::new();
    let tunnels = config.tunnels.iter().map(|tunnel| {
        if !keyed(tunnel) {
            return None;
        }
        let received = if let Some(place) = places.get(&tunnel.epoch_domain) {
            *place
        } else {
            // There are no more domains than tunnels.
            let place = free.next()?;
            places.insert(&tunnel.epoch_domain, place);
            new.push(place);
            place
        };
        Some(EpochSlots { sent, received })
    });
    Allotment {
        tunnels: tunnels.collect(),
        new,
    }
}

/// Behind the groups'.
fn received_places() -> impl Iterator<Item = u16> {
    (MAX_GROUPS..MAX_EPOCHS).filter_map(|place| u16::try_from(place).ok())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::config::{Facts, parse};

    const FIRST: u16 = 1_024;

    fn of(lines: &[&str], former: &[(usize, u16)]) -> Allotment {
        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            for line in [
                "encapsulation gre",
                "local-ip 10.0.3.10",
                &format!("remote-ip 10.0.1.{}", number + 1),
            ] {
                writeln!(text, "set interfaces tunnel tun{number} {line}").unwrap();
            }
            for line in line.split(", ").filter(|line| !line.is_empty()) {
                writeln!(
                    text,
                    "set interfaces tunnel tun{number} parameters ip {line}"
                )
                .unwrap();
            }
        }
        let facts = Facts::of_host("far");
        let config = parse("test.conf", &text, &facts, false).unwrap().config;
        allot(&config, &former.iter().copied().collect())
    }

    fn received(allotment: &Allotment) -> Vec<Option<u16>> {
        let tunnels = allotment.tunnels.iter();
        tunnels
            .map(|slots| Some(slots.as_ref()?.received))
            .collect()
    }

    const KEY: &str = "key cluster-epoch";
    const KEY_OF_B: &str = "key cluster-epoch, epoch-domain b";

    #[test]
    fn tunnels_share_what_they_received_unless_told_apart() {
        let allotment = of(&[KEY, "key 7", KEY_OF_B, KEY, KEY_OF_B], &[]);
        let [one, other] = [Some(FIRST), Some(FIRST + 1)];
        assert_eq!(received(&allotment), [one, None, other, one, other]);
        assert_eq!(allotment.new, [FIRST, FIRST + 1]);
        let mut slots = allotment.tunnels.iter().flatten();
        assert!(slots.all(|slots| slots.sent.is_none()));
    }

    #[test]
    fn a_domain_stays_where_it_was() {
        // Another comes before it.
        let allotment = of(&[KEY, KEY_OF_B], &[(1, FIRST)]);
        assert_eq!(received(&allotment), [Some(FIRST + 1), Some(FIRST)]);
        assert_eq!(allotment.new, [FIRST + 1]);
        // It is divided: one part begins anew, and not where a tunnel received before.
        let allotment = of(
            &[KEY, KEY_OF_B, ""],
            &[(0, FIRST), (1, FIRST), (2, FIRST + 1)],
        );
        assert_eq!(received(&allotment), [Some(FIRST), Some(FIRST + 2), None]);
        assert_eq!(allotment.new, [FIRST + 2]);
        // Two become one.
        let allotment = of(&[KEY, KEY], &[(0, FIRST + 3), (1, FIRST)]);
        assert_eq!(received(&allotment), [Some(FIRST + 3); 2]);
        assert_eq!(allotment.new, [0; 0]);
    }
}
