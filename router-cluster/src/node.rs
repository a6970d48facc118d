//! A node for tests: the real core and lease arithmetic, and what kernel programs and agent do around
//! them. Its clock is given from outside, and so are network and arbiter.

use std::{num::NonZeroU64, time::Duration};

use router_common::{
    identity::{Claim, Priority},
    lease::{self, Gate, Grant, Length, Renewal},
    map::{Fence, Lease},
    time::BootTime,
};

use super::{
    Advertisement, Answer, Command, Core, Event, FormerLife, Mode, PeerReport, Policy, Record,
    Request, Revision, State, Transition,
};

/// A defect planted to see that the checks find it. Each is a lie about what happens around the core,
/// or a step that shell or kernel leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Planted {
    /// The kernel goes on granting when the agent has closed that.
    GrantAfterClosing,
    /// The lease runs from when the grant came.
    LeaseFromReceipt,
    /// The promise ends when the lease does, by another clock, and with packets on their way.
    NoMargin,
    /// Who granted does not wait.
    PromiseNotWaited,
    /// The core never learns that the peer's epoch is not its own.
    EpochNotCompared,
    /// An answer counts from when it came.
    LateAnswerAccepted,
    /// The fence opens when the swap is asked for.
    OpenBeforeSwap,
    /// The term of every record looks as if it were over.
    TermNotWaited,
    /// A record counts as unchanged from when it was asked for.
    UnchangedFromSend,
    /// The own authority stays while the record is being made paired.
    PairedBeforeDrop,
    /// A swap does not compare.
    BlindSwap,
    /// A record that has gone looks like one that never was.
    MissingIsFresh,
    /// A read is answered by what the arbiter was last known to hold, although it does not answer.
    StaleRead,
    /// Of three nodes one lives on the grants of one.
    GrantsAmongThree,
    /// A node says that it does not forward, and closes its fence afterwards.
    SaysBeforeItCloses,
    /// A stopped agent is given the ticks that it slept through.
    NoSelfSuspicion,
    /// Each node believes that it is the primary.
    NoTieRule,
    /// Failure of the monitors does not reach the core.
    DeafToMonitors,
    /// The fence stays open.
    NoEnd,
    /// A silent peer is dead after one interval.
    HastyVerdict,
    /// A new agent does not look at what the one before it left in the kernel.
    Amnesia,
    /// Not a defect but an assumption: the clock runs while packets pass.
    ClockStandsStill,
}

impl Planted {
    pub const ALL: [Self; 22] = [
        Self::GrantAfterClosing,
        Self::LeaseFromReceipt,
        Self::NoMargin,
        Self::PromiseNotWaited,
        Self::EpochNotCompared,
        Self::LateAnswerAccepted,
        Self::OpenBeforeSwap,
        Self::TermNotWaited,
        Self::UnchangedFromSend,
        Self::PairedBeforeDrop,
        Self::BlindSwap,
        Self::MissingIsFresh,
        Self::StaleRead,
        Self::GrantsAmongThree,
        Self::SaysBeforeItCloses,
        Self::NoSelfSuspicion,
        Self::NoTieRule,
        Self::DeafToMonitors,
        Self::NoEnd,
        Self::HastyVerdict,
        Self::Amnesia,
        Self::ClockStandsStill,
    ];
}

/// Whose active a state is.
pub fn owns(state: State) -> bool {
    match state {
        State::Active | State::Draining => true,
        State::Initializing | State::Standby | State::Candidate | State::Fault => false,
    }
}

/// A heartbeat. Times are of the clock of who is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    pub probe: bool,
    pub advertisement: Advertisement,
    pub agent_age: Duration,
    /// The sender's.
    pub tx: BootTime,
    /// The receiver's.
    pub echo: BootTime,
    pub grant: Length,
}

/// What one call of the core had as its consequence.
#[derive(Debug)]
pub struct Outcome {
    pub commands: Vec<Command>,
    pub transitions: Vec<Transition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub policy: Policy,
    pub planted: Option<Planted>,
    // The kernel: works while there is power.
    pub powered: bool,
    pub published: Advertisement,
    pub agent_seen: BootTime,
    pub report: PeerReport,
    pub heard_tx: BootTime,
    pub grant: Length,
    pub granted: BootTime,
    pub fence: Fence,
    pub lease: Lease,
    // The agent.
    pub core: Option<Core>,
    pub stopped: bool,
    pub monitors_ok: bool,
    pub priority: Priority,
    pub last_tick: (BootTime, PeerReport),
}

impl Node {
    pub fn new(policy: Policy, planted: Option<Planted>, now: BootTime) -> Self {
        let mut node = Self {
            policy,
            planted,
            powered: true,
            published: Advertisement::default(),
            agent_seen: now,
            report: PeerReport::default(),
            heard_tx: BootTime::NEVER,
            grant: Length::NONE,
            granted: BootTime::NEVER,
            fence: Fence::default(),
            lease: Lease::default(),
            core: None,
            stopped: false,
            monitors_ok: true,
            priority: Priority::BASE,
            last_tick: (BootTime::NEVER, PeerReport::default()),
        };
        node.start(now);
        node
    }

