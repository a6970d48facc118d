//! What ends an agent: signals, another configuration, and one that was not confirmed.

use std::time::Duration;

use anyhow::Result;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
    time::sleep,
};
use tracing::error;

use super::{
    Ending, board,
    configuration::Configuration,
    succession::{self, Succession},
};
use crate::clock;

/// The signals that mean something to an agent.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    detach: Signal,
    reload: Signal,
}

impl Signals {
    pub fn catch() -> Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            detach: signal(SignalKind::user_defined2())?,
            reload: signal(SignalKind::hangup())?,
        };
        succession::admit_signals()?;
        Ok(signals)
    }

    /// Comes when an orderly stop is asked for.
    pub async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "asked to terminate",
            _ = self.interrupt.recv() => "interrupted",
        }
    }
}

/// Comes when the agent is to end: why, and how.
pub async fn ending(
    signals: &mut Signals,
    configuration: &Configuration,
    live: &board::Facts,
    successors: &mut UnboundedReceiver<Succession>,
) -> (&'static str, Ending) {
    const ANOTHER: &str = "for another configuration";
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return ("asked to terminate", Ending::Leave),
            _ = signals.interrupt.recv() => return ("interrupted", Ending::Leave),
            _ = signals.detach.recv() => return ("asked to detach", Ending::Detach),
            Some(by) = successors.recv() => return (ANOTHER, Ending::Succeed(by)),
            _ = signals.reload.recv() => match configuration.reload(live).await {
                Ok(Some(by)) => return (ANOTHER, Ending::Succeed(by)),
                Ok(None) => {}
                Err(error) => error!("the configuration stays as it is: {error:#}"),
            },
            () = unconfirmed(configuration) => {
                let by = configuration.way_back("it was not confirmed in time");
                return ("the configuration was not confirmed", Ending::Succeed(by));
            }
        }
    }
}

/// Comes when a configuration that waits to be confirmed has not been. The wait looks again now and
/// then, because it may be confirmed meanwhile, and because a timer does not count what the machine
/// sleeps.
async fn unconfirmed(configuration: &Configuration) {
    const LOOK: Duration = Duration::from_millis(200);
    loop {
        let until = configuration.unconfirmed_until();
        if until.is_some_and(|until| clock::now() >= until) {
            return;
        }
        sleep(LOOK).await;
    }
}
