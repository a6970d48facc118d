//! A commit, which takes longer the more connections there are: it goes on when nobody waits for it any
//! more, and is not asked for again meanwhile.

use anyhow::Result;
use router_common::identity::Epoch;
use tokio::{sync::Mutex, task::JoinHandle};

use super::super::command::{Call, CallError, Ended};

/// The commit that was not seen to end yet.
#[derive(Default)]
pub struct Commits(Mutex<Option<UnderWay>>);

struct UnderWay {
    epoch: Epoch,
    /// In a task of its own, which no wait that is broken off takes along.
    client: JoinHandle<Result<Ended, CallError>>,
}

impl Commits {
    /// Has the daemon commit by `call`, whose client ends when that is done, and waits for it. One of
    /// another epoch is waited for first: the peer has told more since.
    pub async fn commit(&self, epoch: Epoch, call: Call) -> Result<Ended> {
        let mut under_way = self.0.lock().await;
        loop {
            let commit = under_way.get_or_insert_with(|| {
                let call = call.clone();
                let client = tokio::spawn(async move { call.run().await });
                UnderWay { epoch, client }
            });
            let ended = (&mut commit.client).await;
            let is_wanted = commit.epoch == epoch;
            *under_way = None;
            if is_wanted {
                return Ok(ended??);
            }
        }
    }
}

/// How many connections that the peer has told of are kept, by the daemon's statistics.
pub fn heard(statistics: &str) -> Option<u64> {
    let (_, external) = statistics.split_once("cache external:")?;
    let (_, count) = external.split_once("current active connections:")?;
    count.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process, time::Duration};

    use futures::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn one_that_goes_on_is_waited_for_and_not_asked_for_again() {
        let directory = env::temp_dir().join(format!("router-commits-{}", process::id()));
        fs::create_dir(&directory).unwrap();
        let (asked, done) = (directory.join("asked"), directory.join("done"));
        let client = Call {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".into(),
                format!(
                    "cd {}; echo >> asked; until [ -e done ]; do sleep 0.01; done",
                    directory.display()
                ),
            ],
            environment: Vec::new(),
            limit: Duration::from_mins(1),
        };
        let times = || fs::read_to_string(&asked).map_or(0, |lines| lines.len());
        let commits = Commits::default();
        for epoch in [1, 1, 2] {
            let wait = Box::pin(commits.commit(Epoch(epoch), client.clone()));
            assert!(poll_immediate(wait).await.is_none());
            while times() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        fs::write(&done, "").unwrap();
        for (epoch, times_asked) in [(1, 1), (2, 2)] {
            let ended = commits.commit(Epoch(epoch), client.clone()).await;
            assert!(ended.unwrap().status.success());
            assert_eq!(times(), times_asked);
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
