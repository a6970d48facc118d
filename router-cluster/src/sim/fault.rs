//! What can go wrong, and how it is put right.

use router_common::identity::{Epoch, Priority};

use super::{
    super::{Cause, Event, Forced, State, node::Planted},
    AFTERMATH, DEAD, MAX_DELAY, PER_MS, STEP_NS, Setup, TERM,
    random::Random,
    world::{Sim, Way},
};

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
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
    /// By the sum of the weights.
    Priority(usize, i32),
    Takeover(usize, bool),
    Leave(usize),
    Force(usize, Forced),
    Arbiter(usize, Way),
    StoreDown(bool),
    Wipe,
}

impl Op {
    pub(super) fn random(random: &mut Random, setup: Setup) -> Self {
        let node = random.index(setup.nodes());
        let kinds = if setup.has_arbiter() { 39 } else { 34 };
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
            33 => Self::Priority(node, if random.flip() { 20 } else { -20 }),
            34..37 => Self::Arbiter(
                node,
                match random.below(4) {
                    0 => Way::Open,
                    1 => Way::Slow,
                    2 => Way::NoAnswers,
                    _ => Way::Cut,
                },
            ),
            37 => Self::StoreDown(random.flip()),
            _ if random.below(4) == 0 => Self::Wipe,
            _ => Self::Run(TERM),
        }
    }
}

impl Sim {
    /// Begins a new life of the agent of `index`, which `forgot` what the one before it knew, or goes on.
    fn reborn(&mut self, index: usize, forgot: bool) {
        let now = self.now;
        self.disturbed_until = now + AFTERMATH * PER_MS;
        let place = &mut self.places[index];
        let claim = place.node.published.claim;
        // Who goes on knows no epoch only if the one before it knew none.
        place.forgot = forgot || place.forgot && place.witness.highest == Epoch::default();
        let holds = place.node.state() == Some(State::Active);
        place.life += 1;
        place.next_probe = now;
        place.witness.highest = claim.epoch;
        place.witness.taken = holds.then_some(claim.epoch);
        place.witness.inherited = place.witness.taken;
        // Nobody is left who knows: epochs begin at 1 again.
        let mut powered = self.places.iter().filter(|place| place.node.powered);
        let all_forgot = powered
            .all(|place| place.forgot && place.node.published.claim.epoch == Epoch::default());
        if all_forgot && !self.setup.has_arbiter() {
            self.highest_forwarded = Epoch::default();
        }
    }

    pub(super) fn apply(&mut self, op: Op) -> Result<(), String> {
        let now = self.now;
        if !matches!(op, Op::Run(_)) {
            self.happened = now;
        }
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
            Op::Continue(index) => {
                let place = &mut self.places[index];
                let clock = place.clock(now);
                let outcomes = place.node.go_on(clock);
                return self.follow(index, outcomes, false);
            }
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
                    self.reborn(index, matches!(op, Op::Restart(_)));
                }
            }
            Op::PowerOff(index) => self.places[index].node.power_off(),
            Op::PowerOn(index) => {
                let place = &mut self.places[index];
                if !place.node.powered {
                    place.frozen_since = None;
                    let clock = place.clock(now);
                    place.node.power_on(clock);
                    self.reborn(index, true);
                }
            }
            Op::Monitors(index, ok) => {
                self.handed_back |= !ok;
                let place = &mut self.places[index];
                let clock = place.clock(now);
                let outcome = place.node.monitors(ok, clock);
                return self.follow(index, outcome, false);
            }
            Op::Priority(index, weights) => {
                let place = &mut self.places[index];
                let clock = place.clock(now);
                let priority = Priority::weighted(weights);
                let outcome = place.node.set_priority(priority, clock);
                return self.follow(index, outcome, false);
            }
            Op::Takeover(index, done) => {
                if let Some(epoch) = self.places[index].witness.taken {
                    self.moved |= !done;
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
    pub(super) fn heal(&mut self) -> Result<(), String> {
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
}
