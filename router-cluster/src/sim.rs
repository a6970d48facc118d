//! Two nodes on a virtual clock: kernels that answer, grant and fence by themselves, agents that are
//! stopped, killed and restarted, a link that delays, loses and is cut one way or both. What must hold is checked
//! after every call of [`Core::handle`] and at every millisecond.
//!
//! Deterministic: the same seed and operations give the same run.

use std::time::Duration;

use proptest::{
    prelude::*,
    test_runner::{Config, TestError, TestRunner},
};
use router_common::{
    identity::{Claim, Epoch, Flags, NodeId},
    lease::{self, Gate, Grant, Length, Renewal},
    map::{Fence, Lease},
    time::BootTime,
};

use super::{
    Advertisement, Command, Core, Event, FormerLife, PeerReport, Policy, Prefer, State, Transition,
};

const KEEPALIVE: u64 = 10;
const DEAD: u64 = 40;
/// The link delivers within this, and never loses two messages of one direction in a row, so a
/// node that probes is heard well within [`DEAD`].
const MAX_DELAY: u64 = 5;
/// A disturbance (cut, stop, crash) may leave both nodes active until each has heard the other
/// again.
const AFTERMATH: u64 = DEAD + 4 * KEEPALIVE;
/// Everything a node may have to wait for before it acts, one after the other: start, hold after a
/// failed takeover, an ungranted request, the next one, failback hold.
const SETTLED: u64 = 500 + 700 + 1000 + 2000 + 2000 + 800;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A defect planted to see that the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    None,
    /// The core never learns that the peer's epoch is not its own.
    EpochNotCompared,
    /// A stopped agent is given the ticks that it slept through.
    NoSelfSuspicion,
    /// Each node believes that it is the primary.
    NoTieRule,
    /// Failure of the monitors does not reach the core.
    DeafToMonitors,
    /// The fence of a dead agent stays open.
    NoEnd,
    /// The core forgets to wait: it believes a silent peer to be dead after one interval.
    HastyVerdict,
    /// A new agent does not look at what the one before it left in the kernel.
    Amnesia,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    arrives: u64,
    sequence: u64,
    probe: bool,
    to: usize,
    advertisement: Advertisement,
    agent_age: u64,
    tx: BootTime,
    echo: BootTime,
    grant: Length,
}

#[derive(Debug)]
struct Node {
    policy: Policy,
    sabotage: Sabotage,
    // The kernel: works while there is power.
    powered: bool,
    published: Advertisement,
    agent_seen: u64,
    report: PeerReport,
    newest_sequence: u64,
    heard_tx: BootTime,
    grant: Length,
    granted: BootTime,
    fence: Fence,
    lease: Lease,
    // The agent.
    core: Option<Core>,
    stopped: bool,
    monitors_ok: bool,
    next_probe: u64,
    last_tick: (u64, PeerReport),
    // What the checks remember of this life of the agent.
    taken: Option<Epoch>,
    /// What a former life took, and this one takes once more.
    inherited: Option<Epoch>,
    highest: Epoch,
    history: Vec<Transition>,
    /// When it last granted, in any life.
    ever_granted: BootTime,
}

impl Node {
    fn active(&self) -> bool {
        self.powered
            && self
                .core
                .as_ref()
                .is_some_and(|c| c.state() == State::Active)
    }

    fn state(&self) -> Option<State> {
        self.core.as_ref().map(Core::state)
    }

    fn healthy(&self) -> bool {
        self.powered && !self.stopped && self.core.is_some()
    }

    /// Whether protected packets pass.
    fn forwards(&self, now: u64) -> bool {
        self.powered && lease::gate(&self.fence, &self.lease, boot(now)) == Gate::Open
    }

    /// What a message that leaves now grants to the peer, noted.
    fn granting(&mut self, now: u64) -> Length {
        if self.grant.is_none() || self.published.claim.owner != self.policy.peer {
            return Length::NONE;
        }
        self.granted = boot(now);
        self.ever_granted = self.granted;
        self.grant
    }

    /// The kernel forgets all: a new agent loads everything anew.
    fn forget(&mut self) {
        self.grant = Length::NONE;
        self.granted = BootTime::NEVER;
        self.fence = Fence::default();
        self.lease = Lease::default();
    }

