//! `show heartbeat`: the sessions, their times and losses.

use std::time::Duration;

use super::{
    Table, fence,
    instant::{ms_ago, span},
    paint::Tone,
    rotation::progress,
    table::printable,
};
use crate::control::protocol::{ClearedStatus, FenceStatus, HeartbeatStatus};

/// A block for each session.
pub fn heartbeat(sessions: &[HeartbeatStatus]) -> String {
    if sessions.is_empty() {
        return "No heartbeat session is configured.\n".to_owned();
    }
    let blocks: Vec<String> = sessions.iter().map(block).collect();
    blocks.join("\n")
}

fn block(session: &HeartbeatStatus) -> String {
    let session = &session.since_cleared();
    let HeartbeatStatus {
        group,
        path,
        peer,
        peer_address,
        last_heard_ms_ago,
        peer_generation,
        peer_agent_age_ms,
        peer_epoch: _,
        peer_owner: _,
        peer_flags: _,
        granting_us: _,
        last_granted_ms_ago: _,
        promised_ms: _,
        grants_given: _,
        fence: _,
        now_ns: _,
        rtt_last_us: _,
        rtt_min_us: _,
        rtt_avg_us: _,
        rtt_max_us: _,
        rtt_p50_us: _,
        rtt_p90_us: _,
        rtt_p99_us: _,
        rtt_p999_us: _,
        jitter_us: _,
        probes_sent: _,
        replies_received: _,
        replies_expected: _,
        peer_probes_received: _,
        peer_probes_expected: _,
        round_trip_loss_percent: _,
        inbound_loss_percent: _,
        mac_failures: _,
        stale: _,
        unproven: _,
        wrong_sender: _,
        not_understood: _,
        keepalive_interval_ms,
        dead_interval_ms,
        late_ticks,
        max_tick_lateness_us,
        session_up,
        secret_rotation,
        note,
        cleared,
    } = session;
    let mut table = Table::without_header();
    if let Some(note) = note {
        table.row(["Note:".into(), Tone::Attention.paint(note)]);
    }
    let from = peer_address
        .as_ref()
        .map_or_else(String::new, |address| format!(", from {address}"));
    table.row([
        "Last heard:".to_owned(),
        last_heard_ms_ago.map_or_else(|| "never".to_owned(), |ms| ms_ago(ms) + &from),
    ]);
    if *peer_generation != 0 {
        table.row([
            "Peer:",
            &format!("generation {peer_generation}, age of its agent {peer_agent_age_ms:.1} ms"),
        ]);
        table.row(["Claim:".to_owned(), claim(session)]);
    }
    if let Some(ClearedStatus { ms_ago, .. }) = cleared {
        table.row([
            "Counters:",
            &format!(
                "cleared {} ago; round trips and worst lateness go further back",
                span(*ms_ago)
            ),
        ]);
    }
    authority(&mut table, session);
    round_trips(&mut table, session);
    messages(&mut table, session);
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
    let title = format!("Session of group {group} over {path} with {peer}:");
    let state = Tone::of_up(*session_up).paint(if *session_up { "up" } else { "down" });
    let title = Tone::Title.paint(printable(&title));
    format!("{title} {state}\n{}", table.render(4))
}

/// What the peer's newest message said of the group and of itself.
fn claim(session: &HeartbeatStatus) -> String {
    let flags = match &session.peer_flags[..] {
        [] => "none".to_owned(),
        flags => flags.join(", "),
    };
    format!(
        "epoch {}, owner {}; flags: {flags}",
        session.peer_epoch,
        session.peer_owner.as_deref().unwrap_or("nobody"),
    )
}

/// What this node grants, and what it may do by what it was granted.
fn authority(table: &mut Table, session: &HeartbeatStatus) {
    let grants = match session.granting_us {
        0 => "nothing now".to_owned(),
        length => format!("{} with each message", us_as_ms(length)),
    };
    let last = session
        .last_granted_ms_ago
        .map_or_else(String::new, |ms| format!(", the last {}", ms_ago(ms)));
    let promise = if session.promised_ms > 0.0 {
        format!(", binding us for {:.1} ms more", session.promised_ms)
    } else {
        String::new()
    };
    let given = session.grants_given;
    table.row([
        "Granting:",
        &format!("{grants}; {given} so far{last}{promise}"),
    ]);
    let FenceStatus {
        gate: _,
        authority: _,
        end_ns: _,
        first_passed_ns: _,
        epoch,
        lease_us,
        grants_counted,
        grants_not_for_us,
        grants_too_short,
        dropped_in,
        dropped_out,
        dropped_transit,
    } = session.fence;
    table.row([
        "Granted:",
        &format!(
            "{grants_counted} counted, {grants_not_for_us} not for us, {grants_too_short} too short"
        ),
    ]);
    let gate = fence::gate(&session.fence, session.now_ns);
    let under = match (epoch, lease_us) {
        (0, _) => String::new(),
        (epoch, 0) => format!("; epoch {epoch}, grants do not count"),
        (epoch, lease) => format!("; epoch {epoch}, lease {}", us_as_ms(lease)),
    };
    table.row(["Fence:", &format!("{gate}{under}")]);
    table.row([
        "Dropped:",
        &format!("{dropped_in} in, {dropped_out} out, {dropped_transit} in transit"),
    ]);
}

fn us_as_ms(us: u64) -> String {
    format!("{} ms", Duration::from_micros(us).as_secs_f64() * 1e3)
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

/// What became of ours and of the peer's.
fn messages(table: &mut Table, session: &HeartbeatStatus) {
    let HeartbeatStatus {
        probes_sent,
        replies_received,
        round_trip_loss_percent,
        inbound_loss_percent,
        mac_failures,
        stale,
        unproven,
        wrong_sender,
        not_understood,
        ..
    } = session;
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
    use crate::{
        control::protocol::{Authority, GateState},
        views::golden,
    };

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
            peer_epoch: 7,
            peer_owner: Some("vyatta-a".to_owned()),
            peer_flags: vec!["eligible".to_owned(), "0x40".to_owned()],
            granting_us: 0,
            last_granted_ms_ago: Some(90_000.04),
            grants_given: 431,
            fence: FenceStatus {
                gate: GateState::Open,
                authority: Some(Authority::Grants),
                end_ns: 1_132_000_000,
                first_passed_ns: 5,
                epoch: 7,
                lease_us: 150_000,
                grants_counted: 1_998,
                grants_not_for_us: 2,
                dropped_in: 12,
                ..FenceStatus::default()
            },
            now_ns: 1_000_000_000,
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
            granting_us: 4_500,
            last_granted_ms_ago: Some(0.5),
            promised_ms: 4.5,
            grants_given: 40,
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
        let cleared = HeartbeatStatus {
            replies_expected: 1_000,
            cleared: Some(ClearedStatus {
                ms_ago: 65_000,
                counters: [
                    ("probes_sent", 900),
                    ("replies_received", 900),
                    ("replies_expected", 900),
                    ("stale", 3),
                    ("grants_given", 400),
                    ("dropped_in", 10),
                    ("late_ticks", 2),
                ]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            }),
            ..up.clone()
        };
        golden::check("heartbeat-cleared", &heartbeat(&[cleared]));
        golden::check_both("heartbeat", &heartbeat(&[up, down]));
        golden::check("heartbeat-none", &heartbeat(&[]));
    }
}
