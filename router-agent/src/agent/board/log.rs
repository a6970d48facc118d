//! What was found of this node and of what it holds, as lines of the log: here it meets the group's name
//! and its epoch.

use tracing::{info, warn};

use super::GroupBoard;
use crate::{agent::report::News, config::Group, control::protocol::MonitorState, duplicate};

impl GroupBoard {
    /// Logs news that nobody has logged before.
    pub(super) fn log(&self, of: &Group, news: &News) {
        let group = &*of.name;
        let epoch = self.view.map_or(0, |view| view.claim.epoch.0);
        match news {
            News::Monitor { index, state, why } => {
                let monitor = &self.monitors[*index].address;
                let [well, unwell] = words(of, *index);
                match (state, why) {
                    (MonitorState::Reachable, _) => info!(group, epoch, "{monitor} {well}"),
                    (_, Some(why)) => warn!(group, epoch, "{monitor} {unwell}: {why}"),
                    (_, None) => warn!(group, epoch, "{monitor} {unwell}"),
                }
            }
            News::Check { resource, error } => {
                let resource = &self.services[*resource].service;
                if let Some(error) = error {
                    warn!(group, epoch, %resource, "could not be taken here: {error}");
                } else {
                    info!(group, epoch, %resource, "can be taken here");
                }
            }
            News::Duplicate {
                resource,
                duplicate,
                is_new: true,
            } => {
                let service = &self.services[*resource].service;
                warn!(group, epoch, "{}", duplicate::words(service, duplicate.mac));
            }
            News::Duplicate { is_new: false, .. }
            | News::View(_)
            | News::Transition(_)
            | News::Finding(_)
            | News::Step(_)
            | News::Arbiter(_) => {}
        }
    }
}

/// What is said of a monitor that is well, and of one that is not.
fn words(group: &Group, index: usize) -> [&'static str; 2] {
    let addresses = group.monitors.len();
    if index < addresses {
        ["answers", "does not answer"]
    } else if index < addresses + group.tracks.len() {
        ["is well", "is not well"]
    } else {
        ["can be taken here", "cannot all be taken here"]
    }
}
