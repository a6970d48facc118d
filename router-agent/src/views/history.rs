//! `show cluster history`: what happened, when, and how long each part took.

use super::{Table, instant::signed_ms, json::History, paint::Tone, table::printable};
use crate::control::protocol::{Finding, Known, Stages, Status, Step, Transition};

/// Every transition and finding that is remembered, the newest last.
pub fn history(status: &Status) -> String {
    let History {
        transitions,
        findings,
    } = History::of(status);
    if transitions.is_empty() && findings.is_empty() {
        return format!("No transition on {} is known.\n", status.node);
    }
    let transitions = transitions
        .into_iter()
        .map(|transition| (transition.at().order(status), block(transition, status)));
    let findings = findings
        .into_iter()
        .map(|finding| (finding.at().order(status), line(finding, status)));
    let mut entries: Vec<_> = transitions.chain(findings).collect();
    entries.sort_by_key(|(at, _)| *at);
    let entries: Vec<String> = entries.into_iter().map(|(_, entry)| entry).collect();
    entries.join("\n")
}

fn line(finding: &Finding, status: &Status) -> String {
    let Finding { group, text, .. } = finding;
    let when = finding.at().words(status);
    printable(&format!("Group {group}: found, {when}: {text}")) + "\n"
}

fn block(transition: &Transition, status: &Status) -> String {
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
        at_unix_ms: _,
        boot_id: _,
        stages,
        known,
    } = transition;
    // Times count from the last sign of the peer, as an outage does; else from the decision.
    let origin_ns = if *last_heard_ns == 0 {
        *decided_ns
    } else {
        *last_heard_ns
    };
    let mut table = Table::without_header();
    let change = format!("{from} to {to}");
    for (ns, what) in instants(stages, *last_heard_ns, *decided_ns, *at_ns, &change, steps) {
        table.row([offset(origin_ns, ns), what]);
    }
    for step in steps.iter().filter(|step| step.done_ns == 0) {
        table.row(["pending".to_owned(), step.step.clone()]);
    }
    let when = transition.at().words(status);
    let title = format!("Group {group}: {change}, epoch {epoch}, {when}");
    let known = knowledge(known).map_or_else(String::new, |text| {
        format!("    Known: {}\n", printable(&text))
    });
    format!(
        "{}\n    Cause: {}\n{known}{}",
        Tone::of_state(to).paint(printable(&title)),
        printable(cause),
        table.render(4)
    )
}

/// All that has a time, in its order.
fn instants(
    stages: &Stages,
    last_heard_ns: u64,
    decided_ns: u64,
    at_ns: u64,
    change: &str,
    steps: &[Step],
) -> Vec<(u64, String)> {
    let Stages {
        suspected_ns,
        grants_closed_ns,
        arbiter_asked_ns,
        arbiter_answered_ns,
        fence_open_ns,
        first_forwarded_ns,
    } = *stages;
    let stages = [
        (last_heard_ns, "last heard"),
        (suspected_ns, "suspected"),
        (grants_closed_ns, "grants closed"),
        (arbiter_asked_ns, "arbiter asked"),
        (arbiter_answered_ns, "arbiter answered"),
        (decided_ns, "decided"),
        (at_ns, change),
        (fence_open_ns, "fence open"),
    ];
    let stages = stages.map(|(ns, what)| (ns, what.to_owned()));
    let steps = steps.iter().map(|step| {
        let outcome = step
            .error
            .as_ref()
            .map_or_else(String::new, |error| format!(", failed: {error}"));
        (step.done_ns, format!("{}{outcome}", step.step))
    });
    let last = (first_forwarded_ns, "first packet forwarded".to_owned());
    let mut instants: Vec<_> = stages
        .into_iter()
        .chain(steps)
        .chain([last])
        .filter(|(ns, _)| *ns != 0)
        .collect();
    instants.sort_by_key(|(ns, _)| *ns);
    instants
}

/// None of what was recorded without it.
fn knowledge(known: &Known) -> Option<String> {
    let Known {
        peer_finding,
        silence_ns,
        echo_age_ns,
        agent_age_ns,
        peer_epoch,
        monitors_ok,
        monitors_missing,
        record,
    } = known;
    if peer_finding.is_empty() {
        return None;
    }
    let ms = |ns: &u64| format!("{:.1} ms", signed_ms(0, *ns));
    let heard = (*silence_ns != 0).then(|| {
        let (silence, agent_age) = (ms(silence_ns), ms(agent_age_ns));
        format!("heard {silence} ago under epoch {peer_epoch}, its agent {agent_age} old")
    });
    let echo =
        (*echo_age_ns != 0).then(|| format!("it had heard what we sent {} ago", ms(echo_age_ns)));
    let monitors = if monitors_missing.is_empty() {
        (!monitors_ok).then(|| "our monitors were unreachable".to_owned())
    } else {
        let which = if *monitors_ok { "some of " } else { "" };
        let missing = monitors_missing.join(", ");
        Some(format!("{which}our monitors were unreachable: {missing}"))
    };
    let record = record
        .as_ref()
        .map(|it| format!("the arbiter's record: {it}"));
    let more: Vec<_> = [heard, echo, monitors, record]
        .into_iter()
        .flatten()
        .collect();
    Some(
        format!("peer {peer_finding}; {}", more.join("; "))
            .trim_end_matches("; ")
            .to_owned(),
    )
}

fn offset(origin_ns: u64, at_ns: u64) -> String {
    // Wide enough for a minute; the table aligns the rest.
    format!("{:>+10.3} ms", signed_ms(origin_ns, at_ns))
}

#[cfg(test)]
mod tests {
    use crate::{
        control::protocol::{Finding, GroupStatus, Known, Stages, Status, Step, Transition},
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
            decided_ns: at_ns,
            at_unix_ms: 1_764_000_000_000 + at_ns / 1_000_000,
            boot_id: "b".to_owned(),
            ..Transition::default()
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
            stages: Stages {
                suspected_ns: 10_000_100_000,
                grants_closed_ns: 10_000_110_000,
                arbiter_asked_ns: 10_000_120_000,
                arbiter_answered_ns: 10_000_190_000,
                fence_open_ns: 10_000_210_000,
                first_forwarded_ns: 10_003_000_000,
            },
            known: Known {
                peer_finding: "kernel-silent".to_owned(),
                silence_ns: 200_100_000,
                echo_age_ns: 210_000_000,
                agent_age_ns: 5_000_000,
                peer_epoch: 6,
                monitors_ok: false,
                monitors_missing: vec!["10.0.0.1".to_owned(), "resources".to_owned()],
                record: Some("epoch 6, vyatta-a, paired".to_owned()),
            },
            ..transition(10_000_200_000, "aws")
        };
        let status = Status {
            node: "vyatta-c".to_owned(),
            now_ns: 12_345_000_000,
            boot_id: "b".to_owned(),
            groups: vec![
                GroupStatus {
                    transitions: vec![transition(1_000_000_000, "aws"), takeover],
                    findings: vec![Finding {
                        at_ns: 10_000_100_000,
                        group: "aws".to_owned(),
                        kind: "peer".to_owned(),
                        text: "the peer was alive and is silent".to_owned(),
                        at_unix_ms: 1_764_000_010_000,
                        boot_id: "b".to_owned(),
                    }],
                    ..GroupStatus::default()
                },
                GroupStatus {
                    transitions: vec![
                        Transition {
                            boot_id: "a".to_owned(),
                            ..transition(90_000_000_000, "lan")
                        },
                        transition(2_000_000_000, "lan"),
                    ],
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
