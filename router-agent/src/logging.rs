//! The agent's log: where it goes, in which form, and how much of it.
//!
//! A reader that stalls must not stall the agent, whose clock thread logs too: lines wait in a bounded
//! queue for a thread that writes them, and are dropped while it is full. So the journal is reached by
//! the standard error, with priorities as sd-daemon(3) has them, and not by its own socket, on which a
//! writer waits.

pub mod programs;
mod recent;

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
    sync::Arc,
};

use clap::ValueEnum;
use rustix::fs::fstat;
use tokio::sync::watch;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::LevelFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

pub use recent::Recent;

/// What is logged at first, as [`EnvFilter`] reads it.
pub const VARIABLE: &str = "ROUTER_LOG";
const DEFAULT_LEVEL: &str = "info";

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people, and for the journal where that reads the standard error.
    Human,
    /// A JSON object a line.
    Json,
}

/// What an operator may see and change of the log.
#[derive(Clone, Debug)]
pub struct Log {
    pub level: LogLevel,
    pub recent: Recent,
}

/// What is logged; may be changed at any time.
#[derive(Clone)]
pub struct LogLevel {
    reload: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    changed: watch::Sender<()>,
}

/// Why the level is as it was.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    #[error(
        "{0:?} is no level: write error, warn, info, debug or trace, or levels by module, such as `info,router_agent::takeover=debug`"
    )]
    NotALevel(String),
    #[error("the log cannot be changed")]
    Gone(#[from] reload::Error),
}

impl LogLevel {
    pub fn set(&self, level: &str) -> Result<(), LevelError> {
        (self.reload)(filter(level)?)?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Tells from now on when another level has been set.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}

/// A single word that is no level would stand for all of a module, and silence the rest: it is misspelt.
fn filter(level: &str) -> Result<EnvFilter, LevelError> {
    let is_misspelt = |part: &str| {
        let word = part.trim();
        word.is_empty() || !word.contains(['=', ']']) && word.parse::<LevelFilter>().is_err()
    };
    let not_a_level = || LevelError::NotALevel(level.to_owned());
    if level.split(',').any(is_misspelt) {
        return Err(not_a_level());
    }
    EnvFilter::try_new(level).map_err(|_| not_a_level())
}

/// Logs from now on, to the standard error, until the guard is dropped.
pub fn begin(format: LogFormat) -> (Log, WorkerGuard) {
    let (log, guard) = tracing_appender::non_blocking(io::stderr());
    let stated = env::var(VARIABLE).ok().and_then(|it| filter(&it).ok());
    let (level, handle) =
        reload::Layer::new(stated.unwrap_or_else(|| EnvFilter::new(DEFAULT_LEVEL)));
    let lines = tracing_subscriber::fmt::layer().with_writer(log);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Human if journal_reads_stderr() => {
            let event = tracing_subscriber::fmt::format().without_time();
            lines
                .with_ansi(false)
                .event_format(Prioritised(event.with_ansi(false)))
                .boxed()
        }
        LogFormat::Human => lines.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    let recent = Recent::default();
    let kept = recent.clone().and_then(lines);
    Registry::default().with(kept.with_filter(level)).init();
    let level = LogLevel {
        reload: Arc::new(move |filter| handle.reload(filter)),
        changed: watch::Sender::default(),
    };
    (Log { level, recent }, guard)
}

/// systemd.exec(5): `JOURNAL_STREAM` has device and inode of the stream that the journal reads.
fn journal_reads_stderr() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Lines that begin with their priority, `<0>` to `<7>`, as sd-daemon(3) has it.
struct Prioritised<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_understood_or_refused_with_a_remedy() {
        for level in ["debug", "info,router_agent::takeover=trace", "off"] {
            filter(level).unwrap();
        }
        for misspelt in ["router_agent=loud", "wanr", "info,wanr", "", "bpf"] {
            let refused = filter(misspelt).unwrap_err().to_string();
            assert!(refused.contains("write error, warn, info"), "{refused}");
        }
    }
}
