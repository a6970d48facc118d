//! The agent's threads: who starts one hears of its end.

use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc::UnboundedSender;
use tracing::error;

/// Tells of a thread's end when it is dropped, also by a panic.
struct TellsEnd {
    thread: &'static str,
    to: UnboundedSender<&'static str>,
}

impl Drop for TellsEnd {
    fn drop(&mut self) {
        // Nobody listens while the agent stops.
        let _ = self.to.send(self.thread);
    }
}

pub fn spawn(
    name: &'static str,
    ended: &UnboundedSender<&'static str>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let tells_end = TellsEnd {
        thread: name,
        to: ended.clone(),
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _tells_end = tells_end;
            work();
        })
        .with_context(|| format!("cannot start thread {name}"))
}

pub async fn join(threads: Vec<JoinHandle<()>>) {
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            if thread.join().is_err() {
                error!("a thread had panicked");
            }
        }
    });
    if joined.await.is_err() {
        error!("the threads could not be waited for");
    }
}
