//! A rate limit.

use std::time::Duration;

use router_common::time::BootTime;

/// Lets a burst through, and in the long run so many packets in a second. It is full at first.
///
/// All it keeps is when it will be full again: each packet moves that on by its share of a second.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    interval: Duration,
    burst: u32,
    full_at: BootTime,
}

impl TokenBucket {
    /// # Panics
    ///
    /// If `per_second` is zero, at compile time where it is a constant.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_nanos(1_000_000_000 / per_second as u64),
            burst,
            full_at: BootTime::NEVER,
        }
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: BootTime) -> bool {
        let ready = self.ready_in(1, now).is_zero();
        if ready {
            self.full_at = self.full_at.max(now).after(self.interval);
        }
        ready
    }

    /// How long until there are `tokens`, which must not be more than the burst.
    pub fn ready_in(&self, tokens: u32, now: BootTime) -> Duration {
        let spare = self.interval * self.burst.saturating_sub(tokens);
        self.full_at.since(now).saturating_sub(spare)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_ms(ms: u64) -> BootTime {
        BootTime::from_ns(1).after(Duration::from_millis(ms))
    }

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = TokenBucket::new(1000, 3);
        let mut taken = |ms| bucket.take(at_ms(ms));
        assert_eq!([0, 0, 0, 0].map(&mut taken), [true, true, true, false]);
        assert_eq!([1, 1, 2, 2].map(&mut taken), [true, false, true, false]);
        // It holds no more than the burst.
        assert_eq!([99, 99, 99, 99].map(taken), [true, true, true, false]);
    }

    #[test]
    fn tells_when_it_is_ready() {
        let mut bucket = TokenBucket::new(1000, 10);
        assert_eq!(bucket.ready_in(10, at_ms(0)), Duration::ZERO);
        while bucket.take(at_ms(0)) {}
        assert_eq!(bucket.ready_in(1, at_ms(0)), Duration::from_millis(1));
        assert_eq!(bucket.ready_in(4, at_ms(1)), Duration::from_millis(3));
        assert_eq!(bucket.ready_in(4, at_ms(4)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            burst in 1_u32..20,
            waits_us in prop::collection::vec(0_u64..3000, 1..200),
        ) {
            let mut bucket = TokenBucket::new(1000, burst);
            let (mut elapsed_us, mut taken) = (0, 0_u64);
            for wait in waits_us {
                elapsed_us += wait;
                let now = BootTime::from_ns(1).after(Duration::from_micros(elapsed_us));
                taken += u64::from(bucket.take(now));
                prop_assert!(taken <= u64::from(burst) + elapsed_us / 1000);
            }
        }
    }
}
