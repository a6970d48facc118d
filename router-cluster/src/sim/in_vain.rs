//! Requests that come to nothing, again and again.

use super::{
    super::{Forced, State},
    PER_MS, Setup,
    fault::Op,
    scenarios::pair,
    world::Sim,
};

const SETUPS: [Setup; 3] = [Setup::Availability, Setup::Consistency, Setup::Arbiter];

fn apply(sim: &mut Sim, op: Op, ms: u64) {
    sim.apply(op).expect("rules hold");
    sim.run(ms).expect("rules hold");
}

/// The primary's agent begins anew, with auto-failback, and the other's configuration has none.
#[test]
fn an_owner_that_does_not_consent_lives_on_grants_all_the_while() {
    for setup in SETUPS {
        for seed in 0..10 {
            let mut sim = pair(setup, seed);
            // No grant is so late that it is missed.
            sim.max_delay = PER_MS;
            apply(&mut sim, Op::Force(0, Forced::Standby), 500);
            assert!(sim.active(1), "seed {seed}, {setup:?}");
            apply(&mut sim, Op::Kill(0), 0);
            sim.places[0].node.policy.auto_failback = true;
            apply(&mut sim, Op::Restart(0), 1000);
            let record = sim.store.record;
            assert_eq!(sim.gap(10_000), Ok(0), "seed {seed}, {setup:?}");
            let asked = sim.history(0).iter();
            let asked = asked.filter(|t| t.to == State::Candidate).count();
            assert!(asked >= 3, "seed {seed}, {setup:?}: {asked} requests");
            assert!(sim.active(1), "seed {seed}, {setup:?}");
            assert_eq!(sim.store.record, record, "seed {seed}, {setup:?}");
        }
    }
}

/// Each takeover fails, on either node.
#[test]
fn a_group_that_neither_node_can_take_moves_less_and_less_often() {
    for setup in SETUPS {
        let mut sim = pair(setup, 1);
        let mut failed = [None; 2];
        let mut fail_for = |sim: &mut Sim, ms: u64| {
            for _ in 0..ms {
                for (index, failed) in failed.iter_mut().enumerate() {
                    let taken = sim.places[index].witness.taken;
                    if taken.is_some() && taken != *failed {
                        *failed = taken;
                        apply(sim, Op::Takeover(index, false), 0);
                    }
                }
                sim.run(1).expect("rules hold");
            }
        };
        let takeovers = |sim: &Sim| {
            let histories = (0..2).flat_map(|index| sim.history(index));
            histories
                .filter(|t| t.from == State::Candidate && t.to == State::Active)
                .count()
        };
        let before = takeovers(&sim);
        fail_for(&mut sim, 60_000);
        let moved = takeovers(&sim) - before;
        // By a hold of 0.7 s that doubles: ten in 43 s, and then each 22 s.
        assert!((8..=12).contains(&moved), "{setup:?}: {moved} moves");
        // Who is alone does not wait for that.
        let owner = usize::from(sim.active(1));
        apply(&mut sim, Op::PowerOff(owner), 0);
        if setup != Setup::Consistency {
            sim.run(500).expect("rules hold");
            assert!(sim.active(1 - owner), "{setup:?}");
        }
    }
}
