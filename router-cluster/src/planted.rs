//! Which check finds which planted defect.

use super::{
    model::{self, Group, Kinds},
    node::Planted,
    sim,
    told::tell,
};
use Check::{Model, Scenario, Simulation};

/// So many are simulated with a defect; those that are found late have a scenario of their own.
const STEPS: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Scenario,
    Simulation,
    Model,
}

impl Check {
    const ALL: [Self; 3] = [Self::Scenario, Self::Simulation, Self::Model];

    /// What it has to say of the defect, if it finds it.
    fn run(self, planted: Planted) -> Option<String> {
        match self {
            Self::Scenario => {
                let mut about = sim::SCENARIOS.iter().filter(|(about, _)| *about == planted);
                about.find_map(|(_, scenario)| scenario(Some(planted)).err())
            }
            Self::Simulation => sim::simulate(STEPS, 0, Some(planted)).err(),
            Self::Model => model::Setup::ALL.into_iter().find_map(|setup| {
                let group = Group {
                    setup,
                    kinds: Kinds::All,
                    faults: 1,
                    planted: Some(planted),
                };
                model::check(group).err()
            }),
        }
    }
}

/// All that find it, as docs/safety.md has it.
const FOUND_BY: [(Planted, &[Check]); Planted::ALL.len()] = [
    (Planted::GrantAfterClosing, &[Model]),
    (Planted::LeaseFromReceipt, &[Model]),
    (Planted::NoMargin, &[Scenario]),
    (Planted::PromiseNotWaited, &[Model]),
    (Planted::EpochNotCompared, &[Scenario, Simulation, Model]),
    (Planted::LateAnswerAccepted, &[Scenario]),
    (Planted::OpenBeforeSwap, &[Simulation, Model]),
    (Planted::TermNotWaited, &[Simulation, Model]),
    (Planted::UnchangedFromSend, &[Scenario]),
    (Planted::PairedBeforeDrop, &[Scenario]),
    (Planted::BlindSwap, &[Simulation, Model]),
    (Planted::MissingIsFresh, &[Scenario, Model]),
    (Planted::StaleRead, &[Scenario]),
    (Planted::GrantsAmongThree, &[Model]),
    (Planted::SaysBeforeItCloses, &[Simulation, Model]),
    (Planted::NoSelfSuspicion, &[Scenario, Simulation]),
    (Planted::NoTieRule, &[Scenario, Simulation]),
    (Planted::DeafToMonitors, &[Scenario]),
    (Planted::NoEnd, &[Scenario, Simulation, Model]),
    (Planted::HastyVerdict, &[Simulation]),
    (Planted::Amnesia, &[Scenario]),
    (Planted::ClockStandsStill, &[Scenario]),
];

#[test]
fn every_planted_defect_is_found() {
    let mut found = Vec::new();
    for planted in Planted::ALL {
        let mut by = Vec::new();
        for check in Check::ALL {
            if let Some(error) = check.run(planted) {
                tell(format_args!(
                    "planted {planted:?}, found by {check:?}: {error:.120}"
                ));
                by.push(check);
            }
        }
        assert!(!by.is_empty(), "nothing finds {planted:?}");
        found.push((planted, by));
    }
    let expected = FOUND_BY.map(|(planted, by)| (planted, by.to_vec()));
    assert_eq!(found, expected, "docs/safety.md tells this too");
}
