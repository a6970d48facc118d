//! `show interfaces tunnel`, brief as Vyatta shows it and in detail.

use super::{
    Table,
    instant::span,
    paint::{Painted, Tone},
    table::printable,
};
use crate::control::protocol::{ClearedStatus, EpochKeyStatus, KeepaliveStatus, TunnelStatus};

const LEGEND: &str = "Codes: S - State, L - Link, u - Up, D - Down, A - Admin Down\n";
const HEADER: [&str; 4] = ["Interface", "IP Address", "S/L", "Description"];

/// A line for each tunnel, and one more for each further address.
pub fn tunnels_brief(tunnels: &[TunnelStatus]) -> String {
    let mut table = Table::new(&HEADER);
    for tunnel in tunnels {
        let mut addresses = tunnel.addresses.iter().map(String::as_str);
        table.row([
            (&tunnel.name).into(),
            addresses.next().unwrap_or("-").into(),
            codes(tunnel),
            (&tunnel.description).into(),
        ]);
        for address in addresses {
            table.row(["", address]);
        }
    }
    format!("{LEGEND}{}", table.render(0))
}

fn codes(tunnel: &TunnelStatus) -> Painted {
    match (tunnel.admin_up, tunnel.link_up) {
        (true, true) => Tone::Good.paint("u/u"),
        (true, false) => Tone::Bad.paint("u/D"),
        (false, _) => Tone::Faint.paint("A/D"),
    }
}

/// A block for each tunnel.
pub fn tunnels_detail(tunnels: &[TunnelStatus]) -> String {
    let blocks: Vec<String> = tunnels.iter().map(detail).collect();
    blocks.join("\n")
}

fn detail(tunnel: &TunnelStatus) -> String {
    let TunnelStatus {
        name,
        addresses,
        description,
        mtu,
        local,
        remote,
        key,
        epoch_key,
        ttl,
        tos,
        underlay,
        xdp_mode,
        xdp_mode_reason,
        admin_up,
        link_up,
        multicast,
        encapsulation,
        path_mtu,
        path_mtu_age_ms,
        keepalive,
        notes,
        cleared,
        counters: _,
    } = tunnel;
    let key = match epoch_key {
        Some(epochs) => epoch_words(epochs),
        None => key.map_or_else(|| "none".to_owned(), |key| key.to_string()),
    };
    let reason = xdp_mode_reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(" ({reason})"));
    let mut facts = Table::without_header();
    let tone = if *admin_up {
        Tone::of_up(*link_up)
    } else {
        Tone::Faint
    };
    let state = format!("admin {}, link {}", up(*admin_up), up(*link_up));
    facts.row(["State:".into(), tone.paint(state)]);
    if !description.is_empty() {
        facts.row(["Description:", description]);
    }
    for address in addresses {
        facts.row(["Address:", address]);
    }
    facts.row([
        "Encapsulation:",
        &format!(
            "{encapsulation}, local {local}, remote {remote}, key {key}, ttl {ttl}, tos {tos}"
        ),
    ]);
    facts.row(["MTU:", &format!("{mtu} bytes")]);
    if let Some(path_mtu) = path_mtu {
        let age = path_mtu_age_ms.unwrap_or_default() / 1000;
        facts.row([
            "Path MTU:",
            &format!("{path_mtu} bytes, learnt {age} s ago"),
        ]);
    }
    if let Some(keepalive) = keepalive {
        let tone = Tone::of_up(keepalive.up);
        facts.row(["Keepalive:".into(), tone.paint(keepalive_words(keepalive))]);
    }
    facts.row([
        "Multicast:",
        if *multicast { "enabled" } else { "disabled" },
    ]);
    facts.row(["Underlay:", &format!("{underlay}, XDP {xdp_mode}{reason}")]);

    for note in notes {
        facts.row(["Note:".into(), Tone::Attention.paint(note)]);
    }

    if let Some(ClearedStatus { ms_ago, .. }) = cleared {
        facts.row(["Counters:", &format!("cleared {} ago", span(*ms_ago))]);
    }

    let mut counters = Table::new(&["", "Bytes", "Packets", "Errors", "Unsupported"]);
    for (direction, prefix) in [("RX:", "rx"), ("TX:", "tx")] {
        let mut cells = vec![direction.to_owned()];
        let counter = |name| tunnel.since_cleared(&format!("{prefix}_{name}"));
        cells.extend(IN_TABLE.map(|name| counter(name).to_string()));
        counters.row(cells);
    }
    for name in tunnel.counters.keys().filter(|name| !is_in_table(name)) {
        let value = tunnel.since_cleared(name);
        if value != 0 {
            facts.row([&format!("{name}:"), &value.to_string()]);
        }
    }
    format!(
        "{}\n{}\n{}",
        Tone::Title.paint(printable(name) + ":"),
        facts.render(4),
        counters.render(4)
    )
}

