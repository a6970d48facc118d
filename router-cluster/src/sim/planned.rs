//! Planned moves while the arbiter is away, or has forgotten: an owner that handed over to one who could not
//! have the record would leave nobody.

use super::{
    super::{Forced, node::Planted},
    Setup,
    fault::Op,
    world::Sim,
};

/// Why the group is to move from the first node to the second.
const REASONS: [(&str, Op); 5] = [
    ("monitors lost", Op::Monitors(0, false)),
    ("takeover failed", Op::Takeover(0, false)),
    ("higher priority", Op::Priority(1, 20)),
    ("sent away", Op::Force(0, Forced::Standby)),
    ("called", Op::Force(1, Forced::Active { anyway: false })),
];

fn expect(what: &str, reason: &str, sim: &Sim, holds: bool) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(format!(
            "{what}, {reason}: {:?} {:?}",
            sim.history(0),
            sim.history(1)
        ))
    }
}

fn pair(seed: u64, auto_failback: bool, planted: Option<Planted>) -> Result<Sim, String> {
    let mut sim = Sim::new(Setup::Arbiter, seed, auto_failback, planted);
    sim.run(1000)?;
    expect("primary active", "at first", &sim, sim.active(0))?;
    Ok(sim)
}

/// The group stays, and is served all the while; it moves when the arbiter is back.
pub(super) fn a_move_waits_for_the_arbiter(planted: Option<Planted>) -> Result<(), String> {
    for (reason, op) in REASONS {
        for seed in 0..120 {
            let mut sim = pair(seed, false, planted)?;
            // It goes at any moment of the owner's and of the other's calm dealings with it.
            sim.run(seed * 3)?;
            sim.apply(Op::StoreDown(true))?;
            sim.apply(op)?;
            let gap = sim.gap(2500)?;
            let of = format!("{reason}, seed {seed}");
            expect("served", &of, &sim, gap == 0 && sim.active(0))?;
            sim.apply(Op::StoreDown(false))?;
            sim.run(500)?;
            // What the operator asked for is not done at some later time.
            let moves = !matches!(op, Op::Force(..));
            expect("moved", &of, &sim, sim.active(usize::from(moves)))?;
        }
    }
    Ok(())
}

#[test]
fn a_failback_waits_for_the_arbiter() {
    let mut sim = pair(1, true, None).expect("rules hold");
    let mut apply = |op, ms| {
        sim.apply(op).expect("rules hold");
        sim.gap(ms).expect("rules hold")
    };
    apply(Op::PowerOff(0), 1000);
    apply(Op::StoreDown(true), 0);
    assert_eq!(apply(Op::PowerOn(0), 8000), 0);
    apply(Op::StoreDown(false), 4000);
    assert!(sim.active(0));
}

/// Until the operator has said who owns the group.
#[test]
fn nothing_moves_by_an_arbiter_that_has_forgotten() {
    for (reason, op) in REASONS {
        let mut sim = pair(1, false, None).expect("rules hold");
        sim.apply(Op::Wipe).expect("rules hold");
        sim.apply(op).expect("rules hold");
        assert_eq!(sim.gap(8000), Ok(0), "{reason}");
        assert!(sim.active(0), "{reason}");
    }
}
