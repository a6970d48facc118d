//! `top`: the whole router on one screen, again and again.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize as _},
    text::Line,
    widgets::{Block, Paragraph, Row, Sparkline, Table},
};

use super::{events::events, instant::span, table::printable};
use crate::control::protocol::{HeartbeatStatus, NodeState, NodeStatus, Status, TunnelStatus};

/// Round trips kept of each session.
const ROUND_TRIPS: usize = 120;
/// Sessions that have a place; others are counted.
const SESSIONS: usize = 8;
const EVENTS: u16 = 8;

/// What was asked for one picture.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub status: Status,
    pub sessions: Vec<HeartbeatStatus>,
    pub tunnels: Vec<TunnelStatus>,
}

/// The newest picture, and what earlier ones leave to compare with.
#[derive(Debug, Default)]
pub struct Top {
    newest: Picture,
    before: Picture,
    /// In µs, by group and path.
    round_trips: BTreeMap<(String, String), VecDeque<u64>>,
    /// Why there is no newer picture.
    trouble: Option<String>,
}

impl Top {
    pub fn take(&mut self, picture: Picture) {
        self.trouble = None;
        let mut round_trips = BTreeMap::new();
        for session in &picture.sessions {
            let key = (session.group.clone(), session.path.clone());
            let mut trips = self.round_trips.remove(&key).unwrap_or_default();
            if trips.len() == ROUND_TRIPS {
                trips.pop_front();
            }
            trips.push_back(whole_us(session.rtt_last_us));
            round_trips.insert(key, trips);
        }
        self.round_trips = round_trips;
        self.before = std::mem::replace(&mut self.newest, picture);
    }

    pub fn fail(&mut self, why: String) {
        self.trouble = Some(why);
    }

    pub fn draw(&self, frame: &mut Frame) {
        let Picture {
            status, sessions, ..
        } = &self.newest;
        let shown = sessions.len().min(SESSIONS);
        let [title, groups, heartbeats, tunnels, last] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(height(status.groups.len())),
            Constraint::Length(height(shown)),
            Constraint::Min(3),
            Constraint::Length(EVENTS),
        ])
        .areas(frame.area());
        frame.render_widget(self.title(), title);
        frame.render_widget(self.groups(), groups);
        self.draw_sessions(frame, heartbeats, shown);
        frame.render_widget(self.tunnels(), tunnels);
        frame.render_widget(self.events(), last);
    }

    fn title(&self) -> Line<'_> {
        if let Some(trouble) = &self.trouble {
            return Line::from(printable(trouble)).fg(Color::Red);
        }
        let status = &self.newest.status;
        Line::from(format!(
            "{}, agent up {}, clock {}; q ends",
            printable(&status.node),
            span(status.agent_uptime_ms),
            status.clock_source
        ))
        .bold()
    }

    fn groups(&self) -> Table<'_> {
        let rows = self.newest.status.groups.iter().map(|group| {
            let colour = match &*group.state {
                "active" => Color::Green,
                "fault" => Color::Red,
                _ => Color::Reset,
            };
            Row::new([
                group.group.clone(),
                group.state.clone(),
                group.epoch.to_string(),
                node(&group.primary),
                node(&group.secondary),
            ])
            .style(Style::new().fg(colour))
        });
        let widths = [
            Constraint::Max(16),
            Constraint::Length(12),
            Constraint::Length(6),
            Constraint::Fill(1),
            Constraint::Fill(1),
        ];
        Table::new(rows, widths)
            .header(Row::new([
                "GROUP",
                "STATE",
                "EPOCH",
                "PRIMARY",
                "SECONDARY",
            ]))
            .block(Block::bordered().title("nodes"))
    }

    fn draw_sessions(&self, frame: &mut Frame, area: ratatui::layout::Rect, shown: usize) {
        let sessions = &self.newest.sessions;
        let title = match sessions.len() - shown {
            0 => "sessions, newest round trips".to_owned(),
            more => format!("sessions, newest round trips; {more} more"),
        };
        let block = Block::bordered().title(title);
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let lines = Layout::vertical(vec![Constraint::Length(1); shown]).split(inside);
        for (session, line) in sessions.iter().zip(lines.iter()) {
            let [words, spark] =
                Layout::horizontal([Constraint::Percentage(60), Constraint::Fill(1)]).areas(*line);
            let (state, colour) = if session.session_up {
                ("up", Color::Green)
            } else {
                ("down", Color::Red)
            };
            let trip = session
                .rtt_last_us
                .map_or_else(|| "-".to_owned(), |us| format!("{us:.0} us"));
            let text = format!(
                "{} {} {}: {state}, {trip}",
                session.group, session.path, session.peer
            );
            frame.render_widget(Line::from(printable(&text)).fg(colour), words);
            let key = (session.group.clone(), session.path.clone());
            let trips = self.round_trips.get(&key).cloned().unwrap_or_default();
            let first = trips.len().saturating_sub(spark.width.into());
            frame.render_widget(Sparkline::default().data(trips.range(first..)), spark);
        }
    }

    fn tunnels(&self) -> Table<'_> {
        let passed = self
            .newest
            .status
            .now_ns
            .saturating_sub(self.before.status.now_ns);
        let passed = Duration::from_nanos(passed);
        let rows = self.newest.tunnels.iter().map(|tunnel| {
            let before = self.before.tunnels.iter().find(|b| b.name == tunnel.name);
            let rate = |counter| {
                let grown = before.map(|before| {
                    let grown = tunnel
                        .counter(counter)
                        .saturating_sub(before.counter(counter));
                    per_second(grown, passed)
                });
                grown.unwrap_or_else(|| "-".to_owned())
            };
            Row::new([
                tunnel.name.clone(),
                if tunnel.link_up { "up" } else { "down" }.to_owned(),
                rate("rx_packets"),
                rate("rx_bytes"),
                rate("tx_packets"),
                rate("tx_bytes"),
            ])
        });
        let mut widths = vec![Constraint::Max(16), Constraint::Length(5)];
        widths.extend([Constraint::Fill(1); 4]);
        Table::new(rows, widths)
            .header(Row::new([
                "TUNNEL", "LINK", "RX/s", "RX B/s", "TX/s", "TX B/s",
            ]))
            .block(Block::bordered().title("tunnels"))
    }

    fn events(&self) -> Paragraph<'_> {
        let room = usize::from(EVENTS) - 2;
        let all = events(&self.newest.status);
        let first = all.len().saturating_sub(room);
        let lines: Vec<Line> = all
            .iter()
            .skip(first)
            .map(|e| Line::from(e.line()))
            .collect();
        Paragraph::new(lines).block(Block::bordered().title("last events"))
    }
}

