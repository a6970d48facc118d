//! What the core holds to be so: of the peer, of itself, and since when.

use std::{cmp::Ordering, time::Duration};

use router_common::{
    identity::{Claim, Flags, NodeId},
    time::BootTime,
};

use super::{
    super::{
        cause::Cause,
        history::Finding,
        policy::Rule,
        report::{PeerFinding, PeerReport, Standing},
    },
    Command, Core,
    table::Stage,
};

/// Messages of a peer that claims while we are active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct DualActivity {
    pub first: BootTime,
    pub last: BootTime,
}

impl Core {
    pub(super) fn observe(
        &mut self,
        report: PeerReport,
        now: BootTime,
        commands: &mut Vec<Command>,
    ) {
        // What the first tick reads may still grant by a mandate of an earlier life.
        self.granted_is_all = !self.ticked.is_never() && self.mandate().grant.is_none();
        self.granted = self.granted.max(report.granted);
        self.listen(now);
        // Several paths and a map that may be created anew: never go back behind what we know.
        if report.last_heard >= self.report.last_heard {
            self.report = report;
        }
        self.learn_claim();
        self.judge(now);
        self.compare(now);
        self.count_on_less(now);
        self.drop_vain_order(now);
        if self.stage == Stage::Active {
            self.watch_dual_activity(now, commands);
        }
    }

    /// An owner whose policy has a shorter lease than the one before it counted on goes by that when grants come
    /// so often, and at the latest when they should: the peer may make shorter ones by now.
    fn count_on_less(&mut self, now: BootTime) {
        let shorter = self.policy.lease;
        if self.owns() && self.lease > shorter {
            let suffices = now < self.report.leased.after(self.policy.suspicion(shorter));
            if suffices || now >= self.entered.after(self.policy.dead) {
                self.lease = shorter;
            }
        }
    }

    /// Whether our own authority ended while we did not run for so long.
    fn has_lapsed(&self, stopped: Duration) -> bool {
        self.policy.rule() == Rule::OwnWord && stopped >= self.policy.agent_dead
    }

    /// Finds out whether we ran on time since the last tick. If not, evidence starts anew.
    fn listen(&mut self, now: BootTime) {
        let gap = now.since(self.ticked);
        if self.ticked.is_never() {
            self.listening_since = now;
            // Nor did a start wait for the peer before it could hear it.
            if self.stage == Stage::Initializing {
                self.entered = now;
            }
            // A life that goes on was vouched for only so long.
            let stopped = now.since(self.vouched);
            if self.owns() && self.has_lapsed(stopped) {
                self.lapsed = Some(stopped);
            }
        } else if gap > self.policy.lateness() {
            self.listening_since = now;
            self.entered = self.entered.after(gap).min(now);
            self.standing_since = self.standing_since.after(gap).min(now);
            self.ranked_since = self.ranked_since.after(gap).min(now);
            if self.owns() && self.has_lapsed(gap) {
                self.lapsed = Some(gap);
            }
            self.findings.push(Finding::Stopped {
                at: now,
                length: gap,
            });
        }
        self.ticked = self.ticked.max(now);
    }

    /// A claim counts however old its message is: what was claimed once stays claimed.
    fn learn_claim(&mut self) {
        let PeerReport { claim, flags, .. } = self.report;
        if self.report.last_heard.is_never() || claim.epoch < self.newest.epoch {
            return;
        }
        let ours = self.owns() && claim.epoch == self.own_epoch;
        if !ours {
            // Only the claimant itself says that it owns the group.
            let owner = if flags.contains(Flags::FORWARDING) {
                self.policy.peer
            } else {
                NodeId::NONE
            };
            self.newest = Claim {
                epoch: claim.epoch,
                owner,
            };
        }
    }

    pub(super) fn judge(&mut self, now: BootTime) {
        let standing = self.standing_now();
        if standing != self.standing {
            self.standing = standing;
            self.standing_since = now;
        }
        let finding = match standing {
            Standing::Unknown => self.peer_finding,
            Standing::Silent if self.report.last_heard.is_never() => PeerFinding::NeverHeard,
            Standing::Silent => PeerFinding::KernelSilent,
            Standing::Headless => PeerFinding::AgentDead,
            Standing::Out
            | Standing::Ready
            | Standing::Asking
            | Standing::Owner
            | Standing::Impaired
            | Standing::Draining
            | Standing::Outdated => self.hears_us(),
        };
        if finding != self.peer_finding {
            self.findings.push(Finding::Peer {
                at: now,
                from: self.peer_finding,
                to: finding,
            });
            self.peer_finding = finding;
        }
    }

