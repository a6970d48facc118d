//! The machine: five states, nine things a peer can be, one table.

use std::{fmt, time::Duration};

use router_common::{
    identity::{Claim, Epoch, Flags, NodeId},
    lease::Length,
    time::BootTime,
};

use super::{
    cause::Cause,
    history::{Finding, Pending, Transition},
    mandate::{Authority, Mandate, Opening},
    policy::{Policy, Prefer},
    report::{FormerLife, PeerFinding, PeerReport, Standing},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Listens for the peer before it takes part.
    Initializing,
    /// Well, and ready to become active.
    Standby,
    /// Asks to become active: for a group that nobody owns, or one whose owner should yield.
    Candidate,
    /// Owns the group.
    Active,
    /// Must not become active.
    Fault,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initializing => "Initializing",
            Self::Standby => "Standby",
            Self::Candidate => "Candidate",
            Self::Active => "Active",
            Self::Fault => "Fault",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// What the kernel knows of the peer, at every probe and at each [`Core::next_deadline`].
    /// Time passes for the core only by this event, because only here can it tell silence of the
    /// peer from a stop of its own.
    Tick(PeerReport),
    /// What the monitors say. Until the first such event they count as well, so that a group
    /// without monitors needs none; one with monitors sends what it knows before the first tick.
    Monitors { ok: bool },
    /// A takeover step failed for good, or for now: the group would be better off elsewhere.
    TakeoverFailed { epoch: Epoch },
    /// All takeover steps of this epoch are done.
    TakeoverDone { epoch: Epoch },
    /// Orderly stop of the agent: leave, and stay away.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin the takeover steps for this epoch.
    Take { epoch: Epoch },
    /// Undo them.
    Release { epoch: Epoch },
    /// Say again whose the service addresses are (gratuitous ARP, unsolicited neighbour
    /// advertisement): another node held them beside us and has let go.
    Announce { epoch: Epoch },
}

/// What our heartbeats say from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    pub claim: Claim,
    pub flags: Flags,
}

