//! Whether a node is fit to own a group, and how much it is to be preferred, by what its monitors have said.

use std::sync::Arc;

use router_common::identity::Priority;

use crate::{config::Weight, control::protocol::MonitorState};

/// What the monitors of one group have said last.
#[derive(Clone, Debug)]
pub struct Monitors {
    /// The addresses, in the order of the configuration.
    addresses: Vec<MonitorState>,
    /// What is tracked, and whether the group's resources could be taken if that is checked. Their places
    /// are behind the addresses.
    others: Vec<(Weight, MonitorState)>,
    former: Option<Former>,
}

/// What an agent before this one said of the node a moment ago, which holds until there is more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// What has said nothing yet is not missing.
    pub was_fit: bool,
    pub priority: Priority,
}

/// What the monitors come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitness {
    pub is_fit: bool,
    /// Places of the monitors that are not reachable and have no weight, whether or not it can do without them.
    pub missing: Arc<[usize]>,
    pub priority: Priority,
}

impl Fitness {
    /// Of a group without monitors.
    pub fn unmonitored() -> Self {
        Self {
            is_fit: true,
            missing: Arc::new([]),
            priority: Priority::BASE,
        }
    }
}

impl Monitors {
    /// With the weights of what is no address.
    pub fn new(addresses: usize, others: Vec<Weight>, former: Option<Former>) -> Self {
        let others = others.into_iter();
        Self {
            addresses: vec![MonitorState::Initializing; addresses],
            others: others
                .map(|weight| (weight, MonitorState::Initializing))
                .collect(),
            former,
        }
    }

    /// Takes in what the monitor at `place` says.
    pub fn note(&mut self, place: usize, state: MonitorState) {
        let others = self.others.iter_mut().map(|(_, monitor)| monitor);
        let mut monitors = self.addresses.iter_mut().chain(others);
        if let Some(monitor) = monitors.nth(place) {
            *monitor = state;
        }
    }

    /// A majority of the addresses must be reachable, and all else must be well that has no weight.
    pub fn fitness(&self) -> Fitness {
        let reachable = |state: &MonitorState| self.is_reachable(*state);
        let answering = self
            .addresses
            .iter()
            .filter(|state| reachable(state))
            .count();
        let suffices = |(weight, state): &(Weight, MonitorState)| {
            !weight.is_mandatory() || self.is_reachable(*state)
        };
        let addresses = self.addresses.iter().map(reachable);
        Fitness {
            is_fit: is_majority(answering, self.addresses.len())
                && self.others.iter().all(suffices),
            missing: addresses
                .chain(self.others.iter().map(suffices))
                .enumerate()
                .filter(|(_, suffices)| !suffices)
                .map(|(place, _)| place)
                .collect(),
            priority: self.priority(),
        }
    }

    fn priority(&self) -> Priority {
        let mut weighted = self
            .others
            .iter()
            .filter(|(weight, _)| !weight.is_mandatory());
        if let Some(former) = self.former
            && weighted.any(|(_, state)| *state == MonitorState::Initializing)
        {
            return former.priority;
        }
        let shares = self.others.iter();
        Priority::weighted(
            shares
                .map(|(weight, state)| weight.share(*state == MonitorState::Reachable))
                .sum(),
        )
    }

    fn is_reachable(&self, state: MonitorState) -> bool {
        match state {
            MonitorState::Reachable => true,
            MonitorState::Initializing => self.former.is_some_and(|former| former.was_fit),
            MonitorState::Unreachable | MonitorState::Unknown => false,
        }
    }
}

/// More than half: of two it takes both. Of none there is nothing to miss.
fn is_majority(answering: usize, of: usize) -> bool {
    of == 0 || answering > of / 2
}

#[cfg(test)]
mod tests {
    use super::{
        MonitorState::{Initializing, Reachable, Unreachable},
        *,
    };

