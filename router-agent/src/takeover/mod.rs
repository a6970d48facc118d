//! Carries out what the cores decide, on a thread of its own: takes what belongs to the active node,
//! sees that it stays, and releases it.
//!
//! What is due is the [`plan`]'s to say; here it is done, each step in a task of its own, so that a
//! slow one delays no other group.

mod address;
mod check;
pub mod command;
pub mod conntrack;
mod journal;
pub mod notify;
mod plan;
mod resource;
mod route;
mod script;
mod unit;

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
};

use anyhow::{Context as _, Error, Result};
use router_common::{identity::Epoch, time::BootTime};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender},
        watch,
    },
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::sleep,
};
use tracing::{error, info, warn};

pub use self::{
    address::ServiceTarget,
    journal::Journal,
    resource::{AwsTarget, Resource, Tools},
    route::RouteTarget,
    script::find as find_script,
};
use self::{
    check::Check,
    journal::Entry,
    plan::{Attempt, Condition, Deed, Goal, Outcome, Plan, Progress},
    resource::{Errand, Failure, Found},
};
use crate::{
    agent::{
        driver::Input,
        pulse::{BEAT, Pulse},
        report::{News, Report, Step, StepDone},
    },
    clock,
    duplicate::{Held, Word},
    monitor::Verdict,
};

/// What a core wants of its group's resources.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub group: usize,
    pub epoch: Epoch,
    pub task: Task,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Take,
    Release,
    Announce,
}

/// A group's resources as the agent begins.
pub struct GroupResources {
    pub name: String,
    pub resources: Vec<Resource>,
    /// Place of the check's verdict among its monitors; none if there is nothing to check.
    pub check: Option<usize>,
    /// An agent before this one held the group, and it goes on.
    pub is_active: bool,
}

struct Group {
    name: Arc<str>,
    resources: Vec<Arc<Resource>>,
    plan: Plan,
    /// Those of which the last attempt failed.
    doubtful: Vec<bool>,
    /// Read by its check.
    is_held: watch::Sender<bool>,
    check: Option<usize>,
    /// It holds what an agent before this one started and the configuration does not name.
    is_stranger: bool,
}

/// Whom the engine tells.
pub struct Ears {
    pub outcomes: Sender<Input>,
    pub reports: UnboundedSender<Report>,
    pub verdicts: UnboundedSender<Verdict>,
    pub addresses: UnboundedSender<Word>,
}

/// The takeover thread's state.
pub struct Engine {
    groups: Vec<Group>,
    tools: Arc<Tools>,
    journal: Journal,
    tasks: JoinSet<Ended>,
    under_way: HashMap<Id, UnderWay>,
    /// At the end, what is held stays held.
    keeps: Arc<AtomicBool>,
    pulse: Pulse,
    ears: Ears,
}

struct UnderWay {
    group: usize,
    attempt: Attempt,
    begun: BootTime,
    task: AbortHandle,
}

/// What a task brings back.
struct Ended {
    at: BootTime,
    result: Result<Found, Failure>,
}

impl Engine {
    pub fn new(
        groups: Vec<GroupResources>,
        tools: Tools,
        journal: Journal,
        keeps: Arc<AtomicBool>,
        pulse: Pulse,
        ears: Ears,
    ) -> Result<Self> {
        let mut groups = groups
            .into_iter()
            .map(|group| Group::new(group, &journal))
            .collect::<Result<Vec<_>>>()?;
        for entry in journal.entries() {
            let is_known = groups.iter().any(|group| group.has(entry));
            if !is_known {
                groups.push(Group::of_stranger(entry)?);
            }
        }
        Ok(Self {
            groups,
            tools: Arc::new(tools),
            journal,
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            keeps,
            pulse,
            ears,
        })
    }

