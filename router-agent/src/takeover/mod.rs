//! Carries out what the cores decide: takes, announces and releases the service addresses of a
//! group, on a thread of its own.

mod address;

use std::{collections::BTreeMap, sync::mpsc::Sender, time::Duration};

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

/// What a held group still has to do, and when.
#[derive(Debug)]
struct Held {
    epoch: Epoch,
    /// When to announce again; the last entry comes first.
    announcements: Vec<Instant>,
    retry: Option<(Instant, Duration)>,
}

/// The takeover thread's state.
pub struct Engine {
    netlink: Netlink,
    announcer: Announcer,
    /// The services of each group, in the order in which they start.
    groups: Vec<Vec<ServiceTarget>>,
    held: BTreeMap<usize, Held>,
    /// Orders for an older epoch are refused.
    newest: Vec<Epoch>,
    outcomes: Sender<Input>,
    reports: UnboundedSender<Report>,
}

impl Engine {
    pub fn new(
        netlink: Netlink,
        announcer: Announcer,
        groups: Vec<Vec<ServiceTarget>>,
        outcomes: Sender<Input>,
        reports: UnboundedSender<Report>,
    ) -> Self {
        Self {
            netlink,
            announcer,
            held: BTreeMap::new(),
            newest: vec![Epoch::default(); groups.len()],
            groups,
            outcomes,
            reports,
        }
    }

    /// Carries out orders until their sender is gone, then releases what is still held.
    pub async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        loop {
            let due = self.held.values().filter_map(Held::due).min();
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
        let held: Vec<_> = self.held.keys().copied().collect();
        for group in held {
            self.release(group).await;
        }
    }

    async fn carry_out(&mut self, order: Order) {
        let Order { group, command } = order;
        let (Command::Take { epoch } | Command::Release { epoch } | Command::Announce { epoch }) =
            command;
        if epoch < self.newest[group] {
            warn!(
                group,
                epoch = epoch.0,
                "an order for an old epoch is refused"
            );
            return;
        }
        self.newest[group] = epoch;
        match command {
            Command::Take { epoch } => {
                let held = Held {
                    epoch,
                    announcements: Held::announcements(),
                    retry: None,
                };
                self.held.insert(group, held);
                self.take(group, FIRST_RETRY).await;
            }
            Command::Announce { epoch: _ } => {
                self.announce(group);
                if let Some(held) = self.held.get_mut(&group) {
                    held.announcements = Held::announcements();
                }
            }
            Command::Release { epoch: _ } => self.release(group).await,
        }
    }

    /// Does what is due of announcements and retries.
    async fn catch_up(&mut self) {
        let now = Instant::now();
        let groups: Vec<_> = self.held.keys().copied().collect();
        for group in groups {
            let Some(held) = self.held.get_mut(&group) else {
                continue;
            };
            let announce = held.announcements.last().is_some_and(|&at| at <= now);
            if announce {
                held.announcements.pop();
            }
            let retry = held.retry.take_if(|(at, _)| *at <= now);
            if announce {
                self.announce(group);
            }
            if let Some((_, delay)) = retry {
                self.take(group, delay.saturating_mul(2).min(LAST_RETRY))
                    .await;
            }
        }
    }

    /// Takes all services of a group; those it has already stay. If any fails, tries again after
    /// `delay`.
    async fn take(&mut self, group: usize, delay: Duration) {
        let Some(epoch) = self.held.get(&group).map(|held| held.epoch) else {
            return;
        };
        let mut failed = false;
        for (number, target) in self.groups[group].iter().enumerate() {
            let result = target.take(&self.netlink).await;
            match &result {
                Ok(()) => info!(epoch = epoch.0, %target, "taken"),
                Err(error) => error!(epoch = epoch.0, %target, "cannot take: {error:#}"),
            }
            failed |= result.is_err();
            self.tell(group, epoch, Step::Take, number, result.err());
            if let Err(error) = target.announce(&self.announcer) {
                warn!(epoch = epoch.0, %target, "cannot announce: {error}");
            }
        }
        let outcome = if failed {
            if let Some(held) = self.held.get_mut(&group) {
                held.retry = Some((Instant::now() + delay, delay));
            }
            Input::TakeoverFailed { group, epoch }
        } else {
            Input::TakeoverDone { group, epoch }
        };
        // The clock thread outlives this one, but for a stop, when nobody needs to know.
        let _ = self.outcomes.send(outcome);
    }

    fn announce(&self, group: usize) {
        for target in &self.groups[group] {
            if let Err(error) = target.announce(&self.announcer) {
                warn!(%target, "cannot announce: {error}");
            }
        }
    }

    async fn release(&mut self, group: usize) {
        let Some(Held { epoch, .. }) = self.held.remove(&group) else {
            return;
        };
        for (number, target) in self.groups[group].iter().enumerate().rev() {
            let result = target.release(&self.netlink).await;
            match &result {
                Ok(()) => info!(epoch = epoch.0, %target, "released"),
                Err(error) => error!(epoch = epoch.0, %target, "cannot release: {error:#}"),
            }
            self.tell(group, epoch, Step::Release, number, result.err());
        }
    }

    fn tell(
        &self,
        group: usize,
        epoch: Epoch,
        step: Step,
        service: usize,
        error: Option<anyhow::Error>,
    ) {
        let step = StepDone {
            epoch,
            step,
            service,
            done: clock::now(),
            error: error.map(|error| format!("{error:#}")),
        };
        let news = News::Step(step);
        // Without a reader there is nobody to tell.
        let _ = self.reports.send(Report { group, news });
    }
}

impl Held {
    fn announcements() -> Vec<Instant> {
        let now = Instant::now();
        ANNOUNCE_AGAIN
            .iter()
            .rev()
            .map(|&delay| now + delay)
            .collect()
    }

    fn due(&self) -> Option<Instant> {
        let announcement = self.announcements.last().copied();
        let retry = self.retry.map(|(at, _)| at);
        announcement.into_iter().chain(retry).min()
    }
}
