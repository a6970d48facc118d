//! Nodes, their links and their arbiter on a virtual clock. Nodes are stopped, killed, frozen and
//! restarted; links delay, lose, and are cut one way or both; the arbiter is slow, cut off, down or wiped.
//! What must hold is checked after every call of the core and at every step of the clock.
//!
//! Deterministic: a seed gives a run, and a failure tells its seed.

use std::time::Duration;

use router_common::{
    identity::{Epoch, Flags, NodeId},
    lease::{Gate, Length, MARGIN},
    time::BootTime,
};

use super::{
    Answer, ArbiterFinding, ArbiterPolicy, Cause, Command, Core, Event, Fault, Forced, Mode,
    Policy, Prefer, Request, State, Transition,
    node::{Message, Node, Outcome, Planted, owns},
    store::Store,
};

/// The steps of the clock, fine enough to see a missing margin.
const STEP_NS: u64 = 250_000;
const PER_MS: u64 = 4;

const KEEPALIVE: u64 = 10;
const DEAD: u64 = 40;
const AGENT_DEAD: u64 = 300;
const TERM: u64 = 120;
const TIMEOUT: u64 = 40;
/// The link delivers within this, and never loses two messages of one direction in a row unless
/// they come in bursts, so a node that probes is heard well within [`DEAD`].
const MAX_DELAY: u64 = 5;
/// A disturbance (cut, stop, crash) may leave both nodes active until each has heard the other
/// again.
const AFTERMATH: u64 = DEAD + 4 * KEEPALIVE;
/// Everything a node may have to wait for before it acts, one after the other: start, hold after a
/// failed takeover, an ungranted request, the next one, failback hold, and the term of a record.
const SETTLED: u64 = 500 + 700 + 1000 + 2000 + 2000 + 800 + 2 * TERM;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A source of random numbers (xorshift), uniform enough.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.below(2);
        }
        random
    }

    /// In `0..below`.
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).expect("below a usize")
    }
}

/// By what rule the nodes live, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    Availability,
    Consistency,
    Arbiter,
    /// A third node has no session with the others, and knows them by the record alone.
    ArbiterOfThree,
}

impl Setup {
    const ALL: [Self; 4] = [
        Self::Availability,
        Self::Consistency,
        Self::Arbiter,
        Self::ArbiterOfThree,
    ];

    const fn nodes(self) -> usize {
        match self {
            Self::Availability | Self::Consistency | Self::Arbiter => 2,
            Self::ArbiterOfThree => 3,
        }
    }

    /// Whether two may never forward in the same instant.
    const fn excludes(self) -> bool {
        match self {
            Self::Availability => false,
            Self::Consistency | Self::Arbiter | Self::ArbiterOfThree => true,
        }
    }

    const fn has_arbiter(self) -> bool {
        match self {
            Self::Availability | Self::Consistency => false,
            Self::Arbiter | Self::ArbiterOfThree => true,
        }
    }

    fn policy(self, id: u32, auto_failback: bool, planted: Option<Planted>) -> Policy {
        let place = if planted == Some(Planted::NoTieRule) {
            1
        } else {
            id
        };
        let contenders = match planted {
            Some(Planted::GrantsAmongThree) => 2,
            Some(_) | None => self.nodes(),
        };
        let dead = match planted {
            Some(Planted::HastyVerdict) => ms(KEEPALIVE + 1),
            Some(_) | None => ms(DEAD),
        };
        Policy {
            node: NodeId(place),
            // Nobody is the third node's peer.
            peer: NodeId(if place > 2 { 9 } else { 3 - place }),
            keepalive: ms(KEEPALIVE),
            dead,
            prefer: match self {
                Self::Consistency => Prefer::Consistency,
                Self::Availability | Self::Arbiter | Self::ArbiterOfThree => Prefer::Availability,
            },
            arbiter: self.has_arbiter().then_some(ArbiterPolicy {
                term: ms(TERM),
                timeout: ms(TIMEOUT),
                contenders,
            }),
            lease: Length::by_default(ms(DEAD)),
            agent_dead: ms(AGENT_DEAD),
            initial_wait: ms(500),
            auto_failback,
            failback_hold: ms(2000),
            fault_hold: ms(700),
        }
    }
}

/// What the checks remember of a node.
#[derive(Debug, Default)]
struct Witness {
    /// What its agent has taken in this life.
    taken: Option<Epoch>,
    /// What a former life took, and this one takes once more.
    inherited: Option<Epoch>,
    highest: Epoch,
    history: Vec<Transition>,
    /// When it last granted, in any life, by the world's clock.
    ever_granted: Option<u64>,
    /// Until when a packet that it let pass may be on its way to the wire.
    on_the_wire_until: u64,
}

