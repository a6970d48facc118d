//! `cluster`.

use std::collections::HashMap;
use std::time::Duration;

use super::super::Facts;
use super::super::diagnostic::{Problem, Report};
use super::super::model::{Cluster, Encapsulation, Group, Prefer};
use super::super::source::Place;
use super::super::tree::{Branch, Instance, Stated};
use super::super::value::{Value, is_tunnel_name};
use super::secrets::{self, Secrets};
use super::tunnels::Checked;
use super::{Host, arbiter, nodes_at, or_default, resources, sessions, text, track};

pub(super) fn check(
    branch: &Branch,
    root: &Branch,
    host: Option<&Host>,
    tunnels: &[Checked],
    facts: &Facts,
    report: &mut Report,
) -> Option<Cluster> {
    let secrets = secrets::check(branch, facts, report);
    let interfaces = interfaces(branch, root, tunnels, report);
    let intervals = intervals(branch, report);
    if let Some(stated) = branch.value("mcast-group") {
        report.add(
            Problem::warning(
                stated.place,
                "`cluster mcast-group` is used only until the peer is known",
            )
            .help("heartbeats are unicast inside the tunnel; the line may be removed"),
        );
    }
    let instances = branch.instances("group");
    let groups: Vec<_> = instances
        .iter()
        .map(|instance| group(instance, host, report))
        .collect();
    protected_once(instances, report);
    let etcd = arbiter::check(branch, report);
    resources::belong_to_one_group(instances, report);
    one_epoch(instances, tunnels, report);
    sessions::check(branch, report);

    let nodes = nodes_at(&["cluster"]);
    let Some(Value::Ipv4(mcast_group)) = or_default(Some(branch), nodes, "mcast-group") else {
        return None;
    };
    let Some(Value::Number(port)) = or_default(Some(branch), nodes, "heartbeat-port") else {
        return None;
    };
    let Secrets { current, previous } = secrets?;
    let intervals = intervals?;
    let arbiter = match etcd {
        Some(etcd) => Some(etcd?),
        None => None,
    };
    Some(Cluster {
        arbiter,
        interfaces,
        secret: current,
        previous_secret: previous,
        mcast_group,
        heartbeat_port: u16::try_from(port).ok()?,
        keepalive_interval: intervals.keepalive,
        dead_interval: intervals.dead,
        agent_dead_interval: intervals.agent_dead,
        monitor_interval: intervals.monitor,
        monitor_dead_interval: intervals.monitor_dead,
        groups: groups.into_iter().collect::<Option<_>>()?,
    })
}

/// Heartbeats need a tunnel of this file that is up, takes IPv4 and carries multicast, and that
/// wraps them as the programs in the kernel can answer them.
fn interfaces(
    branch: &Branch,
    root: &Branch,
    tunnels: &[Checked],
    report: &mut Report,
) -> Vec<String> {
    let doubtful = root.is_broken("interfaces")
        || root
            .branch("interfaces")
            .is_some_and(|i| i.is_broken("tunnel"));
    let by_name: HashMap<_, _> = tunnels.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut names = Vec::new();
    for stated in branch.values("interface") {
        let Value::Text(name) = &stated.value else {
            continue;
        };
        match by_name.get(name.as_str()) {
            Some(tunnel) => carries_heartbeats(tunnel, stated.place, report),
            // The tunnel may well be the one whose name is misspelt.
            None if doubtful => {}
            None => report.add(no_such_tunnel(name, stated.place, tunnels)),
        }
        names.push(name.clone());
    }
    names
}

fn no_such_tunnel(name: &str, place: Place, tunnels: &[Checked]) -> Problem {
    if !is_tunnel_name(name) {
        return Problem::error(
            place,
            format!("`{name}` is not a tunnel, and heartbeats ride only in tunnels"),
        )
        .help("write `set cluster interface tunN`, with a tunnel that this file configures");
    }
    let problem = Problem::error(
        place,
        format!("the tunnel {name} is not configured in this file"),
    );
    match tunnels {
        [] => problem.help(format!("add `set interfaces tunnel {name} …`")),
        [first, ..] => problem.help(format!(
            "add `set interfaces tunnel {name} …`, or name one that is configured, such as `{}`",
            first.name
        )),
    }
}

