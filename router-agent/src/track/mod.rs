//! What of this host must be well for it to be of use to a group: interfaces, processes, and what scripts
//! find. Each gives verdicts as the monitors do that ping.

mod interface;
mod level;
mod process;
mod script;

use std::sync::Arc;

use tokio::{
    sync::mpsc::UnboundedSender,
    time::{MissedTickBehavior, interval},
};

use self::{level::Level, process::Process, script::Script};
use crate::{
    config::{Pace, Track},
    control::protocol::MonitorState,
    monitor::Verdict,
    net::Netlink,
};

/// A track of a group.
#[derive(Clone, Debug)]
pub struct Target {
    pub group: usize,
    pub group_name: Arc<str>,
    /// Place among the group's monitors.
    pub index: usize,
    /// An agent before this one found the node fit a moment ago.
    pub was_well: bool,
    pub track: Track,
}

/// Well, or why not.
type Found = Result<(), String>;

/// What has to be looked at to know of it.
trait Look {
    fn look(&mut self) -> impl Future<Output = Found> + Send;
}

/// Follows all targets from now on, until nobody listens.
pub fn begin(targets: Vec<Target>, netlink: &Netlink, verdicts: &UnboundedSender<Verdict>) {
    let mut interfaces = Vec::new();
    for target in targets {
        let Target {
            group,
            group_name,
            index,
            was_well,
            track,
        } = target;
        let teller = Teller {
            group,
            index,
            verdicts: verdicts.clone(),
        };
        match track {
            Track::Interface(name) => interfaces.push((name, teller)),
            Track::Process { name, pace } => {
                tokio::spawn(follow(teller, pace, was_well, Process::new(name)));
            }
            Track::Script {
                name: _,
                program,
                arguments,
                timeout,
                pace,
            } => {
                let script = Script::new(program, arguments, timeout, &group_name);
                tokio::spawn(follow(teller, pace, was_well, script));
            }
        }
    }
    if !interfaces.is_empty() {
        tokio::spawn(interface::follow(interfaces, netlink.clone()));
    }
}

/// Looks again and again.
async fn follow(teller: Teller, pace: Pace, was_well: bool, mut track: impl Look) {
    let Pace {
        interval: between,
        rise,
        fall,
    } = pace;
    let mut level = Level::new(rise, fall, was_well);
    let mut ticks = interval(between);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let found = track.look().await;
        if level.changes(found.is_ok()) && !teller.tell(found) {
            return;
        }
    }
}

/// Says what has become of one track.
struct Teller {
    group: usize,
    index: usize,
    verdicts: UnboundedSender<Verdict>,
}

impl Teller {
    /// Whether anybody listens.
    fn tell(&self, found: Found) -> bool {
        let Self {
            group,
            index,
            verdicts,
        } = self;
        let state = match found {
            Ok(()) => MonitorState::Reachable,
            Err(_) => MonitorState::Unreachable,
        };
        let verdict = Verdict {
            group: *group,
            index: *index,
            state,
            why: found.err(),
        };
        verdicts.send(verdict).is_ok()
    }
}
