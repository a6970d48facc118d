//! `show cluster status`: for each group Vyatta's report, word for word since scripts read it,
//! and after it what only we can tell.

use std::{
    fmt::{Result, Write as _},
    time::Duration,
};

use super::{
    Table, fence,
    instant::{ago, span, time_of_day},
    paint::{Painted, Tone},
    table::printable,
};
use crate::control::protocol::{
    ArbiterStatus, ArbiterTimes, DuplicateStatus, GroupStatus, NodeState, NodeStatus, PathStatus,
    Priorities, ServiceStatus, Status, Transition,
};

/// The report on every group.
pub fn cluster_status(status: &Status) -> String {
    if status.groups.is_empty() {
        return format!("No cluster group is configured on {}.\n", status.node);
    }
    let mut text = String::new();
    for group in &status.groups {
        // Writing to a string does not fail.
        let _ = report(&mut text, group);
        let _ = details(&mut text, status, group);
    }
    text
}

/// Which of a group's two places a node has.
struct Place<'a> {
    role: &'static str,
    node: &'a NodeStatus,
}

impl Place<'_> {
    /// `primary vyatta-a (this node)`.
    fn named(&self) -> String {
        let this_node = if self.node.this_node {
            " (this node)"
        } else {
            ""
        };
        format!("{} {}{this_node}", self.role, self.node.name)
    }
}

/// This node's place and the other's.
fn places(group: &GroupStatus) -> (Place<'_>, Place<'_>) {
    let primary = Place {
        role: "primary",
        node: &group.primary,
    };
    let secondary = Place {
        role: "secondary",
        node: &group.secondary,
    };
    if group.secondary.this_node {
        (secondary, primary)
    } else {
        (primary, secondary)
    }
}

/// Vyatta's report.
fn report(text: &mut String, group: &GroupStatus) -> Result {
    let (this, other) = places(group);
    writeln!(
        text,
        "{}\n",
        Tone::Title.paint(format!(
            "=== Status report on {} node {} ===",
            this.role, group.this_node
        ))
    )?;
    for (role, node) in [("Primary", &group.primary), ("Secondary", &group.secondary)] {
        let this_node = if node.this_node { " (this node)" } else { "" };
        let state = Tone::of_node(node.state).paint(node.state.to_string());
        writeln!(text, "  {role} {}{this_node}: {state}\n", node.name)?;
    }
    for monitor in &group.monitors {
        let state = Tone::of_monitor(monitor.state).paint(monitor.state.to_string());
        let weight = match monitor.weight {
            0 => String::new(),
            weight => format!(" (weight {weight})"),
        };
        writeln!(text, "  Monitor {}: {state}{weight}", monitor.address)?;
    }
    if !group.monitors.is_empty() {
        writeln!(text)?;
    }
    if !group.services.is_empty() {
        let services: Vec<&str> = group
            .services
            .iter()
            .map(|service| service.service.as_str())
            .collect();
        writeln!(
            text,
            "  Resources [{}]:\n    {}\n",
            services.join(" "),
            resources(group, &this, &other)
        )?;
    }
    Ok(())
}

/// Where the group's services are, in Vyatta's words.
fn resources(group: &GroupStatus, this: &Place, other: &Place) -> String {
    let all_held = group.services.iter().all(|service| service.held);
    let none_held = !group.services.iter().any(|service| service.held);
    match this.node.state {
        NodeState::Active if all_held => format!("Active on {}", this.named()),
        NodeState::Active | NodeState::InTransition => "Resource status in transition".to_owned(),
        NodeState::Initializing
        | NodeState::StartedWaitingForSecondary
        | NodeState::StartedWaitingForPrimary => "Initializing".to_owned(),
        NodeState::ActiveStandby
        | NodeState::Down
        | NodeState::DownMonitorUnreachable
        | NodeState::Unknown => {
            if !none_held || other.node.state == NodeState::InTransition {
                "Resource status in transition".to_owned()
            } else if other.node.state == NodeState::Active {
                format!("Active on {}", other.named())
            } else {
                "Unknown".to_owned()
            }
        }
    }
}