impl Witness {
    /// Everything that must hold of one call.
    fn judge(
        &mut self,
        node: &Node,
        outcome: &Outcome,
        now: BootTime,
        ticked: bool,
    ) -> Result<(), String> {
        let Outcome {
            commands,
            transitions,
        } = outcome;
        let Some(core) = &node.core else {
            return Ok(());
        };
        if transitions.len() > 4 {
            return Err(format!("{} transitions in one call", transitions.len()));
        }
        let mut moves = transitions
            .iter()
            .filter(|transition| owns(transition.from) != owns(transition.to))
            .map(|transition| (owns(transition.to), transition.epoch));
        for command in commands {
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
                    if moves.next() != Some((true, epoch)) {
                        return Err(format!("{command:?} without becoming active"));
                    }
                    self.taken = Some(epoch);
                }
                Command::Release { epoch } => {
                    if self.taken.take() != Some(epoch) {
                        return Err(format!("{command:?} of nothing taken"));
                    }
                    if moves.next() != Some((false, epoch)) {
                        return Err(format!("{command:?} without leaving active"));
                    }
                }
                Command::Announce { epoch } => {
                    if self.taken != Some(epoch) {
                        return Err(format!("{command:?} of nothing held"));
                    }
                }
                Command::Ask { .. } => {
                    if node.policy.arbiter.is_none() {
                        return Err(format!("{command:?} without an arbiter"));
                    }
                }
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
            || active != (advertisement.claim.owner == node.policy.node)
            || active != self.taken.is_some()
        {
            return Err(format!("{:?} says {advertisement:?}", core.state()));
        }
        let mandate = core.mandate();
        if active && !mandate.grant.is_none() {
            return Err("grants what it holds itself".into());
        }
        // Other events leave the deadline to the tick that it asks for.
        if ticked && core.next_deadline().is_some_and(|at| at <= now) {
            return Err("a deadline that has passed".into());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Flight {
    arrives: u64,
    sequence: u64,
    to: usize,
    message: Message,
}

/// A request on its way to the arbiter, and its answer on the way back.
#[derive(Debug)]
struct Asked {
    by: usize,
    life: u64,
    number: u64,
    request: Request,
    sent: BootTime,
    reaches: u64,
    returns: u64,
    answer: Option<Answer>,
}

/// How a node reaches the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Requests take as long as a node waits for them, or longer.
    Slow,
    /// Requests arrive, and no answer comes.
    NoAnswers,
    Cut,
}

#[derive(Debug)]
struct Place {
    node: Node,
    witness: Witness,
    /// Ahead of the world's by this, and faster by so many millionths.
    clock_offset_ns: u64,
    drift_ppm: i64,
    next_probe: u64,
    newest_sequence: u64,
    frozen_since: Option<u64>,
    /// How long its clock has stood still.
    lost_ns: u64,
    arbiter: Way,
    /// Counts its agents.
    life: u64,
}

impl Place {
    fn clock(&self, now: u64) -> BootTime {
        let now = self
            .frozen_since
            .filter(|_| self.node.has(Planted::ClockStandsStill))
            .unwrap_or(now);
        let ns = now * STEP_NS - self.lost_ns;
        let drift = i64::try_from(ns).expect("a short run") * self.drift_ppm / 1_000_000;
        BootTime::from_ns(self.clock_offset_ns + ns.wrapping_add_signed(drift))
    }

    fn runs(&self) -> bool {
        self.node.powered && self.frozen_since.is_none()
    }

    fn healthy(&self) -> bool {
        self.runs() && self.node.healthy()
    }

    fn forwards(&self, now: u64) -> bool {
        self.runs() && self.node.forwards(self.clock(now))
    }

    fn owns(&self) -> bool {
        self.node.powered && self.node.state().is_some_and(owns)
    }
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault that lasts, or a fact that holds"
)]
#[derive(Debug)]
struct Sim {
    now: u64,
    setup: Setup,
    planted: Option<Planted>,
    places: Vec<Place>,
    /// Of the two that have a session, by sender.
    cut: [bool; 2],
    lossy: bool,
    /// All is lost until then.
    burst_until: u64,
    /// Messages take up to so many steps.
    max_delay: u64,
    /// And requests, each way.
    max_store_delay: u64,
    lost_last: [bool; 2],
    flights: Vec<Flight>,
    sequence: u64,
    store: Store,
    asked: Vec<Asked>,
    /// Without a leader.
    store_down: bool,
    wiped: bool,
    /// The operator has moved the group: no failback before the next failure.
    moved: bool,
    random: Random,
    /// Until when both may be active.
    disturbed_until: u64,
    /// Since when an active node that is not well has had a better one beside it.
    worse_since: Option<u64>,
    /// How many steps two were active.
    dual_for: u64,
    highest_forwarded: Epoch,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Milliseconds.
    Run(u64),
    Cut(usize, bool),
    Lossy(bool),
    /// Milliseconds.
    Burst(u64),
    Delay(u64),
    Stop(usize),
    Continue(usize),
    Freeze(usize),
    Thaw(usize),
    Kill(usize),
    Restart(usize),
    Resume(usize),
    PowerOff(usize),
    PowerOn(usize),
    Monitors(usize, bool),
    Takeover(usize, bool),
    Leave(usize),
    Force(usize, Forced),
    Arbiter(usize, Way),
    StoreDown(bool),
    Wipe,
}

impl Op {
    fn random(random: &mut Random, setup: Setup) -> Self {
        let node = random.index(setup.nodes());
        let kinds = if setup.has_arbiter() { 38 } else { 33 };
        match random.below(kinds) {
            0..8 => Self::Run(1 + random.below(400)),
            8 | 9 => Self::Run(1 + random.below(3000)),
            10..13 => Self::Cut(random.index(2), random.flip()),
            13 => Self::Lossy(random.flip()),
            14 => Self::Burst(random.below(2 * DEAD)),
            15 => Self::Delay(MAX_DELAY + random.below(DEAD)),
            16 | 17 => Self::Stop(node),
            18 | 19 => Self::Continue(node),
            20 => Self::Freeze(node),
            21 => Self::Thaw(node),
            22 => Self::Kill(node),
            23 => Self::Restart(node),
            24 => Self::Resume(node),
            25 => Self::PowerOff(node),
            26 => Self::PowerOn(node),
            27 | 28 => Self::Monitors(node, random.flip()),
            29 => Self::Takeover(node, random.flip()),
            30 => Self::Leave(node),
            31 => Self::Force(node, Forced::Standby),
            32 => Self::Force(
                node,
                Forced::Active {
                    anyway: random.flip(),
                },
            ),
            33..36 => Self::Arbiter(
                node,
                match random.below(4) {
                    0 => Way::Open,
                    1 => Way::Slow,
                    2 => Way::NoAnswers,
                    _ => Way::Cut,
                },
            ),
            36 => Self::StoreDown(random.flip()),
            _ if random.below(4) == 0 => Self::Wipe,
            _ => Self::Run(TERM),
        }
    }
}

impl Sim {
    fn new(setup: Setup, seed: u64, auto_failback: bool, planted: Option<Planted>) -> Self {
        let mut random = Random::new(seed);
        let places = (0..setup.nodes())
            .map(|index| {
                let id = u32::try_from(index + 1).expect("a few");
                let policy = setup.policy(id, auto_failback, planted);
                let place = Place {
                    node: Node::new(policy, planted, BootTime::from_ns(1)),
                    witness: Witness::default(),
                    clock_offset_ns: 1_000_000_000 + random.below(1_000_000_000),
                    // Two of them differ by 1/500 at most.
                    drift_ppm: i64::try_from(random.below(2_000)).expect("small") - 1_000,
                    // The probe clocks of two nodes are not in step.
                    next_probe: random.below(KEEPALIVE * PER_MS),
                    newest_sequence: 0,
                    frozen_since: None,
                    lost_ns: 0,
                    arbiter: Way::Open,
                    life: 0,
                };
                let mut place = place;
                place.node = Node::new(place.node.policy.clone(), planted, place.clock(0));
                place
            })
            .collect();
        Self {
            now: 0,
            setup,
            planted,
            places,
            cut: [false; 2],
            lossy: false,
            burst_until: 0,
            max_delay: MAX_DELAY * PER_MS,
            max_store_delay: 2 * PER_MS,
            lost_last: [false; 2],
            flights: Vec::new(),
            sequence: 0,
            store: Store::default(),
            asked: Vec::new(),
            store_down: false,
            wiped: false,
            moved: false,
            random,
            disturbed_until: 0,
            worse_since: None,
            dual_for: 0,
            highest_forwarded: Epoch::default(),
        }
    }