    /// Finds out which of the nodes is to be preferred.
    pub(super) fn compare(&mut self, now: BootTime) {
        if self.report.last_heard.is_never() {
            return;
        }
        // One that knows of no priorities would not consent because of one.
        let rank = self
            .report
            .flags
            .priority()
            .map_or(Ordering::Equal, |peers| self.priority.cmp(&peers));
        if self.rank == Some(rank) {
            return;
        }
        // What a former life had before it stood back is nothing new.
        let is_new = self.rank.is_some();
        self.rank = Some(rank);
        self.ranked_since = now;
        if is_new && rank == Ordering::Greater {
            self.stands_back = false;
        }
    }

    pub(super) fn rank(&self) -> Ordering {
        self.rank.unwrap_or(Ordering::Equal)
    }

    /// Of a peer that is alive: whether it says that it hears us.
    fn hears_us(&self) -> PeerFinding {
        let echoed = self.report.newest_echo.max(self.listening_since);
        if self.ticked.since(echoed) >= self.policy.dead {
            PeerFinding::AliveAndDeaf
        } else {
            PeerFinding::Alive
        }
    }

    fn standing_now(&self) -> Standing {
        let PeerReport {
            last_heard,
            claim,
            flags,
            agent_age,
            newest_echo: _,
            granted: _,
            leased: _,
        } = self.report;
        if self.silence() >= self.policy.dead {
            return Standing::Silent;
        }
        if last_heard.is_never() || self.ticked.since(last_heard) >= self.policy.dead {
            return Standing::Unknown;
        }
        if agent_age >= self.policy.agent_dead {
            return Standing::Headless;
        }
        match (
            flags.contains(Flags::FORWARDING),
            flags.contains(Flags::ELIGIBLE),
            flags.contains(Flags::CANDIDATE),
        ) {
            (true, _, _) if claim.epoch < self.newest.epoch => Standing::Outdated,
            (true, _, _) if flags.contains(Flags::DRAINING) => Standing::Draining,
            (true, true, _) => Standing::Owner,
            (true, false, _) => Standing::Impaired,
            (false, false, _) => Standing::Out,
            (false, true, true) => Standing::Asking,
            (false, true, false) => Standing::Ready,
        }
    }

    /// Follows a peer that claims beside us, and claims the addresses anew once it has let go. One that
    /// drains has asked us to be active beside it.
    fn watch_dual_activity(&mut self, now: BootTime, commands: &mut Vec<Command>) {
        let PeerReport {
            last_heard: heard,
            flags,
            ..
        } = self.report;
        if heard <= self.alone_at {
            return;
        }
        if flags.contains(Flags::FORWARDING) && !flags.contains(Flags::DRAINING) {
            let first = self.dual.map_or(heard, |dual| dual.first);
            self.dual = Some(DualActivity { first, last: heard });
        } else {
            if self.end_dual_activity(heard, now) {
                commands.push(Command::Announce {
                    epoch: self.own_epoch,
                });
            }
            self.alone_at = heard;
        }
    }

    pub(super) fn end_dual_activity(&mut self, ended: BootTime, now: BootTime) -> bool {
        let Some(DualActivity { first, last }) = self.dual.take() else {
            return false;
        };
        self.findings.push(Finding::DualActivity {
            at: now,
            epoch: self.own_epoch,
            proven: last.since(first),
            at_most: ended.since(self.alone_at),
        });
        true
    }

    /// Since when our state and the peer's standing have both been what they are.
    pub(super) fn held_since(&self) -> BootTime {
        self.entered.max(self.standing_since)
    }

    /// Since when the peer, beside which we stand by, owns the group that is to be ours.
    pub(super) fn preferred_since(&self) -> BootTime {
        self.held_since().max(self.ranked_since)
    }

    pub(super) fn evidence_from(&self) -> BootTime {
        self.report.last_heard.max(self.listening_since)
    }

    fn silence(&self) -> Duration {
        self.ticked.since(self.evidence_from())
    }

    pub(super) fn peer_silent(&self) -> Cause {
        Cause::PeerSilent {
            silence: self.silence(),
            dead: self.policy.dead,
        }
    }

    pub(super) fn peer_headless(&self) -> Cause {
        Cause::PeerAgentDead {
            age: self.report.agent_age,
            agent_dead: self.policy.agent_dead,
        }
    }

    pub(super) fn peer_outdated(&self) -> Cause {
        Cause::PeerOutdated {
            epoch: self.report.claim.epoch,
            newest: self.newest.epoch,
        }
    }
}
