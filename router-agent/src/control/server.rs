//! The agent's end of the control socket.
//!
//! A client can cost the agent little: a bounded line, a bounded time, a bounded number of
//! neighbours. Further clients wait: those that may change something in the listen backlog, the others
//! behind it, so that nobody who may only look is before one who may do more.

mod bind;
mod conversation;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    net::UnixListener,
    sync::{Semaphore, oneshot},
    task::JoinSet,
    time::sleep,
};

use super::{
    permission::Access,
    protocol::{
        ConfigurationStatus, Configured, Configuring, Force, ForceBegun, HeartbeatStatus,
        InterfaceStatus, LogLine, LogWanted, Rotation, SessionRotation, Status, TunnelStatus,
    },
};
use crate::{cluster::Refusal, config::Secrets};

pub use bind::bind;

/// Where the server takes its answers from. The methods are called on the runtime's threads and
/// must not block.
pub trait Source {
    fn status(&self) -> Status;
    fn tunnels(&self) -> Vec<TunnelStatus>;
    fn interfaces(&self) -> Vec<InterfaceStatus>;
    fn heartbeat(&self) -> Vec<HeartbeatStatus>;
    /// Makes a step of the change of the secret; how far each session is then, or why it cannot be.
    fn rotate(&self, rotation: Rotation) -> BoxFuture<'_, Result<Vec<SessionRotation>, String>>;
    /// Has a group moved. What is begun, and whether that is refused by the one who decides.
    fn force(&self, force: &Force) -> Result<(ForceBegun, oneshot::Receiver<Verdict>), String>;
    fn configuration(&self, secrets: Secrets, with_defaults: bool) -> ConfigurationStatus;
    /// Makes a step of a change of the configuration, or says why it cannot be.
    fn configure(&self, step: Configuring) -> BoxFuture<'_, Result<Step, String>>;
    /// Changes what is logged, or says why not.
    fn set_log_level(&self, level: &str) -> Result<(), String>;
    fn log(&self, wanted: &LogWanted) -> Vec<LogLine>;
    /// Has the counters of a tunnel, or of all, shown from now on; which they are.
    fn clear_counters(&self, tunnel: Option<&str>) -> Result<Vec<String>, String>;
    /// Has the counters of all sessions shown from now on; which they are.
    fn clear_heartbeat_counters(&self) -> Result<Vec<String>, String>;
}

/// Nothing was done if it is a refusal.
pub type Verdict = Result<(), Refusal>;

/// What a step of a change of the configuration comes to.
pub struct Step {
    pub configured: Configured,
    /// What is to happen when the client has its answer.
    pub afterwards: Option<Afterwards>,
}

pub type Afterwards = Box<dyn FnOnce() + Send>;

/// A source as connections share it.
pub type SharedSource = Arc<dyn Source + Send + Sync>;

/// What a client may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients served at once that may change something, and as many that may only look.
    pub clients: NonZeroUsize,
    /// Clients that wait to look. Further ones are turned away.
    pub waiting: usize,
    /// Length of a request, without the newline.
    pub request_bytes: usize,
    /// The same, of a client that may change the configuration, which a request can hold whole.
    pub change_bytes: usize,
    /// Time for a request to arrive whole, and for a client to stay silent.
    pub read: Duration,
    /// Time for a client to take a response.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: const { NonZeroUsize::new(64).unwrap() },
            waiting: 128,
            request_bytes: 64 * 1024,
            // The largest configuration, with an escape for every other character.
            change_bytes: 16 * 1024 * 1024,
            read: Duration::from_secs(5),
            write: Duration::from_secs(5),
        }
    }
}

/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves clients until dropped; open connections end with it.
pub async fn serve(listener: UnixListener, access: Access, source: SharedSource) {
    serve_within(Limits::default(), listener, access, source).await;
}

/// As [`serve`], with other limits.
pub async fn serve_within(
    limits: Limits,
    listener: UnixListener,
    access: Access,
    source: SharedSource,
) {
    let access = Arc::new(access);
    let [changing, looking] = [(); 2].map(|()| Arc::new(Semaphore::new(limits.clients.get())));
    let waiting = Arc::new(Semaphore::new(limits.waiting));
    let mut clients = JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&changing).acquire_owned().await else {
            return;
        };
        while clients.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                // A stranger keeps no place.
                let Some(client) = conversation::admit(&stream, &access) else {
                    continue;
                };
                let turn = if client.may_change() {
                    None
                } else if let Ok(turn) = Arc::clone(&waiting).try_acquire_owned() {
                    Some(turn)
                } else {
                    conversation::turn_away(&stream);
                    continue;
                };
                let (source, looking) = (Arc::clone(&source), Arc::clone(&looking));
                clients.spawn(async move {
                    let slot = match turn {
                        None => Ok(slot),
                        Some(turn) => {
                            drop(slot);
                            let slot = looking.acquire_owned().await;
                            drop(turn);
                            slot
                        }
                    };
                    if let Err(error) = conversation::hold(stream, client, &*source, limits).await {
                        tracing::debug!(%error, "a control client went away");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control client");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
