//! How round trips are spread, without keeping each.
//!
//! Four buckets to each doubling, as in HDR histograms with two significant bits: a bucket is at most
//! a quarter of its lower bound wide, from 1 µs to 17 s.

use bytemuck::{Pod, Zeroable};

/// Bits of a value, after the first, that tell its bucket.
const FINE_BITS: u32 = 2;
const FINE: u64 = 1 << FINE_BITS;
/// What is below 2¹⁰ ns is in the first bucket.
const FIRST_BIT: u32 = 10;
/// What is from 2³⁴ ns on is in the last bucket.
const END_BIT: u32 = 34;

pub const BUCKETS: usize = ((END_BIT - FIRST_BIT) << FINE_BITS) as usize + 2;

/// Replies by their round-trip time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RoundTrips {
    pub buckets: [u64; BUCKETS],
}

impl RoundTrips {
    /// The bucket of a round trip; below [`BUCKETS`].
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "below the number of buckets"
    )]
    pub const fn bucket(rtt_ns: u64) -> usize {
        if rtt_ns >> FIRST_BIT == 0 {
            return 0;
        }
        if rtt_ns >> END_BIT != 0 {
            return BUCKETS - 1;
        }
        let bit = rtt_ns.ilog2();
        let fine = (rtt_ns >> (bit - FINE_BITS)) % FINE;
        1 + ((bit - FIRST_BIT) as u64 * FINE + fine) as usize
    }

    /// Where a bucket ends, in ns; the last one does not.
    const fn end_ns(bucket: usize) -> u64 {
        let (octave, fine) = (bucket as u64 / FINE, bucket as u64 % FINE);
        (FINE + fine) << (FIRST_BIT as u64 - FINE_BITS as u64 + octave)
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// A time that `per_mille` of the round trips did not exceed, in ns: the end of the bucket that
    /// holds the last of them. `None` without round trips.
    pub fn quantile_ns(&self, per_mille: u64) -> Option<u64> {
        let count = self.count();
        // At least one.
        let rank = count
            .saturating_mul(per_mille)
            .div_ceil(1_000)
            .clamp(1, count.max(1));
        let mut seen = 0;
        for (bucket, replies) in self.buckets.iter().enumerate() {
            seen += replies;
            if seen >= rank {
                return Some(Self::end_ns(bucket));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> RoundTrips {
        let mut histogram = RoundTrips::zeroed();
        for value in values {
            histogram.buckets[RoundTrips::bucket(*value)] += 1;
        }
        histogram
    }

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!(BUCKETS, 98);
        for value in [0, 1, 1_023] {
            assert_eq!(RoundTrips::bucket(value), 0);
        }
        for bucket in 0..BUCKETS - 1 {
            let end = RoundTrips::end_ns(bucket);
            assert_eq!(RoundTrips::bucket(end - 1), bucket, "{end}");
            assert_eq!(RoundTrips::bucket(end), bucket + 1, "{end}");
        }
        assert_eq!(RoundTrips::bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn without_round_trips_there_is_no_quantile() {
        assert_eq!(of(&[]).quantile_ns(500), None);
        assert_eq!(of(&[]).quantile_ns(0), None);
    }

    #[test]
    fn a_rare_slow_one_shows_only_at_the_end() {
        let mut values = std::vec![20_000; 999];
        values.push(5_000_000);
        let histogram = of(&values);
        assert_eq!(histogram.quantile_ns(500), Some(20_480));
        assert_eq!(histogram.quantile_ns(999), Some(20_480));
        assert_eq!(histogram.quantile_ns(1_000), Some(5_242_880));
    }

    proptest! {
        #[test]
        fn quantiles_are_right_within_a_quarter(
            mut values in prop::collection::vec(1_024_u64..1 << 34, 1..200),
            per_mille in 1_u64..=1_000,
        ) {
            let found = of(&values).quantile_ns(per_mille).unwrap();
            values.sort_unstable();
            let exceeding = values.len() as u64 * (1_000 - per_mille) / 1_000;
            let exact = *values.iter().rev().nth(usize::try_from(exceeding).unwrap()).unwrap();
            prop_assert!(found > exact && found - exact <= exact.div_ceil(4), "{found} for {exact}");
        }
    }
}
