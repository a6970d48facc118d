//! What is remembered of one group.

use std::collections::VecDeque;

use super::{Entry, Side};
use crate::control::protocol::{Finding, Step, Transition};

/// By which a group is taken, and those by whose end it is released.
const ACTIVE: &str = "active";
const OWNERS: [&str; 2] = [ACTIVE, "draining"];

/// Transitions and findings, the newest last, so many of each.
#[derive(Debug, Default)]
pub struct Past {
    transitions: VecDeque<Transition>,
    findings: VecDeque<Finding>,
}

impl Past {
    const LENGTH: usize = 64;

    /// Takes in what happened to this group.
    pub fn note(&mut self, entry: Entry) {
        match entry {
            Entry::Transition(transition) => keep(&mut self.transitions, transition),
            Entry::Finding(finding) => keep(&mut self.findings, finding),
            Entry::Step {
                group: _,
                epoch,
                side,
                step,
            } => self.note_step(epoch, side, step),
            Entry::FirstForwarded {
                group: _,
                epoch,
                at_ns,
            } => {
                if let Some(transition) = self.of_epoch(epoch, Side::Into) {
                    transition.stages.first_forwarded_ns = at_ns;
                }
            }
        }
    }

    /// A step that is tried again replaces its last try.
    fn note_step(&mut self, epoch: u32, side: Side, step: Step) {
        let Some(transition) = self.of_epoch(epoch, side) else {
            return;
        };
        // An agent that goes on takes again what its node has: no part of the takeover took that long.
        let is_taken = |known: &Step| known.step == step.step && has_taken(known);
        if has_taken(&step) && transition.steps.iter().any(is_taken) {
            return;
        }
        transition.steps.retain(|known| known.step != step.step);
        transition.steps.push(step);
    }

    fn of_epoch(&mut self, epoch: u32, side: Side) -> Option<&mut Transition> {
        self.transitions.iter_mut().rev().find(|transition| {
            transition.epoch == epoch
                && match side {
                    Side::Into => transition.to == ACTIVE,
                    Side::OutOf => OWNERS.contains(&transition.from.as_str()),
                }
        })
    }

    pub fn transitions(&self) -> impl DoubleEndedIterator<Item = &Transition> {
        self.transitions.iter()
    }

    pub fn findings(&self) -> impl DoubleEndedIterator<Item = &Finding> {
        self.findings.iter()
    }
}

fn has_taken(step: &Step) -> bool {
    step.step.starts_with("take ") && step.done_ns != 0 && step.error.is_none()
}

fn keep<T>(ring: &mut VecDeque<T>, entry: T) {
    if ring.len() == Past::LENGTH {
        ring.pop_front();
    }
    ring.push_back(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn into_active(epoch: u32) -> Entry {
        Entry::Transition(Transition {
            to: ACTIVE.to_owned(),
            epoch,
            ..Transition::default()
        })
    }

    fn step(epoch: u32, done_ns: u64, error: Option<&str>) -> Entry {
        Entry::Step {
            group: String::new(),
            epoch,
            side: Side::Into,
            step: Step {
                step: "take 10.0.0.254/24".to_owned(),
                started_ns: 0,
                done_ns,
                error: error.map(ToOwned::to_owned),
            },
        }
    }

    #[test]
    fn steps_and_packets_find_the_transition_that_they_belong_to() {
        let mut past = Past::default();
        for epoch in [1, 2] {
            past.note(into_active(epoch));
        }
        past.note(step(1, 10, None));
        past.note(step(2, 20, Some("no such device")));
        past.note(step(2, 30, None));
        // The next agent's.
        past.note(step(2, 90_000, None));
        past.note(step(3, 40, None));
        past.note(Entry::FirstForwarded {
            group: String::new(),
            epoch: 1,
            at_ns: 11,
        });
        let [first, second] = past.transitions().collect::<Vec<_>>()[..] else {
            panic!("two transitions");
        };
        assert_eq!((first.steps.len(), first.steps[0].done_ns), (1, 10));
        assert_eq!((second.steps.len(), second.steps[0].done_ns), (1, 30));
        assert_eq!(first.stages.first_forwarded_ns, 11);
        assert_eq!(second.stages.first_forwarded_ns, 0);
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut past = Past::default();
        for epoch in 0..100 {
            past.note(into_active(epoch));
        }
        assert_eq!(past.transitions().count(), Past::LENGTH);
        assert_eq!(past.transitions().next_back().unwrap().epoch, 99);
    }
}