fn carries_heartbeats(tunnel: &Checked, place: Place, report: &mut Report) {
    let Checked { name, .. } = tunnel;
    let mut lacking = |what: &str, help: String| {
        report.add(
            Problem::error(
                place,
                format!("the cluster's heartbeats ride in {name}, which {what}"),
            )
            .help(help)
            .also(tunnel.place, "the tunnel is stated here"),
        );
    };
    if !tunnel.enabled {
        lacking(
            "is disabled",
            format!("remove the line `set interfaces tunnel {name} disable`"),
        );
    }
    if !tunnel.has_ipv4() && !tunnel.addresses_broken {
        lacking(
            "has no IPv4 address",
            format!(
                "add `set interfaces tunnel {name} address 169.254.0.1/24`, and 169.254.0.2/24 on the other node"
            ),
        );
    }
    if tunnel.multicast == Some(false) {
        lacking(
            "has no multicast",
            format!("add `set interfaces tunnel {name} multicast enable`"),
        );
    }
    if let Some(encapsulation) = &tunnel.encapsulation
        && encapsulation.value == Encapsulation::GreBridge
    {
        lacking(
            "carries whole frames, and heartbeats are packets",
            format!("write `set interfaces tunnel {name} encapsulation gre`, on both nodes"),
        );
    }
    if tunnel.epoch_key.is_some() {
        lacking(
            "refuses packets of an older epoch, and a node that was deposed could not say so",
            format!(
                "remove the line `set interfaces tunnel {name} parameters ip key cluster-epoch`: heartbeats carry the epoch themselves"
            ),
        );
    }
    for (what, stated) in [("checksum", tunnel.checksum), ("sequence", tunnel.sequence)] {
        if stated.is_some() {
            lacking(
                &format!(
                    "has `parameters ip {what}`, and the programs that answer heartbeats leave it out"
                ),
                format!(
                    "remove the line `set interfaces tunnel {name} parameters ip {what}`: heartbeats carry a code that shows each change and a sequence of their own"
                ),
            );
        }
    }
}

/// With several groups there are several epochs.
fn one_epoch(groups: &[Instance], tunnels: &[Checked], report: &mut Report) {
    let [first, second, ..] = groups else {
        return;
    };
    for tunnel in tunnels {
        let Some(place) = tunnel.epoch_key else {
            continue;
        };
        report.add(
            Problem::error(
                place,
                format!(
                    "the key of {} is to be the epoch of a group, and of which: `{}` or `{}`?",
                    tunnel.name, first.name, second.name
                ),
            )
            .help("keep one group: each has epochs of its own, and this version sends those of one")
            .also(second.branch.place, "the second group"),
        );
    }
}

struct Intervals {
    keepalive: Duration,
    dead: Duration,
    agent_dead: Duration,
    monitor: Duration,
    monitor_dead: Duration,
}

/// An interval, and where it is stated if it is.
#[derive(Clone, Copy)]
struct Interval {
    name: &'static str,
    milliseconds: u32,
    stated: Option<Place>,
}

impl Interval {
    /// None if it is stated wrongly.
    fn of(branch: &Branch, name: &'static str) -> Option<Self> {
        if branch.is_broken(name) {
            return None;
        }
        match or_default(Some(branch), nodes_at(&["cluster"]), name)? {
            Value::Number(milliseconds) => Some(Self {
                name,
                milliseconds,
                stated: branch.value(name).map(|stated| stated.place),
            }),
            _ => None,
        }
    }

    fn duration(self) -> Duration {
        Duration::from_millis(self.milliseconds.into())
    }

    /// For messages: its value, and whether that is the default.
    fn shown(self) -> String {
        let origin = if self.stated.is_some() {
            ""
        } else {
            ", the default"
        };
        format!("`{}` ({} ms{origin})", self.name, self.milliseconds)
    }
}

fn intervals(branch: &Branch, report: &mut Report) -> Option<Intervals> {
    let keepalive = Interval::of(branch, "keepalive-interval");
    let dead = Interval::of(branch, "dead-interval");
    let agent_dead = Interval::of(branch, "agent-dead-interval");
    let monitor_dead = Interval::of(branch, "monitor-dead-interval");
    let monitor = Interval::of(branch, "monitor-interval");

    if let (Some(keepalive), Some(dead)) = (keepalive, dead) {
        more_than_twice(dead, keepalive, report);
    }
    // A configuration that states none gets ours, which must not clash with a slow keepalive
    // that was fine where it comes from.
    if let (Some(keepalive), Some(monitor_dead)) = (keepalive, monitor_dead)
        && monitor_dead.stated.is_some()
    {
        more_than_twice(monitor_dead, keepalive, report);
    }
    if let (Some(agent), Some(dead)) = (agent_dead, dead) {
        at_least(agent, dead, report);
    }
    if let (Some(monitor), Some(dead)) = (monitor, monitor_dead) {
        more_than_twice(dead, monitor, report);
    }
    Some(Intervals {
        keepalive: keepalive?.duration(),
        dead: dead?.duration(),
        agent_dead: agent_dead?.duration(),
        monitor: monitor?.duration(),
        monitor_dead: monitor_dead?.duration(),
    })
}

/// One lost heartbeat, or echo, must not be a death.
fn more_than_twice(longer: Interval, between: Interval, report: &mut Report) {
    let twice = between.milliseconds * 2;
    if longer.milliseconds <= twice {
        relation(longer, between, "is not more than twice", twice + 1, report);
    }
}

fn at_least(longer: Interval, dead: Interval, report: &mut Report) {
    if longer.milliseconds < dead.milliseconds {
        relation(longer, dead, "is less than", dead.milliseconds, report);
    }
}

