//! `show heartbeat`: the sessions, their times and losses.

use super::{Table, table::printable};
use crate::control::protocol::HeartbeatStatus;

/// A block for each session.
pub fn heartbeat(sessions: &[HeartbeatStatus]) -> String {
    if sessions.is_empty() {
        return "No heartbeat session is configured.\n".to_owned();
    }
    let blocks: Vec<String> = sessions.iter().map(block).collect();
    blocks.join("\n")
}

fn block(session: &HeartbeatStatus) -> String {
    let HeartbeatStatus {
        group,
        path,
        peer,
        peer_address,
        last_heard_ms_ago,
        peer_generation,
        peer_agent_age_ms,
        rtt_last_us,
        rtt_min_us,
        rtt_avg_us,
        rtt_max_us,
        probes_sent,
        replies_received,
        round_trip_loss_percent,
        inbound_loss_percent,
        mac_failures,
        stale,
        unproven,
        wrong_sender,
        not_understood,
        keepalive_interval_ms,
        dead_interval_ms,
        late_ticks,
        max_tick_lateness_us,
        session_up,
        note,
    } = session;
    let mut table = Table::without_header();
    if let Some(note) = note {
        table.row(["Note:", note]);
    }
    let from = peer_address
        .as_ref()
        .map_or_else(String::new, |address| format!(", from {address}"));
    table.row([
        "Last heard:".to_owned(),
        last_heard_ms_ago.map_or_else(|| "never".to_owned(), |ms| format!("{ms:.1} ms ago{from}")),
    ]);
    if *peer_generation != 0 {
        table.row([
            "Peer:",
            &format!("generation {peer_generation}, age of its agent {peer_agent_age_ms:.1} ms"),
        ]);
    }
    table.row([
        "Round trip:".to_owned(),
        format!(
            "last {}, min {}, avg {}, max {}",
            us(*rtt_last_us),
            us(*rtt_min_us),
            us(*rtt_avg_us),
            us(*rtt_max_us)
        ),
    ]);
    table.row([
        "Probes:",
        &format!("{probes_sent} sent, {replies_received} answered"),
    ]);
    table.row([
        "Loss:".to_owned(),
        format!(
            "round trip {}, inbound {}",
            percent(*round_trip_loss_percent),
            percent(*inbound_loss_percent)
        ),
    ]);
    table.row([
        "Refused:",
        &format!(
            "{mac_failures} wrong MAC, {stale} stale, {unproven} unproven, {wrong_sender} wrong sender, {not_understood} not understood"
        ),
    ]);
    table.row([
        "Timing:",
        &format!("keepalive {keepalive_interval_ms} ms, dead {dead_interval_ms} ms"),
    ]);
    table.row([
        "Probe clock:",
        &format!("{late_ticks} late ticks, worst {max_tick_lateness_us:.1} us late"),
    ]);
    let title = format!(
        "Session of group {group} over {path} with {peer}: {}",
        if *session_up { "up" } else { "down" }
    );
    format!("{}\n{}", printable(&title), table.render(4))
}

fn us(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |us| format!("{us:.1} us"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.3} %"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::golden;

    #[test]
    fn a_session_up_and_one_down() {
        let up = HeartbeatStatus {
            group: "aws".to_owned(),
            path: "tun00".to_owned(),
            peer: "vyatta-c".to_owned(),
            peer_address: Some("169.254.0.2".to_owned()),
            last_heard_ms_ago: Some(12.34),
            peer_generation: 3_405_691_582,
            peer_agent_age_ms: 0.25,
            rtt_last_us: Some(210.04),
            rtt_min_us: Some(180.0),
            rtt_avg_us: Some(205.26),
            rtt_max_us: Some(9_000.0),
            probes_sent: 1_000,
            replies_received: 999,
            round_trip_loss_percent: Some(0.1),
            inbound_loss_percent: Some(0.0),
            stale: 3,
            keepalive_interval_ms: 50.0,
            dead_interval_ms: 200.0,
            late_ticks: 2,
            max_tick_lateness_us: 91.5,
            session_up: true,
            ..HeartbeatStatus::default()
        };
        let down = HeartbeatStatus {
            group: "aws".to_owned(),
            path: "tun01".to_owned(),
            peer: "vyatta-c".to_owned(),
            probes_sent: 40,
            mac_failures: 40,
            keepalive_interval_ms: 1.5,
            dead_interval_ms: 6.0,
            note: Some(
                "messages arrive with a wrong MAC: the pre-shared-secret or the host names differ"
                    .to_owned(),
            ),
            ..HeartbeatStatus::default()
        };
        golden::check("heartbeat", &heartbeat(&[up, down]));
        golden::check("heartbeat-none", &heartbeat(&[]));
    }
}