    /// Carries out orders until their sender is gone, then tries once to release what is still held,
    /// unless it is to be kept.
    pub async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        self.begin_checks();
        loop {
            self.begin_what_is_due();
            let wait = self.next_wait();
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.carry_out(order),
                    None => break,
                },
                Some(ended) = self.tasks.join_next_with_id() => self.end(ended),
                () = wait => {}
            }
        }
        if self.keeps.load(Ordering::Relaxed) {
            return;
        }
        for group in 0..self.groups.len() {
            let epoch = self.groups[group].plan.epoch();
            self.aim(group, Goal::Released, epoch);
            self.groups[group].plan.retry_no_more();
        }
        while !self.groups.iter().all(|group| group.plan.is_let_go()) {
            self.begin_what_is_due();
            let wait = self.next_wait();
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => self.end(ended),
                () = wait => {}
            }
        }
    }

    fn begin_checks(&self) {
        for (number, group) in self.groups.iter().enumerate() {
            let Some(index) = group.check else {
                continue;
            };
            let check = Check {
                group: number,
                index,
                resources: group.resources.clone(),
                is_held: group.is_held.subscribe(),
                verdicts: self.ears.verdicts.clone(),
                reports: self.ears.reports.clone(),
            };
            tokio::spawn(check.run());
        }
    }

    fn next_wait(&self) -> impl Future<Output = ()> + use<> {
        let deadlines = self.groups.iter().filter_map(|g| g.plan.next_deadline());
        let wait = deadlines.min().map(|at| at.since(clock::now()));
        sleep(wait.unwrap_or(BEAT).min(BEAT))
    }

    fn carry_out(&mut self, order: Order) {
        let Order { group, epoch, task } = order;
        match task {
            Task::Take => self.aim(group, Goal::Held, epoch),
            Task::Release => self.aim(group, Goal::Released, epoch),
            Task::Announce => {
                let plan = &mut self.groups[group].plan;
                if plan.order_announcement(epoch, clock::now()).is_err() {
                    self.refuse(group, epoch);
                }
            }
        }
    }

    fn aim(&mut self, group: usize, goal: Goal, epoch: Epoch) {
        match self.groups[group].plan.order(goal, epoch) {
            Ok(broken_off) => {
                let holds = goal == Goal::Held;
                let is_held = &self.groups[group].is_held;
                is_held.send_if_modified(|held| mem::replace(held, holds) != holds);
                if goal == Goal::Released {
                    // It ends before this thread, and then nobody needs to know.
                    let _ = self.ears.addresses.send(Word::LetGo { group });
                }
                for under_way in self.under_way.values() {
                    if under_way.group == group && broken_off.contains(&under_way.attempt) {
                        under_way.task.abort();
                    }
                }
            }
            Err(plan::Outdated) => self.refuse(group, epoch),
        }
    }

    fn refuse(&self, group: usize, epoch: Epoch) {
        let Group { name, plan, .. } = &self.groups[group];
        warn!(
            group = &**name,
            epoch = epoch.0,
            newest = plan.epoch().0,
            "an order for an old epoch is refused"
        );
    }

    fn begin_what_is_due(&mut self) {
        let now = clock::now();
        self.pulse.beat(now);
        for group in 0..self.groups.len() {
            if self.groups[group].plan.announcement_is_due(now) {
                self.announce(group);
            }
            for attempt in self.groups[group].plan.begin(now) {
                self.begin(group, attempt, now);
            }
        }
    }

    fn begin(&mut self, group: usize, attempt: Attempt, now: BootTime) {
        let Group {
            name, resources, ..
        } = &self.groups[group];
        let (name, resource) = (Arc::clone(name), Arc::clone(&resources[attempt.resource]));
        let noted = match (attempt.deed, resource.entry(&name)) {
            (Deed::Take, Some(entry)) => self.journal.note(&entry),
            (Deed::Take | Deed::Verify | Deed::Release, _) => Ok(()),
        };
        let tools = Arc::clone(&self.tools);
        let task = self.tasks.spawn(async move {
            let errand = Errand {
                deed: attempt.deed,
                group: &name,
                epoch: attempt.epoch,
            };
            let result = match noted {
                Ok(()) => resource.carry_out(errand, &tools).await,
                // What is not noted is not started.
                Err(error) => Err(error.into()),
            };
            Ended {
                at: clock::now(),
                result,
            }
        });
        let under_way = UnderWay {
            group,
            attempt,
            begun: now,
            task: task.clone(),
        };
        self.under_way.insert(task.id(), under_way);
    }

    fn end(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, ended),
            // By a panic: of one that was broken off the plan knows no more.
            Err(error) => {
                let ended = Ended {
                    at: clock::now(),
                    result: Err(Failure::from(Error::msg(error.to_string()))),
                };
                (error.id(), ended)
            }
        };
        let Some(UnderWay {
            group,
            attempt,
            begun,
            task: _,
        }) = self.under_way.remove(&id)
        else {
            return;
        };
        let Ended { at, result } = ended;
        let outcome = result
            .as_ref()
            .map_or_else(Failure::outcome, |_| Outcome::Done);
        let members = &mut self.groups[group];
        let Some(progress) = members.plan.end(&attempt, outcome, at) else {
            return;
        };
        let resource = &members.resources[attempt.resource];
        if (attempt.deed, outcome) == (Deed::Release, Outcome::Done)
            && let Some(entry) = resource.entry(&members.name)
            && let Err(error) = self.journal.strike(&entry)
        {
            let (group, epoch) = (&*members.name, attempt.epoch.0);
            warn!(group, epoch, %resource, "{error:#}");
        }
        let doubtful = &mut members.doubtful[attempt.resource];
        let was_doubtful = mem::replace(doubtful, result.is_err());
        let taken = match (attempt.deed, &result, &**resource) {
            (Deed::Take, Ok(_), Resource::Address(target))
            | (Deed::Verify, Ok(Found::Lost), Resource::Address(target)) => Some(Held {
                group,
                resource: attempt.resource,
                service: target.to_string(),
                link: target.interface(),
                address: target.address().net.addr(),
            }),
            _ => None,
        };
        let is_news = match (attempt.deed, &result) {
            (Deed::Verify, Ok(Found::AsExpected)) => was_doubtful,
            (Deed::Verify, Ok(Found::Lost) | Err(_)) | (Deed::Take | Deed::Release, _) => true,
        };
        if is_news {
            log(&members.name, resource, &attempt, &result);
            let step = StepDone {
                epoch: attempt.epoch,
                step: match attempt.deed {
                    Deed::Take => Step::Take,
                    Deed::Verify => Step::Verify,
                    Deed::Release => Step::Release,
                },
                resource: attempt.resource,
                kind: resource.kind(),
                started: begun,
                done: at,
                held: members.plan.is_held(attempt.resource),
                error: result.err().map(|failure| format!("{:#}", failure.error)),
            };
            if !members.is_stranger {
                let news = News::Step(step);
                // Without a reader there is nobody to tell.
                let _ = self.ears.reports.send(Report { group, news });
            }
        }
        if let Some(held) = taken {
            members.plan.schedule_announcements(at);
            let _ = self.ears.addresses.send(Word::Held(held));
        }
        let epoch = attempt.epoch;
        let outcome = match progress {
            Progress::Whole => Input::TakeoverDone { group, epoch },
            Progress::Failed => Input::TakeoverFailed { group, epoch },
            Progress::Neither => return,
        };
        // The clock thread outlives this one, but for a stop, when nobody needs to know.
        let _ = self.ears.outcomes.send(outcome);
    }

    /// Announces the addresses of a group that are held.
    fn announce(&self, group: usize) {
        let Group {
            resources, plan, ..
        } = &self.groups[group];
        for (number, resource) in resources.iter().enumerate() {
            if plan.is_held(number) {
                resource.announce(&self.tools);
            }
        }
    }
}

