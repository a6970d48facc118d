//! Whether a node is fit to own a group, by what its monitors have said.

use std::sync::Arc;

use crate::control::protocol::MonitorState;

/// What the monitors of one group have said last.
#[derive(Clone, Debug)]
pub struct Monitors {
    /// The addresses, in the order of the configuration.
    addresses: Vec<MonitorState>,
    /// What is tracked, and whether the group's resources could be taken if that is checked. Their places
    /// are behind the addresses.
    others: Vec<MonitorState>,
    /// An agent before this one found the node fit a moment ago: what has said nothing yet is not missing.
    was_fit: bool,
}

/// What the monitors come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitness {
    pub is_fit: bool,
    /// Places of the monitors that are not reachable, whether or not it can do without them.
    pub missing: Arc<[usize]>,
}

impl Fitness {
    /// Of a group without monitors.
    pub fn unmonitored() -> Self {
        Self {
            is_fit: true,
            missing: Arc::new([]),
        }
    }
}

impl Monitors {
    pub fn new(addresses: usize, others: usize, was_fit: bool) -> Self {
        Self {
            addresses: vec![MonitorState::Initializing; addresses],
            others: vec![MonitorState::Initializing; others],
            was_fit,
        }
    }

    /// Takes in what the monitor at `place` says.
    pub fn note(&mut self, place: usize, state: MonitorState) {
        let mut monitors = self.addresses.iter_mut().chain(&mut self.others);
        if let Some(monitor) = monitors.nth(place) {
            *monitor = state;
        }
    }

    /// A majority of the addresses must be reachable, and all else must be well.
    pub fn fitness(&self) -> Fitness {
        let reachable = |state: &MonitorState| self.is_reachable(*state);
        let answering = self.addresses.iter().copied().filter(reachable).count();
        Fitness {
            is_fit: is_majority(answering, self.addresses.len())
                && self.others.iter().all(reachable),
            missing: self
                .addresses
                .iter()
                .chain(&self.others)
                .enumerate()
                .filter(|(_, state)| !self.is_reachable(**state))
                .map(|(place, _)| place)
                .collect(),
        }
    }

    fn is_reachable(&self, state: MonitorState) -> bool {
        match state {
            MonitorState::Reachable => true,
            MonitorState::Initializing => self.was_fit,
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
        let mut monitors = Monitors::new(states.len(), others.len(), was_fit);
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
}