    fn fitness(states: &[MonitorState], others: &[MonitorState], was_fit: bool) -> Fitness {
        let former = was_fit.then_some(Former {
            was_fit,
            priority: Priority::BASE,
        });
        let weights = vec![Weight::default(); others.len()];
        let mut monitors = Monitors::new(states.len(), weights, former);
        for (place, state) in states.iter().chain(others).copied().enumerate() {
            monitors.note(place, state);
        }
        monitors.fitness()
    }

    #[test]
    fn it_takes_more_than_half_of_the_addresses() {
        for (reachable, of, fit) in [
            (0, 0, true),
            (0, 1, false),
            (1, 1, true),
            (0, 2, false),
            (1, 2, false),
            (2, 2, true),
            (1, 3, false),
            (2, 3, true),
            (2, 4, false),
            (3, 4, true),
            (2, 5, false),
            (3, 5, true),
        ] {
            let mut states = vec![Reachable; reachable];
            states.resize(of, Unreachable);
            let found = fitness(&states, &[], false);
            assert_eq!(found.is_fit, fit, "{reachable} of {of}");
            assert_eq!(*found.missing, *(reachable..of).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_has_not_answered_counts_as_the_agent_before_found_it() {
        let starting = [Reachable, Initializing, Initializing];
        assert_eq!(*fitness(&starting, &[], false).missing, [1, 2]);
        assert!(!fitness(&starting, &[], false).is_fit);
        assert_eq!(fitness(&starting, &[], true), Fitness::unmonitored());
        let lost = [Unreachable, Unreachable, Initializing];
        assert!(!fitness(&lost, &[], true).is_fit);
    }

    #[test]
    fn what_is_no_address_has_no_voice_among_them() {
        let answering = [Reachable; 3];
        let found = fitness(&answering, &[Unreachable], false);
        assert!(
            !found.is_fit,
            "what cannot be taken, no address makes up for"
        );
        assert_eq!(*found.missing, [3]);
        let most = [Reachable, Reachable, Unreachable];
        assert!(fitness(&most, &[Reachable], false).is_fit);
        let half = [Reachable, Unreachable];
        assert!(!fitness(&half, &[Reachable], false).is_fit);
        assert!(fitness(&[], &[Reachable], false).is_fit);
        assert!(!fitness(&[], &[Reachable, Unreachable], false).is_fit);
    }

    fn weighted(weights: &[i16], former: Option<Former>) -> Monitors {
        let weights = weights.iter().map(|&weight| Weight::new(weight).unwrap());
        Monitors::new(0, weights.collect(), former)
    }

    #[test]
    fn what_has_a_weight_counts_for_the_priority_alone() {
        for (first, second, third, priority) in [
            (Reachable, Reachable, Reachable, 110),
            (Unreachable, Reachable, Reachable, 80),
            (Unreachable, Reachable, Unreachable, 70),
            (Reachable, Reachable, Unreachable, 100),
        ] {
            let mut monitors = weighted(&[-30, 0, 10], None);
            for (place, state) in [first, second, third].into_iter().enumerate() {
                monitors.note(place, state);
            }
            let found = monitors.fitness();
            assert!(found.is_fit, "{first:?} {third:?}");
            assert!(found.missing.is_empty(), "{first:?} {third:?}");
            assert_eq!(found.priority.get(), priority, "{first:?} {third:?}");
        }
        let mut monitors = weighted(&[-30, 0], None);
        monitors.note(0, Reachable);
        monitors.note(1, Unreachable);
        let found = monitors.fitness();
        assert!(!found.is_fit);
        assert_eq!(found.priority, Priority::BASE);
    }

    #[test]
    fn a_priority_holds_over_a_restart_until_all_has_been_looked_at() {
        assert_eq!(weighted(&[-30, 10], None).fitness().priority.get(), 70);
        let former = Former {
            was_fit: true,
            priority: Priority::weighted(-30),
        };
        let mut monitors = weighted(&[-30, 10], Some(former));
        monitors.note(0, Reachable);
        assert_eq!(monitors.fitness().priority.get(), 70);
        monitors.note(1, Reachable);
        assert_eq!(monitors.fitness().priority.get(), 110);
    }
}
