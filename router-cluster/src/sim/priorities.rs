//! Runs about priorities.

use super::{
    super::{Forced, State},
    Setup,
    fault::Op,
    scenarios::pair,
    world::Sim,
};

const SETUPS: [Setup; 3] = [Setup::Availability, Setup::Consistency, Setup::Arbiter];

/// Has `op` happen, and so many ms pass.
fn after(sim: &mut Sim, op: Op, ms: u64) {
    sim.apply(op).expect("rules hold");
    sim.run(ms).expect("rules hold");
}

/// Else it would take it again after each hold, and fail again.
#[test]
fn the_better_node_tries_once_what_it_cannot_take() {
    for setup in SETUPS {
        for seed in 0..10 {
            let mut sim = pair(setup, seed);
            after(&mut sim, Op::Priority(0, -20), 3000);
            after(&mut sim, Op::Takeover(1, false), 20_000);
            let taken = sim.history(1).iter().filter(|t| t.to == State::Active);
            assert_eq!(taken.count(), 1, "seed {seed}, {setup:?}");
            assert!(sim.active(0), "seed {seed}, {setup:?}");
            // Until it is the better one anew.
            after(&mut sim, Op::Priority(0, 0), 100);
            after(&mut sim, Op::Priority(0, -20), 3000);
            assert!(sim.active(1), "seed {seed}, {setup:?}");
        }
    }
}

#[test]
fn what_the_operator_moved_stays_although_the_agent_is_replaced() {
    for setup in SETUPS {
        for seed in 0..10 {
            let mut sim = pair(setup, seed);
            after(&mut sim, Op::Priority(1, -20), 100);
            after(&mut sim, Op::Force(0, Forced::Standby), 500);
            after(&mut sim, Op::Kill(0), 50);
            after(&mut sim, Op::Resume(0), 5000);
            assert!(sim.active(1), "seed {seed}, {setup:?}");
        }
    }
}
