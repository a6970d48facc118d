//! Tells a script of the operator's each change of state, in keepalived's manner.

use std::{path::PathBuf, time::Duration};

use tokio::{
    sync::mpsc::{Receiver, Sender, channel, error::TrySendError},
    task::JoinHandle,
};
use tracing::{info, warn};

use super::command::Call;
use crate::cluster::{State, Transition};

const LIMIT: Duration = Duration::from_secs(30);
/// Changes that may wait for a slow script.
const WAITING: usize = 64;

/// Runs a group's script, one change after the other.
#[derive(Debug)]
pub struct Notifier {
    group: String,
    changes: Sender<Transition>,
    telling: JoinHandle<()>,
    /// What keepalived's script would have been told last.
    told: Option<&'static str>,
}

impl Notifier {
    /// `priority` is the one that keepalived's scripts expect: higher for the node that is preferred.
    pub fn start(script: PathBuf, group: String, node: String, priority: u8) -> Self {
        let (changes, waiting) = channel(WAITING);
        let telling = tokio::spawn(tell_each(waiting, script, group.clone(), node, priority));
        Self {
            group,
            changes,
            telling,
            told: None,
        }
    }

    /// Ends when the script has heard all.
    pub async fn finish(self) {
        drop(self.changes);
        if self.telling.await.is_err() {
            warn!("the notify script was not told all");
        }
    }

    pub fn tell(&mut self, change: Transition) {
        let word = keepalived_word(change.to);
        if self.told.replace(word) == Some(word) {
            return;
        }
        match self.changes.try_send(change) {
            Ok(()) => {}
            Err(TrySendError::Full(change) | TrySendError::Closed(change)) => {
                warn!(
                    group = self.group,
                    epoch = change.epoch.0,
                    %change,
                    "the notify script is too slow, and is not told"
                );
            }
        }
    }
}

async fn tell_each(
    mut changes: Receiver<Transition>,
    script: PathBuf,
    group: String,
    node: String,
    priority: u8,
) {
    while let Some(change) = changes.recv().await {
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