fn epoch_words(epochs: &EpochKeyStatus) -> String {
    let EpochKeyStatus {
        sent,
        newest_received,
        domain,
    } = epochs;
    let domain = domain
        .as_ref()
        .map_or_else(String::new, |domain| format!(" of {}", printable(domain)));
    format!("cluster-epoch (sends {sent}, takes {newest_received} and newer{domain})")
}

fn keepalive_words(keepalive: &KeepaliveStatus) -> String {
    let KeepaliveStatus {
        interval_ms,
        retries,
        up: is_up,
        unanswered,
    } = *keepalive;
    format!(
        "{}, every {} s, retries {retries}, unanswered {unanswered}",
        up(is_up),
        interval_ms / 1000,
    )
}

/// Counters that are always shown, each for both directions; others are if they counted anything.
const IN_TABLE: [&str; 4] = ["bytes", "packets", "errors", "unsupported"];

fn is_in_table(name: &str) -> bool {
    let base = name.strip_prefix("rx_").or(name.strip_prefix("tx_"));
    base.is_some_and(|base| IN_TABLE.contains(&base))
}

const fn up(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::golden;

    fn tunnels() -> Vec<TunnelStatus> {
        let tun00 = TunnelStatus {
            name: "tun00".to_owned(),
            addresses: vec!["169.254.0.1/24".to_owned(), "fe80::1/64".to_owned()],
            description: "to zone c".to_owned(),
            mtu: 1476,
            local: "10.0.1.10".to_owned(),
            remote: "10.0.2.10".to_owned(),
            key: None,
            epoch_key: None,
            ttl: "255".to_owned(),
            tos: "inherit".to_owned(),
            underlay: "eth0".to_owned(),
            xdp_mode: "native".to_owned(),
            xdp_mode_reason: None,
            admin_up: true,
            link_up: true,
            multicast: true,
            encapsulation: "gre".to_owned(),
            path_mtu: None,
            path_mtu_age_ms: None,
            keepalive: None,
            notes: Vec::new(),
            cleared: None,
            counters: [
                ("rx_packets", 12_345),
                ("rx_bytes", 9_876_543_210),
                ("tx_packets", 7),
                ("tx_bytes", 640),
                ("rx_errors", 1),
                ("tx_errors", 0),
                ("tx_unsupported", 2),
                ("rx_checksum_errors", 3),
                ("rx_slow", 0),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        };
        let tun1 = TunnelStatus {
            name: "tun1".to_owned(),
            addresses: Vec::new(),
            description: String::new(),
            key: Some(0),
            xdp_mode: "generic".to_owned(),
            xdp_mode_reason: Some("the driver vif has no native XDP".to_owned()),
            link_up: false,
            multicast: false,
            path_mtu: Some(1400),
            path_mtu_age_ms: Some(12_345),
            keepalive: Some(KeepaliveStatus {
                interval_ms: 10_000,
                retries: 3,
                up: false,
                unanswered: 4,
            }),
            notes: vec!["down: 4 keepalives in a row did not come back".to_owned()],
            ..tun00.clone()
        };
        let tun999 = TunnelStatus {
            name: "tun999".to_owned(),
            admin_up: false,
            ..tun00.clone()
        };
        let tun2 = TunnelStatus {
            name: "tun2".to_owned(),
            epoch_key: Some(EpochKeyStatus {
                sent: 0,
                newest_received: 6,
                domain: Some("aws".to_owned()),
            }),
            cleared: Some(ClearedStatus {
                ms_ago: 65_000,
                counters: [("rx_epoch_errors".to_owned(), 4)].into(),
            }),
            counters: [("rx_epoch_errors".to_owned(), 7)].into(),
            ..tun00.clone()
        };
        vec![tun00, tun1, tun2, tun999]
    }

    #[test]
    fn brief_is_vyattas() {
        golden::check_both("tunnels-brief", &tunnels_brief(&tunnels()));
        golden::check_folded("tunnels-brief", &tunnels_brief(&tunnels()), 52);
        golden::check("tunnels-brief-none", &tunnels_brief(&[]));
    }

    #[test]
    fn detail_tells_all() {
        let text = tunnels_detail(&tunnels()[..3]);
        golden::check_both("tunnels-detail", &text);
        golden::check_folded("tunnels-detail", &text, 50);
    }
}