    /// Starts an agent that finds nothing of one before it.
    fn start(&mut self, now: u64) {
        self.forget();
        self.begin(Core::new(self.policy.clone(), boot(now)), now);
        self.highest = Epoch(0);
    }

    /// Starts an agent that takes over what the kernel still says in the name of the one before it.
    fn resume(&mut self, now: u64) {
        if self.sabotage == Sabotage::Amnesia {
            return self.start(now);
        }
        let Advertisement { claim, flags } = self.published;
        let former = FormerLife {
            claim,
            flags,
            beat: boot(self.agent_seen),
            opened: BootTime::from_ns(self.fence.opened_ns),
            own_until: BootTime::from_ns(self.fence.authority_end_ns),
        };
        let core = Core::resumed(self.policy.clone(), &former, claim.epoch, boot(now));
        let still_holds = core.state() == State::Active;
        self.begin(core, now);
        self.highest = claim.epoch;
        self.taken = still_holds.then_some(claim.epoch);
        self.inherited = self.taken;
    }

    fn begin(&mut self, mut core: Core, now: u64) {
        let _ = core.handle(
            Event::Monitors {
                ok: self.monitors_ok || self.sabotage == Sabotage::DeafToMonitors,
            },
            boot(now),
        );
        self.published = core.advertisement();
        self.core = Some(core);
        self.stopped = false;
        self.agent_seen = now;
        self.next_probe = now;
        self.last_tick = (now, self.report);
        self.taken = None;
        self.inherited = None;
    }

    /// One call of the core, with everything that must hold of one call.
    fn handle(&mut self, event: Event, now: u64) -> Result<(), String> {
        let Some(core) = self.core.as_mut() else {
            return Ok(());
        };
        let commands = core.handle(event, boot(now));
        let transitions: Vec<_> = core.transitions().collect();
        if transitions.len() > 4 {
            return Err(format!("{} transitions in one call", transitions.len()));
        }
        let mut moves = transitions.iter().filter(|t| owns(t.from) != owns(t.to));
        for command in &commands {
            match *command {
                Command::Take { epoch }
                    if self.inherited == Some(epoch) && self.taken == Some(epoch) =>
                {
                    self.inherited = None;
                }
                Command::Take { epoch } => {
                    if self.taken.is_some() || epoch <= self.highest {
                        return Err(format!("{command:?} beside {:?}", self.taken));
                    }
                    if moves.next().map(|t| (owns(t.to), t.epoch)) != Some((true, epoch)) {
                        return Err(format!("{command:?} without becoming active"));
                    }
                    self.taken = Some(epoch);
                }
                Command::Release { epoch } => {
                    if self.taken.take() != Some(epoch) {
                        return Err(format!("{command:?} of nothing taken"));
                    }
                    if moves.next().map(|t| (owns(t.from), t.epoch)) != Some((true, epoch)) {
                        return Err(format!("{command:?} without leaving active"));
                    }
                }
                Command::Announce { epoch } => {
                    if self.taken != Some(epoch) {
                        return Err(format!("{command:?} of nothing held"));
                    }
                }
                Command::Ask { .. } => return Err(format!("{command:?} without an arbiter")),
            }
        }
        if moves.next().is_some() {
            return Err("became or ceased to be active without a command".into());
        }
        drop(moves);
        self.history.extend(transitions);
        let advertisement = core.advertisement();
        if advertisement.claim.epoch < self.highest {
            return Err(format!("epoch went back from {:?}", self.highest));
        }
        self.highest = advertisement.claim.epoch;
        let active = owns(core.state());
        if active != advertisement.flags.contains(Flags::FORWARDING)
            || active != (advertisement.claim.owner == self.policy.node)
            || active != self.taken.is_some()
        {
            return Err(format!("{:?} says {advertisement:?}", core.state()));
        }
        // Other events leave the deadline to the tick that it asks for.
        if matches!(event, Event::Tick(_)) && core.next_deadline().is_some_and(|at| at <= boot(now))
        {
            return Err("a deadline that has passed".into());
        }
        self.published = advertisement;
        let mandate = core.mandate();
        self.fence = mandate.fence(&advertisement);
        if self.sabotage == Sabotage::NoEnd && active {
            self.fence.authority_end_ns = u64::MAX;
        }
        self.grant = mandate.grant;
        if active && !mandate.grant.is_none() {
            return Err("grants what it holds itself".into());
        }
        Ok(())
    }

