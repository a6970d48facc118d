//! The sessions of the groups: messages must tell them apart.

use std::collections::HashMap;

use router_common::kdf::session_number;

use super::super::diagnostic::{Problem, Report};
use super::super::tree::{Branch, Instance};

pub(super) fn check(cluster: &Branch, report: &mut Report) {
    distinct(cluster.instances("group"), report);
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