    // ---- Links and arbiter -------------------------------------------------------------------------

    /// Puts on its way what node `from` says.
    fn send(&mut self, from: usize, message: Message) {
        if !message.grant.is_none() {
            self.places[from].witness.ever_granted = Some(self.now);
        }
        // The third has nobody to speak with.
        if from > 1 {
            return;
        }
        let lost = self.lossy && !self.lost_last[from] && self.random.below(3) == 0;
        self.lost_last[from] = lost;
        let delay = self.random.below(self.max_delay + 1);
        self.sequence += 1;
        if lost || self.cut[from] || self.now < self.burst_until {
            return;
        }
        self.flights.push(Flight {
            arrives: self.now + delay,
            sequence: self.sequence,
            to: 1 - from,
            message,
        });
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = self
            .flights
            .drain(..)
            .partition(|flight| flight.arrives <= now);
        self.flights = later;
        for Flight {
            arrives: _,
            sequence,
            to,
            message,
        } in due
        {
            let place = &mut self.places[to];
            // Replay protection: what was overtaken is not evidence.
            if !place.runs() || sequence <= place.newest_sequence {
                continue;
            }
            place.newest_sequence = sequence;
            let clock = place.clock(now);
            if let Some(reply) = place.node.hear(&message, clock) {
                self.send(to, reply);
            }
        }
    }

    fn ask(&mut self, by: usize, number: u64, request: Request) {
        let near = self.max_store_delay + 1;
        let (there, back) = match self.places[by].arbiter {
            Way::Open => (self.random.below(near), self.random.below(near)),
            Way::Slow => (
                self.random.below(2 * TIMEOUT * PER_MS),
                self.random.below(2 * TIMEOUT * PER_MS),
            ),
            Way::NoAnswers => (self.random.below(near), u64::MAX / 2),
            Way::Cut => (u64::MAX / 2, 0),
        };
        let place = &self.places[by];
        self.asked.push(Asked {
            by,
            life: place.life,
            number,
            request,
            sent: place.clock(self.now),
            reaches: self.now + there,
            returns: self.now + there + back,
            answer: None,
        });
    }

    fn arbitrate(&mut self) -> Result<(), String> {
        let now = self.now;
        for asked in &mut self.asked {
            if asked.answer.is_none() && asked.reaches <= now {
                asked.answer = Some(if self.store_down {
                    Answer::Failed(Fault::Unreachable)
                } else {
                    self.store.serve(asked.request, self.planted)
                });
            }
        }
        let (due, later): (Vec<_>, Vec<_>) = self
            .asked
            .drain(..)
            .partition(|asked| asked.returns <= now || asked.reaches > now + 10_000_000);
        self.asked = later;
        for asked in due {
            let place = &mut self.places[asked.by];
            let Some(answer) = asked.answer.filter(|_| place.life == asked.life) else {
                continue;
            };
            if !place.healthy() {
                // The agent reads it when it goes on.
                if place.node.core.is_some() {
                    self.asked.push(asked);
                }
                continue;
            }
            let clock = place.clock(now);
            let outcome = place.node.answered(asked.number, asked.sent, answer, clock);
            self.follow(asked.by, outcome, false)?;
        }
        Ok(())
    }

    /// Carries out what the core of node `index` decided.
    fn follow(
        &mut self,
        index: usize,
        outcomes: impl IntoIterator<Item = Outcome>,
        ticked: bool,
    ) -> Result<(), String> {
        for outcome in outcomes {
            let place = &mut self.places[index];
            let clock = place.clock(self.now);
            place
                .witness
                .judge(&place.node, &outcome, clock, ticked)
                .map_err(|error| format!("at {}, node {}: {error}", self.now, index + 1))?;
            for command in outcome.commands {
                if let Command::Ask { number, request } = command {
                    self.ask(index, number, request);
                }
            }
        }
        Ok(())
    }

    // ---- Time --------------------------------------------------------------------------------------

    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        self.arbitrate()?;
        self.deliver();
        for index in 0..self.places.len() {
            let now = self.now;
            let place = &mut self.places[index];
            if !place.healthy() {
                continue;
            }
            let clock = place.clock(now);
            let probe = now >= place.next_probe;
            let deadline = place.node.core.as_ref().and_then(Core::next_deadline);
            if probe || deadline.is_some_and(|at| at <= clock) {
                let outcomes = place.node.tick(clock);
                let lied = place.node.has(Planted::NoSelfSuspicion);
                self.follow(index, outcomes, !lied)?;
            }
            if probe {
                let place = &mut self.places[index];
                place.next_probe = now + KEEPALIVE * PER_MS;
                let message = place.node.speak(None, clock);
                self.send(index, message);
            }
        }
        // What takes no time has arrived.
        self.deliver();
        self.arbitrate()?;
        self.check()
    }

    fn run(&mut self, ms: u64) -> Result<(), String> {
        (0..ms * PER_MS).try_for_each(|_| self.step())
    }

    // ---- What must hold ----------------------------------------------------------------------------

    fn check(&mut self) -> Result<(), String> {
        let now = self.now;
        let calm = self.places.iter().all(Place::healthy)
            && self.cut == [false; 2]
            && now >= self.burst_until
            && self.max_delay <= MAX_DELAY * PER_MS;
        if !calm {
            self.disturbed_until = now + AFTERMATH * PER_MS;
        }
        if self.setup.excludes() {
            self.check_exclusion()
        } else {
            self.check_pair(calm)
        }
        .map_err(|error| format!("at {now}: {error}"))?;
        self.check_monitors(calm)
            .map_err(|error| format!("at {now}: {error}"))
    }

