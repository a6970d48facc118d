//! Whether a node is fit to own a group, by what its monitors have said.

use std::sync::Arc;

use crate::control::protocol::MonitorState;

/// What the monitors of one group have said last.
#[derive(Clone, Debug)]
pub struct Monitors {
    /// The addresses, in the order of the configuration.
    addresses: Vec<MonitorState>,
    /// Whether the group's resources could be taken, if that is checked. Its place is behind the addresses.
    resources: Option<MonitorState>,
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
    pub fn new(addresses: usize, has_checked_resources: bool, was_fit: bool) -> Self {
        Self {
            addresses: vec![MonitorState::Initializing; addresses],
            resources: has_checked_resources.then_some(MonitorState::Initializing),
            was_fit,
        }
    }

    /// Takes in what the monitor at `place` says.
    pub fn note(&mut self, place: usize, state: MonitorState) {
        let monitor = self.addresses.get_mut(place).or(self.resources.as_mut());
        if let Some(monitor) = monitor {
            *monitor = state;
        }
    }

    /// A majority of the addresses must be reachable, and what the group moves must be there to take.
    pub fn fitness(&self) -> Fitness {
        let reachable = |state: &MonitorState| self.is_reachable(*state);
        let answering = self.addresses.iter().copied().filter(reachable).count();
        Fitness {
            is_fit: is_majority(answering, self.addresses.len())
                && self.resources.as_ref().is_none_or(reachable),
            missing: self
                .addresses
                .iter()
                .chain(&self.resources)
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

    fn fitness(states: &[MonitorState], resources: Option<MonitorState>, was_fit: bool) -> Fitness {
        let mut monitors = Monitors::new(states.len(), resources.is_some(), was_fit);
        for (place, state) in states.iter().copied().chain(resources).enumerate() {
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
            let found = fitness(&states, None, false);
            assert_eq!(found.is_fit, fit, "{reachable} of {of}");
            assert_eq!(*found.missing, *(reachable..of).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_has_not_answered_counts_as_the_agent_before_found_it() {
        let starting = [Reachable, Initializing, Initializing];
        assert_eq!(*fitness(&starting, None, false).missing, [1, 2]);
        assert!(!fitness(&starting, None, false).is_fit);
        assert_eq!(fitness(&starting, None, true), Fitness::unmonitored());
        let lost = [Unreachable, Unreachable, Initializing];
        assert!(!fitness(&lost, None, true).is_fit);
    }

    #[test]
    fn resources_are_no_voice_among_others() {
        let answering = [Reachable; 3];
        let found = fitness(&answering, Some(Unreachable), false);
        assert!(
            !found.is_fit,
            "what cannot be taken, no address makes up for"
        );
        assert_eq!(*found.missing, [3]);
        let most = [Reachable, Reachable, Unreachable];
        assert!(fitness(&most, Some(Reachable), false).is_fit);
        let half = [Reachable, Unreachable];
        assert!(!fitness(&half, Some(Reachable), false).is_fit);
        assert!(fitness(&[], Some(Reachable), false).is_fit);
    }
}
