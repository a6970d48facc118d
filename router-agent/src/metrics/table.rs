//! Each metric: its name, its meaning, and where its values come from. Names and units follow
//! Prometheus' conventions: base units, seconds and bytes; a state is a label with the value 1.

use super::{
    Kind::{self, Counter, Gauge},
    Sample,
};
use crate::{
    agent::words::{finding_word, state_word},
    cluster::{PeerFinding, State},
    control::{
        protocol::{
            AgentVersion, GateState, GroupStatus, HeartbeatStatus, MonitorState, Priorities,
            Status, TunnelStatus,
        },
        server::Source,
    },
};

/// What one scrape sees.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub status: Status,
    sessions: Vec<HeartbeatStatus>,
    tunnels: Vec<TunnelStatus>,
}

impl Snapshot {
    pub fn of(source: &(dyn Source + Send + Sync)) -> Self {
        Self {
            status: source.status(),
            sessions: source.heartbeat(),
            tunnels: source.tunnels(),
        }
    }
}

pub(super) struct Metric {
    /// As in the table of docs/metrics.md, but for the `_total` of a counter.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub samples: fn(&Snapshot) -> Vec<Sample>,
}

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "router_agent_info",
        kind: Gauge,
        help: "The agent and its node",
        samples: |snapshot| {
            let AgentVersion {
                agent, map_layout, ..
            } = AgentVersion::own();
            vec![sample(
                [
                    ("node", snapshot.status.node.clone()),
                    ("version", agent),
                    ("map_layout", map_layout.to_string()),
                ],
                1.0,
            )]
        },
    },
    Metric {
        name: "router_agent_uptime_seconds",
        kind: Gauge,
        help: "Time since the agent started",
        samples: |snapshot| vec![sample([], ms(whole(snapshot.status.agent_uptime_ms)))],
    },
    Metric {
        name: "router_clock_info",
        kind: Gauge,
        help: "What drives the node's clocks, by which leases end",
        samples: |snapshot| {
            let Status {
                clock_source,
                virtual_machine,
                ..
            } = &snapshot.status;
            vec![sample(
                [
                    ("source", clock_source.clone()),
                    ("virtual_machine", virtual_machine.to_string()),
                ],
                1.0,
            )]
        },
    },
    Metric {
        name: "router_clock_may_stop",
        kind: Gauge,
        help: "1 if the clock may stand still while the hypervisor has the machine paused",
        samples: |snapshot| vec![sample([], truth(snapshot.status.clock_may_stop))],
    },
    Metric {
        name: "router_group_state",
        kind: Gauge,
        help: "1 for the state of the group's failover core",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                one_of("state", State::ALL.map(state_word), &group.state, group)
            })
        },
    },
    Metric {
        name: "router_group_epoch",
        kind: Gauge,
        help: "Changes of active so far",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                vec![of_group(group, [], f64::from(group.epoch))]
            })
        },
    },
    Metric {
        name: "router_group_priority",
        kind: Gauge,
        help: "How much the node is to be preferred, if anything tracked has a weight",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let Some(Priorities { own, peer }) = group.priorities else {
                    return Vec::new();
                };
                [("own", Some(own)), ("peer", peer)]
                    .into_iter()
                    .filter_map(|(node, told)| {
                        let priority = f64::from(told?);
                        Some(of_group(group, [("of", node.to_owned())], priority))
                    })
                    .collect()
            })
        },
    },
    Metric {
        name: "router_group_peer",
        kind: Gauge,
        help: "1 for what the peer is found to be",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let findings = PeerFinding::ALL.map(finding_word);
                one_of("finding", findings, &group.peer_finding, group)
            })
        },
    },
    Metric {
        name: "router_group_findings",
        kind: Counter,
        help: "Findings about the peer, this node and its clock, by kind",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let counts = group.finding_counts.iter();
                counts
                    .map(|(kind, count)| of_group(group, [("kind", kind.clone())], whole(*count)))
                    .collect()
            })
        },
    },
    Metric {
        name: "router_group_service_held",
        kind: Gauge,
        help: "1 if this node holds the service",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let services = group.services.iter();
                services
                    .map(|service| {
                        let label = ("service", service.service.clone());
                        of_group(group, [label], truth(service.held))
                    })
                    .collect()
            })
        },
    },
    Metric {
        name: "router_group_monitor_reachable",
        kind: Gauge,
        help: "1 if the monitored address answers, or what else is monitored is well",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let monitors = group.monitors.iter();
                monitors
                    .map(|monitor| {
                        let label = ("monitor", monitor.address.clone());
                        let reachable = monitor.state == MonitorState::Reachable;
                        of_group(group, [label], truth(reachable))
                    })
                    .collect()
            })
        },
    },
    Metric {
        name: "router_fence_open",
        kind: Gauge,
        help: "1 if protected packets of the group pass",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let is_open = group.fence.gate == GateState::Open;
                vec![of_group(group, [], truth(is_open))]
            })
        },
    },
    Metric {
        name: "router_fence_remaining_seconds",
        kind: Gauge,
        help: "For how long the fence is open by the authority that it has now; zero if closed",
        samples: |snapshot| {
            let now_ns = snapshot.status.now_ns;
            of_groups(snapshot, |group| {
                let left = match group.fence.gate {
                    GateState::Open => group.fence.end_ns.saturating_sub(now_ns),
                    GateState::Expired | GateState::Closed => 0,
                };
                vec![of_group(group, [], ns(left))]
            })
        },
    },
    Metric {
        name: "router_fence_dropped_packets",
        kind: Counter,
        help: "Protected packets that the fence dropped",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let fence = &group.fence;
                let counts = [
                    ("in", fence.dropped_in),
                    ("out", fence.dropped_out),
                    ("transit", fence.dropped_transit),
                ];
                labelled("way", counts, |label, value| {
                    of_group(group, [label], value)
                })
            })
        },
    },
    Metric {
        name: "router_fence_grants",
        kind: Counter,
        help: "The peer's grants, by what became of them",
        samples: |snapshot| {
            of_groups(snapshot, |group| {
                let fence = &group.fence;
                let counts = [
                    ("counted", fence.grants_counted),
                    ("not-for-us", fence.grants_not_for_us),
                    ("too-short", fence.grants_too_short),
                ];
                labelled("outcome", counts, |label, value| {
                    of_group(group, [label], value)
                })
            })
        },
    },
    Metric {
        name: "router_session_up",
        kind: Gauge,
        help: "1 if the peer's messages are being heard and believed",
        samples: |snapshot| of_sessions(snapshot, |session| Some(truth(session.session_up))),
    },
    Metric {
        name: "router_session_last_heard_seconds",
        kind: Gauge,
        help: "Time since the newest message of the peer; absent if it was never heard",
        samples: |snapshot| of_sessions(snapshot, |session| session.last_heard_ms_ago.map(ms)),
    },
    Metric {
        name: "router_session_peer_agent_age_seconds",
        kind: Gauge,
        help: "Age of the peer's agent, as its newest message told it",
        samples: |snapshot| of_sessions(snapshot, |session| Some(ms(session.peer_agent_age_ms))),
    },
    Metric {
        name: "router_session_round_trip_seconds",
        kind: Gauge,
        help: "Round trips since the session began, by quantile; at most a quarter too long",
        samples: |snapshot| {
            let sessions = snapshot.sessions.iter();
            sessions
                .flat_map(|session| {
                    let quantiles = [
                        ("0.5", session.rtt_p50_us),
                        ("0.9", session.rtt_p90_us),
                        ("0.99", session.rtt_p99_us),
                        ("0.999", session.rtt_p999_us),
                    ];
                    quantiles.into_iter().filter_map(|(quantile, value)| {
                        let label = ("quantile", quantile.to_owned());
                        Some(of_session(session, [label], us(value?)))
                    })
                })
                .collect()
        },
    },
    Metric {
        name: "router_session_last_round_trip_seconds",
        kind: Gauge,
        help: "The newest round trip",
        samples: |snapshot| of_sessions(snapshot, |session| session.rtt_last_us.map(us)),
    },
    Metric {
        name: "router_session_jitter_seconds",
        kind: Gauge,
        help: "Jitter of replies on their way from the peer's kernel (RFC 3550)",
        samples: |snapshot| of_sessions(snapshot, |session| session.jitter_us.map(us)),
    },
    Metric {
        name: "router_session_probes_sent",
        kind: Counter,
        help: "Probes sent",
        samples: |snapshot| of_sessions(snapshot, |session| Some(whole(session.probes_sent))),
    },
    Metric {
        name: "router_session_replies",
        kind: Counter,
        help: "Replies believed, in the peer's present generation",
        samples: |snapshot| of_sessions(snapshot, |session| Some(whole(session.replies_received))),
    },
    Metric {
        name: "router_session_loss_ratio",
        kind: Gauge,
        help: "Loss of heartbeats in the peer's present generation",
        samples: |snapshot| {
            let sessions = snapshot.sessions.iter();
            sessions
                .flat_map(|session| {
                    let losses = [
                        ("round-trip", session.round_trip_loss_percent),
                        ("inbound", session.inbound_loss_percent),
                    ];
                    losses.into_iter().filter_map(|(way, percent)| {
                        let label = ("way", way.to_owned());
                        Some(of_session(session, [label], percent? / 100.0))
                    })
                })
                .collect()
        },
    },
    Metric {
        name: "router_session_refused",
        kind: Counter,
        help: "Messages that were not believed, by reason",
        samples: |snapshot| {
            let sessions = snapshot.sessions.iter();
            sessions
                .flat_map(|session| {
                    let counts = [
                        ("wrong-mac", session.mac_failures),
                        ("stale", session.stale),
                        ("unproven", session.unproven),
                        ("wrong-sender", session.wrong_sender),
                        ("not-understood", session.not_understood),
                    ];
                    labelled("reason", counts, |label, value| {
                        of_session(session, [label], value)
                    })
                })
                .collect()
        },
    },
    Metric {
        name: "router_session_grants_given",
        kind: Counter,
        help: "Messages that granted the peer a lease",
        samples: |snapshot| of_sessions(snapshot, |session| Some(whole(session.grants_given))),
    },
    Metric {
        name: "router_probe_clock_late_ticks",
        kind: Counter,
        help: "Probes sent more than half a keepalive late",
        samples: |snapshot| {
            // All sessions have one clock.
            let session = snapshot.sessions.first();
            session
                .map(|session| sample([], whole(session.late_ticks)))
                .into_iter()
                .collect()
        },
    },
    Metric {
        name: "router_probe_clock_worst_lateness_seconds",
        kind: Gauge,
        help: "The worst lateness of a probe since the agent's start",
        samples: |snapshot| {
            let session = snapshot.sessions.first();
            session
                .map(|session| sample([], us(session.max_tick_lateness_us)))
                .into_iter()
                .collect()
        },
    },
    Metric {
        name: "router_tunnel_up",
        kind: Gauge,
        help: "1 if the tunnel's device is up",
        samples: |snapshot| {
            of_tunnels(snapshot, |tunnel| {
                vec![of_tunnel(tunnel, [], truth(tunnel.link_up))]
            })
        },
    },
    Metric {
        name: "router_tunnel_mtu_bytes",
        kind: Gauge,
        help: "Largest inner packet",
        samples: |snapshot| {
            of_tunnels(snapshot, |tunnel| {
                vec![of_tunnel(tunnel, [], f64::from(tunnel.mtu))]
            })
        },
    },
    Metric {
        name: "router_tunnel_packets",
        kind: Counter,
        help: "Packets through the tunnel",
        samples: |snapshot| by_direction(snapshot, [("rx", "rx_packets"), ("tx", "tx_packets")]),
    },
    Metric {
        name: "router_tunnel_bytes",
        kind: Counter,
        help: "Bytes of inner packets through the tunnel",
        samples: |snapshot| by_direction(snapshot, [("rx", "rx_bytes"), ("tx", "tx_bytes")]),
    },
    Metric {
        name: "router_tunnel_events",
        kind: Counter,
        help: "The tunnel's other counters, by their names in docs/operations.md",
        samples: |snapshot| {
            of_tunnels(snapshot, |tunnel| {
                let traffic = ["rx_packets", "tx_packets", "rx_bytes", "tx_bytes"];
                let events = tunnel.counters.iter();
                events
                    .filter(|(name, _)| !traffic.contains(&&***name))
                    .map(|(name, count)| {
                        of_tunnel(tunnel, [("event", name.clone())], whole(*count))
                    })
                    .collect()
            })
        },
    },
];

