//! What must hold between values, and the way from what is stated to the model.
//!
//! A part that lacks something is reported and left out; what remains is checked all the same,
//! so that one run finds all errors.

mod addresses;
mod arbiter;
mod cluster;
mod conntrack_sync;
mod endpoints;
mod ethernets;
mod fit;
mod resources;
mod secrets;
mod sessions;
mod track;
mod tunnels;

use std::net::SocketAddr;

use super::Facts;
use super::conntrack_sync::ConntrackSync;
use super::defaults::or_default;
use super::diagnostic::{Problem, Report};
use super::model::Cluster;
use super::schema::{self, Kind, Node};
use super::tree::{Branch, Stated};
use super::value::Value;
use super::{Config, Control};

/// The configuration, or none if a part of it could not be had; the report says why.
pub(super) fn check(root: &Branch, facts: &Facts, report: &mut Report) -> Option<Config> {
    required(root, schema::ROOT, &mut String::from("set"), report);
    let host = host_name(root, facts, report);
    let tunnels = tunnels::check(root, report);
    addresses::check(root, &tunnels, report);
    let ethernets = ethernets::check(root);
    let cluster = root
        .branch("cluster")
        .map(|branch| cluster::check(branch, root, host.as_ref(), &tunnels, facts, report));
    let conntrack_sync = conntrack_sync::check(root, report);
    Some(Config {
        host_name: host?.value,
        tunnels: tunnels
            .into_iter()
            .map(|tunnel| tunnel.model)
            .collect::<Option<_>>()?,
        ethernets: ethernets?,
        cluster: match cluster {
            Some(cluster) => Some(with_conntrack_sync(cluster?, conntrack_sync)),
            None => None,
        },
        metrics: metrics(root),
        control: control(root),
    })
}

fn control(root: &Branch) -> Control {
    let control = root.branch("service").and_then(|s| s.branch("control"));
    let group = |name| match &control?.value(name)?.value {
        Value::Text(group) => Some(group.clone()),
        _ => None,
    };
    Control {
        socket_group: group("socket-group"),
        read_only_group: group("read-only-group"),
    }
}

fn with_conntrack_sync(mut cluster: Cluster, sync: Option<(String, ConntrackSync)>) -> Cluster {
    if let Some((name, sync)) = sync
        && let Some(group) = cluster.groups.iter_mut().find(|group| group.name == name)
    {
        group.conntrack_sync = Some(sync);
    }
    cluster
}

fn metrics(root: &Branch) -> Option<SocketAddr> {
    let metrics = root.branch("service")?.branch("metrics")?;
    match metrics.value("listen")?.value {
        Value::Listen(address) => Some(address),
        _ => None,
    }
}

/// Reports each required node that a stated branch lacks.
fn required(branch: &Branch, nodes: &'static [Node], path: &mut String, report: &mut Report) {
    for node in nodes {
        let length = path.len();
        path.push(' ');
        path.push_str(node.name);
        if let Some(example) = node.required
            && !branch.has(node.name)
            && !branch.is_broken(node.name)
        {
            let parent = path[..length].trim_start_matches("set ");
            report.add(
                Problem::error(branch.place, format!("`{parent}` lacks `{}`", node.name))
                    .help(format!("add `{path} {example}`")),
            );
        }
        match node.kind {
            Kind::Branch(children) => {
                // Where its own name is misspelt once, what it lacks may stand on that line.
                if let Some(below) = branch.branch(node.name)
                    && !branch.is_broken(node.name)
                {
                    required(below, children, path, report);
                }
            }
            Kind::Tag(_, children) => {
                for instance in branch.instances(node.name) {
                    let length = path.len();
                    path.push(' ');
                    path.push_str(&instance.name);
                    required(&instance.branch, children, path, report);
                    path.truncate(length);
                }
            }
            Kind::Leaf(_) | Kind::Multi(_) | Kind::Flag => {}
        }
        path.truncate(length);
    }
}

/// The name of this host, with the place if the file states it.
struct Host {
    value: String,
    stated: Option<super::source::Place>,
}

fn host_name(root: &Branch, facts: &Facts, report: &mut Report) -> Option<Host> {
    let kernel = facts.kernel_host_name.as_str();
    let system = root.branch("system");
    let stated = system.and_then(|system| text(system, "host-name"));
    let broken = system.is_some_and(|system| system.is_broken("host-name"));
    match stated {
        Some(Stated { value, place }) => {
            if kernel.is_empty() || kernel == value {
                return Some(Host {
                    value,
                    stated: Some(place),
                });
            }
            report.add(
                Problem::error(
                    place,
                    format!("the configuration names this host `{value}`, but the kernel names it `{kernel}`"),
                )
                .help(format!(
                    "if this is the right file, run `hostnamectl set-hostname {value}`; else write `set system host-name {kernel}`"
                )),
            );
            None
        }
        None if broken => None,
        None if kernel.is_empty() => {
            report.add(
                Problem::error(
                    root.place,
                    "this host has no name, neither here nor in the kernel",
                )
                .help("add `set system host-name HOST`"),
            );
            None
        }
        None => Some(Host {
            value: kernel.to_owned(),
            stated: None,
        }),
    }
}

fn text(branch: &Branch, name: &str) -> Option<Stated<String>> {
    let stated = branch.value(name)?;
    match &stated.value {
        Value::Text(text) => Some(Stated {
            value: text.clone(),
            place: stated.place,
        }),
        _ => None,
    }
}

/// What the node says that is `enable` or `disable`, else what its default says.
fn is_enable(branch: Option<&Branch>, nodes: &'static [Node], name: &str) -> Option<bool> {
    match or_default(branch, nodes, name)? {
        Value::Word(word) => Some(word == "enable"),
        _ => None,
    }
}

/// The nodes at `path`.
fn nodes_at(path: &[&str]) -> &'static [Node] {
    below(schema::ROOT, path)
}

fn below(nodes: &'static [Node], path: &[&str]) -> &'static [Node] {
    path.iter().fold(nodes, |nodes, name| {
        schema::find(nodes, name).map_or(&[], Node::children)
    })
}
