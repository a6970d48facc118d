//! How values are distributed.

use std::fmt;

use serde::Serialize;

/// Microseconds; each of so many percent is no longer than that.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Distribution {
    pub count: usize,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
}

impl Distribution {
    /// Of nanoseconds, which are sorted.
    pub fn of(values_ns: &mut [u64]) -> Self {
        values_ns.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "spans of minutes at most")]
        let at = |per_mille: usize| {
            let last = values_ns.len().saturating_sub(1);
            let value = values_ns.get(last * per_mille / 1000);
            value.map_or(0.0, |ns| *ns as f64 / 1e3)
        };
        Self {
            count: values_ns.len(),
            p50_us: at(500),
            p90_us: at(900),
            p99_us: at(990),
            p99_9_us: at(999),
            max_us: at(1000),
        }
    }

    /// Over [`fmt::Display`].
    pub fn heading() -> String {
        format!(
            "{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "count", "p50", "p90", "p99", "p99.9", "max"
        )
    }

    /// Parts of all values, and which value is not exceeded by so many.
    pub fn points(&self) -> [(f64, f64); 4] {
        [
            (0.5, self.p50_us),
            (0.9, self.p90_us),
            (0.99, self.p99_us),
            (0.999, self.p99_9_us),
        ]
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            p50_us,
            p90_us,
            p99_us,
            p99_9_us,
            max_us,
        } = self;
        write!(
            f,
            "{count:>9}{p50_us:>10.1}{p90_us:>10.1}{p99_us:>10.1}{p99_9_us:>10.1}{max_us:>10.1}"
        )
    }
}
