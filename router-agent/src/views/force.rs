//! `force cluster`: what came of it.

use serde::Serialize;

use super::table::printable;
use crate::control::protocol::{Forced, GroupStatus};

/// A move that has come about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Moved {
    /// Its name.
    pub group: String,
    /// This node's host name.
    pub this_node: String,
    /// Of this node now.
    pub state: String,
    /// Counts the changes of active.
    pub epoch: u32,
    /// Who owns the group now.
    pub owner: Option<String>,
    /// What was done for it.
    pub done: String,
}

impl Moved {
    /// If this node has become what was wanted, by doing `done`.
    pub fn of(group: &GroupStatus, to: Forced, done: &str) -> Option<Self> {
        let is_active = group.state == "active";
        let has_come = match to {
            Forced::Active => is_active,
            Forced::Standby => !is_active && group.state != "draining",
        };
        has_come.then(|| Self {
            group: group.group.clone(),
            this_node: group.this_node.clone(),
            state: group.state.clone(),
            epoch: group.epoch,
            owner: group.owner.clone(),
            done: done.to_owned(),
        })
    }
}

pub fn moved(moved: &Moved) -> String {
    let Moved {
        group,
        this_node,
        state,
        epoch,
        owner,
        done,
    } = moved;
    let owner = owner.as_deref().unwrap_or("nobody");
    let outcome = format!("Group {group}: {this_node} is {state}, {owner} owns it, epoch {epoch}");
    format!("{}\n{}\n", printable(done), printable(&outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(state: &str) -> GroupStatus {
        GroupStatus {
            group: "aws".to_owned(),
            this_node: "vyatta-a".to_owned(),
            state: state.to_owned(),
            epoch: 8,
            owner: Some("vyatta-c".to_owned()),
            ..GroupStatus::default()
        }
    }

    #[test]
    fn a_move_has_come_about_when_the_node_is_what_was_wanted() {
        for (state, to, has_come) in [
            ("active", Forced::Active, true),
            ("candidate", Forced::Active, false),
            ("draining", Forced::Standby, false),
            ("active", Forced::Standby, false),
            ("standby", Forced::Standby, true),
            ("fault", Forced::Standby, true),
        ] {
            let moved = Moved::of(&group(state), to, "asked");
            assert_eq!(moved.is_some(), has_come, "{state} {to}");
        }
        let done = Moved::of(&group("standby"), Forced::Standby, "handed over").unwrap();
        assert_eq!(
            moved(&done),
            "handed over\nGroup aws: vyatta-a is standby, vyatta-c owns it, epoch 8\n"
        );
    }
}