/// The failover core of one group of two nodes, without arbiter.
///
/// # States
///
/// ```text
///                 heard the peer, or waited for it
///  Initializing ──────────────────────────────────► Standby ◄──────────┐
///                                                   │  ▲  │            │ well again
///                              reason to be active  │  │  │ not well   │
///                         ┌─────────────────────────┘  │  ├─────────► Fault
///                         ▼        peer is active,     │  │            ▲ ▲
///                     Candidate ── or goes first ──────┤  │            │ │
///                         │ └──────────────────────────│──┴────────────┘ │
///   nobody stands         │   not well                 │                 │
///   against the claim     ▼                            │                 │
///                      Active ── higher epoch, ────────┘                 │
///                           └─── or primary takes over                   │
///                            └── not well, and the peer takes over ──────┘
/// ```
///
/// # Transitions
///
/// First what holds whatever the peer is: a stop leads to Fault; a Standby or Candidate that is not
/// well (monitors unreachable, takeover failed and its hold not over, no epoch left) goes to Fault;
/// an Active that has heard a higher epoch goes to Standby. Then, by the peer
/// (`Standing` in report.rs), with I, S, C, A for the target state and `·` for
/// staying:
///
/// | peer is  | Initializing       | Standby                    | Candidate                    | Active |
/// |----------|--------------------|----------------------------|------------------------------|--------|
/// | Unknown  | S after *wait*     | ·                          | ·                            | · |
/// | Silent   | S after *wait*     | C                          | A                            | · |
/// | Headless | S after *wait*     | C                          | A                            | · |
/// | Out      | S                  | C; second: after *announcing*, or *patience* before the first epoch | A                         | · |
/// | Ready    | S                  | C; second: after *patience* | A after *announcing*        | · |
/// | Asking   | S                  | first: C; second: ·        | first: A after *announcing*; second: S | S if it asks for failback; Fault if we are not well |
/// | Owner    | S                  | first, with auto-failback: C after *failback-hold* | S; asked for failback: S after *yielding* | first: ·; second: S |
/// | Impaired | S                  | C                          | S; asked it to yield: S after *yielding* | as Owner |
/// | Outdated | S                  | C after *patience*         | A after *announcing*         | · |
///
/// Fault goes to Standby once the node is well and the hold is over, whatever the peer is. *First*
/// is the primary, *second* the secondary. The waits are those of
/// [`Policy`](super::policy::Policy) and run while state and peer both stay what they are.
///
/// # Rules behind the table
///
/// - **Epochs.** A node becomes active only under an epoch higher than every epoch it has heard.
///   Whoever is active and hears of a higher one has lost. Two who are active under the same epoch
///   (both started while they could not hear each other) are told apart by place: primary stays.
/// - **Silence** counts only while we listened: from the last message, or from the end of the last
///   stop of our own. A Candidate facing silence is active in the same call.
/// - **Moving an owned group** is always the successor's request and the owner's consent, for
///   failback and for an owner that is not well alike. An owner without its monitors says so and
///   stays until a node that is better off asks: two nodes that lose the same monitor one after the
///   other do not both let go. It consents only to a request that names its own claim, so a
///   candidate that has merely not heard of the owner yet does not unseat it.
/// - **Authority ends by itself.** An active forwards by its own agent's word, which lasts for
///   `agent_dead` from its last tick: when its peer finds its agent dead, it has ended. Who was stopped
///   for that long starts over as Standby. Where consistency is preferred, an active forwards by its
///   peer's grants alone, and nobody claims from a peer that is Silent or Headless.
/// - **Promises.** Who granted becomes active only when the last grant has ended, or the peer has said
///   that it does not forward. A Candidate grants no more; what it granted it learns with the next
///   tick, when that is closed.
/// - **Without monitors nobody claims.** If the owner dies while its peer is in Fault, the group
///   stays unowned until that peer's monitors answer.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact that holds or not, whatever the others"
)]
#[derive(Clone, Debug)]
pub struct Core {
    policy: Policy,
    stage: Stage,
    /// When `stage` was entered, moved later by the stops since: waits do not run in them.
    entered: BootTime,
    /// The newest epoch known, ours or heard, and who owns the group under it.
    newest: Claim,
    /// The epoch of our last activity; while active, the one we hold.
    own_epoch: Epoch,

    report: PeerReport,
    standing: Standing,
    /// When the peer became what it is, moved later like `entered`.
    standing_since: BootTime,
    peer_finding: PeerFinding,
    /// The last tick: until when we have evidence.
    ticked: BootTime,
    /// The first tick after our start or our last stop: from when we have evidence.
    listening_since: BootTime,

    monitors_ok: bool,
    stopping: bool,
    /// The epoch whose takeover failed, until it succeeds or the hold is over.
    failed_takeover: Option<Epoch>,
    hold_until: BootTime,
    /// No request to yield before this, because the last one was in vain.
    ask_not_before: BootTime,

    /// When we last granted, as far as is known. Of an earlier life it is not: so in the moment of our
    /// start.
    granted: BootTime,
    /// Whether that is all that we granted: since the last tick we have granted nothing.
    granted_is_all: bool,
    /// While active: how long we did not run, if that ended our authority.
    lapsed: Option<Duration>,
    /// While active: since when.
    active_since: BootTime,
    /// The last tick of the life before, if it goes on.
    vouched: BootTime,

    /// While active: the last moment at which the peer is known not to have claimed beside us.
    alone_at: BootTime,
    dual: Option<DualActivity>,
    /// Active since a former life, whose services are to be taken once more.
    reasserts: bool,

    transitions: Pending<Transition>,
    findings: Pending<Finding>,
}

/// [`State`] with what the machine alone needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Initializing,
    Standby,
    Candidate(Request),
    Active,
    Fault,
}

