//! Nodes, their links and their arbiter on a virtual clock. Nodes are stopped, killed, frozen and
//! restarted; links delay, lose, and are cut one way or both; the arbiter is slow, cut off, down or wiped.
//! What must hold is checked after every call of the core and at every step of the clock.
//!
//! Deterministic: a seed gives a run, and a failure tells its seed.

mod check;
mod fault;
mod in_vain;
mod planned;
mod priorities;
mod random;
mod scenarios;
mod timing;
mod witness;
mod world;

use std::time::Duration;

use router_common::{identity::NodeId, lease::Length};

pub(super) use self::scenarios::SCENARIOS;
use self::{fault::Op, random::Random, world::Sim};
use super::{ArbiterPolicy, Policy, Prefer, State, node::Planted, told::tell};

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
/// What only one may have is let go first: for a round trip, a tick and a swap.
const HANDOVER: u64 = 2 * KEEPALIVE + 3 * MAX_DELAY + 5;
/// What has happened is over, but for what waits on purpose: a request that is not granted, with the other waits of a
/// succession.
const QUIET: u64 = 1500;
/// Everything a node may have to wait for before it acts, one after the other: start, hold after a
/// failed takeover, an ungranted request, the next one, failback hold, and the term of a record.
const SETTLED: u64 = 500 + 700 + 1000 + 2000 + 2000 + 800 + 2 * TERM;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
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
    tell(format_args!("{steps} steps in {runs} runs"));
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
    tell(format_args!(
        "{} steps in {} runs, no violation",
        sum.0, sum.1
    ));
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
