//! The one clock.

use router_common::time::BootTime;
use rustix::time::{ClockId, clock_gettime};

/// Now, by the clock that the kernel programs stamp with.
pub fn now() -> BootTime {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let ns = u64::try_from(time.tv_nsec).unwrap_or(0);
    BootTime::from_ns(seconds.saturating_mul(1_000_000_000).saturating_add(ns))
}