    fn tick(&mut self, now: u64) -> Result<(), String> {
        if self.sabotage == Sabotage::NoSelfSuspicion {
            let (mut at, report) = self.last_tick;
            while at + 2 * KEEPALIVE < now {
                at += KEEPALIVE;
                self.handle(Event::Tick(report), at)?;
            }
        }
        let mut report = self.report;
        if self.sabotage == Sabotage::EpochNotCompared {
            report.claim.epoch = self.highest;
        }
        report.granted = self.granted;
        report.leased = BootTime::from_ns(self.lease.granted_tx_ns);
        self.last_tick = (now, report);
        self.agent_seen = now;
        self.handle(Event::Tick(report), now)
    }
}

fn owns(state: State) -> bool {
    matches!(state, State::Active | State::Draining)
}

fn boot(now: u64) -> BootTime {
    // The virtual clock starts at one second, so that zero remains "never".
    BootTime::from_ns((1000 + now) * 1_000_000)
}

#[derive(Debug)]
struct Sim {
    now: u64,
    nodes: [Node; 2],
    /// By sender.
    cut: [bool; 2],
    lossy: bool,
    lost_last: [bool; 2],
    flight: Vec<Message>,
    sequence: u64,
    random: u64,
    /// Until when both may be active.
    disturbed_until: u64,
    /// Since when an active node that is not well has had a better one beside it.
    worse_since: Option<u64>,
    dual_for: u64,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Run(u64),
    Cut(usize, bool),
    Lossy(bool),
    Stop(usize),
    Continue(usize),
    Kill(usize),
    Restart(usize),
    Resume(usize),
    PowerOff(usize),
    PowerOn(usize),
    Monitors(usize, bool),
    Takeover(usize, bool),
    Leave(usize),
}

impl Sim {
    fn new(seed: u64, auto_failback: bool, sabotage: Sabotage) -> Self {
        Self::preferring(Prefer::Availability, seed, auto_failback, sabotage)
    }

    fn preferring(prefer: Prefer, seed: u64, auto_failback: bool, sabotage: Sabotage) -> Self {
        let node = |id: u32| {
            let place = if sabotage == Sabotage::NoTieRule {
                1
            } else {
                id
            };
            Node {
                policy: Policy {
                    node: NodeId(place),
                    peer: NodeId(3 - place),
                    keepalive: ms(KEEPALIVE),
                    dead: if sabotage == Sabotage::HastyVerdict {
                        ms(KEEPALIVE + 1)
                    } else {
                        ms(DEAD)
                    },
                    prefer,
                    arbiter: None,
                    lease: Length::by_default(ms(DEAD)),
                    agent_dead: ms(300),
                    initial_wait: ms(500),
                    auto_failback,
                    failback_hold: ms(2000),
                    fault_hold: ms(700),
                },
                sabotage,
                powered: true,
                published: Advertisement {
                    claim: Claim::default(),
                    flags: Flags::default(),
                },
                agent_seen: 0,
                report: PeerReport::default(),
                newest_sequence: 0,
                heard_tx: BootTime::NEVER,
                grant: Length::NONE,
                granted: BootTime::NEVER,
                fence: Fence::default(),
                lease: Lease::default(),
                core: None,
                stopped: false,
                monitors_ok: true,
                next_probe: 0,
                last_tick: (0, PeerReport::default()),
                taken: None,
                inherited: None,
                highest: Epoch(0),
                history: Vec::new(),
                ever_granted: BootTime::NEVER,
            }
        };
        let mut sim = Self {
            now: 0,
            nodes: [node(1), node(2)],
            cut: [false; 2],
            lossy: false,
            lost_last: [false; 2],
            flight: Vec::new(),
            sequence: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            disturbed_until: 0,
            worse_since: None,
            dual_for: 0,
        };
        for node in &mut sim.nodes {
            node.start(0);
        }
        // The probe clocks of two nodes are not in step.
        sim.nodes[1].next_probe = sim.draw(KEEPALIVE);
        sim
    }