    /// Never two forward, nor does who holds a lower epoch after one who holds a higher.
    fn check_exclusion(&mut self) -> Result<(), String> {
        let now = self.now;
        let mut forwarding = 0;
        for place in &mut self.places {
            let gate = place.node.gate(place.clock(now));
            let runs = place.frozen_since.is_none() && place.node.powered;
            if runs && gate == Gate::Open {
                let margin = u64::try_from(MARGIN.as_nanos() / u128::from(STEP_NS)).expect("small");
                place.witness.on_the_wire_until = now + margin;
                let epoch = router_common::identity::Claim::from_word(place.node.fence.claim).epoch;
                if epoch < self.highest_forwarded && !self.wiped {
                    return Err(format!("forwards under {epoch:?}"));
                }
                self.highest_forwarded = self.highest_forwarded.max(epoch);
            } else if gate == Gate::Closed {
                // What a closing fence let pass before is under way: R5 does not wait for it.
                place.witness.on_the_wire_until = now;
            }
            forwarding += u32::from(now < place.witness.on_the_wire_until);
        }
        if forwarding > 1 {
            let states: Vec<_> = self.places.iter().map(|place| place.node.state()).collect();
            return Err(format!("two forward, being {states:?}"));
        }
        if self.setup == Setup::Consistency {
            for (index, place) in self.places.iter().enumerate() {
                let granted = self.places[1 - index].witness.ever_granted;
                let covers = DEAD * 3 / 4 * PER_MS * 1_001 / 1_000;
                if place.forwards(now) && granted.is_none_or(|at| now > at + covers) {
                    return Err("forwards, and nobody grants".into());
                }
            }
        }
        Ok(())
    }

    /// Of a pair that prefers availability: both are active only while or just after they could not
    /// know of each other.
    fn check_pair(&mut self, calm: bool) -> Result<(), String> {
        let now = self.now;
        if self.places.iter().all(|place| place.node.active()) {
            self.dual_for += 1;
            if now > self.disturbed_until {
                return Err("both active without a reason".into());
            }
        }
        for (index, place) in self.places.iter().enumerate() {
            // Its agent's last sign of life, and what that vouches for.
            let vouched = place.clock(now) < place.node.agent_seen.after(ms(AGENT_DEAD));
            if place.forwards(now) && !vouched {
                return Err(format!("node {} forwards without an agent", index + 1));
            }
        }
        let [a, b] = &self.places[..] else {
            return Ok(());
        };
        // Nothing acts on an epoch lower than the highest that a living node knows, but for one that
        // waits to hear so.
        let outdated = |x: &Place, y: &Place| {
            x.node.state() != Some(State::Draining)
                && x.witness
                    .taken
                    .is_some_and(|epoch| epoch < y.witness.highest)
        };
        if calm && now > self.disturbed_until && (outdated(a, b) || outdated(b, a)) {
            return Err("active under an epoch that has passed".into());
        }
        Ok(())
    }

    fn check_monitors(&mut self, calm: bool) -> Result<(), String> {
        let [a, b, ..] = &self.places[..] else {
            return Ok(());
        };
        let calm = calm
            && !self.store_down
            && !self.wiped
            && self.places.iter().all(|place| place.arbiter == Way::Open);
        let worse = |x: &Place, y: &Place| {
            calm && x.node.active()
                && !x.node.monitors_ok
                && y.node.monitors_ok
                && matches!(y.node.state(), Some(State::Standby | State::Candidate))
        };
        if worse(a, b) || worse(b, a) {
            let since = *self.worse_since.get_or_insert(self.now);
            // An ungranted request, and the wait before the next.
            if self.now - since > 3500 * PER_MS {
                return Err("active without monitors beside a better node".into());
            }
        } else {
            self.worse_since = None;
        }
        Ok(())
    }

    // ---- Faults ------------------------------------------------------------------------------------

    /// Begins a new life of the agent of `index`.
    fn reborn(&mut self, index: usize) {
        let now = self.now;
        self.disturbed_until = now + AFTERMATH * PER_MS;
        let place = &mut self.places[index];
        let claim = place.node.published.claim;
        let holds = place.node.state() == Some(State::Active);
        place.life += 1;
        place.next_probe = now;
        place.witness.highest = claim.epoch;
        place.witness.taken = holds.then_some(claim.epoch);
        place.witness.inherited = place.witness.taken;
    }

    fn apply(&mut self, op: Op) -> Result<(), String> {
        let now = self.now;
        match op {
            Op::Run(length) => return self.run(length),
            Op::Cut(from, cut) => self.cut[from] = cut,
            Op::Lossy(lossy) => self.lossy = lossy,
            Op::Burst(length) => self.burst_until = now + length * PER_MS,
            Op::Delay(max) => self.max_delay = max * PER_MS,
            Op::StoreDown(down) => self.store_down = down,
            Op::Wipe => {
                self.store.wipe();
                self.wiped = true;
            }
            Op::Arbiter(index, way) => self.places[index].arbiter = way,
            Op::Stop(index) => self.places[index].node.stopped = true,
            Op::Continue(index) => self.places[index].node.stopped = false,
            Op::Freeze(index) => {
                self.places[index].frozen_since.get_or_insert(now);
            }
            Op::Thaw(index) => {
                let place = &mut self.places[index];
                if let Some(since) = place.frozen_since.take()
                    && place.node.has(Planted::ClockStandsStill)
                {
                    place.lost_ns += (now - since) * STEP_NS;
                }
                return self.check();
            }
            Op::Kill(index) => self.places[index].node.core = None,
            Op::Restart(index) | Op::Resume(index) => {
                let place = &mut self.places[index];
                if place.runs() {
                    let clock = place.clock(now);
                    match op {
                        Op::Resume(_) => place.node.resume(clock),
                        _ => place.node.start(clock),
                    }
                    self.reborn(index);
                }
            }
            Op::PowerOff(index) => self.places[index].node.power_off(),
            Op::PowerOn(index) => {
                let place = &mut self.places[index];
                if !place.node.powered {
                    place.frozen_since = None;
                    let clock = place.clock(now);
                    place.node.power_on(clock);
                    self.reborn(index);
                }
            }
            Op::Monitors(index, ok) => {
                let place = &mut self.places[index];
                let clock = place.clock(now);
                let outcome = place.node.monitors(ok, clock);
                return self.follow(index, outcome, false);
            }
            Op::Takeover(index, done) => {
                if let Some(epoch) = self.places[index].witness.taken {
                    return self.give(
                        index,
                        if done {
                            Event::TakeoverDone { epoch }
                        } else {
                            Event::TakeoverFailed { epoch }
                        },
                    );
                }
            }
            Op::Leave(index) => return self.give(index, Event::Stop),
            Op::Force(index, forced) => {
                self.moved = true;
                return self.give(index, Event::Force(forced));
            }
        }
        Ok(())
    }

