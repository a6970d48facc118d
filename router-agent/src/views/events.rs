//! `monitor cluster`: what happens, as it happens.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{at::At, instant::time_of_day, paint::Tone, table::printable};
use crate::control::protocol::{GroupStatus, Status};

/// Something that happened in a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClusterEvent {
    /// Of the boottime clock, of the boot in which it happened.
    pub at_ns: u64,
    /// Milliseconds since 1970 by the time of day.
    pub at_unix_ms: u64,
    /// In which it happened.
    pub group: String,
    /// What happened.
    pub text: String,
    #[serde(skip)]
    pub tone: Tone,
}

impl ClusterEvent {
    /// A line, with the time of day as the log has it.
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
        time_of_day(self.at_unix_ms)
    }
}

/// All that a status tells of, the oldest first.
pub fn events(status: &Status) -> Vec<ClusterEvent> {
    let of_group = status.groups.iter().flat_map(of_group);
    let mut events: Vec<_> = of_group
        .map(|(at, event)| (at.order(status), event))
        .collect();
    // Of one instant, in the order in which one came of the other.
    events.sort_by_key(|(order, _)| *order);
    events.into_iter().map(|(_, event)| event).collect()
}

fn of_group(group: &GroupStatus) -> Vec<(At<'_>, ClusterEvent)> {
    let event = |at: At<'_>, text, tone| ClusterEvent {
        at_ns: at.ns,
        at_unix_ms: at.unix_ms,
        group: group.group.clone(),
        text,
        tone,
    };
    let mut events = Vec::new();
    for finding in &group.findings {
        let at = finding.at();
        events.push((at, event(at, finding.text.clone(), Tone::Plain)));
    }
    for transition in &group.transitions {
        let (from, to, epoch) = (&transition.from, &transition.to, transition.epoch);
        let text = format!("{from} to {to}, epoch {epoch}: {}", transition.cause);
        let at = transition.at();
        events.push((at, event(at, text, Tone::of_state(to))));
        for step in transition.steps.iter().filter(|step| step.done_ns != 0) {
            let (outcome, tone) = match &step.error {
                None => ("done".to_owned(), Tone::Plain),
                Some(error) => (format!("failed: {error}"), Tone::Bad),
            };
            let text = format!("{}: {outcome}", step.step);
            let at = at.shifted_to(step.done_ns);
            events.push((at, event(at, text, tone)));
        }
    }
    events
}

/// Tells each event once.
#[derive(Debug, Default)]
pub struct Seen {
    events: BTreeSet<ClusterEvent>,
}

impl Seen {
    /// What `status` tells that was not told before, the oldest first. The next agent tells what the ones
    /// before it have told, too, if the history is kept.
    pub fn new_in(&mut self, status: &Status) -> Vec<ClusterEvent> {
        let events = events(status);
        let mut new = events.clone();
        new.retain(|event| !self.events.contains(event));
        self.events = events.into_iter().collect();
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
        for event in events(&status(vec![step])) {
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

    fn status(steps: Vec<Step>) -> Status {
        Status {
            boot_id: "b".to_owned(),
            groups: vec![GroupStatus {
                group: "aws".to_owned(),
                transitions: vec![Transition {
                    at_ns: 2_000_000_000,
                    at_unix_ms: 1_764_000_002_000,
                    boot_id: "b".to_owned(),
                    from: "standby".to_owned(),
                    to: "active".to_owned(),
                    epoch: 3,
                    cause: "the peer is silent".to_owned(),
                    steps,
                    ..Transition::default()
                }],
                findings: vec![Finding {
                    at_ns: 1_999_000_000,
                    at_unix_ms: 1_764_000_001_999,
                    boot_id: "b".to_owned(),
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
            lines(seen.new_in(&status(Vec::new()))),
            [
                "2025-11-24T16:00:01.999Z aws: the peer was alive and?is silent",
                "2025-11-24T16:00:02.000Z aws: standby to active, epoch 3: the peer is silent"
            ]
        );
        assert_eq!(seen.new_in(&status(Vec::new())), []);
        let step = Step {
            step: "take 10.0.0.254/24".to_owned(),
            started_ns: 2_001_000_000,
            done_ns: 2_001_500_000,
            error: Some("no such device".to_owned()),
        };
        let next_agents = Status {
            generation: 2,
            ..status(vec![step])
        };
        assert_eq!(
            lines(seen.new_in(&next_agents)),
            ["2025-11-24T16:00:02.001Z aws: take 10.0.0.254/24: failed: no such device"]
        );
    }

    #[test]
    fn what_was_before_this_boot_comes_first_whatever_its_clock_was() {
        let mut status = status(Vec::new());
        status.groups[0].findings[0] = Finding {
            at_ns: u64::MAX,
            at_unix_ms: 1_763_000_000_000,
            boot_id: "a".to_owned(),
            text: "long ago".to_owned(),
            ..Finding::default()
        };
        let events = events(&status);
        assert_eq!(events[0].text, "long ago");
    }

    #[test]
    fn of_one_instant_the_cause_comes_first() {
        let mut status = status(Vec::new());
        let group = &mut status.groups[0];
        group.findings.clear();
        let [candidate, active] = ["standby to candidate", "candidate to active"].map(|change| {
            let (from, to) = change.split_once(" to ").unwrap();
            Transition {
                from: from.to_owned(),
                to: to.to_owned(),
                ..group.transitions[0].clone()
            }
        });
        group.transitions = vec![candidate, active];
        let events = events(&status);
        assert!(events[0].text.starts_with("standby to candidate"));
        assert!(events[1].text.starts_with("candidate to active"));
    }
}