impl Group {
    fn new(group: GroupResources, journal: &Journal) -> Result<Self> {
        let GroupResources {
            name,
            resources,
            check,
            is_active,
        } = group;
        let condition = |resource: &Resource| {
            let may_be_there = resource
                .entry(&name)
                .is_some_and(|entry| journal.contains(&entry));
            // Of the rest, all was cleared that is not to go on.
            if is_active || may_be_there {
                Condition::Unknown
            } else {
                Condition::Absent
            }
        };
        let known: Vec<_> = resources
            .iter()
            .enumerate()
            .map(|(place, resource)| (resource.spec(place), condition(resource)))
            .collect();
        let goal = (!is_active).then_some(Goal::Released);
        Ok(Self {
            plan: Plan::new(&known, goal, random()?),
            doubtful: vec![false; resources.len()],
            resources: resources.into_iter().map(Arc::new).collect(),
            name: name.into(),
            is_held: watch::Sender::new(is_active),
            check,
            is_stranger: false,
        })
    }

    fn of_stranger(entry: &Entry) -> Result<Self> {
        let resource = Resource::from(&entry.started);
        let known = [(resource.spec(0), Condition::Unknown)];
        Ok(Self {
            plan: Plan::new(&known, Some(Goal::Released), random()?),
            doubtful: vec![false],
            resources: vec![Arc::new(resource)],
            name: entry.group.as_str().into(),
            is_held: watch::Sender::default(),
            check: None,
            is_stranger: true,
        })
    }

    fn has(&self, entry: &Entry) -> bool {
        let mut resources = self.resources.iter();
        resources.any(|resource| resource.entry(&self.name).as_ref() == Some(entry))
    }
}

fn random() -> Result<u64> {
    getrandom::u64().context("cannot draw a random number")
}

fn log(group: &str, resource: &Resource, attempt: &Attempt, result: &Result<Found, Failure>) {
    let epoch = attempt.epoch.0;
    match (attempt.deed, result) {
        (Deed::Take, Ok(_)) => info!(group, epoch, %resource, "taken"),
        (Deed::Release, Ok(_)) => info!(group, epoch, %resource, "released"),
        (Deed::Verify, Ok(Found::AsExpected)) => info!(group, epoch, %resource, "is seen again"),
        (Deed::Verify, Ok(Found::Lost)) => {
            warn!(group, epoch, %resource, "had been taken away or changed, and was taken again");
        }
        (Deed::Take, Err(Failure { error, .. })) => {
            error!(group, epoch, %resource, "cannot take: {error:#}");
        }
        (Deed::Release, Err(Failure { error, .. })) => {
            error!(group, epoch, %resource, "cannot release: {error:#}");
        }
        (Deed::Verify, Err(Failure { error, .. })) => {
            warn!(group, epoch, %resource, "cannot verify: {error:#}");
        }
    }
}