    fn give(&mut self, index: usize, event: Event) -> Result<(), String> {
        let place = &mut self.places[index];
        if !place.healthy() {
            return Ok(());
        }
        let clock = place.clock(self.now);
        let outcome = place.node.handle(event, clock);
        self.follow(index, outcome, false)
    }

    /// Ends every fault.
    fn heal(&mut self) -> Result<(), String> {
        self.cut = [false; 2];
        self.lossy = false;
        self.max_delay = MAX_DELAY * PER_MS;
        self.burst_until = self.now;
        self.store_down = false;
        for index in 0..self.places.len() {
            self.apply(Op::Arbiter(index, Way::Open))?;
            self.apply(Op::Thaw(index))?;
            self.apply(Op::PowerOn(index))?;
            self.apply(Op::Continue(index))?;
            let core = self.places[index].node.core.as_ref();
            if core.is_none_or(|core| matches!(core.trouble(), Some(Cause::Stopping))) {
                self.apply(Op::Restart(index))?;
            }
            self.apply(Op::Monitors(index, true))?;
            self.apply(Op::Takeover(index, true))?;
        }
        Ok(())
    }

    /// An arbiter that has forgotten waits for the operator.
    fn command_an_owner(&mut self) -> Result<(), String> {
        let behind = |place: &Place| {
            let finding = place.node.core.as_ref().map(Core::arbiter_finding);
            matches!(finding, Some(ArbiterFinding::Behind { .. }))
        };
        if !self.places.iter().any(behind) {
            return Ok(());
        }
        let owner = self.places.iter().position(Place::owns);
        let known = |place: &Place| place.witness.highest;
        let newest = (0..self.places.len()).max_by_key(|&index| known(&self.places[index]));
        let Some(index) = owner.or(newest) else {
            return Ok(());
        };
        self.apply(Op::Force(index, Forced::Active { anyway: true }))?;
        self.run(SETTLED)
    }

    /// Exactly one node is active, and nothing changes any more.
    fn settled(&mut self) -> Result<(), String> {
        self.run(SETTLED)?;
        self.command_an_owner()?;
        let changes = |sim: &Self| -> usize {
            sim.places
                .iter()
                .map(|place| place.witness.history.len())
                .sum()
        };
        let before = changes(self);
        self.run(1000)?;
        let now = self.now;
        let states: Vec<_> = self.places.iter().map(|place| place.node.state()).collect();
        let active: Vec<_> = self
            .places
            .iter()
            .map(|place| place.node.active())
            .collect();
        if active.iter().filter(|&&active| active).count() != 1 {
            return Err(format!("settled as {states:?}"));
        }
        let forwards: Vec<_> = self
            .places
            .iter()
            .map(|place| place.forwards(now))
            .collect();
        if forwards != active {
            return Err("the active does not forward, or another does".into());
        }
        let fails_back = self.places[0].node.policy.auto_failback && self.places.len() == 2;
        if fails_back && !self.moved && !active[0] {
            return Err("failback did not happen".into());
        }
        if changes(self) != before {
            return Err("still changing".into());
        }
        Ok(())
    }

    fn active(&self, index: usize) -> bool {
        self.places[index].node.active()
    }

    fn history(&self, index: usize) -> &[Transition] {
        &self.places[index].witness.history
    }
}

/// A run: faults in a row, then none, and then all must settle.
#[derive(Debug)]
pub(super) struct Run {
    seed: u64,
    setup: Setup,
    auto_failback: bool,
    ops: Vec<Op>,
}

impl Run {
    pub(super) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let setup = Setup::ALL[random.index(Setup::ALL.len())];
        let length = random.below(24);
        Self {
            seed,
            setup,
            auto_failback: random.flip(),
            ops: (0..length)
                .map(|_| Op::random(&mut random, setup))
                .collect(),
        }
    }

    /// How many steps it took.
    pub(super) fn play(&self, planted: Option<Planted>) -> Result<u64, String> {
        let mut sim = Sim::new(self.setup, self.seed, self.auto_failback, planted);
        let played = || -> Result<(), String> {
            for &op in &self.ops {
                sim.apply(op)?;
            }
            sim.heal()?;
            sim.settled()
        }();
        match played {
            Ok(()) => Ok(sim.now),
            Err(error) => Err(format!("{error}; seed {}", self.seed)),
        }
    }
}

/// Plays runs from `seed` on until `steps` have been made; the first failure.
pub(super) fn simulate(
    steps: u64,
    seed: u64,
    planted: Option<Planted>,
) -> Result<(u64, u64), String> {
    let mut made = 0;
    let mut runs = 0;
    while made < steps {
        made += Run::random(seed.wrapping_add(runs)).play(planted)?;
        runs += 1;
    }
    Ok((made, runs))
}

/// Whatever happens, each call keeps the rules of a call; where that is promised, two never forward, nor
/// is an epoch followed by a lower one; and after the faults exactly one is active, for good.
#[test]
fn the_rules_hold_through_any_faults() {
    let (steps, runs) = simulate(STEPS_IN_SUITE, 0, None).unwrap_or_else(|error| panic!("{error}"));
    println!("{steps} steps in {runs} runs");
}

const STEPS_IN_SUITE: u64 = 10_000_000;

/// `cargo xtask simulate`.
#[test]
#[ignore = "takes its length from SIMULATE_STEPS, its seed from SIMULATE_SEED"]
fn at_length() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let steps = number("SIMULATE_STEPS", STEPS_IN_SUITE);
    let seed = number("SIMULATE_SEED", 0);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let shares: Vec<_> = (0..threads)
        .map(|thread| {
            let seed = seed.wrapping_add(thread << 40);
            std::thread::spawn(move || simulate(steps.div_ceil(threads), seed, None))
        })
        .collect();
    let mut sum = (0, 0);
    for share in shares {
        let (steps, runs) = share.join().expect("no panic").unwrap_or_else(|error| {
            panic!("{error}: replay with SIMULATE_SEED and SIMULATE_STEPS=1")
        });
        sum = (sum.0 + steps, sum.1 + runs);
    }
    println!("{} steps in {} runs, no violation", sum.0, sum.1);
}

