//! `monitor cluster`: what happens, as it happens.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{paint::Tone, table::printable};
use crate::control::protocol::{GroupStatus, Status};

/// Something that happened in a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ClusterEvent {
    /// Of the boottime clock.
    pub at_ns: u64,
    pub group: String,
    pub text: String,
    #[serde(skip)]
    pub tone: Tone,
}

impl ClusterEvent {
    /// A line, with the time in seconds as `dmesg` has it.
    pub fn line(&self) -> String {
        let Self { group, text, .. } = self;
        printable(&format!("{} {group}: {text}", self.time()))
    }

    /// The same with its colours.
    pub fn painted(&self) -> String {
        let Self { group, text, .. } = self;
        let time = Tone::Faint.paint(self.time());
        let text = self.tone.paint(printable(&format!("{group}: {text}")));
        format!("{time} {text}")
    }

    fn time(&self) -> String {
        let (seconds, ms) = (self.at_ns / 1_000_000_000, self.at_ns / 1_000_000 % 1_000);
        format!("[{seconds:>7}.{ms:03}]")
    }
}

/// All that a status tells of, the oldest first.
pub fn events(status: &Status) -> BTreeSet<ClusterEvent> {
    status.groups.iter().flat_map(of_group).collect()
}

fn of_group(group: &GroupStatus) -> Vec<ClusterEvent> {
    let event = |at_ns, text, tone| ClusterEvent {
        at_ns,
        group: group.group.clone(),
        text,
        tone,
    };
    let mut events = Vec::new();
    for finding in &group.findings {
        events.push(event(finding.at_ns, finding.text.clone(), Tone::Plain));
    }
    for transition in &group.transitions {
        let (from, to, epoch) = (&transition.from, &transition.to, transition.epoch);
        let text = format!("{from} to {to}, epoch {epoch}: {}", transition.cause);
        events.push(event(transition.at_ns, text, Tone::of_state(to)));
        for step in transition.steps.iter().filter(|step| step.done_ns != 0) {
            let (outcome, tone) = match &step.error {
                None => ("done".to_owned(), Tone::Plain),
                Some(error) => (format!("failed: {error}"), Tone::Bad),
            };
            let text = format!("{}: {outcome}", step.step);
            events.push(event(step.done_ns, text, tone));
        }
    }
    events
}

/// Tells each event once.
#[derive(Debug, Default)]
pub struct Seen {
    generation: u32,
    events: BTreeSet<ClusterEvent>,
}

impl Seen {
    /// What `status` tells that was not told before, the oldest first. A new agent begins anew.
    pub fn new_in(&mut self, status: &Status) -> Vec<ClusterEvent> {
        let events = events(status);
        let known = if self.generation == status.generation {
            std::mem::take(&mut self.events)
        } else {
            BTreeSet::new()
        };
        let new = events.difference(&known).cloned().collect();
        self.generation = status.generation;
        self.events = events;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Finding, Step, Transition};

    #[test]
    fn colours_are_left_out_of_a_line_and_change_nothing_else() {
        let step = Step {
            step: "10.0.0.254/24".to_owned(),
            error: Some("no such device".to_owned()),
            done_ns: 2_500_000_000,
            ..Step::default()
        };
        let mut tones = Vec::new();
        for event in events(&status(1, vec![step])) {
            let painted = event.painted();
            assert_ne!(painted, event.line());
            assert_eq!(
                anstream::adapter::strip_str(&painted).to_string(),
                event.line()
            );
            tones.push(event.tone);
        }
        assert_eq!(tones, [Tone::Plain, Tone::Good, Tone::Bad]);
    }

    fn status(generation: u32, steps: Vec<Step>) -> Status {
        Status {
            generation,
            groups: vec![GroupStatus {
                group: "aws".to_owned(),
                transitions: vec![Transition {
                    at_ns: 2_000_000_000,
                    from: "standby".to_owned(),
                    to: "active".to_owned(),
                    epoch: 3,
                    cause: "the peer is silent".to_owned(),
                    steps,
                    ..Transition::default()
                }],
                findings: vec![Finding {
                    at_ns: 1_999_000_000,
                    text: "the peer was alive and\nis silent".to_owned(),
                    ..Finding::default()
                }],
                ..GroupStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn each_event_is_told_once_and_in_order() {
        let mut seen = Seen::default();
        let lines = |events: Vec<ClusterEvent>| -> Vec<String> {
            events.iter().map(ClusterEvent::line).collect()
        };
        assert_eq!(
            lines(seen.new_in(&status(1, Vec::new()))),
            [
                "[      1.999] aws: the peer was alive and?is silent",
                "[      2.000] aws: standby to active, epoch 3: the peer is silent"
            ]
        );
        assert_eq!(seen.new_in(&status(1, Vec::new())), []);
        let step = Step {
            step: "take 10.0.0.254/24".to_owned(),
            started_ns: 2_001_000_000,
            done_ns: 2_001_500_000,
            error: Some("no such device".to_owned()),
        };
        assert_eq!(
            lines(seen.new_in(&status(1, vec![step]))),
            ["[      2.001] aws: take 10.0.0.254/24: failed: no such device"]
        );
        assert_eq!(
            seen.new_in(&status(2, Vec::new())).len(),
            2,
            "another agent"
        );
    }
}
