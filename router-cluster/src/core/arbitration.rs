//! What is known of the arbiter's record, what to ask next, and what an answer is worth.

use router_common::{
    identity::{Claim, Epoch, NodeId},
    lease,
    time::BootTime,
};

use super::{
    super::{
        arbiter::{Answer, Fault, Mode, Record, Request, Revision},
        cause::Cause,
        history::{ArbiterFinding, Finding},
        policy::{ArbiterPolicy, Rule},
        report::Standing,
    },
    Command, Core, Refusal,
    table::{Move, Stage},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Arbitration {
    /// What the record was last seen to be.
    pub seen: Option<Seen>,
    /// Counts the requests.
    pub asked: u64,
    pub pending: Option<Pending>,
    /// What was last in vain, of what nobody waits for and of what somebody does: neither makes the other rest,
    /// nor has it begin anew.
    pub vain: [Option<Vain>; 2],
    /// Our record alone lets us forward from the one until the other; never, if it does not.
    pub held_from: BootTime,
    pub held_until: BootTime,
    /// While candidate: the record is ours, under this epoch.
    pub won: Option<Won>,
    pub finding: ArbiterFinding,
    /// The operator has said that a record which is behind may be replaced.
    pub overruled: bool,
    /// In the call that brings the answer to a look: the arbiter is there now.
    pub just_looked: bool,
}

/// One state of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub found: Option<(Revision, Record)>,
    /// When the answer came that showed it first.
    pub since: BootTime,
    /// When the newest answer came that showed it.
    pub checked: BootTime,
    /// Whether we act on it: see [`ArbiterFinding`].
    pub sound: bool,
}

impl Seen {
    fn revision(&self) -> Option<Revision> {
        self.found.map(|(revision, _)| revision)
    }

    fn record(&self) -> Option<Record> {
        self.found.map(|(_, record)| record)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub number: u64,
    pub purpose: Purpose,
    pub request: Request,
    pub since: BootTime,
    /// The newest epoch known when it was asked: what is found then cannot be older.
    pub known: Epoch,
    pub cause: Option<Cause>,
}

/// A purpose that nothing has come to, since when, and until when it rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Vain {
    pub purpose: Purpose,
    pub since: BootTime,
    pub until: BootTime,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// To know the record.
    Watch,
    /// To know by what an owner lives that is suspected, or is to be asked to let go: nobody waits then for
    /// what a watch comes to, nor for what it asked in another state, and what that came to.
    Look,
    /// To have one, which nobody owns: only from a record can a claim tell that it is unchanged.
    Found,
    /// To own it.
    Claim,
    /// To live on it: while its grants are missing, or not there yet.
    Hold,
    /// To live on grants alone.
    Pair,
}

impl Purpose {
    /// Its place in [`Arbitration::vain`].
    fn slot(self) -> usize {
        match self {
            Self::Watch | Self::Pair => 0,
            Self::Look | Self::Found | Self::Claim | Self::Hold => 1,
        }
    }