/// Delay, loss, drift and probe clocks out of step alone never make two active, nor move the group.
#[test]
fn without_faults_the_first_active_stays() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let setup = Setup::ALL[random.index(Setup::ALL.len())];
        let auto_failback = random.flip();
        let mut sim = Sim::new(setup, seed, auto_failback, None);
        sim.lossy = random.flip();
        let who = random.index(2);
        let late = random.below(3000) * random.below(2);
        let play = || -> Result<(), String> {
            if late > 0 {
                sim.apply(Op::PowerOff(who))?;
                sim.run(late)?;
                sim.apply(Op::PowerOn(who))?;
            }
            sim.settled()?;
            if sim.dual_for > 0 {
                return Err("both active".into());
            }
            let taken = (0..sim.places.len())
                .flat_map(|index| sim.history(index))
                .filter(|t| t.to == State::Active && t.from == State::Candidate)
                .count();
            // A failback, if the primary came late, is the only move there is.
            if taken > 1 + usize::from(auto_failback && who == 0 && late > 0) {
                return Err(format!("{taken} takeovers"));
            }
            Ok(())
        }();
        play.unwrap_or_else(|error| panic!("seed {seed}, {setup:?}: {error}"));
    }
}

// ---- Scenarios -------------------------------------------------------------------------------------

type Scenario = fn(Option<Planted>) -> Result<(), String>;

fn expect(what: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn pair(setup: Setup, seed: u64) -> Sim {
    let mut sim = Sim::new(setup, seed, false, None);
    sim.run(1000).expect("rules hold");
    assert!(
        sim.active(0),
        "seed {seed}, {setup:?}: {:?}",
        sim.history(0)
    );
    sim
}

fn cut_off_active_yields_when_it_hears_of_the_other(
    planted: Option<Planted>,
) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 1, false, planted);
    sim.run(1000)?;
    expect("primary active", sim.active(0))?;
    sim.cut = [true; 2];
    sim.run(1000)?;
    expect("secondary took over", sim.active(1))?;
    sim.cut = [false; 2];
    sim.run(KEEPALIVE + 2 * MAX_DELAY)?;
    expect("primary yielded at once", !sim.active(0))?;
    sim.run(5000)?;
    expect("secondary stayed", sim.active(1))
}

fn stopped_active_starts_over_when_it_wakes(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 1, false, planted);
    sim.run(1000)?;
    sim.apply(Op::Stop(0))?;
    sim.run(AGENT_DEAD)?;
    expect(
        "its fence has closed by itself",
        !sim.places[0].forwards(sim.now),
    )?;
    sim.run(700)?;
    expect("secondary took over", sim.places[1].forwards(sim.now))?;
    // It wakes, and cannot hear that.
    sim.cut = [true; 2];
    sim.flights.clear();
    sim.places[0].node.report = super::PeerReport::default();
    sim.apply(Op::Continue(0))?;
    sim.run(1)?;
    expect("primary does not go on", !sim.active(0))
}

fn stopped_standby_blames_nobody(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 2, false, planted);
    sim.run(1000)?;
    // The standby's kernel goes on hearing the active; its agent sees nothing of it.
    sim.apply(Op::Stop(1))?;
    sim.run(1000)?;
    sim.apply(Op::Continue(1))?;
    sim.run(1000)?;
    expect("primary stayed", sim.active(0))?;
    expect(
        "secondary never moved",
        sim.history(1).iter().all(|t| t.to != State::Active),
    )
}

fn a_split_from_the_start_heals_by_rule(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 3, false, planted);
    sim.cut = [true; 2];
    sim.run(2000)?;
    expect("both active, apart", sim.active(0) && sim.active(1))?;
    sim.cut = [false; 2];
    sim.run(2000)?;
    expect("primary stayed", sim.active(0))?;
    expect("secondary yielded", !sim.active(1))
}

/// An upgrade of both nodes, one after the other, each taking less than agent-dead-interval.
fn agents_that_are_replaced_change_nothing(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 4, true, planted);
    sim.run(1000)?;
    let lengths = |sim: &Sim| [sim.history(0).len(), sim.history(1).len()];
    let before = lengths(&sim);
    for node in [0, 1] {
        sim.apply(Op::Kill(node))?;
        sim.run(250)?;
        sim.apply(Op::Resume(node))?;
        sim.run(3000)?;
    }
    expect("no transition", before == lengths(&sim))?;
    expect("primary active", sim.active(0))?;
    expect("alone", sim.dual_for == 0)
}

fn without_its_monitors_it_hands_over(planted: Option<Planted>) -> Result<(), String> {
    for seed in 0..50 {
        let mut sim = Sim::new(Setup::Availability, seed, false, planted);
        sim.run(1000)?;
        sim.apply(Op::Monitors(0, false))?;
        sim.run(6 * KEEPALIVE)?;
        let state = sim.places[0].node.state();
        expect("primary in fault", state == Some(State::Fault))?;
        expect("secondary took over", sim.active(1))?;
        expect("alone", sim.dual_for == 0)?;
    }
    Ok(())
}

/// The lease is as long as the dead-interval, nothing on the way takes time, the owner's clock is slow and
/// the other's fast: only the arithmetic of leases keeps them apart.
fn an_owner_is_outlasted_to_the_end(planted: Option<Planted>) -> Result<(), String> {
    for seed in 0..20 {
        let mut sim = Sim::new(Setup::Arbiter, seed, false, planted);
        sim.max_delay = 0;
        sim.max_store_delay = 0;
        for (place, drift_ppm) in sim.places.iter_mut().zip([-999, 999]) {
            place.drift_ppm = drift_ppm;
            place.node.policy.lease = Length::of(ms(DEAD));
            place.node.start(place.clock(0));
        }
        sim.run(1000 + seed)?;
        expect("primary active", sim.active(0))?;
        sim.cut = [true; 2];
        sim.apply(Op::Arbiter(0, Way::Cut))?;
        sim.run(2 * DEAD)?;
        expect("secondary took over", sim.active(1))?;
    }
    Ok(())
}