/// What Vyatta's report does not tell.
fn details(text: &mut String, status: &Status, group: &GroupStatus) -> Result {
    writeln!(text, "  Details of group {}:", group.group)?;
    let mut table = Table::without_header();
    let state = Tone::of_state(&group.state).paint(&group.state);
    table.row(["State:".into(), state]);
    table.row(["Epoch:", &group.epoch.to_string()]);
    table.row(["Owner:", group.owner.as_deref().unwrap_or("nobody")]);
    table.row(["Peer:".into(), finding(&group.peer_finding)]);
    match &group.arbiter {
        Some(arbiter) => arbitration(&mut table, arbiter, status.now_ns),
        None => table.row(["Prefer:", &preference(&group.prefer)]),
    }
    let of_group = |path: &&PathStatus| path.group == group.group;
    for path in status.paths.iter().filter(of_group) {
        table.row([format!("Path {}:", path.interface).into(), session(path)]);
    }
    if let Some(Priorities { own, peer }) = group.priorities {
        let peer = peer.map_or("not known".to_owned(), |peer| peer.to_string());
        table.row(["Priority:", &format!("{own}, the peer's is {peer}")]);
    }
    for monitor in &group.monitors {
        if let Some(why) = &monitor.why {
            table.row(["Monitor:", &format!("{}: {why}", monitor.address)]);
        }
    }
    for service in &group.services {
        table.row(["Service:".into(), held(service)]);
        for DuplicateStatus {
            mac,
            claims,
            last_ns,
        } in &service.duplicates
        {
            let last = ago(*last_ns, status.now_ns);
            let text = format!("{mac} uses it, too: {claims} times, last {last}");
            table.row(["".into(), Tone::Attention.paint(text)]);
        }
    }
    if !group.protected.is_empty() {
        table.row(["Protects:", &group.protected.join(" ")]);
        table.row(["Fence:", &fence::summary(&group.fence, status.now_ns)]);
    }
    for note in &group.notes {
        table.row(["Note:".into(), Tone::Attention.paint(note)]);
    }
    table.row(["Agent:", &format!("up {}", span(status.agent_uptime_ms))]);
    if !status.clock_source.is_empty() {
        let machine = if status.virtual_machine {
            ", in a virtual machine"
        } else {
            ""
        };
        table.row(["Clock:", &format!("{}{machine}", status.clock_source)]);
    }
    if let Some(last) = group.transitions.last() {
        table.row(["Last transition:", &transition(last, status)]);
    }
    writeln!(text, "{}", table.render(4))
}

fn finding(finding: &str) -> Painted {
    let meaning = match finding {
        "never-heard" => "no message since this agent started",
        "kernel-silent" => "its node is dead or the path to it is cut",
        "alive-and-deaf" => "it is alive and hears nothing of us: the path to it is cut",
        "agent-dead" => "its kernel answers, its agent does not run",
        _ => return Tone::Good.paint(finding),
    };
    Tone::Bad.paint(format!("{finding} ({meaning})"))
}

fn preference(prefer: &str) -> String {
    let meaning = match prefer {
        "availability" => {
            "both nodes may be active while only the path between them is cut, and one stays active when it heals"
        }
        "consistency" => {
            "only what the peer confirms is forwarded, so both never forward at once, and neither does alone"
        }
        _ => return prefer.to_owned(),
    };
    format!("{prefer} ({meaning})")
}

fn arbitration(table: &mut Table, arbiter: &ArbiterStatus, now_ns: u64) {
    let ArbiterStatus {
        state,
        endpoint,
        key,
        record,
        unsound,
        detail,
        remedy,
        answered_ns,
        answers: _,
        failures,
        times,
        wanted_us,
        term_ms: _,
        timeout_ms: _,
    } = arbiter;
    let detail = detail
        .as_ref()
        .map_or_else(String::new, |detail| format!(": {detail}"));
    let tone = if remedy.is_some() {
        Tone::Bad
    } else {
        Tone::Plain
    };
    let text = format!("etcd {state} ({endpoint}){detail}");
    table.row(["Arbiter:".into(), tone.paint(text)]);
    if let Some(unsound) = unsound {
        table.row(["".into(), Tone::Bad.paint(format!("it {unsound}"))]);
    }
    if let Some(remedy) = remedy {
        let last = match answered_ns {
            0 => "it has never answered".to_owned(),
            at => format!("it last answered {}", ago(*at, now_ns)),
        };
        table.row(["", &format!("{last}; {remedy}")]);
    }
    if let Some(ArbiterTimes {
        last_us,
        min_us,
        avg_us,
        max_us,
    }) = *times
    {
        let [last, min, avg, max, wanted] =
            [last_us, min_us, avg_us, max_us, *wanted_us].map(milliseconds);
        table.row([
            "",
            &format!(
                "answers in {last} ms (min {min}, mean {avg}, max {max}; wanted within {wanted}), {failures} failures"
            ),
        ]);
    }
    let record = record.as_deref().unwrap_or("not seen yet");
    table.row(["", &format!("{key}: {record}")]);
}

fn milliseconds(us: u64) -> String {
    format!("{:.1}", Duration::from_micros(us).as_secs_f64() * 1e3)
}

fn session(path: &PathStatus) -> Painted {
    let state = if path.session_up { "up" } else { "down" };
    let note = path
        .note
        .as_ref()
        .map_or_else(String::new, |note| format!(": {note}"));
    let text = format!("session with {} {state}{note}", path.peer);
    Tone::of_up(path.session_up).paint(text)
}

fn held(service: &ServiceStatus) -> Painted {
    let state = if service.held { "held" } else { "not held" };
    let (tone, error) = match &service.error {
        Some(error) => (Tone::Bad, format!(", failed: {error}")),
        None if service.held => (Tone::Good, String::new()),
        None => (Tone::Plain, String::new()),
    };
    tone.paint(format!("{} {state}{error}", service.service))
}

fn transition(last: &Transition, status: &Status) -> String {
    let Transition {
        at_ns,
        group: _,
        from,
        to,
        epoch,
        cause,
        boot_id,
        at_unix_ms,
        ..
    } = last;
    let when = if *boot_id == status.boot_id {
        ago(*at_ns, status.now_ns)
    } else {
        time_of_day(*at_unix_ms)
    };
    printable(&format!("{from} to {to}, epoch {epoch}, {when}: {cause}"))
}

#[cfg(test)]
mod tests;
