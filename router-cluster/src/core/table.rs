//! The transition table: where each state leads, by what the peer is.

use std::{cmp::Ordering, time::Duration};

use router_common::{
    identity::{Epoch, Flags},
    time::BootTime,
};

use super::{
    super::{cause::Cause, policy::Rule, report::Standing},
    Core,
};

/// [`State`](super::State) with what the machine alone needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    Initializing,
    Standby,
    Candidate(Wanted),
    Active,
    Draining,
    Fault,
}

/// What a candidate asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// A group that nobody owns.
    Vacancy,
    /// A group whose owner is not well.
    Relief,
    /// The primary's group, which the secondary owns; or one whose owner has the lower priority.
    Failback,
    /// A group whose owner hands it over, or that the operator wants here.
    Handover,
}

/// A cell of the transition table: where to, why, and from when on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    pub due: BootTime,
    pub to: Stage,
    pub cause: Cause,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every cell of the table is an Option<Move>, so that it reads as one line"
)]
impl Move {
    const fn now(to: Stage, cause: Cause) -> Option<Self> {
        Self::at(BootTime::NEVER, to, cause)
    }

    pub(super) const fn at(due: BootTime, to: Stage, cause: Cause) -> Option<Self> {
        Some(Self { due, to, cause })
    }

    /// Whether it asks one who forwards to let go.
    pub(super) fn asks_an_owner(&self) -> bool {
        match self.to {
            Stage::Candidate(Wanted::Relief | Wanted::Failback | Wanted::Handover) => true,
            Stage::Candidate(Wanted::Vacancy)
            | Stage::Initializing
            | Stage::Standby
            | Stage::Active
            | Stage::Draining
            | Stage::Fault => false,
        }
    }
}

impl Core {
    pub(super) fn next_move(&self) -> Option<Move> {
        let step = self.imposed_move().or_else(|| self.move_by_peer())?;
        Some(if step.to == Stage::Active && !self.owns() {
            Move {
                due: step.due.max(self.promised_until()),
                ..step
            }
        } else {
            step
        })
    }

    /// Whether `step` is due, and not one that the arbiter must allow first.
    pub(super) fn may_make(&self, step: &Move) -> bool {
        let allowed = match self.policy.rule() {
            Rule::Arbiter(_) if step.to == Stage::Active && !self.owns() => {
                self.victory().is_some()
            }
            Rule::Arbiter(_) if step.asks_an_owner() => self.could_claim(),
            Rule::Arbiter(_) | Rule::OwnWord | Rule::Grants => true,
        };
        allowed && step.due <= self.ticked
    }

    /// Until when what we granted keeps us from becoming active.
    fn promised_until(&self) -> BootTime {
        match self.standing {
            // It has said that it does not forward; its fence was closed before. What it said of an
            // earlier epoch it may have said before we granted.
            Standing::Out | Standing::Ready | Standing::Asking
                if self.report.claim.epoch >= self.newest.epoch =>
            {
                BootTime::NEVER
            }
            Standing::Out
            | Standing::Ready
            | Standing::Asking
            | Standing::Unknown
            | Standing::Silent
            | Standing::Headless
            | Standing::Owner
            | Standing::Impaired
            | Standing::Draining
            | Standing::Outdated => {
                if self.granted.is_never() || self.granted_is_all {
                    self.lease.promised_until(self.bound_since())
                } else {
                    self.ticked.after(Duration::from_nanos(1))
                }
            }
        }
    }

    /// From when on our last grant binds us. The lease runs from what the peer sent and we echoed: it had
    /// sent that before we heard it, however often we echoed it since.
    fn bound_since(&self) -> BootTime {
        let heard = self.report.last_heard;
        if heard.is_never() {
            // Nothing is known of what an earlier life heard.
            self.granted
        } else {
            self.granted.min(heard)
        }
    }

    /// If our priority is the higher one.
    fn outranks(&self) -> Option<Cause> {
        (self.rank() == Ordering::Greater).then(|| self.priorities())
    }

