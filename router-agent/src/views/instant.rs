//! Instants and durations in words.

use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds between two instants of the boottime clock, negative if `to` is the earlier.
pub fn signed_ms(from_ns: u64, to_ns: u64) -> f64 {
    let length = Duration::from_nanos(from_ns.abs_diff(to_ns)).as_secs_f64() * 1_000.0;
    if to_ns < from_ns { -length } else { length }
}

/// How long before `now_ns` the instant `at_ns` was, as `1532.4 ms ago` or `1h 02m 03s ago`.
pub fn ago(at_ns: u64, now_ns: u64) -> String {
    ms_ago(signed_ms(at_ns, now_ns).max(0.0))
}

/// The same of milliseconds, which nobody reads of what is longer ago than a minute.
pub fn ms_ago(ms: f64) -> String {
    const MINUTE_MS: f64 = 60_000.0;
    if ms < MINUTE_MS {
        format!("{ms:.1} ms ago")
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and far below 2^53 ms"
        )]
        let whole_ms = ms as u64;
        format!("{} ago", span(whole_ms))
    }
}

/// A time of day, as `2026-11-26T14:30:00.123Z`; in words if no clock can have shown it.
pub fn time_of_day(unix_ms: u64) -> String {
    /// The end of the year 9999.
    const LAST_MS: u64 = 253_402_300_799_999;
    if unix_ms == 0 || unix_ms > LAST_MS {
        return "at an unknown time".to_owned();
    }
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(time).to_string()
}

/// Days, hours, minutes and seconds, as `1d 02h 03m 04s`, from the first that is not zero.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds:02}s"),
        (0, _, _) => format!("{hours}h {minutes:02}m {seconds:02}s"),
        _ => format!("{days}d {hours:02}h {minutes:02}m {seconds:02}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_read_well() {
        assert_eq!(ago(1_000_000, 2_540_000), "1.5 ms ago");
        assert_eq!(ago(2, 1), "0.0 ms ago");
        assert_eq!(ms_ago(59_999.0), "59999.0 ms ago");
        assert_eq!(ago(0, 93_784_000_000_000), "1d 02h 03m 04s ago");
        assert!((signed_ms(3_000_000, 1_000_000) + 2.0).abs() < 1e-9);
        assert_eq!(time_of_day(1_764_000_000_123), "2025-11-24T16:00:00.123Z");
        assert_eq!(time_of_day(u64::MAX), "at an unknown time");
        assert_eq!(span(999), "0s");
        assert_eq!(span(61_000), "1m 01s");
        assert_eq!(span(93_784_000), "1d 02h 03m 04s");
    }
}