/// What a candidate asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// A group that nobody owns.
    Vacancy,
    /// A group whose owner is not well.
    Relief,
    /// The primary's group, which the secondary owns.
    Failback,
}

/// Messages of a peer that claims while we are active.
#[derive(Clone, Copy, Debug)]
struct DualActivity {
    first: BootTime,
    last: BootTime,
}

/// A cell of the transition table: where to, why, and from when on.
#[derive(Clone, Copy, Debug)]
struct Move {
    due: BootTime,
    to: Stage,
    cause: Cause,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "every cell of the table is an Option<Move>, so that it reads as one line"
)]
impl Move {
    const fn now(to: Stage, cause: Cause) -> Option<Self> {
        Self::at(BootTime::NEVER, to, cause)
    }

    const fn at(due: BootTime, to: Stage, cause: Cause) -> Option<Self> {
        Some(Self { due, to, cause })
    }
}

impl Core {
    /// The longest chain within one call is Active, Standby, Candidate, Active. The bound keeps a
    /// policy that no configuration check lets through (all waits zero) from holding up the caller.
    const TRANSITIONS_PER_CALL: usize = 8;

    pub fn new(policy: Policy, now: BootTime) -> Self {
        Self::with_floor(policy, Epoch::default(), now)
    }

    /// Starts with an epoch known from an earlier life (the pinned map), so that epochs of the
    /// group grow even if all its agents restart at once.
    pub fn with_floor(policy: Policy, newest: Epoch, now: BootTime) -> Self {
        // Who never grants has nothing to wait for.
        let granted = match policy.prefer {
            Prefer::Availability => BootTime::NEVER,
            Prefer::Consistency => now,
        };
        Self {
            policy,
            stage: Stage::Initializing,
            entered: now,
            newest: Claim {
                epoch: newest,
                owner: NodeId::NONE,
            },
            own_epoch: Epoch::default(),
            report: PeerReport::default(),
            standing: Standing::Unknown,
            standing_since: now,
            peer_finding: PeerFinding::NeverHeard,
            ticked: BootTime::NEVER,
            listening_since: BootTime::NEVER,
            monitors_ok: true,
            stopping: false,
            failed_takeover: None,
            hold_until: BootTime::NEVER,
            ask_not_before: BootTime::NEVER,
            granted,
            granted_is_all: false,
            lapsed: None,
            active_since: BootTime::NEVER,
            vouched: BootTime::NEVER,
            alone_at: BootTime::NEVER,
            dual: None,
            reasserts: false,
            transitions: Pending::new(),
            findings: Pending::new(),
        }
    }

    /// Goes on where an agent before this one was broken off, if that was so lately that the peer
    /// cannot have missed it: active under the same epoch, or standby. That is no transition. Else
    /// as [`Self::with_floor`].
    ///
    /// Should the peer have claimed meanwhile all the same, the first tick shows it, and an active
    /// yields as one does that was only stopped.
    pub fn resumed(policy: Policy, former: &FormerLife, newest: Epoch, now: BootTime) -> Self {
        let mut core = Self::with_floor(policy, newest, now);
        if !former.can_be_resumed(&core.policy, now) {
            return core;
        }
        core.newest = former.claim;
        if former.is_active(&core.policy) {
            core.stage = Stage::Active;
            core.own_epoch = former.claim.epoch;
            core.alone_at = now;
            core.reasserts = true;
            // The fence stays open meanwhile, and as the last tick of the former life left it.
            core.active_since = if former.opened.is_never() {
                now
            } else {
                former.opened
            };
            core.vouched = former.beat;
        } else {
            core.stage = Stage::Standby;
        }
        core
    }

