//! What is to be done for the resources of a group, and when: no clock, no kernel, no network.
//!
//! A resource is taken when all those of lower rank have been tried, and released when all those
//! of higher rank have been: one that fails delays the others and does not prevent them. Those of
//! the same rank go together.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use router_common::{identity::Epoch, time::BootTime};

/// What failed is tried again after this, then twice as long, and so on, each with up to as much by
/// chance: two nodes and many steps do not ask at the same moment.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// After the announcement at once, more for hosts that missed it.
const ANNOUNCE_AGAIN: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// A request of the former owner may still have been under way when ours came: the first look comes
/// sooner than the others.
const FIRST_VERIFY: Duration = Duration::from_secs(1);

/// What the plan must know of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub rank: u32,
    /// How often it is looked at while it is held.
    pub verify: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Held,
    Released,
}

/// What is known of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Absent,
    Held,
    /// An attempt failed or was broken off, or an agent before this one died: anything between.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Take,
    /// To see whether it is still held, and to take it again if not.
    Verify,
    Release,
}

impl Deed {
    const fn serves(self, goal: Goal) -> bool {
        match self {
            Self::Take | Self::Verify => matches!(goal, Goal::Held),
            Self::Release => matches!(goal, Goal::Released),
        }
    }
}

/// One try of a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Place of the resource in its group.
    pub resource: usize,
    pub deed: Deed,
    pub epoch: Epoch,
    /// No other has it.
    number: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Another node may do better.
    Failed,
    /// Nobody can do it for now.
    Unavailable,
}

/// What an attempt's end means for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is held that shall be.
    Whole,
    /// The group would be better off elsewhere.
    Failed,
    Neither,
}

/// An order for an epoch that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outdated;

#[derive(Debug)]
struct Step {
    spec: Spec,
    condition: Condition,
    /// An attempt has ended since the goal was set.
    tried: bool,
    running: Option<Attempt>,
    /// Nothing is begun before.
    due: BootTime,
    backoff: ExponentialBackoff,
}

/// What shall be of a group's resources, and what is.
#[derive(Debug)]
pub struct Plan {
    epoch: Epoch,
    /// None until the first order, if an agent before this one held the group.
    goal: Option<Goal>,
    /// What was tried since the last order is not tried again.
    is_final: bool,
    steps: Vec<Step>,
    /// When to announce again; the last entry comes first.
    announcements: Vec<BootTime>,
    attempts: u64,
    retries: ExponentialBuilder,
}

impl Plan {
    /// `seed` decides what chance adds to the retries.
    pub fn new(resources: &[(Spec, Condition)], goal: Option<Goal>, seed: u64) -> Self {
        let retries = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(LAST_RETRY)
            .without_max_times()
            .with_jitter()
            .with_jitter_seed(seed);
        let steps = resources.iter().map(|&(spec, condition)| Step {
            spec,
            condition,
            tried: false,
            running: None,
            due: BootTime::NEVER,
            backoff: retries.build(),
        });
        Self {
            epoch: Epoch::default(),
            goal,
            is_final: false,
            steps: steps.collect(),
            announcements: Vec::new(),
            attempts: 0,
            retries,
        }
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn is_held(&self, resource: usize) -> bool {
        self.steps[resource].condition == Condition::Held
    }

    /// Sets the goal; the attempts that are to be broken off.
    pub fn order(&mut self, goal: Goal, epoch: Epoch) -> Result<Vec<Attempt>, Outdated> {
        self.accept(epoch)?;
        self.goal = Some(goal);
        if goal == Goal::Released {
            self.announcements.clear();
        }
        let retries = self.retries;
        let mut broken_off = Vec::new();
        for step in &mut self.steps {
            step.tried = false;
            step.due = BootTime::NEVER;
            step.backoff = retries.build();
            let goes_on = step
                .running
                .is_some_and(|attempt| attempt.deed.serves(goal) && attempt.deed != Deed::Verify);
            if !goes_on && let Some(attempt) = step.running.take() {
                step.condition = Condition::Unknown;
                broken_off.push(attempt);
            }
            // It may not be what it was when it was last looked at.
            if goal == Goal::Held && step.condition == Condition::Held {
                step.condition = Condition::Unknown;
            }
        }
        Ok(broken_off)
    }

    /// From now on each step of the last order is tried once at most: all comes to an end.
    pub fn retry_no_more(&mut self) {
        self.is_final = true;
    }

    /// Announces what is held, now and several times more.
    pub fn order_announcement(&mut self, epoch: Epoch, now: BootTime) -> Result<(), Outdated> {
        self.accept(epoch)?;
        if self.goal == Some(Goal::Held) {
            self.schedule_announcements(now);
            self.announcements.push(now);
        }
        Ok(())
    }

    fn accept(&mut self, epoch: Epoch) -> Result<(), Outdated> {
        if epoch < self.epoch {
            return Err(Outdated);
        }
        self.epoch = epoch;
        Ok(())
    }

    /// What was just taken, and announced, is announced several times more.
    pub fn schedule_announcements(&mut self, now: BootTime) {
        let times = ANNOUNCE_AGAIN.iter().rev().map(|&delay| now.after(delay));
        self.announcements = times.collect();
    }

    /// Whether to announce what is held.
    pub fn announcement_is_due(&mut self, now: BootTime) -> bool {
        self.announcements.pop_if(|at| *at <= now).is_some()
    }

    /// The attempts to begin now.
    pub fn begin(&mut self, now: BootTime) -> Vec<Attempt> {
        let mut begun = Vec::new();
        for resource in 0..self.steps.len() {
            let Some(deed) = self.next_deed(resource) else {
                continue;
            };
            if self.steps[resource].due > now {
                continue;
            }
            self.attempts += 1;
            let attempt = Attempt {
                resource,
                deed,
                epoch: self.epoch,
                number: self.attempts,
            };
            self.steps[resource].running = Some(attempt);
            begun.push(attempt);
        }
        begun
    }

    /// When [`Self::begin`] or [`Self::announcement_is_due`] have something to do, unless an attempt
    /// ends before.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let ready = (0..self.steps.len()).filter(|&resource| self.next_deed(resource).is_some());
        ready
            .map(|resource| self.steps[resource].due)
            .chain(self.announcements.last().copied())
            .min()
    }

