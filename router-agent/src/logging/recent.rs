//! The newest lines of the log, for an operator who asks the agent itself.
//!
//! They are kept beside what is written, so that they are there whoever reads the standard error, and
//! also while nobody does.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::{
    clock,
    control::protocol::{LogLine, LogSeverity, LogWanted},
};

/// So many lines are kept.
const LINES: usize = 1_000;
/// Bytes of a line's message and fields together. What is longer is cut off.
const LONGEST: usize = 4_096;
/// Fields of a line. Further ones are left out.
const FIELDS: usize = 16;

/// The newest lines, shared by those who log and those who ask.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Arc<LogLine>>>>);

impl Recent {
    /// Those that a client wants, the oldest first.
    pub fn lines(&self, wanted: &LogWanted) -> Vec<LogLine> {
        let LogWanted {
            after_ns,
            lines,
            level,
            cluster,
        } = *wanted;
        // Who logs waits no longer than it takes to count the references.
        let kept: Vec<_> = self.kept().iter().map(Arc::clone).collect();
        let fits = |line: &&Arc<LogLine>| {
            line.at_ns > after_ns
                && line.level >= level
                && (!cluster || line.fields.contains_key("group"))
        };
        let newest = kept.iter().rev().filter(fits).take(lines.unwrap_or(LINES));
        let mut lines: Vec<_> = newest.map(|line| LogLine::clone(line)).collect();
        lines.reverse();
        lines
    }

    fn keep(&self, mut line: LogLine) {
        let mut kept = self.kept();
        if let Some(last) = kept.back() {
            line.at_ns = line.at_ns.max(last.at_ns + 1);
        }
        if kept.len() >= LINES {
            kept.pop_front();
        }
        kept.push_back(Arc::new(line));
    }

    /// A panic elsewhere leaves whole lines behind.
    fn kept(&self) -> MutexGuard<'_, VecDeque<Arc<LogLine>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let metadata = event.metadata();
        let mut line = LogLine {
            at_ns: clock::now().as_ns(),
            at_unix_ms: since_1970.map_or(0, |time| {
                u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
            }),
            level: LogSeverity::from(metadata.level()),
            target: metadata.target().to_owned(),
            ..LogLine::default()
        };
        event.record(&mut Words(&mut line));
        self.keep(line);
    }
}

/// Takes in what an event says.
struct Words<'a>(&'a mut LogLine);

impl Words<'_> {
    fn say(&mut self, field: &Field, mut text: String) {
        let Self(line) = self;
        let fields: usize = line.fields.values().map(String::len).sum();
        let left = LONGEST.saturating_sub(line.message.len() + fields);
        if text.len() > left {
            text.truncate(text.floor_char_boundary(left));
            text.push('…');
        }
        match field.name() {
            "message" => line.message = text,
            name if line.fields.len() < FIELDS => {
                line.fields.insert(name.to_owned(), text);
            }
            _ => {}
        }
    }
}

impl Visit for Words<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.say(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.say(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, info, subscriber::with_default, warn};
    use tracing_subscriber::{Registry, layer::SubscriberExt as _};

    use super::*;

    fn logged(work: impl FnOnce()) -> Recent {
        let recent = Recent::default();
        with_default(Registry::default().with(recent.clone()), work);
        recent
    }

    fn messages(recent: &Recent, wanted: &LogWanted) -> Vec<String> {
        let lines = recent.lines(wanted).into_iter();
        lines.map(|line| line.message).collect()
    }

    #[test]
    fn lines_are_kept_with_what_they_say() {
        let recent = logged(|| {
            let error = std::io::Error::other("no luck");
            warn!(group = "aws", epoch = 3, %error, "not {}", "taken");
        });
        let [line] = &recent.lines(&LogWanted::default())[..] else {
            panic!("one line");
        };
        assert_eq!(line.level, LogSeverity::Warn);
        assert_eq!(line.message, "not taken");
        assert!(line.target.starts_with("router_agent"), "{}", line.target);
        assert!(line.at_ns > 0 && line.at_unix_ms > 0);
        let fields: Vec<_> = line.fields.iter().collect();
        assert_eq!(
            format!("{fields:?}"),
            r#"[("epoch", "3"), ("error", "no luck"), ("group", "aws")]"#
        );
    }

    #[test]
    fn a_client_gets_what_it_wants() {
        let recent = logged(|| {
            debug!("one");
            info!(group = "aws", "two");
            warn!("three");
        });
        let all = LogWanted::default();
        assert_eq!(messages(&recent, &all), ["one", "two", "three"]);
        let newest = LogWanted {
            lines: Some(2),
            ..all
        };
        assert_eq!(messages(&recent, &newest), ["two", "three"]);
        let weighty = LogWanted {
            level: LogSeverity::Info,
            ..all
        };
        assert_eq!(messages(&recent, &weighty), ["two", "three"]);
        let cluster = LogWanted {
            cluster: true,
            ..all
        };
        assert_eq!(messages(&recent, &cluster), ["two"]);
        let lines = recent.lines(&all);
        let after = LogWanted {
            after_ns: lines[1].at_ns,
            ..all
        };
        assert_eq!(messages(&recent, &after), ["three"]);
        let later = LogWanted {
            after_ns: lines[2].at_ns,
            ..all
        };
        assert_eq!(messages(&recent, &later).len(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recent = logged(|| {
            for number in 0..LINES + 5 {
                info!(long = %"ä".repeat(LONGEST), "line {number}");
            }
        });
        let lines = recent.lines(&LogWanted::default());
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0].message, "line 5");
        assert!(lines.windows(2).all(|two| two[0].at_ns < two[1].at_ns));
        let long = &lines[0].fields["long"];
        assert!(long.len() <= LONGEST + '…'.len_utf8() && long.ends_with('…'));
    }
}