/// Vyatta's words are too long for two nodes beside each other.
fn node(NodeStatus { name, state, .. }: &NodeStatus) -> String {
    let state = match state {
        NodeState::Active => "active",
        NodeState::ActiveStandby => "standby",
        NodeState::Down => "down",
        NodeState::DownMonitorUnreachable => "monitor lost",
        NodeState::Initializing => "starting",
        NodeState::StartedWaitingForSecondary | NodeState::StartedWaitingForPrimary => "waiting",
        NodeState::InTransition => "moving",
        NodeState::Unknown => "unknown",
    };
    format!("{state} {name}")
}

/// Of a block with so many lines, its frame and its header.
fn height(lines: usize) -> u16 {
    u16::try_from(lines)
        .unwrap_or(u16::MAX)
        .saturating_add(3)
        .min(12)
}

fn per_second(count: u64, passed: Duration) -> String {
    let ms = passed.as_millis().max(1);
    (u128::from(count) * 1_000 / ms).to_string()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a round trip is positive and far below 2^52 µs"
)]
fn whole_us(us: Option<f64>) -> u64 {
    us.unwrap_or_default() as u64
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::{control::protocol::GroupStatus, views::golden};

    fn picture(now_ns: u64, packets: u64, rtt_us: f64) -> Picture {
        Picture {
            status: Status {
                node: "vyatta-a".to_owned(),
                now_ns,
                clock_source: "tsc".to_owned(),
                groups: vec![GroupStatus {
                    group: "aws".to_owned(),
                    state: "active".to_owned(),
                    epoch: 3,
                    primary: NodeStatus {
                        name: "vyatta-a".to_owned(),
                        this_node: true,
                        state: NodeState::DownMonitorUnreachable,
                    },
                    secondary: NodeStatus {
                        name: "vyatta-c".to_owned(),
                        this_node: false,
                        state: NodeState::ActiveStandby,
                    },
                    ..GroupStatus::default()
                }],
                ..Status::default()
            },
            sessions: vec![HeartbeatStatus {
                group: "aws".to_owned(),
                path: "tun00".to_owned(),
                peer: "vyatta-c".to_owned(),
                session_up: true,
                rtt_last_us: Some(rtt_us),
                ..HeartbeatStatus::default()
            }],
            tunnels: vec![TunnelStatus {
                name: "tun00".to_owned(),
                link_up: true,
                counters: [("rx_packets".to_owned(), packets)].into(),
                ..TunnelStatus::default()
            }],
        }
    }

    fn drawn(top: &Top, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| top.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn two_pictures_give_rates_and_a_line_of_round_trips() {
        let mut top = Top::default();
        top.take(picture(1_000_000_000, 1_000, 100.0));
        top.take(picture(3_000_000_000, 5_000, 300.0));
        golden::check("top", &drawn(&top, 80, 24));
    }

    #[test]
    fn any_size_of_terminal_is_borne() {
        let mut top = Top::default();
        top.take(picture(1, 2, 3.0));
        top.fail("the agent has gone".to_owned());
        for (width, height) in [(1, 1), (20, 5), (300, 4)] {
            drawn(&top, width, height);
        }
        assert!(drawn(&top, 80, 24).contains("the agent has gone"));
    }
}
