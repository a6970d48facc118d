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