    /// Uniform enough in `0..below` (xorshift).
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    fn send(&mut self, from: usize, answers: Option<BootTime>) {
        let lost = self.lossy && !self.lost_last[from] && self.draw(3) == 0;
        self.lost_last[from] = lost;
        let delay = self.draw(MAX_DELAY + 1);
        self.sequence += 1;
        let grant = self.nodes[from].granting(self.now);
        if lost || self.cut[from] {
            return;
        }
        let sender = &self.nodes[from];
        self.flight.push(Message {
            arrives: self.now + delay,
            sequence: self.sequence,
            probe: answers.is_none(),
            to: 1 - from,
            advertisement: sender.published,
            agent_age: self.now - sender.agent_seen,
            tx: boot(self.now),
            echo: answers.unwrap_or(sender.heard_tx),
            grant,
        });
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self.flight.drain(..).partition(|m| m.arrives <= now);
        self.flight = later;
        for message in due {
            let node = &mut self.nodes[message.to];
            if !node.powered {
                continue;
            }
            // Replay protection: what was overtaken is not evidence.
            if message.sequence > node.newest_sequence {
                node.newest_sequence = message.sequence;
                node.report = PeerReport {
                    last_heard: boot(now),
                    claim: message.advertisement.claim,
                    flags: message.advertisement.flags,
                    agent_age: ms(message.agent_age),
                    newest_echo: node.report.newest_echo.max(message.echo),
                    granted: BootTime::NEVER,
                    leased: BootTime::NEVER,
                };
                node.heard_tx = message.tx;
                let grant = Grant {
                    claim: message.advertisement.claim.to_word(),
                    length: message.grant,
                    echo_tx: message.echo,
                    echoes_us: true,
                };
                if let Renewal::From(tx) = lease::renew(&node.fence, &grant, boot(now)) {
                    node.lease.granted_tx_ns = node.lease.granted_tx_ns.max(tx.as_ns());
                }
            }
            if message.probe {
                self.send(message.to, Some(message.tx));
            }
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        let now = self.now;
        self.deliver();
        for i in 0..2 {
            let node = &mut self.nodes[i];
            if !node.healthy() {
                continue;
            }
            let probe = now >= node.next_probe;
            let deadline = node.core.as_ref().and_then(Core::next_deadline);
            if probe || deadline.is_some_and(|at| at <= boot(now)) {
                node.tick(now)
                    .map_err(|e| format!("at {now}, node {}: {e}", i + 1))?;
            }
            if probe {
                self.nodes[i].next_probe = now + KEEPALIVE;
                self.send(i, None);
            }
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        let now = self.now;
        let calm = self.nodes.iter().all(Node::healthy) && self.cut == [false; 2];
        if !calm {
            self.disturbed_until = now + AFTERMATH;
        }
        if self.nodes.iter().all(Node::active) {
            self.dual_for += 1;
            if now > self.disturbed_until {
                return Err(format!("at {now}: both active without a reason"));
            }
        }
        let [a, b] = &self.nodes;
        for (number, node) in [a, b].into_iter().enumerate() {
            // Its agent's last sign of life, and what that vouches for.
            let vouched = now < node.agent_seen + 300;
            if node.policy.prefer == Prefer::Availability && node.forwards(now) && !vouched {
                return Err(format!(
                    "at {now}: node {} forwards without an agent",
                    number + 1
                ));
            }
        }
        let vouched = |x: &Node, y: &Node| {
            boot(now) < y.ever_granted.after(ms(DEAD) * 3 / 4) || !x.forwards(now)
        };
        let apart = a.policy.prefer == Prefer::Consistency;
        if apart && a.forwards(now) && b.forwards(now) {
            return Err(format!("at {now}: both forward"));
        }
        if apart && !(vouched(a, b) && vouched(b, a)) {
            return Err(format!("at {now}: forwards, and nobody grants"));
        }
        // Nothing acts on an epoch lower than the highest that a living node knows.
        // But for one that waits to hear so.
        let outdated = |x: &Node, y: &Node| {
            x.state() != Some(State::Draining) && x.taken.is_some_and(|epoch| epoch < y.highest)
        };
        if now > self.disturbed_until && (outdated(a, b) || outdated(b, a)) {
            return Err(format!("at {now}: active under an epoch that has passed"));
        }
        let worse = |x: &Node, y: &Node| {
            calm && x.active()
                && !x.monitors_ok
                && y.monitors_ok
                && matches!(y.state(), Some(State::Standby | State::Candidate))
        };
        if worse(a, b) || worse(b, a) {
            let since = *self.worse_since.get_or_insert(now);
            // An ungranted request, and the wait before the next.
            if now - since > 3500 {
                return Err(format!(
                    "at {now}: active without monitors beside a better node"
                ));
            }
        } else {
            self.worse_since = None;
        }
        Ok(())
    }

    fn run(&mut self, length: u64) -> Result<(), String> {
        (0..length).try_for_each(|_| self.step())
    }

    fn apply(&mut self, op: Op) -> Result<(), String> {
        let now = self.now;
        match op {
            Op::Run(length) => self.run(length)?,
            Op::Cut(from, cut) => self.cut[from] = cut,
            Op::Lossy(lossy) => self.lossy = lossy,
            Op::Stop(i) => self.nodes[i].stopped = true,
            Op::Continue(i) => self.nodes[i].stopped = false,
            Op::Kill(i) => self.nodes[i].core = None,
            Op::Restart(i) => {
                if self.nodes[i].powered {
                    self.nodes[i].start(now);
                    self.disturbed_until = now + AFTERMATH;
                }
            }
            Op::Resume(i) => {
                if self.nodes[i].powered {
                    self.nodes[i].resume(now);
                    self.disturbed_until = now + AFTERMATH;
                }
            }
            Op::PowerOff(i) => {
                self.nodes[i].powered = false;
                self.nodes[i].core = None;
                self.nodes[i].forget();
            }
            Op::PowerOn(i) => {
                if !self.nodes[i].powered {
                    self.nodes[i].powered = true;
                    self.nodes[i].report = PeerReport::default();
                    self.nodes[i].start(now);
                    self.disturbed_until = now + AFTERMATH;
                }
            }
            Op::Monitors(i, ok) => {
                let node = &mut self.nodes[i];
                node.monitors_ok = ok;
                if node.healthy() && node.sabotage != Sabotage::DeafToMonitors {
                    node.handle(Event::Monitors { ok }, now)?;
                }
            }
            Op::Takeover(i, done) => {
                let node = &mut self.nodes[i];
                if let Some(epoch) = node.taken.filter(|_| node.healthy()) {
                    node.handle(
                        if done {
                            Event::TakeoverDone { epoch }
                        } else {
                            Event::TakeoverFailed { epoch }
                        },
                        now,
                    )?;
                }
            }
            Op::Leave(i) => {
                if self.nodes[i].healthy() {
                    self.nodes[i].handle(Event::Stop, now)?;
                }
            }
        }
        Ok(())
    }

    /// Ends every fault.
    fn heal(&mut self) -> Result<(), String> {
        self.cut = [false; 2];
        self.lossy = false;
        for i in 0..2 {
            self.apply(Op::PowerOn(i))?;
            self.apply(Op::Continue(i))?;
            let left = self.nodes[i]
                .core
                .as_ref()
                .is_none_or(|core| matches!(core.trouble(), Some(super::Cause::Stopping)));
            if left {
                self.apply(Op::Restart(i))?;
            }
            self.apply(Op::Monitors(i, true))?;
            self.apply(Op::Takeover(i, true))?;
        }
        Ok(())
    }

    /// Exactly one node is active, and nothing changes any more.
    fn settled(&mut self) -> Result<(), String> {
        self.run(SETTLED)?;
        let changes = |sim: &Self| sim.nodes.each_ref().map(|n| n.history.len());
        let before = changes(self);
        self.run(3000)?;
        let states = self.nodes.each_ref().map(Node::state);
        let [primary, secondary] = self.nodes.each_ref().map(Node::active);
        if primary == secondary {
            return Err(format!("settled as {states:?}"));
        }
        let now = self.now;
        if self.nodes.each_ref().map(|node| node.forwards(now)) != [primary, secondary] {
            return Err("the active does not forward, or the other does".into());
        }
        if self.nodes[0].policy.auto_failback && !primary {
            return Err("failback did not happen".into());
        }
        if changes(self) != before {
            return Err("still changing".into());
        }
        Ok(())
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let node = 0..2_usize;
    let op = prop_oneof![
        8 => (1..400_u64).prop_map(Op::Run),
        2 => (1..3000_u64).prop_map(Op::Run),
        3 => (node.clone(), any::<bool>()).prop_map(|(i, cut)| Op::Cut(i, cut)),
        1 => any::<bool>().prop_map(Op::Lossy),
        2 => node.clone().prop_map(Op::Stop),
        3 => node.clone().prop_map(Op::Continue),
        1 => node.clone().prop_map(Op::Kill),
        2 => node.clone().prop_map(Op::Restart),
        1 => node.clone().prop_map(Op::Resume),
        1 => node.clone().prop_map(Op::PowerOff),
        2 => node.clone().prop_map(Op::PowerOn),
        3 => (node.clone(), any::<bool>()).prop_map(|(i, ok)| Op::Monitors(i, ok)),
        2 => (node.clone(), any::<bool>()).prop_map(|(i, done)| Op::Takeover(i, done)),
        1 => node.prop_map(Op::Leave),
    ];
    proptest::collection::vec(op, 0..24)
}

fn play(
    prefer: Prefer,
    seed: u64,
    auto_failback: bool,
    ops: &[Op],
    sabotage: Sabotage,
) -> Result<(), String> {
    let mut sim = Sim::preferring(prefer, seed, auto_failback, sabotage);
    for &op in ops {
        sim.apply(op)?;
    }
    sim.heal()?;
    sim.settled()
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::with_cases(256) })]

