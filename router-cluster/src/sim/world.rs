//! The nodes, what is under way between them and to the arbiter, and the steps of their clock.

use router_common::{identity::Epoch, time::BootTime};

use super::{
    super::{
        Answer, Command, Core, Fault, Request, Transition,
        node::{Message, Node, Outcome, Planted, owns},
        store::Store,
    },
    KEEPALIVE, MAX_DELAY, PER_MS, STEP_NS, Setup, TIMEOUT, ms,
    random::Random,
    witness::Witness,
};

#[derive(Debug)]
pub(super) struct Flight {
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
pub(super) enum Way {
    Open,
    /// Requests take as long as a node waits for them, or longer.
    Slow,
    /// Requests arrive, and no answer comes.
    NoAnswers,
    Cut,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) node: Node,
    pub(super) witness: Witness,
    /// Ahead of the world's by this, and faster by so many millionths.
    clock_offset_ns: u64,
    pub(super) drift_ppm: i64,
    pub(super) next_probe: u64,
    newest_sequence: u64,
    pub(super) frozen_since: Option<u64>,
    /// How long its clock has stood still.
    pub(super) lost_ns: u64,
    pub(super) arbiter: Way,
    /// Counts its agents.
    pub(super) life: u64,
    /// Its agent began without what the one before it knew.
    pub(super) forgot: bool,
}

impl Place {
    pub(super) fn clock(&self, now: u64) -> BootTime {
        let now = self
            .frozen_since
            .filter(|_| self.node.has(Planted::ClockStandsStill))
            .unwrap_or(now);
        let ns = now * STEP_NS - self.lost_ns;
        let drift = i64::try_from(ns).expect("a short run") * self.drift_ppm / 1_000_000;
        BootTime::from_ns(self.clock_offset_ns + ns.wrapping_add_signed(drift))
    }

    pub(super) fn runs(&self) -> bool {
        self.node.powered && self.frozen_since.is_none()
    }

    pub(super) fn healthy(&self) -> bool {
        self.runs() && self.node.healthy()
    }

    pub(super) fn forwards(&self, now: u64) -> bool {
        self.runs() && self.node.forwards(self.clock(now))
    }

    pub(super) fn owns(&self) -> bool {
        self.node.powered && self.node.state().is_some_and(owns)
    }
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault that lasts, or a fact that holds"
)]
#[derive(Debug)]
pub(super) struct Sim {
    pub(super) now: u64,
    pub(super) setup: Setup,
    pub(super) planted: Option<Planted>,
    pub(super) places: Vec<Place>,
    /// Of the two that have a session, by sender.
    pub(super) cut: [bool; 2],
    pub(super) lossy: bool,
    /// All is lost until then.
    pub(super) burst_until: u64,
    /// Messages take up to so many steps.
    pub(super) max_delay: u64,
    /// And requests, each way.
    pub(super) max_store_delay: u64,
    lost_last: [bool; 2],
    pub(super) flights: Vec<Flight>,
    sequence: u64,
    pub(super) store: Store,
    asked: Vec<Asked>,
    /// Without a leader.
    pub(super) store_down: bool,
    pub(super) wiped: bool,
    /// The operator has moved the group, or a takeover has failed: who handed over stands back.
    pub(super) moved: bool,
    /// Monitors were lost: a higher priority may not ask for the group again.
    pub(super) handed_back: bool,
    random: Random,
    /// Until when both may be active.
    pub(super) disturbed_until: u64,
    /// Since when an active node that is not well has had a better one beside it.
    pub(super) worse_since: Option<u64>,
    /// When something happened last.
    pub(super) happened: u64,
    /// When somebody forwarded last, in calm times.
    pub(super) served_at: Option<u64>,
    /// How many steps two were active.
    pub(super) dual_for: u64,
    pub(super) highest_forwarded: Epoch,
}

impl Sim {
    pub(super) fn new(
        setup: Setup,
        seed: u64,
        auto_failback: bool,
        planted: Option<Planted>,
    ) -> Self {
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
                    forgot: true,
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
            handed_back: false,
            random,
            disturbed_until: 0,
            worse_since: None,
            happened: 0,
            served_at: None,
            dual_for: 0,
            highest_forwarded: Epoch::default(),
        }
    }

    /// The number of the newest request of a node that is on its way.
    pub(super) fn asks(&self, index: usize) -> Option<u64> {
        let of_node = self.asked.iter().filter(|asked| asked.by == index);
        of_node.map(|asked| asked.number).max()
    }

    pub(super) fn active(&self, index: usize) -> bool {
        self.places[index].node.active()
    }

    pub(super) fn history(&self, index: usize) -> &[Transition] {
        &self.places[index].witness.history
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
                let from_memory =
                    self.planted == Some(Planted::StaleRead) && asked.request == Request::Read;
                asked.answer = Some(if self.store_down && !from_memory {
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
    pub(super) fn follow(
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

    pub(super) fn step(&mut self) -> Result<(), String> {
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
                let core = place.node.core.as_ref();
                let interval = core.map_or(ms(KEEPALIVE), Core::pace).as_nanos();
                place.next_probe = now + u64::try_from(interval).expect("short") / STEP_NS;
                let message = place.node.speak(None, clock);
                self.send(index, message);
            }
        }
        // What takes no time has arrived.
        self.deliver();
        self.arbitrate()?;
        self.check()
    }

    pub(super) fn run(&mut self, ms: u64) -> Result<(), String> {
        (0..ms * PER_MS).try_for_each(|_| self.step())
    }

    /// Runs, and for how many steps nobody forwarded.
    pub(super) fn gap(&mut self, ms: u64) -> Result<u64, String> {
        let mut gap = 0;
        for _ in 0..ms * PER_MS {
            self.step()?;
            gap += u64::from(!self.places.iter().any(|place| place.forwards(self.now)));
        }
        Ok(gap)
    }
}