    pub fn has(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    pub fn state(&self) -> Option<State> {
        self.core.as_ref().map(Core::state)
    }

    pub fn active(&self) -> bool {
        self.powered && self.state().is_some_and(|state| state == State::Active)
    }

    pub fn healthy(&self) -> bool {
        self.powered && !self.stopped && self.core.is_some()
    }

    /// What happens to a protected packet.
    pub fn gate(&self, now: BootTime) -> Gate {
        if self.powered {
            lease::gate(&self.fence, &self.lease, now)
        } else {
            Gate::Closed
        }
    }

    pub fn forwards(&self, now: BootTime) -> bool {
        self.gate(now) == Gate::Open
    }

    /// A message that leaves now; what it grants is noted first.
    pub fn speak(&mut self, answers: Option<BootTime>, now: BootTime) -> Message {
        let owed = self.published.claim.owner == self.policy.peer;
        let grant = if owed { self.grant } else { Length::NONE };
        // What is granted past the closing is not noted either.
        if !grant.is_none() && self.may_grant() {
            self.granted = now;
        }
        Message {
            probe: answers.is_none(),
            advertisement: self.published,
            agent_age: now.since(self.agent_seen),
            tx: now,
            echo: answers.unwrap_or(self.heard_tx),
            grant,
        }
    }

    fn may_grant(&self) -> bool {
        let mandate = self.core.as_ref().map(Core::mandate);
        !self.has(Planted::GrantAfterClosing) || mandate.is_none_or(|it| !it.grant.is_none())
    }

    /// A message that has not been overtaken; and the kernel's reply.
    pub fn hear(&mut self, message: &Message, now: BootTime) -> Option<Message> {
        if !self.powered {
            return None;
        }
        let Advertisement { claim, flags } = message.advertisement;
        self.report = PeerReport {
            last_heard: now,
            claim,
            flags,
            agent_age: message.agent_age,
            newest_echo: self.report.newest_echo.max(message.echo),
            granted: BootTime::NEVER,
            leased: BootTime::NEVER,
        };
        self.heard_tx = message.tx;
        let grant = Grant {
            claim: claim.to_word(),
            length: message.grant,
            echo_tx: message.echo,
            echoes_us: true,
        };
        if let Renewal::From(tx) = lease::renew(&self.fence, &grant, now) {
            let from = if self.has(Planted::LeaseFromReceipt) {
                now
            } else {
                tx
            };
            self.lease.granted_tx_ns = self.lease.granted_tx_ns.max(from.as_ns());
        }
        message.probe.then(|| self.speak(Some(message.tx), now))
    }

    /// The kernel forgets all: a new agent loads everything anew.
    pub fn forget(&mut self) {
        self.grant = Length::NONE;
        self.granted = BootTime::NEVER;
        self.fence = Fence::default();
        self.lease = Lease::default();
    }

    /// Starts an agent that finds nothing of one before it.
    pub fn start(&mut self, now: BootTime) {
        self.forget();
        self.begin(Core::new(self.policy.clone(), now), now);
    }

    /// Starts an agent that takes over what the kernel still says in the name of the one before it.
    pub fn resume(&mut self, now: BootTime) {
        if self.has(Planted::Amnesia) {
            return self.start(now);
        }
        let Advertisement { claim, flags } = self.published;
        let former = FormerLife {
            claim,
            flags,
            beat: self.agent_seen,
            opened: BootTime::from_ns(self.fence.opened_ns),
            own_until: BootTime::from_ns(self.fence.authority_end_ns),
            lease: Length::of(Duration::from_nanos(self.fence.lease_ns)),
            grant: self.grant,
        };
        self.begin(
            Core::resumed(self.policy.clone(), &former, claim.epoch, now),
            now,
        );
    }

    fn begin(&mut self, core: Core, now: BootTime) {
        self.core = Some(core);
        self.stopped = false;
        if self.has(Planted::NoSelfSuspicion) {
            self.last_tick = (now, self.report);
        }
        self.agent_seen = now;
        let ok = self.monitors_ok || self.has(Planted::DeafToMonitors);
        let _ = self.handle(Event::Monitors { ok }, now);
        let _ = self.handle(Event::Priority(self.priority), now);
    }

    pub fn power_off(&mut self) {
        self.powered = false;
        self.core = None;
        self.forget();
    }

    pub fn power_on(&mut self, now: BootTime) {
        self.powered = true;
        self.report = PeerReport::default();
        self.heard_tx = BootTime::NEVER;
        self.published = Advertisement::default();
        self.start(now);
    }

    pub fn tick(&mut self, now: BootTime) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        if self.has(Planted::NoSelfSuspicion) {
            let (mut at, report) = self.last_tick;
            while at.after(self.policy.keepalive * 2) < now {
                at = at.after(self.policy.keepalive);
                outcomes.extend(self.handle(Event::Tick(report), at));
            }
        }
        let mut report = self.report;
        if self.has(Planted::EpochNotCompared)
            && let Some(core) = &self.core
        {
            report.claim.epoch = core.advertisement().claim.epoch;
        }
        let forgiven = self
            .policy
            .lease
            .promise()
            .saturating_sub(self.policy.lease.duration());
        report.granted = match self.planted {
            Some(Planted::PromiseNotWaited) => BootTime::NEVER,
            Some(Planted::NoMargin) => {
                report.last_heard = earlier(report.last_heard, forgiven);
                earlier(self.granted, forgiven)
            }
            Some(_) | None => self.granted,
        };
        report.leased = BootTime::from_ns(self.lease.granted_tx_ns);
        if self.has(Planted::NoSelfSuspicion) {
            self.last_tick = (now, report);
        }
        self.agent_seen = now;
        outcomes.extend(self.handle(Event::Tick(report), now));
        outcomes
    }

