//! `service conntrack-sync`.

use super::super::conntrack_sync::{ConntrackSync, SyncLink};
use super::super::diagnostic::{Problem, Report};
use super::super::tree::{Branch, Instance};
use super::super::value::Value;
use super::{nodes_at, or_default, text};

const FIRST_PORT: u16 = 3780;
const MEGABYTE_BYTES: u32 = 1 << 20;

/// The group that it follows, and what is said of it.
pub(super) fn check(root: &Branch, report: &mut Report) -> Option<(String, ConntrackSync)> {
    let branch = root.branch("service")?.branch("conntrack-sync")?;
    let group = group(branch, root, report);
    let links = links(branch, report);
    let nodes = nodes_at(&["service", "conntrack-sync"]);
    let Value::Ipv4(mcast_group) = or_default(Some(branch), nodes, "mcast-group")? else {
        return None;
    };
    let bytes = |name| match or_default(Some(branch), nodes, name)? {
        Value::Number(megabytes) => megabytes.checked_mul(MEGABYTE_BYTES),
        _ => None,
    };
    let protocols = branch.values("accept-protocol").iter();
    let ignored = branch.values("ignore-address").iter();
    let sync = ConntrackSync {
        links: links?,
        protocols: protocols
            .flat_map(|stated| match &stated.value {
                Value::Words(words) => words.as_slice(),
                _ => &[],
            })
            .copied()
            .collect(),
        ignored: ignored
            .filter_map(|stated| match stated.value {
                Value::Ip(address) => Some(address),
                _ => None,
            })
            .collect(),
        mcast_group,
        event_queue_bytes: bytes("event-listen-queue-size")?,
        sync_queue_bytes: bytes("sync-queue-size")?,
    };
    Some((group?, sync))
}

fn group(branch: &Branch, root: &Branch, report: &mut Report) -> Option<String> {
    let mechanism = branch.branch("failover-mechanism")?.branch("cluster")?;
    let stated = text(mechanism, "group")?;
    let cluster = root.branch("cluster");
    let groups = cluster.map_or(&[][..], |cluster| cluster.instances("group"));
    if groups.iter().any(|group| group.name == stated.value) {
        return Some(stated.value);
    }
    // It may well be the one whose name is misspelt.
    if !root.is_broken("cluster") && !cluster.is_some_and(|cluster| cluster.is_broken("group")) {
        let problem = Problem::error(
            stated.place,
            format!("there is no `cluster group {}`", stated.value),
        );
        report.add(match groups {
            [] => problem.help("add the group, or remove `service conntrack-sync`"),
            [first, ..] => problem.help(format!(
                "name a group that is configured, such as `{}`",
                first.name
            )),
        });
    }
    None
}

fn links(branch: &Branch, report: &mut Report) -> Option<Vec<SyncLink>> {
    let instances = branch.instances("interface");
    if let Some(more) = instances.get(ConntrackSync::MOST_LINKS) {
        report.add(
            Problem::error(
                more.branch.place,
                format!(
                    "conntrackd knows {} interfaces at most",
                    ConntrackSync::MOST_LINKS
                ),
            )
            .help("remove this line"),
        );
        return None;
    }
    if let [first, others @ ..] = instances
        && let Some(other) = others
            .iter()
            .find(|other| other.branch.has("peer") != first.branch.has("peer") && !is_broken(other))
        && !is_broken(first)
    {
        report.add(
            Problem::error(
                other.branch.place,
                "one interface has a `peer`, and another is told by multicast",
            )
            .help("state a `peer` for each interface, or for none: conntrackd does not do both")
            .also(first.branch.place, "the other one"),
        );
        return None;
    }
    (FIRST_PORT..)
        .zip(instances)
        .map(|(default_port, instance)| link(default_port, instance))
        .collect()
}

/// None if it is stated wrongly.
fn link(default_port: u16, instance: &Instance) -> Option<SyncLink> {
    if is_broken(instance) {
        return None;
    }
    let Instance { name, branch } = instance;
    let peer = branch.value("peer").map(|stated| &stated.value);
    let port = branch.value("port").map(|stated| &stated.value);
    Some(SyncLink {
        interface: name.clone(),
        peer: match peer {
            Some(Value::Ipv4(address)) => Some(*address),
            _ => None,
        },
        port: match port {
            Some(Value::Number(port)) => u16::try_from(*port).ok()?,
            _ => default_port,
        },
    })
}

fn is_broken(Instance { name: _, branch }: &Instance) -> bool {
    branch.is_broken("peer") || branch.is_broken("port")
}
