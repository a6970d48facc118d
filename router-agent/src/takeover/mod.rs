//! Carries out what the cores decide: takes, announces and releases the service addresses of a
//! group, on a thread of its own.

mod address;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use router_common::identity::Epoch;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

pub use self::address::ServiceTarget;
use crate::{
    agent::{
        driver::Input,
        report::{News, Report, Step, StepDone},
    },
    clock,
    cluster::Command,
    net::{Netlink, announce::Announcer},
};

/// After the announcement at once, more for hosts that missed it.
const ANNOUNCE_AGAIN: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// A step that failed is tried again after this, then twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// A core's command to its group's services.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub group: usize,
    pub command: Command,
}

/// What a group's services shall be, and what is still to do for that.
#[derive(Debug)]
struct Work {
    epoch: Epoch,
    goal: Goal,
    /// Numbers of the services that are not as they shall be.
    missing: BTreeSet<usize>,
    /// When to announce again; the last entry comes first.
    announcements: Vec<Instant>,
    retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Held,
    Released,
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    /// The next one after this comes so much later.
    delay: Duration,
}

/// The takeover thread's state.
pub struct Engine {
    netlink: Netlink,
    announcer: Announcer,
    /// The services of each group, in the order in which they start.
    groups: Vec<Vec<ServiceTarget>>,
    /// By group; a group that was released whole has none.
    work: BTreeMap<usize, Work>,
    /// Orders for an older epoch are refused.
    newest: Vec<Epoch>,
    /// At the end, what is held stays held.
    keeps: Arc<AtomicBool>,
    outcomes: Sender<Input>,
    reports: UnboundedSender<Report>,
}

impl Engine {
    pub fn new(
        netlink: Netlink,
        announcer: Announcer,
        groups: Vec<Vec<ServiceTarget>>,
        keeps: Arc<AtomicBool>,
        outcomes: Sender<Input>,
        reports: UnboundedSender<Report>,
    ) -> Self {
        Self {
            netlink,
            announcer,
            work: BTreeMap::new(),
            newest: vec![Epoch::default(); groups.len()],
            groups,
            keeps,
            outcomes,
            reports,
        }
    }