    /// What comes next for a resource, as soon as it is due; none if something is under way, if
    /// nothing is to do any more, or if others go first.
    fn next_deed(&self, resource: usize) -> Option<Deed> {
        let step = &self.steps[resource];
        if step.running.is_some() || self.is_final && step.tried {
            return None;
        }
        let goal = self.goal?;
        let deed = match (goal, step.condition) {
            (Goal::Held, Condition::Held) => Deed::Verify,
            (Goal::Held, Condition::Absent | Condition::Unknown) => Deed::Take,
            (Goal::Released, Condition::Held | Condition::Unknown) => Deed::Release,
            (Goal::Released, Condition::Absent) => return None,
        };
        let rank = step.spec.rank;
        let goes_first = |other: &Step| match deed {
            Deed::Take => other.spec.rank < rank,
            Deed::Release => other.spec.rank > rank,
            Deed::Verify => false,
        };
        let mut others = self.steps.iter().filter(|other| goes_first(other));
        others.all(|other| other.is_settled(goal)).then_some(deed)
    }

    /// Takes in the end of an attempt; none if it had been broken off.
    pub fn end(&mut self, attempt: &Attempt, outcome: Outcome, now: BootTime) -> Option<Progress> {
        let retries = self.retries;
        let step = &mut self.steps[attempt.resource];
        step.running.take_if(|running| running == attempt)?;
        step.tried = true;
        match (attempt.deed, outcome) {
            (Deed::Take, Outcome::Done) => {
                step.condition = Condition::Held;
                step.due = now.after(step.spec.verify.min(FIRST_VERIFY));
                step.backoff = retries.build();
            }
            (Deed::Verify, Outcome::Done) => {
                step.due = now.after(step.spec.verify);
                step.backoff = retries.build();
            }
            (Deed::Take, Outcome::Failed | Outcome::Unavailable)
            | (Deed::Verify, Outcome::Failed) => {
                step.condition = Condition::Unknown;
                step.retry(now);
            }
            (Deed::Release, Outcome::Done) => step.condition = Condition::Absent,
            // That it cannot be seen does not mean that it is lost.
            (Deed::Verify, Outcome::Unavailable)
            | (Deed::Release, Outcome::Failed | Outcome::Unavailable) => step.retry(now),
        }
        let is_whole = || self.steps.iter().all(|s| s.condition == Condition::Held);
        Some(match (attempt.deed, outcome) {
            (Deed::Take, Outcome::Done) if is_whole() => Progress::Whole,
            (Deed::Take | Deed::Verify, Outcome::Failed) => Progress::Failed,
            (Deed::Take | Deed::Verify | Deed::Release, _) => Progress::Neither,
        })
    }

    /// Whether all that is to be released has been, or has at least been tried.
    pub fn is_let_go(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.all(|step| step.running.is_none() && step.is_settled(Goal::Released))
    }
}

impl Step {
    fn is_settled(&self, goal: Goal) -> bool {
        self.tried
            || match goal {
                Goal::Held => self.condition == Condition::Held,
                Goal::Released => self.condition == Condition::Absent,
            }
    }

    fn retry(&mut self, now: BootTime) {
        self.due = now.after(self.backoff.next().unwrap_or(LAST_RETRY));
    }
}

#[cfg(test)]
mod tests;
