//! `show cluster history`: what happened, when, and how long each part took.

use super::{
    Table,
    instant::{ago, signed_ms},
    json::History,
    table::printable,
};
use crate::control::protocol::{Finding, Status, Transition};

/// Every transition and finding that the agent remembers, the newest last.
pub fn history(status: &Status) -> String {
    let History {
        transitions,
        findings,
    } = History::of(status);
    if transitions.is_empty() && findings.is_empty() {
        return format!(
            "No transition on {} since its agent started.\n",
            status.node
        );
    }
    let transitions = transitions
        .into_iter()
        .map(|transition| (transition.at_ns, block(transition, status.now_ns)));
    let findings = findings
        .into_iter()
        .map(|finding| (finding.at_ns, line(finding, status.now_ns)));
    let mut entries: Vec<(u64, String)> = transitions.chain(findings).collect();
    entries.sort_by_key(|(at_ns, _)| *at_ns);
    let entries: Vec<String> = entries.into_iter().map(|(_, entry)| entry).collect();
    entries.join("\n")
}

fn line(finding: &Finding, now_ns: u64) -> String {
    let Finding {
        at_ns,
        group,
        kind: _,
        text,
    } = finding;
    let ago = ago(*at_ns, now_ns);
    printable(&format!("Group {group}: found, {ago}: {text}")) + "\n"
}

fn block(transition: &Transition, now_ns: u64) -> String {
    let Transition {
        at_ns,
        group,
        from,
        to,
        epoch,
        cause,
        last_heard_ns,
        decided_ns,
        steps,
    } = transition;
    // Times count from the last sign of the peer, as an outage does; else from the decision.
    let origin_ns = if *last_heard_ns == 0 {
        *decided_ns
    } else {
        *last_heard_ns
    };
    let mut table = Table::without_header();
    if *last_heard_ns != 0 {
        table.row([offset(origin_ns, *last_heard_ns), "last heard".to_owned()]);
    }
    table.row([offset(origin_ns, *decided_ns), "decided".to_owned()]);
    table.row([offset(origin_ns, *at_ns), format!("{from} to {to}")]);
    for step in steps {
        let when = if step.done_ns == 0 {
            "pending".to_owned()
        } else {
            offset(origin_ns, step.done_ns)
        };
        let outcome = step
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!(", failed: {error}"));
        table.row([when, format!("{}{outcome}", step.step)]);
    }
    let ago = ago(*at_ns, now_ns);
    let title = format!("Group {group}: {from} to {to}, epoch {epoch}, {ago}");
    format!(
        "{}\n    Cause: {}\n{}",
        printable(&title),
        printable(cause),
        table.render(4)
    )
}

fn offset(origin_ns: u64, at_ns: u64) -> String {
    // Wide enough for a minute; the table aligns the rest.
    format!("{:>+10.3} ms", signed_ms(origin_ns, at_ns))
}

#[cfg(test)]
mod tests {
    use crate::{
        control::protocol::{Finding, GroupStatus, Status, Step, Transition},
        views::{golden, history},
    };

    fn transition(at_ns: u64, group: &str) -> Transition {
        Transition {
            at_ns,
            group: group.to_owned(),
            from: "initializing".to_owned(),
            to: "standby".to_owned(),
            epoch: 6,
            cause: "the peer was heard".to_owned(),
            last_heard_ns: 0,
            decided_ns: at_ns,
            steps: Vec::new(),
        }
    }

    #[test]
    fn groups_are_merged_by_time() {
        let takeover = Transition {
            from: "standby".to_owned(),
            to: "active".to_owned(),
            epoch: 7,
            cause: "the peer was silent for 200 ms".to_owned(),
            last_heard_ns: 9_800_000_000,
            decided_ns: 10_000_100_000,
            steps: vec![
                Step {
                    started_ns: 0,
                    step: "address 10.0.0.254/24/eth1".to_owned(),
                    done_ns: 10_001_500_000,
                    error: None,
                },
                Step {
                    started_ns: 0,
                    step: "route-table rtb-1 0.0.0.0/0".to_owned(),
                    done_ns: 10_301_500_000,
                    error: Some("no permission".to_owned()),
                },
                Step {
                    started_ns: 0,
                    step: "squid".to_owned(),
                    done_ns: 0,
                    error: None,
                },
            ],
            ..transition(10_000_200_000, "aws")
        };
        let status = Status {
            node: "vyatta-c".to_owned(),
            now_ns: 12_345_000_000,
            groups: vec![
                GroupStatus {
                    transitions: vec![transition(1_000_000_000, "aws"), takeover],
                    findings: vec![Finding {
                        at_ns: 10_000_100_000,
                        group: "aws".to_owned(),
                        kind: "peer".to_owned(),
                        text: "the peer was alive and is silent".to_owned(),
                    }],
                    ..GroupStatus::default()
                },
                GroupStatus {
                    transitions: vec![transition(2_000_000_000, "lan")],
                    ..GroupStatus::default()
                },
            ],
            ..Status::default()
        };
        golden::check("history", &history(&status));
        golden::check(
            "history-none",
            &history(&Status {
                groups: Vec::new(),
                ..status
            }),
        );
    }
}
