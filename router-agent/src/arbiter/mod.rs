//! Asking the arbiter: etcd, on a thread of its own, so that nothing that decides waits for it.
//!
//! `record.rs` has the form in which a record lies there, `etcd.rs` the requests, `failure.rs` what
//! can become of them, and `health.rs` what of that is told to operators. What an answer means the
//! core decides.

mod connect;
mod etcd;
mod failure;
mod health;
pub mod record;

use std::{
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

pub use self::{
    connect::{Unusable, client},
    etcd::{Etcd, Reply},
    failure::{Failure, Kind},
    health::{Exchange, Health, Times},
};
use crate::{
    agent::{
        driver::Input,
        report::{News, Report},
    },
    clock,
    cluster::{Answer, Request},
    config::{self, Group},
};

/// After this time without a question the arbiter is asked all the same: its connection stays warm,
/// and an operator sees its failure before it is needed.
const IDLE: Duration = Duration::from_secs(2);

/// Where the record of a group lies. The names of the nodes are part of it: groups of different
/// clusters have equal names easily.
pub fn key(etcd: &config::Etcd, group: &Group) -> String {
    let Group {
        name,
        primary,
        secondary,
        ..
    } = group;
    format!("{}/{primary}+{secondary}/{name}", etcd.prefix)
}

/// A core's question. A newer one of the same group supersedes it.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub group: usize,
    pub number: u64,
    pub request: Request,
}

/// Asks the questions of all groups, each group's by itself.
pub struct Desk {
    etcd: Arc<Etcd>,
    groups: Vec<Line>,
    answers: Sender<Input>,
    reports: UnboundedSender<Report>,
}

/// A group's way to the arbiter.
struct Line {
    key: Arc<str>,
    asking: Option<JoinHandle<()>>,
    /// When to ask without a question.
    idle_at: Instant,
}

impl Desk {
    /// `keys` are those of the groups, in their order.
    pub fn new(
        etcd: Etcd,
        keys: Vec<String>,
        answers: Sender<Input>,
        reports: UnboundedSender<Report>,
    ) -> Self {
        let idle_at = Instant::now();
        Self {
            etcd: Arc::new(etcd),
            groups: keys
                .into_iter()
                .map(|key| Line {
                    key: key.into(),
                    asking: None,
                    idle_at,
                })
                .collect(),
            answers,
            reports,
        }
    }

    /// Works until nobody can ask any more.
    pub async fn run(mut self, mut questions: UnboundedReceiver<Question>) {
        loop {
            let idle_at = self.groups.iter().map(|line| line.idle_at).min();
            let timer = async {
                match idle_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                question = questions.recv() => match question {
                    Some(Question { group, number, request }) => {
                        self.ask(group, request, Some(number));
                    }
                    None => return,
                },
                () = timer => self.ask_idle(),
            }
        }
    }

    fn ask_idle(&mut self) {
        let now = Instant::now();
        for group in 0..self.groups.len() {
            let line = &mut self.groups[group];
            if line.idle_at > now {
                continue;
            }
            // One that is still being asked will tell as well.
            if line.asking.as_ref().is_none_or(JoinHandle::is_finished) {
                self.ask(group, Request::Read, None);
            } else {
                line.idle_at = now + IDLE;
            }
        }
    }

    /// Without a number only the health is noted.
    fn ask(&mut self, group: usize, request: Request, number: Option<u64>) {
        let line = &mut self.groups[group];
        line.idle_at = Instant::now() + IDLE;
        if let Some(superseded) = line.asking.take() {
            superseded.abort();
        }
        let (etcd, key) = (Arc::clone(&self.etcd), Arc::clone(&line.key));
        let (answers, reports) = (self.answers.clone(), self.reports.clone());
        line.asking = Some(tokio::spawn(async move {
            let Reply {
                sent,
                endpoint,
                outcome,
            } = etcd.ask(&key, &request).await;
            if let Some(number) = number {
                let answer = match &outcome {
                    Ok(answer) => *answer,
                    Err(failure) => Answer::Failed(failure.kind.fault()),
                };
                // Either receiver is gone only while the agent stops.
                let _ = answers.send(Input::Arbiter {
                    group,
                    number,
                    sent,
                    answer,
                });
            }
            let news = News::Arbiter(Exchange {
                endpoint,
                sent,
                ended: clock::now(),
                failure: outcome.err(),
            });
            let _ = reports.send(Report { group, news });
        }));
    }
}