fn sample<const N: usize>(labels: [(&'static str, String); N], value: f64) -> Sample {
    Sample {
        labels: labels.into(),
        value,
    }
}

fn with<const N: usize>(
    mut labels: Vec<(&'static str, String)>,
    more: [(&'static str, String); N],
    value: f64,
) -> Sample {
    labels.extend(more);
    Sample { labels, value }
}

fn of_groups(snapshot: &Snapshot, of: impl Fn(&GroupStatus) -> Vec<Sample>) -> Vec<Sample> {
    snapshot.status.groups.iter().flat_map(of).collect()
}

fn of_group<const N: usize>(
    group: &GroupStatus,
    more: [(&'static str, String); N],
    value: f64,
) -> Sample {
    with(vec![("group", group.group.clone())], more, value)
}

/// Each of `words`, the one that holds with 1.
fn one_of<const N: usize>(
    label: &'static str,
    words: [&str; N],
    holds: &str,
    group: &GroupStatus,
) -> Vec<Sample> {
    words
        .into_iter()
        .map(|word| of_group(group, [(label, word.to_owned())], truth(word == holds)))
        .collect()
}

fn labelled<const N: usize>(
    label: &'static str,
    counts: [(&str, u64); N],
    of: impl Fn((&'static str, String), f64) -> Sample,
) -> Vec<Sample> {
    counts
        .into_iter()
        .map(|(word, count)| of((label, word.to_owned()), whole(count)))
        .collect()
}

/// What each session has, if it has it.
fn of_sessions(snapshot: &Snapshot, of: impl Fn(&HeartbeatStatus) -> Option<f64>) -> Vec<Sample> {
    let sessions = snapshot.sessions.iter();
    sessions
        .filter_map(|session| Some(of_session(session, [], of(session)?)))
        .collect()
}

fn of_session<const N: usize>(
    session: &HeartbeatStatus,
    more: [(&'static str, String); N],
    value: f64,
) -> Sample {
    let labels = vec![
        ("group", session.group.clone()),
        ("path", session.path.clone()),
        ("peer", session.peer.clone()),
    ];
    with(labels, more, value)
}

fn of_tunnels(snapshot: &Snapshot, of: impl Fn(&TunnelStatus) -> Vec<Sample>) -> Vec<Sample> {
    snapshot.tunnels.iter().flat_map(of).collect()
}

fn of_tunnel<const N: usize>(
    tunnel: &TunnelStatus,
    more: [(&'static str, String); N],
    value: f64,
) -> Sample {
    with(vec![("tunnel", tunnel.name.clone())], more, value)
}

/// Counters of each tunnel, by direction and name.
fn by_direction(snapshot: &Snapshot, counters: [(&'static str, &str); 2]) -> Vec<Sample> {
    of_tunnels(snapshot, |tunnel| {
        let counts = counters.map(|(direction, name)| (direction, tunnel.counter(name)));
        labelled("direction", counts, |label, value| {
            of_tunnel(tunnel, [label], value)
        })
    })
}

fn truth(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus knows no other numbers"
)]
fn whole(count: u64) -> f64 {
    count as f64
}

pub(super) fn ns(ns: u64) -> f64 {
    whole(ns) / 1e9
}

fn us(us: f64) -> f64 {
    us / 1e6
}

fn ms(ms: f64) -> f64 {
    ms / 1e3
}
