//! Whether the agent's loops go round: each says so again and again, and a supervisor is told only
//! while all do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use router_common::time::BootTime;

/// A loop goes round at least as often, also when it has nothing to do.
pub const BEAT: Duration = Duration::from_millis(500);

/// Of one loop.
#[derive(Clone, Debug)]
pub struct Pulse {
    name: &'static str,
    last_ns: Arc<AtomicU64>,
}

impl Pulse {
    pub fn new(name: &'static str, now: BootTime) -> Self {
        Self {
            name,
            last_ns: Arc::new(AtomicU64::new(now.as_ns())),
        }
    }

    /// The loop has gone round once more.
    pub fn beat(&self, now: BootTime) {
        self.last_ns.store(now.as_ns(), Ordering::Relaxed);
    }

    fn silence(&self, now: BootTime) -> Duration {
        now.since(BootTime::from_ns(self.last_ns.load(Ordering::Relaxed)))
    }
}

/// The name of a loop that has not gone round for longer than `longest`.
pub fn stuck(pulses: &[Pulse], longest: Duration, now: BootTime) -> Option<&'static str> {
    let stuck = pulses.iter().find(|pulse| pulse.silence(now) > longest);
    stuck.map(|pulse| pulse.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_that_is_stuck_is_named() {
        const LONGEST: Duration = Duration::from_secs(2);
        let start = BootTime::from_ns(1_000_000_000);
        let pulses = ["one", "other"].map(|name| Pulse::new(name, start));
        assert_eq!(stuck(&pulses, LONGEST, start.after(LONGEST)), None);
        let later = start.after(LONGEST + BEAT);
        pulses[0].beat(later);
        assert_eq!(stuck(&pulses, LONGEST, later), Some("other"));
        pulses[1].beat(later);
        assert_eq!(stuck(&pulses, LONGEST, later), None);
    }
}
