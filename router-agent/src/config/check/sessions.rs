//! The sessions of the groups on the cluster's interfaces: messages must tell them apart, and the maps of
//! the programs in the kernel must have room for them.

use std::collections::HashMap;

use router_common::{
    kdf::session_number,
    map::{MAX_GROUPS, MAX_SESSIONS},
};

use super::super::diagnostic::{Problem, Report};
use super::super::tree::{Branch, Instance};

pub(super) fn check(cluster: &Branch, report: &mut Report) {
    let groups = cluster.instances("group");
    distinct(groups, report);
    if let Some(first) = groups.get(MAX_GROUPS as usize) {
        report.add(
            Problem::error(
                first.branch.place,
                format!(
                    "these are {} groups, and there is room for {MAX_GROUPS}",
                    groups.len()
                ),
            )
            .help("remove groups from here on"),
        );
    } else {
        all_have_room(cluster, groups.len(), report);
    }
}

/// Messages name their group by a number of 32 bits, which is made of its name.
fn distinct(groups: &[Instance], report: &mut Report) {
    let mut seen = HashMap::new();
    for Instance { name, branch } in groups {
        if let Some((other, place)) = seen.insert(session_number(name), (name, branch.place)) {
            report.add(
                Problem::error(
                    branch.place,
                    format!(
                        "heartbeats cannot tell the groups `{other}` and `{name}` apart: by chance their names have the same number"
                    ),
                )
                .help("give one of them another name, on both nodes")
                .also(place, "the first one"),
            );
        }
    }
}

/// Each group has a session on each interface.
fn all_have_room(cluster: &Branch, groups: usize, report: &mut Report) {
    let interfaces = cluster.values("interface");
    let Some(last) = interfaces.last() else {
        return;
    };
    let sessions = interfaces.len() * groups;
    if sessions > MAX_SESSIONS as usize {
        report.add(
            Problem::error(
                last.place,
                format!(
                    "{groups} groups on {} interfaces have {sessions} sessions, and there is room for {MAX_SESSIONS}",
                    interfaces.len()
                ),
            )
            .help("remove interfaces or groups: each group has a session on each interface"),
        );
    }
}