    /// Whatever happens, each call keeps the rules of a call, both are active only while or just
    /// after they could not know of each other, and after the faults exactly one is, for good.
    #[test]
    fn the_rules_hold_through_any_faults(
        seed: u64, auto_failback: bool, ops in ops()
    ) {
        play(Prefer::Availability, seed, auto_failback, &ops, Sabotage::None)
            .map_err(TestCaseError::fail)?;
    }

    /// The same where consistency is preferred, and then both never forward in the same instant.
    #[test]
    fn who_prefers_consistency_never_forwards_beside_the_other(
        seed: u64, auto_failback: bool, ops in ops()
    ) {
        play(Prefer::Consistency, seed, auto_failback, &ops, Sabotage::None)
            .map_err(TestCaseError::fail)?;
    }

    /// Delay, loss and probe clocks out of step alone never make both active, nor move the group.
    #[test]
    fn without_faults_the_first_active_stays(
        seed: u64, auto_failback: bool, lossy: bool, late in 0..3000_u64, who in 0..2_usize
    ) {
        let run = || -> Result<(), String> {
            let mut sim = Sim::new(seed, auto_failback, Sabotage::None);
            sim.lossy = lossy;
            if late > 0 {
                sim.nodes[who].powered = false;
                sim.nodes[who].core = None;
                sim.run(late)?;
                sim.apply(Op::PowerOn(who))?;
            }
            sim.settled()?;
            if sim.dual_for > 0 {
                return Err("both active".into());
            }
            let taken: usize = sim.nodes.iter()
                .map(|n| n.history.iter().filter(|t| t.to == State::Active).count())
                .sum();
            // A failback, if the primary came late, is the only move there is.
            if taken > 1 + usize::from(auto_failback && who == 0 && late > 0) {
                return Err(format!("{taken} takeovers"));
            }
            Ok(())
        };
        run().map_err(TestCaseError::fail)?;
    }
}

