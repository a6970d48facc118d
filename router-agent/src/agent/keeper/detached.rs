//! What others took away, and which is put back: an operator is told for a while.

use std::{collections::BTreeMap, time::Duration};

use router_common::time::BootTime;

const TOLD_FOR: Duration = Duration::from_mins(10);

/// Of each, until when it is told.
#[derive(Debug)]
pub struct Detached<K>(BTreeMap<K, BootTime>);

impl<K> Default for Detached<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Detached<K> {
    pub fn tell(&mut self, what: K, now: BootTime) {
        self.0.insert(what, now.after(TOLD_FOR));
    }

    pub fn is_told(&self, what: &K) -> bool {
        self.0.contains_key(what)
    }

    /// Forgets what has been told for long enough; whether there was such.
    pub fn expire(&mut self, now: BootTime) -> bool {
        let before = self.0.len();
        self.0.retain(|_, until| now < *until);
        self.0.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_for_a_while_after_the_last_time() {
        let start = BootTime::from_ns(5);
        let mut detached = Detached::default();
        detached.tell("eth0", start);
        detached.tell("eth0", start.after(TOLD_FOR / 2));
        assert!(!detached.expire(start.after(TOLD_FOR)));
        assert!(detached.is_told(&"eth0") && !detached.is_told(&"eth1"));
        assert!(detached.expire(start.after(TOLD_FOR * 2)));
        assert!(!detached.is_told(&"eth0"));
    }
}
