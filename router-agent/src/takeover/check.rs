//! Sees again and again whether this node could take a group's resources, so that a failover is not
//! the first to find out.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    time::sleep,
};

use super::resource::{Failure, Resource};
use crate::{
    agent::report::{News, Report},
    cloud::CloudError,
    control::protocol::MonitorState,
    monitor::Verdict,
};

/// Also keeps the connection to an API open.
const INTERVAL: Duration = Duration::from_secs(30);
/// What failed is looked at again after this, then twice as long, and so on, each with up to as much
/// by chance. The first tries come quickly: a node that boots may ask before the network, or who gives
/// it its credentials, answers, and is no standby until then.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The check of one group.
pub struct Check {
    pub group: usize,
    /// Place of its verdict among the group's monitors.
    pub index: usize,
    pub resources: Vec<Arc<Resource>>,
    /// While the group is held its resources are verified instead. When it is released they are checked at once.
    pub is_held: watch::Receiver<bool>,
    pub verdicts: UnboundedSender<Verdict>,
    pub reports: UnboundedSender<Report>,
}

impl Check {
    /// Goes on until nobody listens.
    pub async fn run(mut self) {
        let mut errors = vec![None; self.resources.len()];
        let mut state = MonitorState::Initializing;
        let retries = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(LAST_RETRY)
            .without_max_times()
            .with_jitter();
        let mut pauses = retries.build();
        loop {
            if self.is_held.wait_for(|is_held| !is_held).await.is_err() {
                return;
            }
            let found = self.look(&mut errors).await;
            if found != state {
                state = found;
                let Self { group, index, .. } = self;
                let verdict = Verdict {
                    group,
                    index,
                    state,
                    // Each service says so itself.
                    why: None,
                };
                if self.verdicts.send(verdict).is_err() {
                    return;
                }
            }
            let is_well = errors.iter().all(Option::is_none);
            let pause = if is_well {
                pauses = retries.build();
                INTERVAL
            } else {
                pauses.next().unwrap_or(LAST_RETRY)
            };
            // Also if it was taken and released again meanwhile.
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.is_held.changed() => if changed.is_err() {
                    return;
                }
            }
        }
    }

    /// Checks all; what this node cannot do counts, what nobody can do now is only told.
    async fn look(&self, errors: &mut [Option<String>]) -> MonitorState {
        let mut state = MonitorState::Reachable;
        let mut at_aws = None;
        for (number, resource) in self.resources.iter().enumerate() {
            // What is taken meanwhile is no longer to be looked at as a standby's.
            if *self.is_held.borrow() {
                break;
            }
            let result = match (&**resource, &at_aws) {
                // Each would wait as long for the same.
                (Resource::Aws(_), Some(error)) => Err(Failure::from(CloudError::clone(error))),
                _ => resource.check().await,
            };
            if let Err(failure) = &result
                && let Some(error) = failure.error.downcast_ref::<CloudError>()
                && error.concerns_all()
            {
                at_aws = Some(error.clone());
            }
            if let Err(Failure {
                is_everywhere: false,
                ..
            }) = result
            {
                state = MonitorState::Unreachable;
            }
            let error = result.err().map(|failure| format!("{:#}", failure.error));
            // A takeover that began meanwhile has newer words.
            if errors[number] != error && !*self.is_held.borrow() {
                errors[number].clone_from(&error);
                let news = News::Check {
                    resource: number,
                    error,
                };
                let group = self.group;
                // Without a reader there is nobody to tell.
                let _ = self.reports.send(Report { group, news });
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::{sync::mpsc, task::yield_now, time::timeout};

    use super::*;
    use crate::{config::ScriptCall, control::testing::Scratch};

    /// More than any of this takes, and less than the interval.
    const LONG: Duration = Duration::from_secs(10);

    /// Begins to check a script of this name or at this place; what is heard of it.
    fn begin(script: &str, is_held: &watch::Sender<bool>) -> mpsc::UnboundedReceiver<Verdict> {
        let (verdicts, heard) = mpsc::unbounded_channel();
        let call = ScriptCall {
            name: script.into(),
            arguments: Vec::new(),
        };
        let check = Check {
            group: 0,
            index: 0,
            resources: vec![Arc::new(Resource::script(call))],
            is_held: is_held.subscribe(),
            verdicts,
            reports: mpsc::unbounded_channel().0,
        };
        tokio::spawn(check.run());
        heard
    }

    #[tokio::test]
    async fn what_is_released_is_checked_at_once() {
        let is_held = watch::Sender::new(true);
        let mut heard = begin("there-is-no-such-script", &is_held);
        // It sees that the group is held.
        yield_now().await;
        assert!(heard.try_recv().is_err());
        is_held.send_replace(false);
        let verdict = timeout(LONG, heard.recv()).await.unwrap().unwrap();
        assert_eq!(verdict.state, MonitorState::Unreachable);
    }

    #[tokio::test]
    async fn what_was_held_for_less_than_a_pause_is_checked_at_once() {
        let is_held = watch::Sender::new(false);
        let directory = Scratch::new();
        let script = directory.path().join("script");
        symlink(std::env::current_exe().unwrap(), &script).unwrap();
        let mut heard = begin(script.to_str().unwrap(), &is_held);
        let verdict = timeout(LONG, heard.recv()).await.unwrap().unwrap();
        assert_eq!(verdict.state, MonitorState::Reachable);
        fs::remove_file(&script).unwrap();
        is_held.send_replace(true);
        is_held.send_replace(false);
        let verdict = timeout(LONG, heard.recv()).await.unwrap().unwrap();
        assert_eq!(verdict.state, MonitorState::Unreachable);
    }
}
