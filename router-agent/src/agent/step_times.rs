//! How long the steps of takeovers and releases took.

use std::{collections::BTreeMap, time::Duration};

use super::report::{Step, StepDone};
use crate::control::protocol;

/// A step is counted by the first of these that it did not exceed; longer ones by none.
const BOUNDS: [Duration; 12] = [
    Duration::from_micros(100),
    Duration::from_micros(300),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// Of one group, since the agent started.
#[derive(Clone, Debug, Default)]
pub struct StepTimes(BTreeMap<Sort, Spread>);

/// Steps that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sort {
    step: &'static str,
    kind: &'static str,
    failed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    steps: u64,
    total: Duration,
    /// Those of each of `BOUNDS`.
    within: [u64; BOUNDS.len()],
}

impl StepTimes {
    pub fn note(&mut self, done: &StepDone) {
        let took = done.done.since(done.started);
        let sort = Sort {
            step: word(done.step),
            kind: done.kind,
            failed: done.error.is_some(),
        };
        let Self(spreads) = self;
        let spread = spreads.entry(sort).or_default();
        spread.steps += 1;
        spread.total += took;
        if let Some(place) = BOUNDS.iter().position(|bound| took <= *bound) {
            spread.within[place] += 1;
        }
    }

    pub fn status(&self) -> Vec<protocol::StepTimes> {
        let Self(spreads) = self;
        let times = |(sort, spread): (&Sort, &Spread)| protocol::StepTimes {
            step: sort.step.to_owned(),
            kind: sort.kind.to_owned(),
            failed: sort.failed,
            steps: spread.steps,
            total_ns: whole_ns(spread.total),
            buckets: BOUNDS
                .iter()
                .zip(spread.within)
                .map(|(bound, steps)| protocol::StepBucket {
                    at_most_ns: whole_ns(*bound),
                    steps,
                })
                .collect(),
        };
        spreads.iter().map(times).collect()
    }
}

/// The operator's word for a step.
pub fn word(step: Step) -> &'static str {
    match step {
        Step::Take => "take",
        Step::Verify => "verify",
        Step::Release => "release",
    }
}

fn whole_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use router_common::{identity::Epoch, time::BootTime};

    use super::*;

    fn done(step: Step, took: Duration, error: Option<&str>) -> StepDone {
        let started = BootTime::from_ns(5_000_000_000);
        StepDone {
            epoch: Epoch(1),
            step,
            resource: 0,
            kind: "address",
            started,
            done: started.after(took),
            held: error.is_none(),
            error: error.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn each_step_is_in_the_bucket_of_its_time_among_its_like() {
        let mut times = StepTimes::default();
        let ms = Duration::from_millis;
        for took in [ms(1), ms(2), Duration::from_mins(1)] {
            times.note(&done(Step::Take, took, None));
        }
        times.note(&done(Step::Take, ms(2), Some("no")));
        times.note(&done(Step::Release, ms(2), None));
        let status = times.status();
        let sorts: Vec<_> = status
            .iter()
            .map(|t| (&*t.step, t.failed, t.steps))
            .collect();
        assert_eq!(
            sorts,
            [("release", false, 1), ("take", false, 3), ("take", true, 1)]
        );
        let protocol::StepTimes {
            total_ns, buckets, ..
        } = &status[1];
        assert_eq!(*total_ns, 60_003_000_000);
        let filled: Vec<_> = buckets
            .iter()
            .filter(|bucket| bucket.steps > 0)
            .map(|bucket| (bucket.at_most_ns, bucket.steps))
            .collect();
        assert_eq!(filled, [(1_000_000, 1), (3_000_000, 1)]);
    }
}
