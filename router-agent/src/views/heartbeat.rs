//! `show heartbeat`: the sessions, their times and losses.

use super::{Table, rotation::progress, table::printable};
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
        rtt_last_us: _,
        rtt_min_us: _,
        rtt_avg_us: _,
        rtt_max_us: _,
        rtt_p50_us: _,
        rtt_p90_us: _,
        rtt_p99_us: _,
        rtt_p999_us: _,
        jitter_us: _,
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
        secret_rotation,
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
    round_trips(&mut table, session);
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
    if !matches!(&**secret_rotation, "" | "none") {
        table.row(["Secret:", progress(secret_rotation)]);
    }
    let title = format!(
        "Session of group {group} over {path} with {peer}: {}",
        if *session_up { "up" } else { "down" }
    );
    format!("{}\n{}", printable(&title), table.render(4))
}

fn round_trips(table: &mut Table, session: &HeartbeatStatus) {
    table.row([
        "Round trip:".to_owned(),
        format!(
            "last {}, min {}, avg {}, max {}",
            us(session.rtt_last_us),
            us(session.rtt_min_us),
            us(session.rtt_avg_us),
            us(session.rtt_max_us)
        ),
    ]);
    table.row([
        "Percentiles:".to_owned(),
        format!(
            "50 % {}, 90 % {}, 99 % {}, 99.9 % {}",
            us(session.rtt_p50_us),
            us(session.rtt_p90_us),
            us(session.rtt_p99_us),
            us(session.rtt_p999_us)
        ),
    ]);
    table.row(["Jitter:".to_owned(), us(session.jitter_us)]);
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
            rtt_p50_us: Some(204.8),
            rtt_p90_us: Some(229.376),
            rtt_p99_us: Some(262.144),
            rtt_p999_us: Some(9_175.04),
            jitter_us: Some(3.75),
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
            secret_rotation: "peer-has-it".to_owned(),
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
