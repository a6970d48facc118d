//! Counting tests from what libtest prints.

use std::fmt;
use std::ops::AddAssign;

/// How many tests had which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Summary {
    /// From one line of output; `None` for all but the line that ends a test program's run:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`
    pub fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |name| {
            counts
                .split("; ")
                .find_map(|item| item.strip_suffix(name)?.parse().ok())
        };
        Some(Self {
            passed: count(" passed")?,
            failed: count(" failed")?,
            skipped: count(" ignored")?,
        })
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        let Self {
            passed,
            failed,
            skipped,
        } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped += skipped;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn summary(passed: u64, failed: u64, skipped: u64) -> Summary {
        Summary {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn result_lines_are_counted() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; \
                  finished in 0.01s";
        assert_eq!(Summary::parse(ok), Some(summary(12, 0, 1)));
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; \
                      0 filtered out; finished in 0.00s";
        assert_eq!(Summary::parse(failed), Some(summary(1, 2, 0)));
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "running 3 tests",
            "test summary::tests::result ... ok",
            "test result: ok",
            "test result: ok. many passed; 0 failed; 0 ignored",
            "said: test result: ok. 1 passed; 0 failed; 0 ignored",
        ] {
            assert_eq!(Summary::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn sum_is_printed_as_one_plain_line() {
        let mut sum = summary(3, 0, 0);
        assert_eq!(sum.to_string(), "3 passed, 0 failed");
        sum += summary(1, 2, 4);
        assert_eq!(sum.to_string(), "4 passed, 2 failed, 4 skipped");
    }
}
