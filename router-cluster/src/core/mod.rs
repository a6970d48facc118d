//! The machine. `table.rs` has the transitions, `evidence.rs` what the peer is judged to be,
//! `arbitration.rs` the dealings with an arbiter.

mod arbitration;
mod evidence;
mod forced;
#[cfg(test)]
pub mod relative;
mod table;

use std::{cmp::Ordering, fmt, time::Duration};

use router_common::{
    identity::{Claim, Epoch, Flags, NodeId, Priority},
    lease::Length,
    time::BootTime,
};

pub use self::forced::{Forced, Refusal};
use self::{
    arbitration::Arbitration,
    evidence::DualActivity,
    table::{Move, Stage},
};
use super::{
    arbiter::{Answer, Request},
    cause::Cause,
    history::{Finding, Pending, Transition},
    mandate::{Mandate, Opening},
    policy::{Policy, Rule},
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
    /// Owns the group until the peer has taken it over.
    Draining,
    /// Must not become active.
    Fault,
}

impl State {
    pub const ALL: [Self; 6] = [
        Self::Initializing,
        Self::Standby,
        Self::Candidate,
        Self::Active,
        Self::Draining,
        Self::Fault,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initializing => "Initializing",
            Self::Standby => "Standby",
            Self::Candidate => "Candidate",
            Self::Active => "Active",
            Self::Draining => "Draining",
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
    /// How much this node is to be preferred, of two that are well; the base until the first such event.
    Priority(Priority),
    /// A takeover step failed for good, or for now: the group would be better off elsewhere.
    TakeoverFailed { epoch: Epoch },
    /// All takeover steps of this epoch are done.
    TakeoverDone { epoch: Epoch },
    /// The answer to request `number`.
    Arbiter {
        number: u64,
        /// Taken before the request left.
        sent: BootTime,
        answer: Answer,
    },
    /// The operator wants the group to move; nothing comes of it if
    /// [`may_force`](Core::may_force) refuses.
    Force(Forced),
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
    /// Put a request to the arbiter. The answer to an earlier one is of no use any more.
    Ask { number: u64, request: Request },
}

/// What our heartbeats say from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Advertisement {
    pub claim: Claim,
    pub flags: Flags,
}

