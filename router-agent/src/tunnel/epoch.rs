//! Which epochs the key of a tunnel is, and which it is compared with.

use router_common::map::MAX_GROUPS;

use crate::config::{Config, GreKey};

/// Places of a tunnel's epochs in their map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSlots {
    /// Of the group whose epoch is sent; none if this router is no member of a cluster, and sends
    /// zero.
    pub sent: Option<u16>,
    /// Of the newest epoch that came by the tunnels of its domain.
    pub received: u16,
}

/// Of each tunnel, in the configuration's order; none for one whose key is no epoch.
pub fn slots(config: &Config) -> Vec<Option<EpochSlots>> {
    // The check lets only one group have such tunnels.
    let sent = config.cluster.as_ref().map(|_| 0);
    let mut domains = Vec::new();
    config
        .tunnels
        .iter()
        .map(|tunnel| {
            if tunnel.key != Some(GreKey::ClusterEpoch) {
                return None;
            }
            let domain = &tunnel.epoch_domain;
            let number = domains.iter().position(|known| *known == domain);
            let number = number.unwrap_or_else(|| {
                domains.push(domain);
                domains.len() - 1
            });
            // There are no more domains than tunnels.
            let received = u16::try_from(MAX_GROUPS as usize + number).ok()?;
            Some(EpochSlots { sent, received })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::config::{Facts, parse};

    const FIRST: u16 = 1_024;

    fn of(lines: &[&str]) -> Vec<Option<EpochSlots>> {
        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            for line in [
                "encapsulation gre",
                "local-ip 10.0.3.10",
                &format!("remote-ip 10.0.1.{}", number + 1),
                line,
            ] {
                writeln!(text, "set interfaces tunnel tun{number} {line}").unwrap();
            }
        }
        let facts = Facts::of_host("far");
        slots(&parse("test.conf", &text, &facts, false).unwrap().config)
    }

    #[test]
    fn tunnels_share_what_they_received_unless_told_apart() {
        let slots = of(&[
            "parameters ip key cluster-epoch",
            "parameters ip key 7",
            "parameters ip key cluster-epoch
set interfaces tunnel tun2 parameters ip epoch-domain b",
            "parameters ip key cluster-epoch",
            "parameters ip key cluster-epoch
set interfaces tunnel tun4 parameters ip epoch-domain b",
        ]);
        let received: Vec<_> = slots
            .iter()
            .map(|slots| Some(slots.as_ref()?.received))
            .collect();
        let [one, other] = [Some(FIRST), Some(FIRST + 1)];
        assert_eq!(received, [one, None, other, one, other]);
        assert!(slots.iter().flatten().all(|slots| slots.sent.is_none()));
    }
}
