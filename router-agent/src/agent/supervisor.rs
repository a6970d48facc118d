//! Tells systemd, or who else follows sd_notify(3), how the agent is. It waits for a supervisor that
//! hangs on a thread of its own: the agent's work does not.

use std::{
    env, slice,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tracing::{error, info, warn};

use super::{
    Ending,
    board::Board,
    pulse::{BEAT, Pulse, stuck},
};
use crate::{
    clock,
    control::{protocol::GroupStatus, server::Source as _},
};

/// Between two looks at the agent, where no watchdog asks for more.
const LOOK: Duration = Duration::from_secs(2);
/// A stop may take so much longer from each moment at which the agent still releases what it held.
const LONGER: Duration = Duration::from_mins(1);

/// The way to a supervisor, if there is one.
pub struct Supervisor {
    ending: Option<Sender<Ends>>,
}

/// How the agent ends, as far as a supervisor minds.
enum Ends {
    Stops,
    /// Another one takes its place in the same process.
    IsSucceeded,
}

impl Supervisor {
    /// Tells it from now on that the agent runs, and feeds its watchdog while the loops of `pulses`
    /// go round. At the end it asks for time as long as that of `releasing` does.
    pub fn tell(board: Arc<Board>, pulses: Vec<Pulse>, releasing: Pulse) -> Self {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Self { ending: None };
        }
        let (ending, ends) = channel();
        let look = Look {
            board,
            pulses,
            releasing,
            longest: sd_notify::watchdog_enabled().map(|limit| (limit / 2).max(2 * BEAT)),
        };
        let started = thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || look.run(&ends));
        // The agent works all the same, until its supervisor loses patience.
        if let Err(error) = started {
            error!(%error, "cannot start thread supervisor: nobody is told that the agent runs");
        }
        Self {
            ending: Some(ending),
        }
    }

    /// It has ended when this is dropped.
    pub fn agent_ends(&self, how: &Ending) {
        let ends = match how {
            Ending::Leave | Ending::Detach => Ends::Stops,
            Ending::Succeed(_) => Ends::IsSucceeded,
        };
        if let Some(ending) = &self.ending {
            // The thread is gone only if it had panicked.
            let _ = ending.send(ends);
        }
    }
}

/// What the thread looks at.
struct Look {
    board: Arc<Board>,
    pulses: Vec<Pulse>,
    releasing: Pulse,
    /// A loop may be silent for so long; without a watchdog nobody asks.
    longest: Option<Duration>,
}

impl Look {
    fn run(self, ends: &Receiver<Ends>) {
        let pause = self.longest.map_or(LOOK, |longest| LOOK.min(longest / 2));
        let mut status = self.status();
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        let mut was_stuck = None;
        loop {
            match ends.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Ends::Stops) | Err(RecvTimeoutError::Disconnected) => {
                    notify(&[NotifyState::Stopping, NotifyState::Status("leaving")]);
                    return self.see_off(ends);
                }
                Ok(Ends::IsSucceeded) => {
                    notify(&[
                        NotifyState::Reloading,
                        NotifyState::Watchdog,
                        NotifyState::Status("another agent takes over in place"),
                    ]);
                    return;
                }
            }
            let now = self.status();
            if now != status {
                notify(&[NotifyState::Status(&now)]);
                status = now;
            }
            if let Some(longest) = self.longest {
                let is_stuck = stuck(&self.pulses, longest, clock::now());
                match (was_stuck, is_stuck) {
                    (None, Some(name)) => {
                        error!("{name} is stuck: the watchdog is not fed");
                    }
                    (Some(name), None) => info!("{name} goes on: the watchdog is fed again"),
                    (None, None) | (Some(_), Some(_)) => {}
                }
                was_stuck = is_stuck;
                if is_stuck.is_none() {
                    notify(&[NotifyState::Watchdog]);
                }
            }
        }
    }

    /// Asks for time until the agent has ended. Without it a supervisor might kill an agent that waits for one
    /// service after the other, before the addresses are gone.
    fn see_off(&self, ends: &Receiver<Ends>) {
        let microseconds = u32::try_from(LONGER.as_micros()).unwrap_or(u32::MAX);
        while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(LOOK) {
            if stuck(slice::from_ref(&self.releasing), LOOK, clock::now()).is_none() {
                notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
            }
        }
    }

    /// In one line: each group's state here, and its epoch.
    fn status(&self) -> String {
        let groups = self.board.status().groups;
        if groups.is_empty() {
            return "running, without a cluster".to_owned();
        }
        let word = |group: &GroupStatus| {
            let (name, state, epoch) = (&group.group, &group.state, group.epoch);
            format!("{name}: {state}, epoch {epoch}")
        };
        groups.iter().map(word).collect::<Vec<_>>().join("; ")
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "the supervisor at NOTIFY_SOCKET cannot be told");
    }
}
