//! `show log`: what the agent logged last.

use super::{instant::time_of_day, paint::Tone, table::printable};
use crate::control::protocol::LogLine;

/// A line for each, the oldest first; what comes in several, as diagnostics do, goes on indented.
pub fn log(lines: &[LogLine]) -> String {
    lines.iter().map(line).collect()
}

fn line(line: &LogLine) -> String {
    let LogLine {
        at_ns: _,
        at_unix_ms,
        level,
        target,
        message,
        fields,
    } = line;
    let fields = fields
        .iter()
        .map(|(name, value)| format!(" {name}={value}"));
    let fields = fields.collect::<Vec<_>>().concat();
    let level = Tone::of_severity(*level).paint(format!("{level:5}"));
    // The crate's own name says nothing.
    let target = target.strip_prefix("router_agent::").unwrap_or(target);
    let message: Vec<_> = message.lines().map(printable).collect();
    format!(
        "{} {level} {}: {}{}\n",
        Tone::Faint.paint(time_of_day(*at_unix_ms)),
        printable(target),
        message.join("\n    "),
        Tone::Faint.paint(printable(&fields)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::protocol::LogSeverity, views::golden};

    #[test]
    fn each_line_has_time_weight_place_and_words() {
        let decided = LogLine {
            at_ns: 1,
            at_unix_ms: 1_764_000_000_123,
            level: LogSeverity::Info,
            target: "router_agent::agent::driver".to_owned(),
            message: "Standby to Candidate, epoch 3: the peer is silent".to_owned(),
            fields: [("group", "aws"), ("epoch", "3")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let odd = LogLine {
            level: LogSeverity::Error,
            target: "hyper".to_owned(),
            message: "two\nlines \x1b[2J".to_owned(),
            fields: [].into(),
            ..decided.clone()
        };
        golden::check_both("log", &log(&[decided, odd]));
        assert_eq!(log(&[]), "");
    }
}