    /// Whether it does not wait for the answer to `other`. A look would lose what a claim has won.
    fn displaces(self, other: Self) -> bool {
        match self {
            Self::Found | Self::Claim | Self::Hold => self != other,
            Self::Look => other == Self::Watch,
            Self::Watch | Self::Pair => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Won {
    pub epoch: Epoch,
    pub cause: Cause,
}

/// A request that would be made at `due`.
#[derive(Clone, Copy, Debug)]
struct Wish {
    due: BootTime,
    purpose: Purpose,
    request: Request,
    cause: Option<Cause>,
}

impl Arbitration {
    pub(super) const fn new() -> Self {
        Self {
            seen: None,
            asked: 0,
            pending: None,
            vain: [None; 2],
            held_from: BootTime::NEVER,
            held_until: BootTime::NEVER,
            won: None,
            finding: ArbiterFinding::NeverHeard,
            overruled: false,
            just_looked: false,
        }
    }
}

impl Core {
    /// What the arbiter is found to be.
    pub const fn arbiter_finding(&self) -> ArbiterFinding {
        self.arbitration.finding
    }

    /// The record as it was last seen.
    pub fn record(&self) -> Option<Record> {
        self.arbitration.seen?.record()
    }

    pub(super) fn is_record_unsound(&self) -> bool {
        self.arbitration.seen.is_some_and(|seen| !seen.sound)
    }

    /// Has a record replaced that is not to be acted on.
    pub(super) fn overrule(&mut self, overruled: bool) {
        self.arbitration.overruled = overruled;
    }

    /// What was looked for in another state, or before the operator gave an order, is of no use.
    pub(super) fn forget_look(&mut self) {
        let Arbitration { pending, vain, .. } = &mut self.arbitration;
        pending.take_if(|pending| pending.purpose == Purpose::Look);
        vain[Purpose::Look.slot()].take_if(|vain| vain.purpose == Purpose::Look);
    }

    // ---- Answers -----------------------------------------------------------------------------

    /// `sent` is a moment before the request left, `now` one after its answer came.
    pub(super) fn answered(&mut self, number: u64, sent: BootTime, answer: Answer, now: BootTime) {
        let Some(pending) = self.arbitration.pending.filter(|it| it.number == number) else {
            return;
        };
        self.arbitration.pending = None;
        self.arbitration.just_looked = pending.purpose == Purpose::Look && self.is_news(sent, now);
        match answer {
            Answer::Found(found) => self.found(found, &pending, now),
            Answer::Swapped(revision) => self.swapped(revision, &pending, sent, now),
            Answer::Failed(fault) => self.failed(&pending, fault, now),
        }
    }

    /// Whether an answer to what was `sent` tells how the arbiter is now.
    fn is_news(&self, sent: BootTime, now: BootTime) -> bool {
        match self.policy.rule() {
            Rule::Arbiter(policy) => now < sent.after(policy.timeout),
            Rule::OwnWord | Rule::Grants => false,
        }
    }

    /// Whether a record that its owner lets go of could be had: the arbiter has told of it in this very moment, being
    /// asked for that. One that is not to be acted on would have to be outlasted, whatever the operator says.
    pub(super) fn could_claim(&self) -> bool {
        self.arbitration.just_looked && self.arbitration.finding == ArbiterFinding::Well
    }

    fn found(&mut self, found: Option<(Revision, Record)>, pending: &Pending, now: BootTime) {
        let is = self.finding_of(found, pending.known);
        let before = self.arbitration.seen.filter(|seen| seen.found == found);
        self.arbitration.seen = Some(Seen {
            found,
            since: before.map_or(now, |seen| seen.since),
            checked: now,
            sound: is == ArbiterFinding::Well,
        });
        match is {
            ArbiterFinding::Well => self.answered_well(now),
            ArbiterFinding::NeverHeard
            | ArbiterFinding::Failing(_)
            | ArbiterFinding::Behind { .. }
            | ArbiterFinding::Foreign { .. } => {
                self.find_arbiter(is, now);
                self.rest(pending, now);
                self.refuse_forced(pending, now);
            }
        }
        // Whoever owns it: nobody is to claim below it.
        if let Some((_, record)) = found
            && record.claim.epoch > self.newest.epoch
        {
            // Who owns it is known when he says so himself: only then he has heard of it.
            self.newest = Claim {
                epoch: record.claim.epoch,
                owner: NodeId::NONE,
            };
            self.judge(now);
        }
    }

    /// What the operator asked for, and the arbiter does not allow now, is not done at some later time.
    fn refuse_forced(&mut self, looked: &Pending, now: BootTime) {
        if looked.purpose == Purpose::Look && self.stage == Stage::Standby {
            self.drop_order(Refusal::Arbiter(self.arbitration.finding), now);
        }
    }

    fn swapped(&mut self, revision: Revision, pending: &Pending, sent: BootTime, now: BootTime) {
        let Request::Swap {
            expected: _,
            record,
        } = pending.request
        else {
            return;
        };
        self.arbitration.seen = Some(Seen {
            found: Some((revision, record)),
            since: now,
            checked: now,
            sound: true,
        });
        self.answered_well(now);
        let Mode::Solo { term } = record.mode else {
            return;
        };
        let until = sent.after(term);
        // An answer that comes after what it would give has ended gives nothing.
        if record.claim.owner != self.policy.node || until <= now {
            return;
        }
        if let (Purpose::Claim, Some(cause)) = (pending.purpose, pending.cause) {
            if record.claim.epoch <= self.newest.epoch {
                return;
            }
            self.arbitration.won = Some(Won {
                epoch: record.claim.epoch,
                cause,
            });
        }
        self.arbitration.held_from = sent;
        self.arbitration.held_until = until;
    }

    fn answered_well(&mut self, now: BootTime) {
        self.arbitration.overruled = false;
        self.arbitration.vain = [None; 2];
        self.find_arbiter(ArbiterFinding::Well, now);
    }

    fn failed(&mut self, pending: &Pending, fault: Fault, now: BootTime) {
        self.rest(pending, now);
        self.find_arbiter(ArbiterFinding::Failing(fault), now);
        self.refuse_forced(pending, now);
    }

    /// What is in vain is asked again after as long as it has been so: one failure costs an owner or a candidate
    /// little, and an arbiter that stays away is not flooded.
    fn rest(&mut self, asked: &Pending, now: BootTime) {
        let Rule::Arbiter(policy) = self.policy.rule() else {
            return;
        };
        let slot = &mut self.arbitration.vain[asked.purpose.slot()];
        let since = slot
            .filter(|vain| vain.purpose == asked.purpose)
            .map_or(asked.since, |vain| vain.since);
        *slot = Some(Vain {
            purpose: asked.purpose,
            since,
            until: now.after(policy.pause_after(now.since(since))),
        });
    }

    /// Whether what was found may be acted on. Epochs only grow, and within one so do revisions: the
    /// opposite means that the arbiter has forgotten.
    fn finding_of(&self, found: Option<(Revision, Record)>, known: Epoch) -> ArbiterFinding {
        let behind = |found| ArbiterFinding::Behind { found, known };
        let Some((revision, Record { claim, mode })) = found else {
            return if known == Epoch::default() {
                ArbiterFinding::Well
            } else {
                behind(None)
            };
        };
        let went_back = self
            .arbitration
            .seen
            .and_then(|seen| seen.found)
            .is_some_and(|(newer, record)| {
                record.claim.epoch == claim.epoch && newer.0 > revision.0
            });
        if claim.epoch < known || went_back {
            return behind(Some(claim.epoch));
        }
        // Whoever lives on grants lives on those of nodes that we know nothing of.
        let ours = claim.owner == self.policy.node;
        let peers = claim.owner == self.policy.peer && self.policy.grants_count();
        match mode {
            Mode::Paired if ours || peers => ArbiterFinding::Well,
            Mode::Paired => ArbiterFinding::Foreign { owner: claim.owner },
            Mode::Solo { .. } => ArbiterFinding::Well,
        }
    }

    fn find_arbiter(&mut self, is: ArbiterFinding, now: BootTime) {
        if is != self.arbitration.finding {
            self.arbitration.finding = is;
            self.findings.push(Finding::Arbiter { at: now, is });
        }
    }

    // ---- Requests ----------------------------------------------------------------------------

    /// Asks what is to be asked now.
    pub(super) fn consult(&mut self, now: BootTime, commands: &mut Vec<Command>) {
        let Rule::Arbiter(policy) = self.policy.rule() else {
            return;
        };
        // Time begins with the first tick.
        if self.ticked.is_never() {
            return;
        }
        if let Some(pending) = self.arbitration.pending {
            if !self.still_wants(pending.purpose) {
                self.arbitration.pending = None;
            } else if self.ticked >= pending.since.after(policy.timeout) {
                self.arbitration.pending = None;
                self.failed(&pending, Fault::TimedOut, now);
            }
        }
        let wish = self.wish(&policy);
        if wish.due > self.ticked {
            return;
        }
        let waits = |pending: Pending| !wish.purpose.displaces(pending.purpose);
        if self.arbitration.pending.is_some_and(waits) {
            return;
        }
        if wish.purpose == Purpose::Pair {
            // Before the record says that we do not live on it, we do not.
            self.arbitration.held_until = BootTime::NEVER;
        }
        self.arbitration.asked += 1;
        let number = self.arbitration.asked;
        self.arbitration.pending = Some(Pending {
            number,
            purpose: wish.purpose,
            request: wish.request,
            since: now,
            known: self.newest.epoch,
            cause: wish.cause,
        });
        commands.push(Command::Ask {
            number,
            request: wish.request,
        });
    }

    fn still_wants(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Watch | Purpose::Look => true,
            Purpose::Found | Purpose::Claim => matches!(self.stage, Stage::Candidate(_)),
            Purpose::Hold | Purpose::Pair => self.owns(),
        }
    }

    /// When the core would ask something, or give up what it asked.
    pub(super) fn arbiter_deadline(&self) -> Option<BootTime> {
        let Rule::Arbiter(policy) = self.policy.rule() else {
            return None;
        };
        let wish = Some(self.wish(&policy).due);
        let answer = self
            .arbitration
            .pending
            .map(|pending| pending.since.after(policy.timeout));
        let end = self.owns().then(|| self.given_up_at());
        [wish, answer, end]
            .into_iter()
            .flatten()
            .filter(|&at| at > self.ticked)
            .min()
    }

    fn wish(&self, policy: &ArbiterPolicy) -> Wish {
        let watch = self.watch(policy);
        let wish = match self.stage {
            Stage::Initializing | Stage::Fault => watch,
            Stage::Standby => match self.look_before_asking(watch) {
                Some(look) if look.due <= watch.due.max(self.ticked) => look,
                Some(_) | None => watch,
            },
            Stage::Candidate(_) => {
                let look = self.look_at_least_once(watch);
                match self.claim(policy) {
                    Some(claim) if claim.due <= look.due.max(self.ticked) => claim,
                    Some(_) | None => look,
                }
            }
            Stage::Active | Stage::Draining => self.tenure(policy).unwrap_or(watch),
        };
        let rested = match self.arbitration.vain[wish.purpose.slot()] {
            Some(Vain { purpose, until, .. }) if purpose == wish.purpose => until,
            Some(_) | None => BootTime::NEVER,
        };
        Wish {
            due: wish.due.max(rested),
            ..wish
        }
    }

    fn watch(&self, policy: &ArbiterPolicy) -> Wish {
        let due = self.arbitration.seen.map_or(BootTime::NEVER, |seen| {
            let paired = seen.sound && seen.record().is_some_and(|it| it.mode == Mode::Paired);
            seen.checked.after(policy.watch(paired))
        });
        Wish {
            due,
            purpose: Purpose::Watch,
            request: Request::Read,
            cause: None,
        }
    }

    /// A standby that would ask an owner to let go looks first whether it could follow.
    fn look_before_asking(&self, watch: Wish) -> Option<Wish> {
        let step = self.next_move().filter(Move::asks_an_owner)?;
        Some(Wish {
            due: step.due,
            purpose: Purpose::Look,
            ..watch
        })
    }

    /// A candidate looks before it waits: since the record was seen, its owner may have ceased to live on it.
    fn look_at_least_once(&self, watch: Wish) -> Wish {
        let has_looked = self
            .arbitration
            .seen
            .is_some_and(|it| it.checked >= self.entered);
        if has_looked {
            return watch;
        }
        Wish {
            due: BootTime::NEVER,
            purpose: Purpose::Look,
            ..watch
        }
    }

    /// A candidate's request to own the group, if the table lets it become active.
    fn claim(&self, policy: &ArbiterPolicy) -> Option<Wish> {
        let step = self.next_move().filter(|step| step.to == Stage::Active)?;
        let seen = self.arbitration.seen?;
        if !seen.sound && !self.arbitration.overruled {
            return None;
        }
        let (due, purpose, epoch, owner) = match seen.record() {
            None => (
                BootTime::NEVER,
                Purpose::Found,
                self.newest.epoch,
                NodeId::NONE,
            ),
            Some(_) => (
                self.replaceable_from(&seen, policy),
                Purpose::Claim,
                self.newest.epoch.next()?,
                self.policy.node,
            ),
        };
        Some(Wish {
            due: step.due.max(due),
            purpose,
            request: Request::Swap {
                expected: seen.revision(),
                record: Record {
                    claim: Claim { epoch, owner },
                    mode: Mode::Solo { term: policy.term },
                },
            },
            cause: Some(step.cause),
        })
    }

    /// From when on nobody can be active by this state of the record, if it is replaced unchanged.
    fn replaceable_from(&self, seen: &Seen, policy: &ArbiterPolicy) -> BootTime {
        let outlasted = |term| seen.since.after(lease::outlasting(term));
        match seen.record().filter(|_| seen.sound) {
            // What it has forgotten may have been another's, of the same term.
            None => outlasted(policy.term),
            Some(Record {
                claim: _,
                mode: Mode::Paired,
            }) => BootTime::NEVER,
            Some(Record {
                claim: Claim { epoch, owner },
                mode: Mode::Solo { term },
            }) => {
                let peers = owner == self.policy.peer && self.peer_let_go(epoch);
                // We do not forward.
                let ours = owner == self.policy.node;
                if ours || peers {
                    BootTime::NEVER
                } else {
                    outlasted(term)
                }
            }
        }
    }

    /// Whether the peer says that it does not forward, and knows of `epoch`: what it said before it
    /// could know is no word on it.
    fn peer_let_go(&self, epoch: Epoch) -> bool {
        match self.standing {
            Standing::Out | Standing::Ready | Standing::Asking => self.report.claim.epoch >= epoch,
            Standing::Unknown
            | Standing::Silent
            | Standing::Headless
            | Standing::Owner
            | Standing::Impaired
            | Standing::Draining
            | Standing::Outdated => false,
        }
    }

    /// What an active wants of its record, unless that is only to see it.
    fn tenure(&self, policy: &ArbiterPolicy) -> Option<Wish> {
        let seen = self.arbitration.seen?;
        let claim = Claim {
            epoch: self.own_epoch,
            owner: self.policy.node,
        };
        let ours = seen.record().is_some_and(|record| record.claim == claim);
        let possible_from = if ours && seen.sound {
            BootTime::NEVER
        } else if self.arbitration.overruled {
            self.replaceable_from(&seen, policy)
        } else {
            return None;
        };
        let write = |purpose, mode, due: BootTime| {
            Some(Wish {
                due: due.max(possible_from),
                purpose,
                request: Request::Swap {
                    expected: seen.revision(),
                    record: Record { claim, mode },
                },
                cause: None,
            })
        };
        let solo = Mode::Solo { term: policy.term };
        let missed = self.missed_from();
        let granted = self.ticked < missed;
        // One that was stopped hears what its peer has to say before it takes a record from both.
        let heard = self.listening_since.after(self.policy.exchange());
        let paired = seen
            .record()
            .is_some_and(|record| record.mode == Mode::Paired);
        let holds = self.ticked < self.arbitration.held_until;
        let renewal = self.arbitration.held_from.after(policy.renewal());
        match (holds, granted) {
            (true, true) => {
                let solitude = policy.solitude(self.policy.dead);
                write(
                    Purpose::Pair,
                    Mode::Paired,
                    self.arbitration.held_from.after(solitude),
                )
            }
            (true, false) => write(Purpose::Hold, solo, renewal),
            (false, false) if paired => write(Purpose::Hold, solo, heard),
            (false, false) => write(Purpose::Hold, solo, BootTime::NEVER),
            (false, true) if paired => {
                let suspected = missed.max(heard);
                let watch = self.watch(policy);
                if watch.due < suspected {
                    Some(watch)
                } else {
                    write(Purpose::Hold, solo, suspected)
                }
            }
            (false, true) => write(Purpose::Pair, Mode::Paired, BootTime::NEVER),
        }
    }

    // ---- Authority ---------------------------------------------------------------------------

    /// What lets a candidate become active: the record is its own, and has not lapsed since.
    pub(super) fn victory(&self) -> Option<Won> {
        self.arbitration.won.filter(|won| {
            won.epoch > self.newest.epoch && self.ticked < self.arbitration.held_until
        })
    }

    /// From when on an active does not count on the next grant any more.
    fn missed_from(&self) -> BootTime {
        if self.policy.grants_count() && self.report.leased >= self.active_since {
            self.report.leased.after(self.policy.suspicion(self.lease))
        } else {
            BootTime::NEVER
        }
    }

    /// Whether an owner is one no longer, because nothing has let it forward for a while: what was only
    /// late lets it go on, under the same epoch.
    pub(super) fn lacks_authority(&self) -> bool {
        match self.policy.rule() {
            // Before the first tick nothing is known of a lease that goes on from a former life.
            Rule::Arbiter(_) => !self.ticked.is_never() && self.ticked >= self.given_up_at(),
            Rule::OwnWord | Rule::Grants => false,
        }
    }

    fn given_up_at(&self) -> BootTime {
        self.authority_end()
            .max(self.active_since)
            .after(self.policy.dead)
    }

    /// When the fence of an active ends, unless something renews it.
    fn authority_end(&self) -> BootTime {
        let lease_end = if self.policy.grants_count() && self.report.leased >= self.active_since {
            self.report.leased.after(self.lease.duration())
        } else {
            BootTime::NEVER
        };
        self.arbitration.held_until.max(lease_end)
    }
}