    /// If the peer's is.
    fn outranked(&self) -> Option<Cause> {
        (self.rank() == Ordering::Less).then(|| self.priorities())
    }

    fn priorities(&self) -> Cause {
        Cause::Priorities {
            ours: self.priority,
            peers: self.report.flags.priority().unwrap_or_default(),
        }
    }

    /// What holds whatever the peer is.
    fn imposed_move(&self) -> Option<Move> {
        match self.stage {
            Stage::Active if self.stopping && self.has_successor() => {
                Move::now(Stage::Draining, Cause::Stopping)
            }
            Stage::Initializing | Stage::Active if self.stopping => {
                Move::now(Stage::Fault, Cause::Stopping)
            }
            Stage::Active | Stage::Draining if self.newest.epoch > self.own_epoch => {
                let epoch = self.newest.epoch;
                let cause = if self.report.claim.epoch == epoch {
                    let node = self.policy.peer;
                    Cause::HigherEpoch { epoch, node }
                } else {
                    Cause::HigherRecord { epoch }
                };
                Move::now(self.let_go(), cause)
            }
            Stage::Active | Stage::Draining if self.lacks_authority() => {
                Move::now(self.let_go(), Cause::NoAuthority)
            }
            Stage::Active if self.forced.is_some() && self.lapsed.is_none() => {
                Move::now(Stage::Draining, Cause::Forced)
            }
            Stage::Active | Stage::Draining => self
                .lapsed
                .and_then(|stopped| Move::now(self.let_go(), Cause::AuthorityLapsed { stopped })),
            Stage::Standby | Stage::Candidate(_) => match (self.trouble(), self.victory()) {
                (Some(trouble), _) => Move::now(Stage::Fault, trouble),
                (None, Some(won)) => Move::now(Stage::Active, won.cause),
                (None, None) => None,
            },
            Stage::Initializing | Stage::Fault => None,
        }
    }

    /// What an owner becomes that is one no longer. A lost epoch is no trouble: it finds its trouble
    /// in its next state, but for one that leaves.
    fn let_go(&self) -> Stage {
        if self.stopping {
            Stage::Fault
        } else {
            Stage::Standby
        }
    }

    /// What an owner becomes that nobody relieves.
    fn keep(&self) -> Stage {
        if self.stopping {
            Stage::Fault
        } else {
            Stage::Active
        }
    }