/// A machine that is paused, and whose clock goes on where it was.
fn a_paused_machine_goes_on(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    sim.run(1000)?;
    sim.apply(Op::Freeze(0))?;
    sim.run(1000)?;
    expect("secondary took over", sim.active(1))?;
    sim.apply(Op::Thaw(0))
}

/// The agent is stopped after its swap, and reads the answer when another has swapped since.
fn an_answer_is_read_late(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    let claimed = |sim: &Sim| {
        let record = sim.store.record.map(|(_, record)| record.claim.owner);
        record == Some(NodeId(1))
    };
    sim.cut = [true; 2];
    sim.apply(Op::PowerOff(1))?;
    while !claimed(&sim) {
        sim.step()?;
    }
    expect("no answer yet", !sim.active(0))?;
    sim.apply(Op::Stop(0))?;
    sim.apply(Op::PowerOn(1))?;
    sim.run(2000)?;
    expect("secondary took over", sim.active(1))?;
    sim.apply(Op::Continue(0))?;
    sim.run(100)
}

/// Nodes that do not hear each other, of which one is slow to see the record of the other.
fn a_record_is_seen_late(planted: Option<Planted>) -> Result<(), String> {
    for seed in 0..200 {
        let mut sim = Sim::new(Setup::Arbiter, seed, false, planted);
        sim.run(1000)?;
        sim.cut = [true; 2];
        sim.apply(Op::Arbiter(1, Way::Slow))?;
        sim.run(500 + seed)?;
        sim.apply(Op::Arbiter(0, Way::Cut))?;
        sim.apply(Op::Arbiter(1, Way::Open))?;
        sim.run(4 * TERM)?;
    }
    Ok(())
}

/// An owner is cut off from all when it has just made its record paired.
fn an_owner_is_cut_off_as_it_pairs(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    let paired = |sim: &Sim| sim.store.record.map(|(_, record)| record.mode) == Some(Mode::Paired);
    while !paired(&sim) {
        sim.step()?;
    }
    sim.cut = [true; 2];
    sim.apply(Op::Arbiter(0, Way::Cut))?;
    sim.run(TERM)?;
    expect("secondary took over", sim.active(1))
}

/// The arbiter forgets an owner that lives on its record, and another hears nothing of that owner.
fn a_record_is_forgotten(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    sim.run(1000)?;
    sim.cut = [true; 2];
    sim.run(1000)?;
    expect("primary active", sim.active(0))?;
    sim.apply(Op::Wipe)?;
    sim.run(2 * TERM)
}

/// Each passes with the sound core and fails with the defect it is about.
pub(super) const SCENARIOS: [(Planted, Scenario); 12] = [
    (Planted::DeafToMonitors, without_its_monitors_it_hands_over),
    (Planted::NoMargin, an_owner_is_outlasted_to_the_end),
    (Planted::ClockStandsStill, a_paused_machine_goes_on),
    (Planted::LateAnswerAccepted, an_answer_is_read_late),
    (Planted::UnchangedFromSend, a_record_is_seen_late),
    (Planted::PairedBeforeDrop, an_owner_is_cut_off_as_it_pairs),
    (Planted::MissingIsFresh, a_record_is_forgotten),
    (Planted::NoEnd, stopped_active_starts_over_when_it_wakes),
    (
        Planted::EpochNotCompared,
        cut_off_active_yields_when_it_hears_of_the_other,
    ),
    (Planted::NoSelfSuspicion, stopped_standby_blames_nobody),
    (Planted::NoTieRule, a_split_from_the_start_heals_by_rule),
    (Planted::Amnesia, agents_that_are_replaced_change_nothing),
];

#[test]
fn scenarios_hold_with_the_sound_core() {
    for (planted, scenario) in SCENARIOS {
        assert_eq!(scenario(None), Ok(()), "the scenario about {planted:?}");
    }
}

/// The primary's first message as Standby is lost, so that to the secondary it looks like one who
/// will not take its turn.
#[test]
fn a_starting_primary_goes_first_although_messages_are_lost() {
    for seed in 0..50 {
        let mut sim = Sim::new(Setup::Availability, seed, true, None);
        sim.lossy = true;
        sim.apply(Op::PowerOff(1)).expect("rules hold");
        sim.run(100 + 2 * seed).expect("rules hold");
        sim.apply(Op::PowerOn(1)).expect("rules hold");
        sim.settled().expect("settles");
        assert!(
            sim.history(1).iter().all(|t| t.to != State::Active),
            "seed {seed}"
        );
    }
}

#[test]
fn a_life_that_was_succeeded_is_not_resumed() {
    let mut sim = pair(Setup::Availability, 5);
    sim.apply(Op::Kill(0)).expect("rules hold");
    sim.run(1000).expect("rules hold");
    assert!(sim.active(1));
    sim.apply(Op::Resume(0)).expect("rules hold");
    assert_eq!(sim.places[0].node.state(), Some(State::Initializing));
    sim.run(3000).expect("rules hold");
    assert!(sim.active(1));
    assert_eq!(sim.dual_for, 0);
}

#[test]
fn a_cold_start_takes_a_few_keepalives() {
    for seed in 0..50 {
        let mut sim = Sim::new(Setup::Availability, seed, false, None);
        sim.run(5 * KEEPALIVE).expect("rules hold");
        assert!(sim.active(0), "seed {seed}: {:?}", sim.history(0));
        assert_eq!(sim.places[1].node.state(), Some(State::Standby));
    }
}

#[test]
fn a_dead_node_is_replaced_as_soon_as_its_silence_is_long_enough() {
    for (setup, arbitration) in [(Setup::Availability, 0), (Setup::Arbiter, 5)] {
        for seed in 0..50 {
            let mut sim = pair(setup, seed);
            sim.apply(Op::PowerOff(0)).expect("rules hold");
            sim.run(DEAD + MAX_DELAY + arbitration).expect("rules hold");
            assert!(
                sim.active(1),
                "seed {seed}, {setup:?}: {:?}",
                sim.history(1)
            );
        }
    }
}