    /// The arbiter's answer, which the core is told as the shell would.
    pub fn answered(
        &mut self,
        number: u64,
        sent: BootTime,
        answer: Answer,
        now: BootTime,
    ) -> Option<Outcome> {
        let answer = match (self.planted, answer) {
            (Some(Planted::TermNotWaited), Answer::Found(Some((revision, record)))) => {
                let mode = match record.mode {
                    Mode::Paired => Mode::Paired,
                    Mode::Solo { .. } => Mode::Solo {
                        term: Duration::ZERO,
                    },
                };
                Answer::Found(Some((revision, Record { mode, ..record })))
            }
            (Some(Planted::MissingIsFresh), Answer::Found(None)) => {
                let epoch = self.published.claim.epoch;
                let owner = self.policy.node;
                let record = Record {
                    claim: Claim { epoch, owner },
                    mode: Mode::Paired,
                };
                Answer::Found(Some((Revision(NonZeroU64::MAX), record)))
            }
            (_, answer) => answer,
        };
        let (sent, now) = match self.planted {
            Some(Planted::LateAnswerAccepted) => (now, now),
            Some(Planted::UnchangedFromSend) => (sent, sent),
            Some(_) | None => (sent, now),
        };
        let event = Event::Arbiter {
            number,
            sent,
            answer,
        };
        self.handle(event, now)
    }

    pub fn monitors(&mut self, ok: bool, now: BootTime) -> Option<Outcome> {
        self.monitors_ok = ok;
        if self.has(Planted::DeafToMonitors) || !self.healthy() {
            return None;
        }
        self.handle(Event::Monitors { ok }, now)
    }

    pub fn set_priority(&mut self, priority: Priority, now: BootTime) -> Option<Outcome> {
        self.priority = priority;
        if !self.healthy() {
            return None;
        }
        self.handle(Event::Priority(priority), now)
    }

    /// A stopped agent goes on, and finds what has changed meanwhile.
    pub fn go_on(&mut self, now: BootTime) -> Vec<Outcome> {
        if !std::mem::take(&mut self.stopped) {
            return Vec::new();
        }
        let monitors = self.monitors(self.monitors_ok, now);
        let priority = self.set_priority(self.priority, now);
        monitors.into_iter().chain(priority).collect()
    }

    /// Gives the core an event, and publishes what follows.
    pub fn handle(&mut self, event: Event, now: BootTime) -> Option<Outcome> {
        let core = self.core.as_mut()?;
        let commands = core.handle(event, now);
        let transitions = core.transitions().collect();
        let _ = core.findings().count();
        let advertisement = core.advertisement();
        let mandate = core.mandate();
        let owned = owns(core.state());
        let before = self.fence;
        self.published = advertisement;
        self.fence = mandate.fence(&advertisement);
        match self.planted {
            Some(Planted::NoEnd) if owned => self.fence.authority_end_ns = u64::MAX,
            Some(Planted::PairedBeforeDrop)
                if owned && self.fence.opened_ns == before.opened_ns =>
            {
                self.fence.authority_end_ns =
                    before.authority_end_ns.max(self.fence.authority_end_ns);
            }
            Some(Planted::OpenBeforeSwap) => self.open_for(&commands, now),
            Some(Planted::SaysBeforeItCloses) if self.fence.opened_ns == 0 => {
                // For as long as its last authority lasts.
                self.fence = before;
            }
            Some(_) | None => {}
        }
        self.grant = if self.has(Planted::GrantAfterClosing) && mandate.grant.is_none() {
            self.grant
        } else {
            mandate.grant
        };
        Some(Outcome {
            commands,
            transitions,
        })
    }

    fn open_for(&mut self, commands: &[Command], now: BootTime) {
        for command in commands {
            if let Command::Ask {
                number: _,
                request:
                    Request::Swap {
                        expected: _,
                        record:
                            Record {
                                claim,
                                mode: Mode::Solo { term },
                            },
                    },
            } = command
            {
                self.fence.opened_ns = self.fence.opened_ns.max(1);
                self.fence.claim = claim.to_word();
                self.fence.authority_end_ns = now.after(*term).as_ns();
            }
        }
    }
}

pub fn earlier(at: BootTime, by: Duration) -> BootTime {
    BootTime::from_ns(
        at.as_ns()
            .saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
    )
}