    /// Takes in one event and makes every transition that it enables.
    ///
    /// The caller carries out the commands in their order, and publishes
    /// [`advertisement`](Self::advertisement) before it does.
    #[must_use = "a command that is not carried out leaves the group without services"]
    pub fn handle(&mut self, event: Event, now: BootTime) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Tick(report) => self.observe(report, now, &mut commands),
            Event::Monitors { ok } => self.monitors_ok = ok,
            Event::TakeoverFailed { epoch } if self.holds(epoch) => {
                self.failed_takeover = Some(epoch);
            }
            Event::TakeoverDone { epoch } if self.holds(epoch) => self.failed_takeover = None,
            // The outcome of a takeover for an epoch that has passed changes nothing.
            Event::TakeoverFailed { .. } | Event::TakeoverDone { .. } => {}
            Event::Stop => self.stopping = true,
        }
        for _ in 0..Self::TRANSITIONS_PER_CALL {
            let Some(Move { due: _, to, cause }) =
                self.next_move().filter(|step| step.due <= self.ticked)
            else {
                break;
            };
            self.make(to, cause, now, &mut commands);
        }
        self.granted_is_all &= self.mandate().grant.is_none();
        if self.reasserts && !self.ticked.is_never() {
            self.reasserts = false;
            commands.push(Command::Take {
                epoch: self.own_epoch,
            });
        }
        commands
    }

    /// When a tick is due at the latest, should no probe come first. `None` before the first tick
    /// and when nothing waits.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let silent_at = self.evidence_from().after(self.policy.dead);
        let step_at = self.next_move().map(|step| step.due);
        [Some(silent_at), step_at]
            .into_iter()
            .flatten()
            .filter(|&at| !self.ticked.is_never() && at > self.ticked)
            .min()
    }

    pub fn state(&self) -> State {
        match self.stage {
            Stage::Initializing => State::Initializing,
            Stage::Standby => State::Standby,
            Stage::Candidate(_) => State::Candidate,
            Stage::Active => State::Active,
            Stage::Fault => State::Fault,
        }
    }

    pub fn advertisement(&self) -> Advertisement {
        let flags = match (self.stage, self.trouble()) {
            (Stage::Initializing | Stage::Fault, _) => Flags::default(),
            (Stage::Standby, _) => Flags::ELIGIBLE,
            (Stage::Candidate(_), _) => Flags::ELIGIBLE.with(Flags::CANDIDATE),
            (Stage::Active, None) => Flags::FORWARDING.with(Flags::ELIGIBLE),
            (Stage::Active, Some(_)) => Flags::FORWARDING,
        };
        Advertisement {
            claim: self.newest,
            flags,
        }
    }

    /// What the node may do until the next event.
    pub fn mandate(&self) -> Mandate {
        let policy = &self.policy;
        match (self.stage, policy.prefer) {
            (Stage::Active, Prefer::Availability) => Mandate {
                opening: Some(Opening {
                    since: self.active_since,
                    // Not from now: only a tick tells what was heard while we did not run.
                    by: Authority::Own {
                        until: self.ticked.max(self.vouched).after(policy.agent_dead),
                    },
                }),
                grant: Length::NONE,
            },
            (Stage::Active, Prefer::Consistency) => Mandate {
                opening: Some(Opening {
                    since: self.active_since,
                    by: Authority::Grants(policy.lease),
                }),
                grant: Length::NONE,
            },
            (Stage::Initializing | Stage::Standby | Stage::Fault, Prefer::Consistency)
                if self.newest.owner == policy.peer && self.standing != Standing::Headless =>
            {
                Mandate {
                    opening: None,
                    grant: policy.lease,
                }
            }
            (
                Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault,
                Prefer::Availability | Prefer::Consistency,
            ) => Mandate::NONE,
        }
    }

    /// The epoch under which this node is active, or last was; zero if it never was.
    pub const fn own_epoch(&self) -> Epoch {
        self.own_epoch
    }

    pub fn peer_finding(&self) -> PeerFinding {
        self.peer_finding
    }

    /// Why this node must not become active, or, being active, would yield; `None` if it is well.
    pub fn trouble(&self) -> Option<Cause> {
        self.lasting_trouble().or(match self.failed_takeover {
            Some(epoch) if self.stage == Stage::Active || self.ticked < self.hold_until => {
                Some(Cause::TakeoverFailed { epoch })
            }
            Some(_) | None => None,
        })
    }

    /// Since when both nodes are known to claim the group, while that lasts.
    pub fn dual_activity_since(&self) -> Option<BootTime> {
        self.dual.map(|dual| dual.first)
    }

    /// Drains the transitions made since the last call, oldest first.
    pub fn transitions(&mut self) -> impl Iterator<Item = Transition> + '_ {
        self.transitions.drain()
    }

    /// Drains the findings made since the last call, oldest first.
    pub fn findings(&mut self) -> impl Iterator<Item = Finding> + '_ {
        self.findings.drain()
    }

    // ---- The table ---------------------------------------------------------------------------

    fn next_move(&self) -> Option<Move> {
        let step = self.imposed_move().or_else(|| self.move_by_peer())?;
        Some(match step.to {
            Stage::Active => Move {
                due: step.due.max(self.promised_until()),
                ..step
            },
            Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault => step,
        })
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
            | Standing::Outdated => {
                if self.granted.is_never() || self.granted_is_all {
                    self.policy.lease.promised_until(self.granted)
                } else {
                    self.ticked.after(Duration::from_nanos(1))
                }
            }
        }
    }

    /// What holds whatever the peer is.
    fn imposed_move(&self) -> Option<Move> {
        match self.stage {
            Stage::Initializing | Stage::Active if self.stopping => {
                Move::now(Stage::Fault, Cause::Stopping)
            }
            Stage::Active if self.newest.epoch > self.own_epoch => Move::now(
                Stage::Standby,
                Cause::HigherEpoch {
                    epoch: self.newest.epoch,
                    node: self.policy.peer,
                },
            ),
            Stage::Active => self
                .lapsed
                .and_then(|stopped| Move::now(Stage::Standby, Cause::AuthorityLapsed { stopped })),
            Stage::Standby | Stage::Candidate(_) => {
                self.trouble().and_then(|t| Move::now(Stage::Fault, t))
            }
            Stage::Initializing | Stage::Fault => None,
        }
    }

    /// The transition table.
    #[expect(
        clippy::too_many_lines,
        clippy::match_same_arms,
        reason = "one table, read from top to bottom, in the order of its subjects"
    )]
    fn move_by_peer(&self) -> Option<Move> {
        use Request::{Failback, Relief, Vacancy};
        use Stage::{Active, Candidate, Fault, Initializing, Standby};
        use Standing as Peer;

        let policy = &self.policy;
        let first = policy.goes_first();
        let consistent = policy.prefer == Prefer::Consistency;
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

            // Nobody owns the group: the primary goes first, the secondary when it has to.
            (Standby, Peer::Out) if first => {
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
            (Standby, Peer::Ready | Peer::Asking) if first => {
                Move::now(Candidate(Vacancy), Cause::UnownedAndPrimary)
            }
            (Standby, Peer::Ready) => Move::at(
                held.after(policy.patience()),
                Candidate(Vacancy),
                Cause::UnownedForLong { waited },
            ),
            // It is the primary's turn, and it takes it.
            (Standby, Peer::Asking) => None,
            // One who is out cannot contend. One who yielded to us does not.
            (Candidate(Vacancy), Peer::Out) => Move::now(Active, Cause::UnownedAndPeerOut),
            (Candidate(Relief), Peer::Out) | (Candidate(Failback), Peer::Out | Peer::Ready) => {
                Move::now(Active, Cause::PeerYielded)
            }
            (Candidate(Vacancy | Relief), Peer::Ready) => {
                Move::at(announced, Active, Cause::Announced { waited })
            }
            (Candidate(_), Peer::Asking) if first => {
                Move::at(announced, Active, Cause::Announced { waited })
            }
            (Candidate(_), Peer::Asking) => Move::now(Standby, Cause::BothAsk),

            // The peer owns the group: it may be asked to yield, for a reason.
            (Standby, Peer::Owner) if first && policy.auto_failback => Move::at(
                held.after(policy.failback_hold).max(self.ask_not_before),
                Candidate(Failback),
                Cause::Failback,
            ),
            (Standby, Peer::Owner) => None,
            (Standby, Peer::Impaired) => {
                Move::at(self.ask_not_before, Candidate(Relief), Cause::PeerImpaired)
            }
            (Candidate(Vacancy), Peer::Owner | Peer::Impaired) => {
                Move::now(Standby, Cause::PeerActive { epoch })
            }
            (Candidate(Relief), Peer::Owner) => Move::now(Standby, Cause::PeerRecovered),
            (Candidate(Relief), Peer::Impaired)
            | (Candidate(Failback), Peer::Owner | Peer::Impaired) => Move::at(
                self.entered.after(policy.yielding()),
                Standby,
                Cause::PeerDidNotYield {
                    waited: self.ticked.since(self.entered),
                },
            ),

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
                None if !first && policy.auto_failback => Move::now(Standby, Cause::Failback),
                None => None,
            },
            // Both do, and under the same epoch, or the higher one would have won already.
            (Active, Peer::Owner | Peer::Impaired) if first => None,
            (Active, Peer::Owner | Peer::Impaired) => Move::now(Standby, Cause::SameEpoch),
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
                | Peer::Outdated,
            ) => match self.lasting_trouble() {
                Some(_) => None,
                None => Move::at(self.hold_until, Standby, Cause::Recovered),
            },
        }
    }

    // ---- What a transition does --------------------------------------------------------------

    fn make(&mut self, to: Stage, cause: Cause, now: BootTime, commands: &mut Vec<Command>) {
        let from = self.state();
        let mut epoch = self.newest.epoch;
        match (self.stage, to) {
            (Stage::Active, Stage::Active) => {}
            (Stage::Active, _) => {
                epoch = self.own_epoch;
                self.release(now, commands);
            }
            (_, Stage::Active) => {
                // A candidate with no epoch left was in trouble and is in Fault by now.
                let Some(next) = self.newest.epoch.next() else {
                    return;
                };
                epoch = next;
                self.take(next, now, commands);
            }
            (Stage::Fault, Stage::Standby) => self.failed_takeover = None,
            (Stage::Candidate(_), Stage::Standby) => {
                if let Cause::PeerDidNotYield { .. } = cause {
                    self.ask_not_before = now.after(self.policy.ask_again());
                }
            }
            (
                Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault,
                Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault,
            ) => {}
        }
        self.stage = to;
        self.entered = now;
        self.transitions.push(Transition {
            at: now,
            from,
            to: self.state(),
            epoch,
            cause,
            last_heard: self.report.last_heard,
        });
    }

    fn take(&mut self, epoch: Epoch, now: BootTime, commands: &mut Vec<Command>) {
        self.own_epoch = epoch;
        self.active_since = now;
        self.lapsed = None;
        self.newest = Claim {
            epoch,
            owner: self.policy.node,
        };
        self.failed_takeover = None;
        self.alone_at = now;
        // The peer's claim, if it still makes one, has passed with this epoch.
        self.judge(now);
        commands.push(Command::Take { epoch });
    }

    fn release(&mut self, now: BootTime, commands: &mut Vec<Command>) {
        if self.newest.owner == self.policy.node {
            self.newest.owner = match self.standing {
                // The same epoch: the peer stays.
                Standing::Owner | Standing::Impaired => self.policy.peer,
                Standing::Unknown
                | Standing::Silent
                | Standing::Headless
                | Standing::Out
                | Standing::Ready
                | Standing::Asking
                | Standing::Outdated => NodeId::NONE,
            };
        }
        if self.failed_takeover.is_some() {
            self.hold_until = now.after(self.policy.fault_hold);
        }
        self.end_dual_activity(now, now);
        self.reasserts = false;
        commands.push(Command::Release {
            epoch: self.own_epoch,
        });
    }

    // ---- Evidence ----------------------------------------------------------------------------

    fn observe(&mut self, report: PeerReport, now: BootTime, commands: &mut Vec<Command>) {
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
        if self.stage == Stage::Active {
            self.watch_dual_activity(now, commands);
        }
    }

    /// Whether our own authority ended while we did not run for so long.
    fn has_lapsed(&self, stopped: Duration) -> bool {
        self.policy.prefer == Prefer::Availability && stopped >= self.policy.agent_dead
    }

    /// Finds out whether we ran on time since the last tick. If not, evidence starts anew.
    fn listen(&mut self, now: BootTime) {
        let gap = now.since(self.ticked);
        if self.ticked.is_never() {
            self.listening_since = now;
            // A life that goes on was vouched for only so long.
            let stopped = now.since(self.vouched);
            if self.stage == Stage::Active && self.has_lapsed(stopped) {
                self.lapsed = Some(stopped);
            }
        } else if gap > self.policy.lateness() {
            self.listening_since = now;
            self.entered = self.entered.after(gap).min(now);
            self.standing_since = self.standing_since.after(gap).min(now);
            if self.stage == Stage::Active && self.has_lapsed(gap) {
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
        let ours = self.stage == Stage::Active && claim.epoch == self.own_epoch;
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

    fn judge(&mut self, now: BootTime) {
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
            (true, true, _) => Standing::Owner,
            (true, false, _) => Standing::Impaired,
            (false, false, _) => Standing::Out,
            (false, true, true) => Standing::Asking,
            (false, true, false) => Standing::Ready,
        }
    }

    /// Follows a peer that claims beside us, and claims the addresses anew once it has let go.
    fn watch_dual_activity(&mut self, now: BootTime, commands: &mut Vec<Command>) {
        let heard = self.report.last_heard;
        if heard <= self.alone_at {
            return;
        }
        if self.report.flags.contains(Flags::FORWARDING) {
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

    fn end_dual_activity(&mut self, ended: BootTime, now: BootTime) -> bool {
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

    // ---- What the rules ask --------------------------------------------------------------------

    fn holds(&self, epoch: Epoch) -> bool {
        self.stage == Stage::Active && epoch == self.own_epoch
    }

    /// Trouble that no passing of time ends.
    fn lasting_trouble(&self) -> Option<Cause> {
        if self.stopping {
            Some(Cause::Stopping)
        } else if !self.monitors_ok {
            Some(Cause::MonitorsUnreachable)
        } else if self.stage != Stage::Active && self.newest.epoch.next().is_none() {
            Some(Cause::EpochsUsedUp)
        } else {
            None
        }
    }

    /// Since when our state and the peer's standing have both been what they are.
    fn held_since(&self) -> BootTime {
        self.entered.max(self.standing_since)
    }

    fn evidence_from(&self) -> BootTime {
        self.report.last_heard.max(self.listening_since)
    }

    fn silence(&self) -> Duration {
        self.ticked.since(self.evidence_from())
    }

    fn peer_silent(&self) -> Cause {
        Cause::PeerSilent {
            silence: self.silence(),
            dead: self.policy.dead,
        }
    }

    fn peer_headless(&self) -> Cause {
        Cause::PeerAgentDead {
            age: self.report.agent_age,
            agent_dead: self.policy.agent_dead,
        }
    }

    fn peer_outdated(&self) -> Cause {
        Cause::PeerOutdated {
            epoch: self.report.claim.epoch,
            newest: self.newest.epoch,
        }
    }
}
