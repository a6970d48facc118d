//! What is told as spread over buckets, and not as one number.

use super::table::{Snapshot, ns};
use crate::control::protocol::StepTimes;

/// A histogram's name as in the table of docs/metrics.md, its meaning, and where it comes from.
pub(super) struct Histogram {
    pub name: &'static str,
    pub help: &'static str,
    pub spreads: fn(&Snapshot) -> Vec<Spread>,
}

/// One histogram, with what tells it from the others of its name.
pub(super) struct Spread {
    pub labels: Vec<(&'static str, String)>,
    pub sum: f64,
    pub count: u64,
    /// The bounds of the buckets, and how many are in each alone. The last one is without a bound.
    pub buckets: Vec<(f64, u64)>,
}

pub(super) const HISTOGRAMS: &[Histogram] = &[Histogram {
    name: "router_takeover_step_seconds",
    help: "How long it took to take or release what moves with the group, or to take again what was amiss",
    spreads: |snapshot| {
        let groups = snapshot.status.groups.iter();
        groups
            .flat_map(|group| {
                let times = group.step_times.iter();
                times.map(|times| of_steps(&group.group, times))
            })
            .collect()
    },
}];

fn of_steps(group: &str, times: &StepTimes) -> Spread {
    let StepTimes {
        step,
        kind,
        failed,
        steps,
        total_ns,
        buckets,
    } = times;
    let outcome = if *failed { "failed" } else { "done" };
    let bounded: u64 = buckets.iter().map(|bucket| bucket.steps).sum();
    Spread {
        labels: vec![
            ("group", group.to_owned()),
            ("step", step.clone()),
            ("kind", kind.clone()),
            ("outcome", outcome.to_owned()),
        ],
        sum: ns(*total_ns),
        count: *steps,
        buckets: buckets
            .iter()
            .map(|bucket| (ns(bucket.at_most_ns), bucket.steps))
            .chain([(f64::INFINITY, steps.saturating_sub(bounded))])
            .collect(),
    }
}
