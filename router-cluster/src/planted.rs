//! Which check finds which planted defect.

use super::{
    model::{self, Group, Kinds},
    node::Planted,
    sim,
};

/// So many are simulated with a defect; those that are found late have a scenario of their own.
const STEPS: u64 = 1_000_000;

/// The first that finds it, of those that take longer and longer.
fn caught_by(planted: Planted) -> Option<String> {
    let scenario = || {
        let mut about = sim::SCENARIOS.iter().filter(|(about, _)| *about == planted);
        about.find_map(|(_, scenario)| scenario(Some(planted)).err())
    };
    let simulation = || sim::simulate(STEPS, 0, Some(planted)).err();
    let model = || {
        model::Setup::ALL.into_iter().find_map(|setup| {
            let group = Group {
                setup,
                kinds: Kinds::All,
                faults: 1,
                planted: Some(planted),
            };
            model::check(group).err()
        })
    };
    scenario()
        .map(|error| format!("scenario: {error}"))
        .or_else(|| simulation().map(|error| format!("simulation: {error}")))
        .or_else(|| model().map(|error| format!("model check: {error}")))
}

#[test]
fn every_planted_defect_is_found() {
    let mut missed = Vec::new();
    for planted in Planted::ALL {
        match caught_by(planted) {
            Some(by) => println!("{:<20} caught by {by:.120}", format!("{planted:?}")),
            None => missed.push(planted),
        }
    }
    assert_eq!(missed, [], "nothing finds these");
}
