//! Colours: what a word says of how things stand, seen at a glance.
//!
//! Views always have the codes in them; whoever prints one takes them out where they are of no use.

use std::fmt;

use anstyle::{AnsiColor, Style};

use crate::control::protocol::{LogSeverity, MonitorState, NodeState};

/// How what a word says is to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    #[default]
    Plain,
    /// As it should be, and at work.
    Good,
    /// As it should be, and not at work.
    Ready,
    /// On the way, or worth a look.
    Attention,
    Bad,
    /// Of no account.
    Faint,
    Title,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Ready => AnsiColor::Cyan.on_default(),
            Self::Attention => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Title => Style::new().bold(),
        }
    }

    /// Of the failover core's state.
    pub fn of_state(word: &str) -> Self {
        match word {
            "active" => Self::Good,
            "standby" => Self::Ready,
            "fault" => Self::Bad,
            _ => Self::Attention,
        }
    }

    pub const fn of_node(state: NodeState) -> Self {
        match state {
            NodeState::Active => Self::Good,
            NodeState::ActiveStandby => Self::Ready,
            NodeState::Down | NodeState::DownMonitorUnreachable => Self::Bad,
            NodeState::Initializing
            | NodeState::StartedWaitingForSecondary
            | NodeState::StartedWaitingForPrimary
            | NodeState::InTransition
            | NodeState::Unknown => Self::Attention,
        }
    }

    pub const fn of_monitor(state: MonitorState) -> Self {
        match state {
            MonitorState::Reachable => Self::Good,
            MonitorState::Unreachable => Self::Bad,
            MonitorState::Initializing | MonitorState::Unknown => Self::Attention,
        }
    }

    pub const fn of_severity(severity: LogSeverity) -> Self {
        match severity {
            LogSeverity::Trace | LogSeverity::Debug => Self::Faint,
            LogSeverity::Info => Self::Good,
            LogSeverity::Warn => Self::Attention,
            LogSeverity::Error => Self::Bad,
        }
    }

    /// Of what is up or down.
    pub const fn of_up(is_up: bool) -> Self {
        if is_up { Self::Good } else { Self::Bad }
    }

    /// `text` in this tone.
    pub fn paint(self, text: impl Into<String>) -> Painted {
        Painted {
            text: text.into(),
            tone: self,
        }
    }
}

/// Text in a tone. Displays with the codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Painted {
    pub text: String,
    pub tone: Tone,
}

impl fmt::Display for Painted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = self.tone.style();
        write!(f, "{style}{}{style:#}", self.text)
    }
}

impl From<&str> for Painted {
    fn from(text: &str) -> Self {
        Tone::Plain.paint(text)
    }
}

impl From<&String> for Painted {
    fn from(text: &String) -> Self {
        Tone::Plain.paint(text)
    }
}

impl From<String> for Painted {
    fn from(text: String) -> Self {
        Tone::Plain.paint(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_end_where_the_text_ends_and_plain_text_has_none() {
        assert_eq!(Tone::Good.paint("up").to_string(), "\x1b[32mup\x1b[0m");
        assert_eq!(Painted::from("up").to_string(), "up");
    }
}
