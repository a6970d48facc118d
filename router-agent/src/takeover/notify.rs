//! Tells a script of the operator's each change of state, in keepalived's manner.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinHandle};
use tracing::{info, warn};

use super::command::Call;
use crate::cluster::{State, Transition};

const LIMIT: Duration = Duration::from_secs(30);
/// Changes that may wait for a slow script.
const LONGEST_QUEUE: usize = 64;

/// Runs a group's script, one change after the other.
#[derive(Debug)]
pub struct Notifier {
    group: String,
    waiting: Arc<Waiting>,
    telling: JoinHandle<()>,
    /// What keepalived's script would have been told last.
    told: Option<&'static str>,
}

impl Notifier {
    /// `priority` is the one that keepalived's scripts expect: higher for the node that is preferred.
    pub fn start(script: PathBuf, group: String, node: String, priority: u8) -> Self {
        let waiting = Arc::<Waiting>::default();
        let of = Arc::clone(&waiting);
        let telling = tokio::spawn(tell_each(of, script, group.clone(), node, priority));
        Self {
            group,
            waiting,
            telling,
            told: None,
        }
    }

    /// Ends when the script has heard all.
    pub async fn finish(self) {
        self.waiting.end();
        if self.telling.await.is_err() {
            warn!("the notify script was not told all");
        }
    }

    pub fn tell(&mut self, change: Transition) {
        let word = keepalived_word(change.to);
        if self.told.replace(word) == Some(word) {
            return;
        }
        if let Some(left_out) = self.waiting.push(change) {
            warn!(
                group = self.group,
                epoch = left_out.epoch.0,
                change = %left_out,
                "the notify script is too slow, and is not told"
            );
        }
    }
}

/// Changes that the script has not heard of, the oldest first.
#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<Queue>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Transition>,
    /// No more will come.
    is_over: bool,
}

impl Waiting {
    /// Takes in a change. If there are too many, the one before it is left out, and not this: what the script
    /// hears last is how things are.
    fn push(&self, change: Transition) -> Option<Transition> {
        let mut queue = self.queue();
        let left_out = if queue.changes.len() < LONGEST_QUEUE {
            None
        } else {
            queue.changes.pop_back()
        };
        queue.changes.push_back(change);
        self.more.notify_one();
        left_out
    }

    fn end(&self) {
        self.queue().is_over = true;
        self.more.notify_one();
    }

    /// Waits for the next; none when no more will come.
    async fn next(&self) -> Option<Transition> {
        loop {
            {
                let mut queue = self.queue();
                let next = queue.changes.pop_front();
                if next.is_some() || queue.is_over {
                    return next;
                }
            }
            self.more.notified().await;
        }
    }

    /// A panic elsewhere leaves whole changes behind.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tell_each(
    waiting: Arc<Waiting>,
    script: PathBuf,
    group: String,
    node: String,
    priority: u8,
) {
    while let Some(change) = waiting.next().await {
        let Transition {
            at: _,
            from,
            to,
            epoch,
            cause,
            last_heard: _,
        } = change;
        let word = keepalived_word(to);
        let priority = priority.to_string();
        let call = Call {
            program: script.clone(),
            arguments: ["GROUP", &group, word, &priority]
                .map(ToOwned::to_owned)
                .to_vec(),
            environment: vec![
                ("ROUTER_GROUP", group.clone()),
                ("ROUTER_NODE", node.clone()),
                ("ROUTER_STATE", to.to_string().to_lowercase()),
                ("ROUTER_FORMER_STATE", from.to_string().to_lowercase()),
                ("ROUTER_EPOCH", epoch.0.to_string()),
                ("ROUTER_CAUSE", cause.to_string()),
            ],
            limit: LIMIT,
        };
        match call.run().await {
            Ok(ended) if ended.status.success() => {
                info!(group, epoch = epoch.0, word, "notified: {ended}");
            }
            Ok(ended) => warn!(
                group,
                epoch = epoch.0,
                word,
                "{}: {ended}",
                script.display()
            ),
            Err(error) => warn!(group, epoch = epoch.0, word, "{error}"),
        }
    }
}

const fn keepalived_word(state: State) -> &'static str {
    match state {
        State::Active | State::Draining => "MASTER",
        State::Initializing | State::Standby | State::Candidate => "BACKUP",
        State::Fault => "FAULT",
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use router_common::{identity::Epoch, time::BootTime};

    use super::*;
    use crate::{cluster::Cause, control::testing::Scratch};

    fn change(to: State, epoch: u32) -> Transition {
        Transition {
            at: BootTime::default(),
            from: State::Standby,
            to,
            epoch: Epoch(epoch),
            cause: Cause::Stopping,
            last_heard: BootTime::default(),
        }
    }

    #[tokio::test]
    async fn a_slow_script_hears_last_how_things_are() {
        let directory = Scratch::new();
        let [script, told] = ["script", "told"].map(|name| directory.path().join(name));
        let text = format!("#!/bin/sh\necho $3 $ROUTER_EPOCH >> {}\n", told.display());
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut notifier = Notifier::start(script, "g".into(), "vyatta-a".into(), 100);
        // The script is not run before this test waits for something.
        for epoch in 1..=101 {
            let to = [State::Standby, State::Active][epoch as usize % 2];
            notifier.tell(change(to, epoch));
        }
        notifier.finish().await;
        let told = fs::read_to_string(told).unwrap();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), LONGEST_QUEUE);
        assert_eq!(lines[..2], ["MASTER 1", "BACKUP 2"]);
        assert_eq!(lines[LONGEST_QUEUE - 1], "MASTER 101");
    }
}