#[test]
fn when_both_lose_their_monitors_the_group_stays_owned() {
    for gap in 0..60 {
        let mut sim = pair(Setup::Availability, gap);
        sim.apply(Op::Monitors(0, false)).expect("rules hold");
        sim.run(gap).expect("rules hold");
        sim.apply(Op::Monitors(1, false)).expect("rules hold");
        sim.run(3000).expect("rules hold");
        let owned = sim.places.iter().any(Place::owns);
        // Between the owner's consent and the successor's claim there is one message.
        let failed = sim.history(1).last().map(|t| t.cause);
        assert!(
            owned || failed == Some(Cause::MonitorsUnreachable),
            "gap {gap} ms"
        );
    }
}

#[test]
fn an_orderly_stop_is_followed_within_a_few_keepalives() {
    for setup in Setup::ALL {
        for seed in 0..50 {
            let mut sim = pair(setup, seed);
            sim.apply(Op::Leave(0)).expect("rules hold");
            sim.run(6 * KEEPALIVE + 2 * TERM * u64::from(setup.nodes() > 2))
                .expect("rules hold");
            let successors = (1..setup.nodes())
                .filter(|&index| sim.active(index))
                .count();
            assert_eq!(successors, 1, "seed {seed}, {setup:?}");
        }
    }
}

#[test]
fn an_agent_that_dies_is_replaced_although_its_kernel_answers() {
    let mut sim = pair(Setup::Availability, 7);
    sim.apply(Op::Kill(0)).expect("rules hold");
    sim.run(280).expect("rules hold");
    assert!(!sim.active(1), "not before agent-dead-interval");
    sim.run(60).expect("rules hold");
    assert!(sim.active(1));
}

// ---- With an arbiter -------------------------------------------------------------------------------

/// Runs, and how many steps it forwarded nothing.
fn gap(sim: &mut Sim, ms: u64) -> u64 {
    let mut gap = 0;
    for _ in 0..ms * PER_MS {
        sim.step().expect("rules hold");
        gap += u64::from(!sim.places.iter().any(|place| place.forwards(sim.now)));
    }
    gap
}

#[test]
fn the_death_of_a_standby_costs_nothing() {
    for seed in 0..50 {
        let mut sim = pair(Setup::Arbiter, seed);
        sim.apply(Op::PowerOff(1)).expect("rules hold");
        assert_eq!(gap(&mut sim, 1000), 0, "seed {seed}");
        assert!(sim.active(0));
        sim.apply(Op::PowerOn(1)).expect("rules hold");
        assert_eq!(gap(&mut sim, 3000), 0, "seed {seed}: {:?}", sim.history(0));
    }
}

#[test]
fn a_cut_between_the_nodes_moves_nothing() {
    for seed in 0..50 {
        let mut sim = pair(Setup::Arbiter, seed);
        for cut in [[true, true], [false, true], [true, false], [false, false]] {
            sim.cut = cut;
            assert_eq!(
                gap(&mut sim, 1000),
                0,
                "seed {seed}, {cut:?}: {:?}",
                sim.history(0)
            );
        }
        assert!(sim.active(0));
    }
}

#[test]
fn in_normal_operation_the_arbiter_is_not_needed() {
    let mut sim = pair(Setup::Arbiter, 1);
    sim.apply(Op::StoreDown(true)).expect("rules hold");
    assert_eq!(gap(&mut sim, 5000), 0);
}

#[test]
fn who_has_neither_grants_nor_the_arbiter_stops_and_comes_back_under_a_new_epoch() {
    let mut sim = pair(Setup::Arbiter, 1);
    sim.apply(Op::StoreDown(true)).expect("rules hold");
    sim.apply(Op::PowerOff(1)).expect("rules hold");
    sim.run(TERM).expect("rules hold");
    assert!(!sim.places[0].owns());
    let causes: Vec<_> = sim.history(0).iter().map(|t| t.cause).collect();
    assert!(causes.contains(&Cause::NoAuthority), "{causes:?}");
    let before = sim.places[0].witness.highest;
    sim.apply(Op::StoreDown(false)).expect("rules hold");
    sim.run(2 * TERM).expect("rules hold");
    assert!(sim.active(0));
    assert!(sim.places[0].witness.taken > Some(before));
}

#[test]
fn an_arbiter_that_has_forgotten_is_not_believed_until_the_operator_says_so() {
    let mut sim = pair(Setup::Arbiter, 1);
    sim.apply(Op::Wipe).expect("rules hold");
    sim.apply(Op::PowerOff(0)).expect("rules hold");
    sim.run(3000).expect("rules hold");
    assert!(!sim.places[1].owns());
    let refusal = |sim: &Sim, anyway| {
        let core = sim.places[1].node.core.as_ref().expect("it runs");
        core.may_force(Forced::Active { anyway })
    };
    let said = refusal(&sim, false).expect_err("refused").to_string();
    assert!(
        said.contains("wiped or restored") && said.contains("--i-know"),
        "{said}"
    );
    assert_eq!(refusal(&sim, true), Ok(()));
    sim.apply(Op::Force(1, Forced::Active { anyway: true }))
        .expect("rules hold");
    sim.run(2 * TERM).expect("rules hold");
    assert!(sim.active(1));
    // And the other, which knows nothing, learns the epoch from the record.
    sim.apply(Op::PowerOn(0)).expect("rules hold");
    sim.settled().expect("settles");
    assert!(sim.active(1));
}

#[test]
fn an_operator_moves_the_group_there_and_back() {
    for setup in [Setup::Availability, Setup::Consistency, Setup::Arbiter] {
        for seed in 0..50 {
            let mut sim = pair(setup, seed);
            let mut moved = 0;
            for (force, at) in [
                (Op::Force(0, Forced::Standby), 1),
                (Op::Force(0, Forced::Active { anyway: false }), 0),
                (Op::Force(1, Forced::Active { anyway: false }), 1),
            ] {
                sim.apply(force).expect("rules hold");
                moved = moved.max(gap(&mut sim, 1000));
                assert!(
                    sim.active(at),
                    "seed {seed}, {setup:?}, {force:?}: {:?}",
                    sim.history(at)
                );
                assert!(!sim.active(1 - at), "seed {seed}, {setup:?}, {force:?}");
            }
            // What only one may have is let go first: for a round trip, a tick and a swap.
            let longest = match setup {
                Setup::Availability => 0,
                _ => (2 * KEEPALIVE + 3 * MAX_DELAY + 5) * PER_MS,
            };
            assert!(moved <= longest, "seed {seed}, {setup:?}: {moved} steps");
        }
    }
}