    /// The transition table.
    #[expect(
        clippy::too_many_lines,
        clippy::match_same_arms,
        reason = "one table, read from top to bottom, in the order of its subjects"
    )]
    fn move_by_peer(&self) -> Option<Move> {
        use Stage::{Active, Candidate, Draining, Fault, Initializing, Standby};
        use Standing as Peer;
        use Wanted::{Failback, Handover, Relief, Vacancy};

        let policy = &self.policy;
        let first = policy.goes_first();
        let called = self.forced.is_some();
        let peer_called = self.report.flags.contains(Flags::FORCED);
        // Of two that could own the group, and do not ask for it yet; and of two that do: these may not have
        // heard of each other's priorities.
        let preferred = match self.rank() {
            Ordering::Greater => true,
            Ordering::Equal => first,
            Ordering::Less => false,
        };
        let failback = self
            .outranks()
            .or((preferred && policy.auto_failback).then_some(Cause::Failback));
        let before_peer = preferred && !self.stands_back && !peer_called;
        let asks_first = if called == peer_called { first } else { called };
        let alone = policy.rule() == Rule::OwnWord;
        let consistent = policy.rule() == Rule::Grants;
        let held = self.held_since();
        let waited = self.ticked.since(held);
        let announced = held.max(self.entered.after(policy.announcing()));
        let epoch = self.report.claim.epoch;

        match (self.stage, self.standing) {
            // A start waits for the peer; a dead agent is most likely starting, too.
            (Initializing, Peer::Unknown | Peer::Silent | Peer::Headless) => Move::at(
                self.entered.after(policy.initial_wait),
                Standby,
                Cause::NobodyHeard {
                    waited: self.ticked.since(self.entered),
                },
            ),
            (
                Initializing,
                Peer::Out
                | Peer::Ready
                | Peer::Asking
                | Peer::Owner
                | Peer::Impaired
                | Peer::Draining
                | Peer::Outdated,
            ) => Move::now(Standby, Cause::PeerHeard),

            // The peer is dead, or we cannot hear it: nobody to ask.
            (Standby, Peer::Silent | Peer::Headless) if consistent => None,
            (Candidate(_), Peer::Silent) if consistent => Move::now(Standby, self.peer_silent()),
            (Candidate(_), Peer::Headless) if consistent => {
                Move::now(Standby, self.peer_headless())
            }
            (Standby, Peer::Silent) => Move::now(Candidate(Vacancy), self.peer_silent()),
            (Candidate(_), Peer::Silent) => Move::now(Active, self.peer_silent()),
            (Standby, Peer::Headless) => Move::now(Candidate(Vacancy), self.peer_headless()),
            (Candidate(_), Peer::Headless) => Move::now(Active, self.peer_headless()),

            // The operator wants it here.
            (Standby, Peer::Out | Peer::Ready | Peer::Asking) if called => {
                Move::now(Candidate(Vacancy), Cause::Forced)
            }
            (Standby, Peer::Owner | Peer::Impaired) if called => {
                Move::now(Candidate(Handover), Cause::Forced)
            }

            // Nobody owns the group: the primary goes first, the secondary when it has to. That it is
            // preferred its peer may not have heard yet, and may have ceased to be out.
            (Standby, Peer::Out) if before_peer && first => {
                Move::now(Candidate(Vacancy), Cause::UnownedAndPeerOut)
            }
            // Before the first epoch a peer that is out is most likely starting, and goes first.
            (Standby, Peer::Out) if self.newest.epoch == Epoch::default() => Move::at(
                held.after(policy.patience()),
                Candidate(Vacancy),
                Cause::UnownedAndPeerOut,
            ),
            (Standby, Peer::Out) => Move::at(
                held.after(policy.announcing()),
                Candidate(Vacancy),
                Cause::UnownedAndPeerOut,
            ),
            (Standby, Peer::Ready) if before_peer => Move::now(
                Candidate(Vacancy),
                self.outranks().unwrap_or(Cause::UnownedAndPrimary),
            ),
            (Standby, Peer::Asking) if before_peer && asks_first => {
                Move::now(Candidate(Vacancy), Cause::UnownedAndPrimary)
            }
            (Standby, Peer::Ready) => Move::at(
                held.after(policy.patience()),
                Candidate(Vacancy),
                Cause::UnownedForLong { waited },
            ),
            // It is the peer's turn, and it takes it.
            (Standby, Peer::Asking) => None,
            // One who is out cannot contend. One who yielded to us does not.
            (Candidate(Vacancy), Peer::Out) => Move::now(Active, Cause::UnownedAndPeerOut),
            (Candidate(Relief), Peer::Out)
            | (Candidate(Failback | Handover), Peer::Out | Peer::Ready) => {
                Move::now(Active, Cause::PeerYielded)
            }
            (Candidate(Vacancy | Relief), Peer::Ready) => {
                Move::at(announced, Active, Cause::Announced { waited })
            }
            (Candidate(_), Peer::Asking) if asks_first => {
                Move::at(announced, Active, Cause::Announced { waited })
            }
            (Candidate(_), Peer::Asking) => Move::now(Standby, Cause::BothAsk),

            // The peer owns the group: it may be asked to yield, for a reason.
            (Standby, Peer::Owner) if before_peer => failback.and_then(|cause| {
                let due = self.preferred_since().after(policy.failback_hold);
                Move::at(due.max(self.ask_not_before), Candidate(Failback), cause)
            }),
            (Standby, Peer::Owner) => None,
            (Standby, Peer::Impaired) => {
                Move::at(self.ask_not_before, Candidate(Relief), Cause::PeerImpaired)
            }
            (Candidate(Vacancy), Peer::Owner | Peer::Impaired) => {
                Move::now(Standby, Cause::PeerActive { epoch })
            }
            (Standby, Peer::Draining) => Move::now(Candidate(Handover), Cause::PeerDraining),
            (Candidate(Vacancy), Peer::Draining) => Move::now(Standby, Cause::PeerActive { epoch }),
            // By its own word it may forward beside us until it has heard of us.
            (Candidate(_), Peer::Draining) if alone => Move::now(Active, Cause::PeerYielded),
            (Candidate(Relief), Peer::Owner) => Move::now(Standby, Cause::PeerRecovered),
            (Candidate(Failback), Peer::Owner) if failback.is_none() && !called => {
                Move::now(Standby, self.priorities())
            }
            (Candidate(Relief), Peer::Impaired | Peer::Draining)
            | (Candidate(Failback | Handover), Peer::Owner | Peer::Impaired | Peer::Draining) => {
                Move::at(
                    self.entered.after(policy.yielding()),
                    Standby,
                    Cause::PeerDidNotYield {
                        waited: self.ticked.since(self.entered),
                    },
                )
            }

            // The peer acts on an epoch that has passed. Our heartbeats tell it; if they do not
            // get through, a new epoch ends it where its packets arrive.
            (Standby, Peer::Outdated) => Move::at(
                held.after(policy.patience()),
                Candidate(Vacancy),
                self.peer_outdated(),
            ),
            (Candidate(_), Peer::Outdated) => Move::at(announced, Active, self.peer_outdated()),

            // We own the group.
            (Active, Peer::Asking) if self.report.claim != self.newest => None,
            (Active, Peer::Asking) => match self.trouble() {
                Some(trouble) => Move::now(Fault, trouble),
                None if peer_called => Move::now(Draining, Cause::Forced),
                None => self
                    .outranked()
                    .or((!preferred && policy.auto_failback).then_some(Cause::Failback))
                    .and_then(|cause| Move::now(Draining, cause)),
            },
            // Both do, and under the same epoch, or the higher one would have won already.
            (Active, Peer::Owner | Peer::Impaired) if first => None,
            (Active, Peer::Owner | Peer::Impaired) => Move::now(Standby, Cause::SameEpoch),
            (Active, Peer::Draining) => None,
            (Draining, Peer::Owner | Peer::Impaired | Peer::Draining) => {
                Move::now(self.let_go(), Cause::SameEpoch)
            }
            // Who lives on what the successor must not have given away lets go first.
            (Draining, Peer::Asking) if !alone && self.report.claim == self.newest => {
                Move::now(self.let_go(), Cause::HandedOver)
            }
            (Draining, Peer::Unknown | Peer::Ready | Peer::Asking) => Move::at(
                self.entered.after(policy.yielding()),
                self.keep(),
                Cause::NobodyTookOver,
            ),
            (Draining, Peer::Silent | Peer::Headless | Peer::Out | Peer::Outdated) => {
                Move::now(self.keep(), Cause::NobodyTookOver)
            }
            (
                Active,
                Peer::Unknown
                | Peer::Silent
                | Peer::Headless
                | Peer::Out
                | Peer::Ready
                | Peer::Outdated,
            ) => None,

            // No evidence, no move.
            (Standby | Candidate(_), Peer::Unknown) => None,

            (
                Fault,
                Peer::Unknown
                | Peer::Silent
                | Peer::Headless
                | Peer::Out
                | Peer::Ready
                | Peer::Asking
                | Peer::Owner
                | Peer::Impaired
                | Peer::Draining
                | Peer::Outdated,
            ) => match self.lasting_trouble() {
                Some(_) => None,
                None => Move::at(self.hold_until, Standby, Cause::Recovered),
            },
        }
    }
}