/// The primary's first message as Standby is lost, so that to the secondary it looks like one who
/// will not take its turn.
#[test]
fn a_starting_primary_goes_first_although_a_message_is_lost() {
    let mut sim = Sim::new(8_833_959_128_199_853_116, true, Sabotage::None);
    sim.lossy = true;
    sim.nodes[1].powered = false;
    sim.nodes[1].core = None;
    sim.run(182).expect("rules hold");
    sim.apply(Op::PowerOn(1)).expect("rules hold");
    sim.settled().expect("settles");
    let secondary = &sim.nodes[1].history;
    assert!(secondary.iter().all(|t| t.to != State::Active));
}

/// The random faults that pass the sound core find each planted defect.
#[test]
fn planted_defects_are_found_by_random_faults() {
    for (prefer, sabotage) in [
        (Prefer::Availability, Sabotage::EpochNotCompared),
        (Prefer::Availability, Sabotage::NoTieRule),
        (Prefer::Availability, Sabotage::DeafToMonitors),
        (Prefer::Availability, Sabotage::HastyVerdict),
        (Prefer::Availability, Sabotage::NoEnd),
        (Prefer::Consistency, Sabotage::NoEnd),
    ] {
        let mut runner = TestRunner::new_with_rng(
            Config {
                failure_persistence: None,
                max_shrink_iters: 0,
                ..Config::with_cases(400)
            },
            proptest::test_runner::TestRng::deterministic_rng(
                proptest::test_runner::RngAlgorithm::ChaCha,
            ),
        );
        let outcome = runner.run(
            &(any::<u64>(), any::<bool>(), ops()),
            |(seed, failback, ops)| {
                play(prefer, seed, failback, &ops, sabotage).map_err(TestCaseError::fail)
            },
        );
        assert!(
            matches!(outcome, Err(TestError::Fail(..))),
            "{sabotage:?} was not found"
        );
    }
}