/// The failover core of one group on one node.
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
///                      Active ── higher epoch, ────────┤                 │
///                       │ ▲ │    or no authority       │                 │
///                       │ │ └─── not well, and the peer asks ────────────┤
///      leaves, or is to │ │ nobody takes over          │                 │
///      hand over        ▼ │                            │                 │
///                     Draining ── peer takes over ─────┴── or it leaves ─┘
/// ```
///
/// # Transitions
///
/// First what holds whatever the peer is: a stop leads to Fault; a Standby or Candidate that is not
/// well (monitors unreachable, takeover failed and its hold not over, no epoch left) goes to Fault;
/// an Active or Draining that knows of a higher epoch, or whose authority has ended, goes to Standby; an
/// Active that leaves, or whose operator wants it elsewhere, drains if the peer could own the group. Then, by the peer
/// (`Standing` in report.rs), with S, C, A, D for the target state and `·` for
/// staying:
///
/// | peer is  | Initializing       | Standby                    | Candidate                    | Active |
/// |----------|--------------------|----------------------------|------------------------------|--------|
/// | Unknown  | S after *wait*     | ·                          | ·                            | · |
/// | Silent   | S after *wait*     | C                          | A                            | · |
/// | Headless | S after *wait*     | C                          | A                            | · |
/// | Out      | S                  | primary, of no lower priority: C; else after *announcing*, or *patience* before the first epoch | A | · |
/// | Ready    | S                  | C; second: after *patience* | A after *announcing*        | · |
/// | Asking   | S                  | primary, of no lower priority: C; else · | primary: A after *announcing*; secondary: S | D if it asks for failback, or its operator wants so; Fault if we are not well |
/// | Owner    | S                  | first, with auto-failback: C after *failback-hold* | S; asked for failback: S after *yielding*, or without its reason at once | first: ·; second: S |
/// | Impaired | S                  | C                          | S; asked it to yield: S after *yielding* | as Owner |
/// | Draining | S                  | C                          | own word: A; else S after *yielding* | · |
/// | Outdated | S                  | C after *patience*         | A after *announcing*         | · |
///
/// Draining lets go when the peer has claimed or, where only one may forward, when it asks. It goes back to
/// Active, or leaves, when the peer cannot take over, or has not *yielding* later. A node whose operator wants
/// it active asks at once, and before the other. Under an arbiter a Candidate becomes Active when the record is
/// its own.
///
/// Fault goes to Standby once the node is well and the hold is over, whatever the peer is. *First*
/// is the primary, *second* the secondary, but that of two with different priorities the higher one goes first
/// where nobody owns the group, and asks for it as for a failback whether or not there is auto-failback. The
/// waits are those of [`Policy`](super::policy::Policy) and run while state and peer both stay what they are.
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
/// - **With an arbiter** an active forwards by its peer's grants (its record is *paired*), until a term after it
///   sent what wrote its record (*solo*), or by both. It asks for solo when it misses grants, drops its own
///   authority before it asks for paired, and stops when it has neither. A Candidate claims by
///   compare-and-swap: a paired record when its promises are over; a solo one when it has seen it unchanged for
///   longer than its term, or its owner says that it does not forward. Where there is no record it first
///   writes one that nobody owns. What an arbiter has forgotten is not acted on until the operator says so.
/// - **Promises.** Who granted becomes active only when the last grant has ended, or the peer has said
///   that it does not forward. A Candidate grants only to one that says that it owns the group, so that one who
///   does not consent goes on; what it granted it learns with the next tick after that is closed.
/// - **Planned moves.** Under an arbiter a node asks an owner to let go only when the arbiter has just told of a
///   record by which it could follow (R12 in docs/safety.md).
/// - **Without monitors nobody claims.** If the owner dies while its peer is in Fault, the group
///   stays unowned until that peer's monitors answer.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact that holds or not, whatever the others"
)]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    priority: Priority,
    /// How that compares with what the peer told last; nothing before the peer is heard.
    rank: Option<Ordering>,
    /// When it began to, moved later like `entered`.
    ranked_since: BootTime,
    peer_finding: PeerFinding,
    /// The last tick: until when we have evidence.
    ticked: BootTime,
    /// The first tick after our start or our last stop: from when we have evidence.
    listening_since: BootTime,

    arbitration: Arbitration,

    /// What the operator asked for and has not got yet. It ends with whatever keeps it from being done: it is not
    /// done at some later time.
    forced: Option<Forced>,
    /// Handed the group over as the operator wanted, or because it could not keep it, and leaves it to the
    /// peer while that can own it.
    stands_back: bool,
    monitors_ok: bool,
    stopping: bool,
    /// The epoch whose takeover failed, until it succeeds or the hold is over.
    failed_takeover: Option<Epoch>,
    hold_until: BootTime,
    /// How many takeovers have failed, one after the other.
    failures: u32,
    /// No request to yield before this, because the last one was in vain, or what it led to.
    ask_not_before: BootTime,

    /// When we last granted, as far as is known. Of an earlier life it is not: so in the moment of our
    /// start.
    granted: BootTime,
    /// Whether that is all that we granted: since the last tick we have granted nothing.
    granted_is_all: bool,
    /// How long grants last. Agents with other policies follow each other, and on the peer at other times: an
    /// owner counts on the shorter of what the one before it did and its policy says; who is not grants the longer,
    /// and is bound by it.
    lease: Length,
    /// The shortest on which the present owner may count, as far as is known.
    shortest: Length,
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
        let granted = if policy.grants_count() {
            now
        } else {
            BootTime::NEVER
        };
        let lease = policy.lease;
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
            priority: Priority::BASE,
            rank: None,
            ranked_since: now,
            peer_finding: PeerFinding::NeverHeard,
            ticked: BootTime::NEVER,
            listening_since: BootTime::NEVER,
            arbitration: Arbitration::new(),
            forced: None,
            stands_back: false,
            monitors_ok: true,
            stopping: false,
            failed_takeover: None,
            hold_until: BootTime::NEVER,
            failures: 0,
            ask_not_before: BootTime::NEVER,
            granted,
            granted_is_all: false,
            lease,
            shortest: lease,
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
        let own = core.lease;
        let known = |lease: Length| if lease.is_none() { own } else { lease };
        core.lease = former.lease.max(former.grant).max(own);
        core.shortest = known(former.grant).min(own);
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
            core.arbitration.held_until = former.own_until;
            // What is shorter now suffices as soon as grants come that often.
            core.lease = known(former.lease);
            core.shortest = core.lease.min(own);
        } else {
            core.stage = Stage::Standby;
            core.stands_back = former.flags.contains(Flags::STANDS_BACK);
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
            Event::Priority(priority) => {
                self.priority = priority;
                self.compare(now);
            }
            Event::TakeoverFailed { epoch } if self.holds(epoch) => {
                self.failed_takeover = Some(epoch);
            }
            Event::TakeoverDone { epoch } if self.holds(epoch) => {
                self.failed_takeover = None;
                self.failures = 0;
            }
            // The outcome of a takeover for an epoch that has passed changes nothing.
            Event::TakeoverFailed { .. } | Event::TakeoverDone { .. } => {}
            Event::Arbiter {
                number,
                sent,
                answer,
            } => self.answered(number, sent, answer, now),
            Event::Force(forced) => self.force(forced),
            Event::Stop => self.stopping = true,
        }
        for _ in 0..Self::TRANSITIONS_PER_CALL {
            let Some(Move { due: _, to, cause }) =
                self.next_move().filter(|step| self.may_make(step))
            else {
                break;
            };
            self.make(to, cause, now, &mut commands);
        }
        self.arbitration.just_looked = false;
        self.granted_is_all &= self.mandate().grant.is_none();
        if self.reasserts && !self.ticked.is_never() {
            self.reasserts = false;
            commands.push(Command::Take {
                epoch: self.own_epoch,
            });
        }
        self.consult(now, &mut commands);
        commands
    }

    /// When a tick is due at the latest, should no probe come first. `None` before the first tick
    /// and when nothing waits.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let silent_at = self.evidence_from().after(self.policy.dead);
        let step_at = self.next_move().map(|step| step.due);
        [Some(silent_at), step_at, self.arbiter_deadline()]
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
            Stage::Draining => State::Draining,
            Stage::Fault => State::Fault,
        }
    }

    pub fn advertisement(&self) -> Advertisement {
        let flags = match (self.stage, self.trouble()) {
            (Stage::Initializing | Stage::Fault, _) => Flags::default(),
            (Stage::Standby, _) => Flags::ELIGIBLE,
            (Stage::Candidate(_), _) if self.forced.is_some() => {
                Flags::ELIGIBLE.with(Flags::CANDIDATE).with(Flags::FORCED)
            }
            (Stage::Candidate(_), _) => Flags::ELIGIBLE.with(Flags::CANDIDATE),
            (Stage::Draining, _) => Flags::FORWARDING.with(Flags::DRAINING),
            (Stage::Active, None) => Flags::FORWARDING.with(Flags::ELIGIBLE),
            (Stage::Active, Some(_)) => Flags::FORWARDING,
        };
        let flags = if self.stands_back {
            flags.with(Flags::STANDS_BACK)
        } else {
            flags
        };
        Advertisement {
            claim: self.newest,
            flags: flags.with_priority(self.priority),
        }
    }

    /// What the node may do until the next event.
    pub fn mandate(&self) -> Mandate {
        let policy = &self.policy;
        match self.stage {
            Stage::Active | Stage::Draining => Mandate {
                opening: Some(Opening {
                    since: self.active_since,
                    own_until: match policy.rule() {
                        // Not from now: only a tick tells what was heard while we did not run.
                        Rule::OwnWord => self.ticked.max(self.vouched).after(policy.agent_dead),
                        Rule::Grants => BootTime::NEVER,
                        Rule::Arbiter(_) => self.arbitration.held_until,
                    },
                    lease: if policy.grants_count() {
                        self.lease
                    } else {
                        Length::NONE
                    },
                }),
                ..Mandate::NONE
            },
            Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault
                if policy.grants_count() =>
            {
                Mandate {
                    opening: None,
                    grant: if self.newest.owner == policy.peer && self.may_grant() {
                        self.lease
                    } else {
                        Length::NONE
                    },
                    bound: self.lease,
                }
            }
            Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault => {
                Mandate::NONE
            }
        }
    }

    /// Whether an owner may go on by our grants: we do not follow it before it says that it has let go, unless the
    /// record is ours already.
    fn may_grant(&self) -> bool {
        match (self.stage, self.standing) {
            (Stage::Active | Stage::Draining, _) | (_, Standing::Headless) => false,
            (Stage::Initializing | Stage::Standby | Stage::Fault, _) => true,
            (Stage::Candidate(_), standing) => standing.owns() && self.victory().is_none(),
        }
    }

    /// How much this node is to be preferred, as it tells its peer.
    pub const fn priority(&self) -> Priority {
        self.priority
    }

    /// The epoch under which this node is active, or last was; zero if it never was.
    pub const fn own_epoch(&self) -> Epoch {
        self.own_epoch
    }

    /// How long the grants last that this node counts on, or makes.
    pub const fn lease(&self) -> Length {
        self.lease
    }

    /// Between two probes at most. Grants come by them, and by what they are answered; where they are shorter than
    /// the policy says, either node brings them in time while the agent of the other is replaced.
    pub fn pace(&self) -> Duration {
        let keepalive = self.policy.keepalive;
        if self.policy.grants_count() && self.shortest < self.policy.lease {
            keepalive.min(self.shortest.duration() / 3)
        } else {
            keepalive
        }
    }

    /// Whether an owner lets go before its successor may forward.
    pub fn takes_turns(&self) -> bool {
        self.policy.rule() != Rule::OwnWord
    }

    pub fn peer_finding(&self) -> PeerFinding {
        self.peer_finding
    }

    /// Why this node must not become active, or, being active, would yield; `None` if it is well.
    pub fn trouble(&self) -> Option<Cause> {
        self.lasting_trouble().or(match self.failed_takeover {
            Some(epoch) if self.owns() || self.ticked < self.hold_until => {
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

    // ---- What a transition does --------------------------------------------------------------

    fn make(&mut self, to: Stage, cause: Cause, now: BootTime, commands: &mut Vec<Command>) {
        let from = self.state();
        let mut epoch = self.newest.epoch;
        match (self.stage, to) {
            (Stage::Active | Stage::Draining, Stage::Active | Stage::Draining) => {
                epoch = self.own_epoch;
                self.forced = None;
                self.stands_back = to == Stage::Draining && cause == Cause::Forced;
            }
            (
                Stage::Active | Stage::Draining,
                Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault,
            ) => {
                epoch = self.own_epoch;
                self.release(now, commands);
            }
            (
                Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault,
                Stage::Active | Stage::Draining,
            ) => {
                // A candidate with no epoch left was in trouble and is in Fault by now.
                let won = self.victory().map(|won| won.epoch);
                let Some(next) = won.or(self.newest.epoch.next()) else {
                    return;
                };
                epoch = next;
                self.take(next, now, commands);
            }
            (Stage::Fault, Stage::Standby) => self.failed_takeover = None,
            (
                Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault,
                Stage::Fault,
            ) => self.drop_order(Refusal::NotWell(cause), now),
            (Stage::Candidate(_), Stage::Standby) => {
                if self.lacks_a_granter() {
                    self.drop_order(Refusal::NoGrants(self.peer_finding), now);
                }
                self.end_order();
                if let Cause::PeerDidNotYield { .. } = cause {
                    let again = now.after(self.policy.ask_again());
                    self.ask_not_before = self.ask_not_before.max(again);
                }
            }
            (
                Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault,
                Stage::Initializing | Stage::Standby | Stage::Candidate(_),
            ) => {}
        }
        self.arbitration.won = None;
        self.forget_look();
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
        self.go_by_policy();
        self.lapsed = None;
        self.newest = Claim {
            epoch,
            owner: self.policy.node,
        };
        self.failed_takeover = None;
        self.end_order();
        self.stands_back = false;
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
                | Standing::Draining
                | Standing::Outdated => NodeId::NONE,
            };
        }
        if self.failed_takeover.is_some() {
            self.hold_until = now.after(self.policy.fault_hold);
            self.ask_not_before = now.after(self.policy.relief_hold(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
        self.stands_back |= self.cannot_keep();
        self.end_dual_activity(now, now);
        self.reasserts = false;
        self.arbitration.held_until = BootTime::NEVER;
        self.go_by_policy();
        self.end_order();
        commands.push(Command::Release {
            epoch: self.own_epoch,
        });
    }

    /// Nothing of what was granted before counts, or binds, any more.
    fn go_by_policy(&mut self) {
        self.lease = self.policy.lease;
        self.shortest = self.policy.lease;
    }

    // ---- What the rules ask --------------------------------------------------------------------

    /// Whether it holds the group's services, and forwards.
    fn owns(&self) -> bool {
        match self.stage {
            Stage::Active | Stage::Draining => true,
            Stage::Initializing | Stage::Standby | Stage::Candidate(_) | Stage::Fault => false,
        }
    }

    /// Whether an owner hands over what would not stay with it if it asked for it again for the same reason.
    /// A failback after other trouble than a takeover that failed is what the operator has asked for.
    fn cannot_keep(&self) -> bool {
        let fails_back = self.policy.goes_first() && self.policy.auto_failback;
        let outranks = self.rank() == Ordering::Greater;
        self.failed_takeover.is_some() || self.trouble().is_some() && outranks && !fails_back
    }

    fn holds(&self, epoch: Epoch) -> bool {
        self.owns() && epoch == self.own_epoch
    }

    /// Trouble that no passing of time ends.
    fn lasting_trouble(&self) -> Option<Cause> {
        if self.stopping {
            Some(Cause::Stopping)
        } else if !self.monitors_ok {
            Some(Cause::MonitorsUnreachable)
        } else if !self.owns() && self.newest.epoch.next().is_none() {
            Some(Cause::EpochsUsedUp)
        } else {
            None
        }
    }
}