fn relation(longer: Interval, shorter: Interval, what: &str, least: u32, report: &mut Report) {
    // At least one of the two is stated: the defaults fit each other.
    let Some(place) = longer.stated.or(shorter.stated) else {
        return;
    };
    let mut problem = Problem::error(
        place,
        format!("{} {what} {}", longer.shown(), shorter.shown()),
    )
    .help(format!(
        "write `set cluster {} {least}` or more, or lower `{}`",
        longer.name, shorter.name
    ));
    if let (Some(_), Some(other)) = (longer.stated, shorter.stated) {
        problem = problem.also(other, format!("`{}` is stated here", shorter.name));
    }
    report.add(problem);
}

fn group(instance: &Instance, host: Option<&Host>, report: &mut Report) -> Option<Group> {
    let Instance { name, branch } = instance;
    let primary = text(branch, "primary");
    let secondary = secondary(branch, report);
    if let (Some(primary), Some(secondary)) = (&primary, &secondary) {
        members(name, primary, secondary, host, report);
    }
    let Some(Value::Bool(auto_failback)) = or_default(
        Some(branch),
        nodes_at(&["cluster", "group"]),
        "auto-failback",
    ) else {
        return None;
    };
    let prefer = or_default(Some(branch), nodes_at(&["cluster", "group"]), "prefer");
    let monitors = branch.values("monitor").iter();
    let protected = protected(branch);
    if let Some(stated) = branch.value("prefer")
        && matches!(stated.value, Value::Word(word) if word == Prefer::Consistency.word())
        && protected.is_empty()
    {
        report.add(
            Problem::warning(
                stated.place,
                format!("group `{name}` prefers consistency and protects no interface"),
            )
            .help(format!(
                "add `set cluster group {name} protect interface ethN` for each interface whose traffic only the active node may forward; without one, nothing is stopped"
            )),
        );
    }
    Some(Group {
        name: name.clone(),
        primary: primary?.value,
        secondary: secondary?.value,
        auto_failback,
        prefer: match prefer? {
            Value::Word(word) if word == Prefer::Consistency.word() => Prefer::Consistency,
            _ => Prefer::Availability,
        },
        protected: protected
            .iter()
            .filter_map(|stated| match &stated.value {
                Value::Text(name) => Some(name.clone()),
                _ => None,
            })
            .collect(),
        monitors: monitors
            .filter_map(|stated| match stated.value {
                Value::Ip(address) => Some(address),
                _ => None,
            })
            .collect(),
        tracks: track::check(branch)?,
        services: resources::services(branch),
        routes: resources::routes(branch, report),
        aws: resources::aws(branch, report),
        conntrack_sync: None,
        notify: text(branch, "notify").map(|stated| stated.value.into()),
    })
}

/// The interfaces that a group protects.
fn protected(branch: &Branch) -> &[Stated<Value>] {
    branch
        .branch("protect")
        .map_or(&[], |protect| protect.values("interface"))
}

/// One fence decides over an interface.
fn protected_once(groups: &[Instance], report: &mut Report) {
    let mut seen = HashMap::new();
    for Instance {
        name: group,
        branch,
    } in groups
    {
        for stated in protected(branch) {
            let Value::Text(name) = &stated.value else {
                continue;
            };
            match seen.insert(name, (group, stated.place)) {
                Some((other, place)) if other != group => report.add(
                    Problem::error(
                        stated.place,
                        format!("{name} is protected by group `{other}` already"),
                    )
                    .help("keep one of the two lines: a packet passes one fence")
                    .also(place, "the first one"),
                ),
                _ => {}
            }
        }
    }
}

fn secondary(branch: &Branch, report: &mut Report) -> Option<Stated<String>> {
    let [first, more @ ..] = branch.values("secondary") else {
        return None;
    };
    for stated in more {
        report.add(
            Problem::error(
                stated.place,
                "more than one `secondary` is not carried out by this version",
            )
            .help("keep one")
            .also(first.place, "the first one"),
        );
    }
    match &first.value {
        Value::Text(host) => Some(Stated {
            value: host.clone(),
            place: first.place,
        }),
        _ => None,
    }
}

fn members(
    group: &str,
    primary: &Stated<String>,
    secondary: &Stated<String>,
    host: Option<&Host>,
    report: &mut Report,
) {
    if primary.value == secondary.value {
        report.add(
            Problem::error(
                secondary.place,
                format!(
                    "`{}` is both primary and secondary of group `{group}`",
                    secondary.value
                ),
            )
            .help(format!(
                "write `set cluster group {group} secondary HOST` with the other node's name"
            ))
            .also(primary.place, "the primary"),
        );
        return;
    }
    let Some(host) = host else {
        return;
    };
    let this = &host.value;
    if primary.value == *this || secondary.value == *this {
        return;
    }
    let origin = if host.stated.is_some() {
        "as `system host-name` says"
    } else {
        "as the kernel says"
    };
    let problem = Problem::error(
        primary.place,
        format!(
            "this host is `{this}`, {origin}, but the nodes of group `{group}` are `{}` and `{}`",
            primary.value, secondary.value
        ),
    )
    .help(format!(
        "name this host as `set cluster group {group} primary {this}` or `set cluster group {group} secondary {this}`, or correct the host's name"
    ));
    report.add(match host.stated {
        Some(place) => problem.also(place, "this host's name"),
        None => problem,
    });
}