// ---- Scenarios: each passes with the sound core and fails with the defect it is about -----------

type Scenario = fn(Sabotage) -> Result<(), String>;

fn expect(what: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn cut_off_active_yields_when_it_hears_of_the_other(sabotage: Sabotage) -> Result<(), String> {
    let mut sim = Sim::new(1, false, sabotage);
    sim.run(1000)?;
    expect("primary active", sim.nodes[0].active())?;
    sim.cut = [true; 2];
    sim.run(1000)?;
    expect("secondary took over", sim.nodes[1].active())?;
    sim.cut = [false; 2];
    sim.run(KEEPALIVE + 2 * MAX_DELAY)?;
    expect("primary yielded at once", !sim.nodes[0].active())?;
    sim.run(5000)?;
    expect("secondary stayed", sim.nodes[1].active())
}

fn stopped_active_starts_over_when_it_wakes(sabotage: Sabotage) -> Result<(), String> {
    let mut sim = Sim::new(1, false, sabotage);
    sim.run(1000)?;
    sim.apply(Op::Stop(0))?;
    sim.run(300)?;
    expect(
        "its fence has closed by itself",
        !sim.nodes[0].forwards(sim.now),
    )?;
    sim.run(700)?;
    expect("secondary took over", sim.nodes[1].forwards(sim.now))?;
    // It wakes, and cannot hear that.
    sim.cut = [true; 2];
    sim.flight.clear();
    sim.nodes[0].report = PeerReport::default();
    sim.apply(Op::Continue(0))?;
    sim.run(1)?;
    expect("primary does not go on", !sim.nodes[0].active())
}

fn stopped_standby_blames_nobody(sabotage: Sabotage) -> Result<(), String> {
    let mut sim = Sim::new(2, false, sabotage);
    sim.run(1000)?;
    // The standby's kernel goes on hearing the active; its agent sees nothing of it.
    sim.apply(Op::Stop(1))?;
    sim.run(1000)?;
    sim.apply(Op::Continue(1))?;
    sim.run(1000)?;
    expect("primary stayed", sim.nodes[0].active())?;
    expect(
        "secondary never moved",
        sim.nodes[1].history.iter().all(|t| t.to != State::Active),
    )
}

fn a_split_from_the_start_heals_by_rule(sabotage: Sabotage) -> Result<(), String> {
    let mut sim = Sim::new(3, false, sabotage);
    sim.cut = [true; 2];
    sim.run(2000)?;
    expect("both active, apart", sim.nodes.iter().all(Node::active))?;
    sim.cut = [false; 2];
    sim.run(2000)?;
    expect("primary stayed", sim.nodes[0].active())?;
    expect("secondary yielded", !sim.nodes[1].active())
}

/// An upgrade of both nodes, one after the other, each taking less than agent-dead-interval.
fn agents_that_are_replaced_change_nothing(sabotage: Sabotage) -> Result<(), String> {
    let mut sim = Sim::new(4, true, sabotage);
    sim.run(1000)?;
    let before = sim.nodes.each_ref().map(|node| node.history.len());
    for node in [0, 1] {
        sim.apply(Op::Kill(node))?;
        sim.run(250)?;
        sim.apply(Op::Resume(node))?;
        sim.run(3000)?;
    }
    let after = sim.nodes.each_ref().map(|node| node.history.len());
    expect("no transition", before == after)?;
    expect("primary active", sim.nodes[0].active())?;
    expect("alone", sim.dual_for == 0)
}

#[test]
fn a_life_that_was_succeeded_is_not_resumed() {
    let mut sim = Sim::new(5, false, Sabotage::None);
    sim.run(1000).expect("rules hold");
    sim.apply(Op::Kill(0)).expect("rules hold");
    sim.run(1000).expect("rules hold");
    assert!(sim.nodes[1].active());
    sim.apply(Op::Resume(0)).expect("rules hold");
    assert_eq!(sim.nodes[0].state(), Some(State::Initializing));
    sim.run(3000).expect("rules hold");
    assert!(sim.nodes[1].active());
    assert_eq!(sim.dual_for, 0);
}

#[test]
fn scenarios_tell_the_sound_core_from_the_defect_they_are_about() {
    let scenarios: [(&str, Scenario, Sabotage); 5] = [
        (
            "stopped active",
            stopped_active_starts_over_when_it_wakes,
            Sabotage::NoEnd,
        ),
        (
            "cut off active",
            cut_off_active_yields_when_it_hears_of_the_other,
            Sabotage::EpochNotCompared,
        ),
        (
            "stopped standby",
            stopped_standby_blames_nobody,
            Sabotage::NoSelfSuspicion,
        ),
        (
            "split from the start",
            a_split_from_the_start_heals_by_rule,
            Sabotage::NoTieRule,
        ),
        (
            "agents replaced",
            agents_that_are_replaced_change_nothing,
            Sabotage::Amnesia,
        ),
    ];
    for (name, scenario, defect) in scenarios {
        assert_eq!(scenario(Sabotage::None), Ok(()), "{name}");
        assert!(scenario(defect).is_err(), "{name} does not find {defect:?}");
    }
}

#[test]
fn a_cold_start_takes_a_few_keepalives() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed, false, Sabotage::None);
        sim.run(5 * KEEPALIVE).expect("rules hold");
        assert!(
            sim.nodes[0].active(),
            "seed {seed}: {:?}",
            sim.nodes[0].history
        );
        assert_eq!(sim.nodes[1].state(), Some(State::Standby));
    }
}

