//! The clock that all namespaces of a machine share with the agents' timelines.

use std::time::Duration;

pub use router_agent::clock::now;
use router_common::time::BootTime;
use rustix::{
    thread::clock_nanosleep_absolute,
    time::{ClockId, Timespec},
};

/// Sleeps until `instant`; returns at once if it has passed.
pub fn sleep_until(instant: BootTime) -> std::io::Result<()> {
    let instant = Duration::from_nanos(instant.as_ns());
    let request = Timespec {
        tv_sec: i64::try_from(instant.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(instant.subsec_nanos()),
    };
    loop {
        match clock_nanosleep_absolute(ClockId::Boottime, &request) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Milliseconds from `earlier` to `later`, negative if they are the other way round.
#[expect(
    clippy::cast_precision_loss,
    reason = "for display, spans of minutes at most"
)]
pub fn milliseconds_between(earlier: BootTime, later: BootTime) -> f64 {
    let magnitude = later.since(earlier).max(earlier.since(later)).as_nanos() as f64 / 1e6;
    if later < earlier {
        -magnitude
    } else {
        magnitude
    }
}
