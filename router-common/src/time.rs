//! Instants of the boottime clock, the one clock that kernel programs and the agent compare.

use core::time::Duration;

/// Nanoseconds of `CLOCK_BOOTTIME`; in the kernel `bpf_ktime_get_boot_ns` (Linux 5.8, commit
/// 71d19214776e). Zero means "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(u64);

impl BootTime {
    /// The value a map slot holds before the first event.
    pub const NEVER: Self = Self(0);

    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    pub const fn as_ns(self) -> u64 {
        self.0
    }

    pub const fn is_never(self) -> bool {
        self.0 == 0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole microseconds from `earlier` to `self`, within 0 and what 32 bits hold (71 minutes).
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    pub const fn us_since(self, earlier: Self) -> u32 {
        let us = self.0.saturating_sub(earlier.0) / 1_000;
        if us > u32::MAX as u64 {
            u32::MAX
        } else {
            us as u32
        }
    }

    /// `self` moved later by `by`; stays at the last representable instant (584 years) on overflow.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "compared before")]
    pub const fn after(self, by: Duration) -> Self {
        // A `Duration` beyond 584 years saturates as well.
        let ns = by.as_nanos();
        let ns = if ns > u64::MAX as u128 {
            u64::MAX
        } else {
            ns as u64
        };
        Self(self.0.saturating_add(ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let t = BootTime::from_ns(5);
        assert_eq!(t.since(BootTime::from_ns(9)), Duration::ZERO);
        assert_eq!(t.after(Duration::MAX).as_ns(), u64::MAX);
        assert_eq!(t.us_since(BootTime::from_ns(9)), 0);
        assert_eq!(BootTime::from_ns(u64::MAX).us_since(t), u32::MAX);
        assert_eq!(BootTime::from_ns(2_004).us_since(t), 1);
        assert_eq!(t.after(Duration::from_nanos(7)).since(t).as_nanos(), 7);
    }
}
