//! When something happened, in this boot or an earlier one.

use super::instant::{ago, time_of_day};
use crate::control::protocol::{Finding, Status, Transition};

/// An instant of some boot's clock, and the time of day for where that says nothing.
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub ns: u64,
    pub unix_ms: u64,
    boot_id: &'a str,
}

impl At<'_> {
    /// Another instant of the same clock.
    pub fn shifted_to(self, ns: u64) -> Self {
        const NS_PER_MS: u64 = 1_000_000;
        let unix_ms = if ns < self.ns {
            self.unix_ms.saturating_sub((self.ns - ns) / NS_PER_MS)
        } else {
            self.unix_ms.saturating_add((ns - self.ns) / NS_PER_MS)
        };
        Self {
            ns,
            unix_ms,
            ..self
        }
    }

    fn is_of_this_boot(self, status: &Status) -> bool {
        self.boot_id == status.boot_id
    }

    /// What was before this boot comes first; within a boot its own clock counts.
    pub fn order(self, status: &Status) -> (bool, u64) {
        let is_of_this_boot = self.is_of_this_boot(status);
        let when = if is_of_this_boot {
            self.ns
        } else {
            self.unix_ms
        };
        (is_of_this_boot, when)
    }

    pub fn words(self, status: &Status) -> String {
        let time = time_of_day(self.unix_ms);
        if self.is_of_this_boot(status) {
            format!("{} ({time})", ago(self.ns, status.now_ns))
        } else {
            format!("{time}, before this boot")
        }
    }
}

impl Transition {
    pub(super) fn at(&self) -> At<'_> {
        At {
            ns: self.at_ns,
            unix_ms: self.at_unix_ms,
            boot_id: &self.boot_id,
        }
    }
}

impl Finding {
    pub(super) fn at(&self) -> At<'_> {
        At {
            ns: self.at_ns,
            unix_ms: self.at_unix_ms,
            boot_id: &self.boot_id,
        }
    }
}