#[test]
fn a_dead_node_is_replaced_as_soon_as_its_silence_is_long_enough() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed, false, Sabotage::None);
        sim.run(1000).expect("rules hold");
        sim.apply(Op::PowerOff(0)).expect("rules hold");
        sim.run(DEAD + MAX_DELAY).expect("rules hold");
        assert!(sim.nodes[1].active(), "seed {seed}");
    }
}

#[test]
fn without_its_monitors_it_hands_over_within_a_few_keepalives() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed, false, Sabotage::None);
        sim.run(1000).expect("rules hold");
        sim.apply(Op::Monitors(0, false)).expect("rules hold");
        sim.run(6 * KEEPALIVE).expect("rules hold");
        assert_eq!(sim.nodes[0].state(), Some(State::Fault), "seed {seed}");
        assert!(sim.nodes[1].active(), "seed {seed}");
        assert_eq!(sim.dual_for, 0);
    }
}

#[test]
fn when_both_lose_their_monitors_the_group_stays_owned() {
    for gap in 0..60 {
        let mut sim = Sim::new(gap, false, Sabotage::None);
        sim.run(1000).expect("rules hold");
        sim.apply(Op::Monitors(0, false)).expect("rules hold");
        sim.run(gap).expect("rules hold");
        sim.apply(Op::Monitors(1, false)).expect("rules hold");
        sim.run(3000).expect("rules hold");
        let owned = sim.nodes.iter().any(Node::active);
        // Between the owner's consent and the successor's claim there is one message.
        let yielded = sim.nodes[0].history.last().map(|t| t.at);
        let failed = sim.nodes[1].history.last().map(|t| t.at);
        let in_flight = match (yielded, failed) {
            (Some(yielded), Some(failed)) => failed.since(yielded) <= ms(KEEPALIVE + MAX_DELAY),
            _ => false,
        };
        assert!(owned || in_flight, "gap {gap} ms");
    }
}

#[test]
fn an_orderly_stop_is_followed_within_a_few_keepalives() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed, false, Sabotage::None);
        sim.run(1000).expect("rules hold");
        sim.apply(Op::Leave(0)).expect("rules hold");
        sim.run(5 * KEEPALIVE).expect("rules hold");
        assert!(sim.nodes[1].active(), "seed {seed}");
    }
}

#[test]
fn an_agent_that_dies_is_replaced_although_its_kernel_answers() {
    let mut sim = Sim::new(7, false, Sabotage::None);
    sim.run(1000).expect("rules hold");
    sim.apply(Op::Kill(0)).expect("rules hold");
    sim.run(280).expect("rules hold");
    assert!(!sim.nodes[1].active(), "not before agent-dead-interval");
    sim.run(60).expect("rules hold");
    assert!(sim.nodes[1].active());
}