    /// Carries out orders until their sender is gone, then releases what is still held, unless it is
    /// to be kept.
    pub async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        loop {
            let due = self.work.values().filter_map(Work::due).min();
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order).await,
                    None => break,
                },
                () = timer => self.catch_up().await,
            }
        }
        if self.keeps.load(Ordering::Relaxed) {
            return;
        }
        let groups: Vec<_> = self.work.keys().copied().collect();
        for group in groups {
            self.aim(group, Goal::Released).await;
        }
    }

    async fn carry_out(&mut self, order: Order) {
        let Order { group, command } = order;
        let (goal, epoch) = match command {
            Command::Take { epoch } => (Some(Goal::Held), epoch),
            Command::Release { epoch } => (Some(Goal::Released), epoch),
            Command::Announce { epoch } => (None, epoch),
            // The arbiter's, not ours.
            Command::Ask { .. } => return,
        };
        if epoch < self.newest[group] {
            warn!(
                group,
                epoch = epoch.0,
                "an order for an old epoch is refused"
            );
            return;
        }
        self.newest[group] = epoch;
        let Some(goal) = goal else {
            self.announce(group);
            if let Some(work) = self.work.get_mut(&group) {
                work.announcements = announcements();
            }
            return;
        };
        self.aim(group, goal).await;
    }

    /// Begins to make a group's services what they shall be.
    async fn aim(&mut self, group: usize, goal: Goal) {
        let work = Work {
            epoch: self.newest[group],
            goal,
            missing: (0..self.groups[group].len()).collect(),
            announcements: match goal {
                Goal::Held => announcements(),
                Goal::Released => Vec::new(),
            },
            retry: None,
        };
        self.work.insert(group, work);
        self.pursue(group, FIRST_RETRY).await;
    }

    /// Does what is due of announcements and retries.
    async fn catch_up(&mut self) {
        let now = Instant::now();
        let groups: Vec<_> = self.work.keys().copied().collect();
        for group in groups {
            let Some(work) = self.work.get_mut(&group) else {
                continue;
            };
            let announce = work.announcements.last().is_some_and(|&at| at <= now);
            if announce {
                work.announcements.pop();
            }
            let retry = work.retry.take_if(|retry| retry.at <= now);
            if announce {
                self.announce(group);
            }
            if let Some(Retry { at: _, delay }) = retry {
                self.pursue(group, delay.saturating_mul(2).min(LAST_RETRY))
                    .await;
            }
        }
    }

    /// Works on every service that is not yet as it shall be: in order to take them, in reverse to
    /// release them. What fails is tried again after `delay`.
    async fn pursue(&mut self, group: usize, delay: Duration) {
        let Some(mut work) = self.work.remove(&group) else {
            return;
        };
        let Work { epoch, goal, .. } = work;
        let mut missing: Vec<_> = work.missing.iter().copied().collect();
        if goal == Goal::Released {
            missing.reverse();
        }
        for number in missing {
            let target = &mut self.groups[group][number];
            let result = match goal {
                Goal::Held => target.take(&self.netlink).await,
                Goal::Released => target.release(&self.netlink).await,
            };
            if result.is_ok() {
                work.missing.remove(&number);
                if goal == Goal::Held {
                    announce(&self.announcer, target);
                }
            }
            let step = StepDone {
                epoch,
                step: match goal {
                    Goal::Held => Step::Take,
                    Goal::Released => Step::Release,
                },
                service: number,
                done: clock::now(),
                error: result.err().map(|error| format!("{error:#}")),
            };
            log(target, &step);
            let news = News::Step(step);
            // Without a reader there is nobody to tell.
            let _ = self.reports.send(Report { group, news });
        }
        let whole = work.missing.is_empty();
        if !whole {
            work.retry = Some(Retry {
                at: Instant::now() + delay,
                delay,
            });
        }
        if goal == Goal::Held {
            let outcome = if whole {
                Input::TakeoverDone { group, epoch }
            } else {
                Input::TakeoverFailed { group, epoch }
            };
            // The clock thread outlives this one, but for a stop, when nobody needs to know.
            let _ = self.outcomes.send(outcome);
        }
        if goal == Goal::Held || !whole {
            self.work.insert(group, work);
        }
    }

    /// Announces the services of a group that are held.
    fn announce(&self, group: usize) {
        let Some(work) = self.work.get(&group) else {
            return;
        };
        for (number, target) in self.groups[group].iter().enumerate() {
            if work.goal == Goal::Held && !work.missing.contains(&number) {
                announce(&self.announcer, target);
            }
        }
    }
}

fn announce(announcer: &Announcer, target: &ServiceTarget) {
    if let Err(error) = target.announce(announcer) {
        warn!(%target, "cannot announce: {error}");
    }
}

fn log(target: &ServiceTarget, done: &StepDone) {
    let epoch = done.epoch.0;
    match (&done.error, done.step) {
        (None, Step::Take) => info!(epoch, %target, "taken"),
        (None, Step::Release) => info!(epoch, %target, "released"),
        (Some(error), Step::Take) => error!(epoch, %target, "cannot take: {error}"),
        (Some(error), Step::Release) => error!(epoch, %target, "cannot release: {error}"),
    }
}

fn announcements() -> Vec<Instant> {
    let now = Instant::now();
    ANNOUNCE_AGAIN
        .iter()
        .rev()
        .map(|&delay| now + delay)
        .collect()
}

impl Work {
    fn due(&self) -> Option<Instant> {
        let announcement = self.announcements.last().copied();
        let retry = self.retry.map(|retry| retry.at);
        announcement.into_iter().chain(retry).min()
    }
}
