//! What is made of claims: no clock, no socket.

use std::time::Duration;

use router_common::time::BootTime;

use super::{Duplicate, Held, claim::Claim};

/// A former owner may still speak under an address right after it was taken here.
const GRACE: Duration = Duration::from_millis(100);
/// A claim counts if the address is still to be held this much later: who is being deposed hears its
/// successor's claim first.
const SETTLING: Duration = Duration::from_secs(1);
/// What is new of a duplicate that is known is told so often at most.
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);
/// When others are asked after an address was taken, and then again and again.
const FIRST_PROBES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
const BETWEEN_PROBES: Duration = Duration::from_secs(10);
/// More who use the same address at a time are not told apart.
const MOST_RIVALS: usize = 4;
/// Who was silent for so long, over many probes, is told of again when he speaks.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// The addresses that are held, and who claims them besides.
#[derive(Debug, Default)]
pub struct Rivals {
    holdings: Vec<Holding>,
}

/// An address that is held.
#[derive(Debug)]
struct Holding {
    held: Held,
    since: BootTime,
    probes: usize,
    next_probe: BootTime,
    rivals: Vec<Rival>,
}

#[derive(Debug)]
struct Rival {
    duplicate: Duplicate,
    standing: Standing,
    /// When to tell of it; none if nothing is new.
    report_at: Option<BootTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Suspected,
    Reported,
    /// It is this node's own.
    Dismissed,
}

impl Rivals {
    /// An address is held from now on; what was known of it is forgotten.
    pub fn hold(&mut self, held: Held, now: BootTime) {
        self.holdings
            .retain(|known| (known.held.group, known.held.resource) != (held.group, held.resource));
        self.holdings.push(Holding {
            held,
            since: now,
            probes: 0,
            next_probe: now.after(FIRST_PROBES[0]),
            rivals: Vec::new(),
        });
    }

    /// None of a group's addresses is to be held any more.
    pub fn let_go(&mut self, group: usize) {
        self.holdings.retain(|holding| holding.held.group != group);
    }

    /// Takes in a claim that came by an interface.
    pub fn note(&mut self, link_index: u32, claim: Claim, now: BootTime) {
        let Claim { address, mac } = claim;
        let concerned = self
            .holdings
            .iter_mut()
            .filter(|Holding { held, since, .. }| {
                held.address == address
                    && held.link.index == link_index
                    && held.link.mac != mac
                    && now >= since.after(GRACE)
            });
        for holding in concerned {
            holding.note(mac, now);
        }
    }

    /// The addresses for which others are to be asked now.
    pub fn probes(&mut self, now: BootTime) -> Vec<Held> {
        let due = self.holdings.iter_mut().filter(|h| h.next_probe <= now);
        due.map(|holding| {
            holding.probes += 1;
            holding.next_probe = match FIRST_PROBES.get(holding.probes) {
                Some(delay) => holding.since.after(*delay),
                None => now.after(BETWEEN_PROBES),
            };
            holding.held.clone()
        })
        .collect()
    }

    /// What is to be told now: which address, who else uses it, and whether that one was not told of before.
    pub fn reports(&mut self, now: BootTime) -> Vec<(Held, Duplicate, bool)> {
        let mut reports = Vec::new();
        for Holding { held, rivals, .. } in &mut self.holdings {
            for rival in rivals {
                if rival.report_at.take_if(|at| *at <= now).is_some() {
                    let is_new = rival.standing == Standing::Suspected;
                    rival.standing = Standing::Reported;
                    reports.push((held.clone(), rival.duplicate, is_new));
                }
            }
        }
        reports
    }

    /// One that claims an address is this node itself, and is to be told of no more.
    pub fn dismiss(&mut self, group: usize, resource: usize, mac: [u8; 6]) {
        let of = self
            .holdings
            .iter_mut()
            .filter(|h| (h.held.group, h.held.resource) == (group, resource));
        for rival in of.flat_map(|holding| &mut holding.rivals) {
            if rival.duplicate.mac == mac {
                rival.standing = Standing::Dismissed;
            }
        }
    }

    /// When [`Self::probes`] or [`Self::reports`] have something.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let of = |holding: &Holding| {
            let reports = holding.rivals.iter().filter_map(|rival| rival.report_at);
            reports.fold(holding.next_probe, BootTime::min)
        };
        self.holdings.iter().map(of).min()
    }
}

impl Holding {
    fn note(&mut self, mac: [u8; 6], now: BootTime) {
        let rivals = &mut self.rivals;
        rivals.retain(|rival| now < rival.duplicate.last.after(FORGOTTEN_AFTER));
        let known = rivals.iter_mut().find(|rival| rival.duplicate.mac == mac);
        let Some(rival) = known else {
            if rivals.len() < MOST_RIVALS {
                rivals.push(Rival {
                    duplicate: Duplicate {
                        mac,
                        claims: 1,
                        last: now,
                    },
                    standing: Standing::Suspected,
                    report_at: Some(now.after(SETTLING)),
                });
            }
            return;
        };
        rival.duplicate.claims += 1;
        rival.duplicate.last = now;
        if rival.standing == Standing::Reported {
            rival.report_at.get_or_insert(now.after(BETWEEN_REPORTS));
        }
    }
}

#[cfg(test)]
mod tests;
