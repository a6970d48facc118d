//! Intervals that are changed on one node and then on the other, while both are at work.

use router_common::lease::Length;

use super::{
    super::{ArbiterPolicy, Mode},
    DEAD, KEEPALIVE, Setup, TERM,
    fault::Op,
    ms,
    world::{Sim, Way},
};

/// So many times longer is the longer of two timings.
const TIMES: u64 = 10;

/// How long it takes to replace an agent: longer than the shorter grants last.
const REPLACED: u64 = 2 * DEAD;

fn pair(seed: u64, times: u64) -> Sim {
    let mut sim = Sim::new(Setup::Arbiter, seed, false, None);
    for node in 0..2 {
        time(&mut sim, node, times);
        let place = &mut sim.places[node];
        place.node.start(place.clock(0));
    }
    sim.run(10_000).expect("rules hold");
    assert!(sim.active(0), "seed {seed}");
    sim
}

/// From the next agent on.
fn time(sim: &mut Sim, node: usize, times: u64) {
    let policy = &mut sim.places[node].node.policy;
    policy.keepalive = ms(times * KEEPALIVE);
    policy.dead = ms(times * DEAD);
    policy.lease = Length::by_default(policy.dead);
    policy.agent_dead = ms(4 * TIMES * DEAD);
    policy.arbiter = policy.arbiter.map(|arbiter| ArbiterPolicy {
        term: ms(TIMES * TERM),
        ..arbiter
    });
}

/// Another agent takes the place of the one before it; for how many steps nobody forwarded until some time
/// later.
fn change(sim: &mut Sim, node: usize, times: u64, run_ms: u64) -> u64 {
    time(sim, node, times);
    sim.apply(Op::Kill(node)).expect("rules hold");
    let gap = sim.gap(REPLACED).expect("rules hold");
    sim.apply(Op::Resume(node)).expect("rules hold");
    gap + sim.gap(run_ms).expect("rules hold")
}

const CHANGES: [(u64, u64, usize); 4] =
    [(1, TIMES, 0), (1, TIMES, 1), (TIMES, 1, 0), (TIMES, 1, 1)];

#[test]
fn intervals_change_in_either_order_of_nodes_and_nothing_stops() {
    for seed in 0..5 {
        for (before, after, first) in CHANGES {
            let mut sim = pair(seed, before);
            for node in [first, 1 - first] {
                let gap = change(&mut sim, node, after, 2_000);
                assert_eq!(gap, 0, "seed {seed}, {before} to {after}, {node}");
            }
            assert!(sim.active(0), "seed {seed}");
            let mode = sim.store.record.map(|(_, record)| record.mode);
            assert_eq!(mode, Some(Mode::Paired), "by grants");
        }
    }
}

/// The owner is cut off right after one node has changed.
#[test]
fn intervals_that_differ_let_no_two_forward() {
    for seed in 0..20 {
        for (before, after, first) in CHANGES {
            let mut sim = pair(seed, before);
            change(&mut sim, first, after, 3 * seed);
            sim.cut = [true; 2];
            sim.apply(Op::Arbiter(0, Way::Cut)).expect("rules hold");
            // In which two that forward would fail.
            sim.run(8_000)
                .unwrap_or_else(|error| panic!("{error}: seed {seed}, {before} to {after}"));
            assert!(
                sim.active(1),
                "seed {seed}, {before} to {after}, {first} first"
            );
        }
    }
}

/// The owner is cut off when its peer has changed, and the agent that waits for the end of its lease is replaced
/// once more, also when granting is closed.
#[test]
fn a_promise_outlives_the_agent_that_gave_it() {
    for seed in 0..4 {
        for wait_ms in (0..8).map(|step| step * DEAD / 2) {
            let mut sim = pair(seed, TIMES);
            change(&mut sim, 1, 1, 500);
            sim.cut = [true; 2];
            sim.apply(Op::Arbiter(0, Way::Cut)).expect("rules hold");
            sim.run(wait_ms).expect("rules hold");
            change(&mut sim, 1, 1, 0);
            sim.run(8_000)
                .unwrap_or_else(|error| panic!("{error}: seed {seed}, {wait_ms} ms"));
            assert!(sim.active(1), "seed {seed}, {wait_ms} ms");
        }
    }
}

/// What the node that grants begins without all that it knew.
#[test]
fn an_owner_lives_on_the_grants_of_one_that_begins_anew() {
    for seed in 0..5 {
        for (before, after, first) in CHANGES {
            let mut sim = pair(seed, before);
            change(&mut sim, first, after, 500);
            change(&mut sim, 1 - first, after, 500);
            sim.apply(Op::Kill(1)).expect("rules hold");
            sim.apply(Op::Restart(1)).expect("rules hold");
            sim.run(4_000).expect("rules hold");
            assert_eq!(sim.gap(2_000), Ok(0), "seed {seed}, {before} to {after}");
            // Now and then one is late, and it lives on its record for a while.
            let is_paired = (0..60).any(|_| {
                sim.run(1_000).expect("rules hold");
                let mode = sim.store.record.map(|(_, record)| record.mode);
                mode == Some(Mode::Paired)
            });
            assert!(is_paired, "by grants: seed {seed}, {before} to {after}");
        }
    }
}
