//! Counters that an operator had cleared: what they had come to then, for whoever shows them. They
//! themselves go on, for those who watch them grow.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use router_common::time::BootTime;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{board::whole_ms, lock};
use crate::control::protocol::{ClearedStatus, TunnelStatus};

/// Kept for the next agent, until the machine ends, as the counters themselves are.
pub struct Cleared {
    file: PathBuf,
    tunnels: Mutex<Tunnels>,
}

/// By name.
type Tunnels = BTreeMap<String, Clearing>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Clearing {
    /// Of the boottime clock.
    at_ns: u64,
    /// Those that were not zero.
    counters: BTreeMap<String, u64>,
}

impl Cleared {
    /// With what was cleared before this agent.
    pub fn open() -> Result<Self> {
        let file = lock::file_of_namespace("cleared")?;
        let tunnels = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                warn!(%error, "{} is damaged: counters are shown whole", file.display());
                Tunnels::new()
            }),
            // Nothing was cleared.
            Err(_) => Tunnels::new(),
        };
        Ok(Self {
            file,
            tunnels: Mutex::new(tunnels),
        })
    }

    /// Has these tunnels' counters shown from now on.
    pub fn clear(&self, now: &[TunnelStatus], at: BootTime) -> Result<()> {
        let mut tunnels = self.tunnels();
        let mut new = tunnels.clone();
        for tunnel in now {
            let counters = tunnel.counters.iter().filter(|(_, value)| **value > 0);
            let clearing = Clearing {
                at_ns: at.as_ns(),
                counters: counters
                    .map(|(name, value)| (name.clone(), *value))
                    .collect(),
            };
            new.insert(tunnel.name.clone(), clearing);
        }
        let mut text = serde_json::to_vec(&new)?;
        text.push(b'\n');
        let beside = self.file.with_extension("cleared.new");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        *tunnels = new;
        Ok(())
    }

    /// What to take off a tunnel's counters. One that is lower than it was has begun anew meanwhile,
    /// and is whole from then on.
    pub fn of(
        &self,
        tunnel: &str,
        counters: &BTreeMap<String, u64>,
        now: BootTime,
    ) -> Option<ClearedStatus> {
        let mut tunnels = self.tunnels();
        let clearing = tunnels.get_mut(tunnel)?;
        clearing
            .counters
            .retain(|name, before| counters.get(name).is_some_and(|value| value >= before));
        Some(ClearedStatus {
            ms_ago: whole_ms(now.since(BootTime::from_ns(clearing.at_ns))),
            counters: clearing.counters.clone(),
        })
    }

    /// A panic elsewhere leaves whole values behind.
    fn tunnels(&self) -> MutexGuard<'_, Tunnels> {
        self.tunnels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(values: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let named = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        named.collect()
    }

    fn tunnel(values: &[(&str, u64)]) -> TunnelStatus {
        TunnelStatus {
            name: "tun00".to_owned(),
            counters: counters(values),
            ..TunnelStatus::default()
        }
    }

    #[test]
    fn what_was_counted_before_is_taken_off_until_it_begins_anew() {
        let file = std::env::temp_dir().join(format!("cleared-{}", std::process::id()));
        let cleared = Cleared {
            file: file.clone(),
            tunnels: Mutex::new(Tunnels::new()),
        };
        let ms = |ms: u64| BootTime::from_ns(ms * 1_000_000);
        let before = [("rx_packets", 7), ("slow_packets", 3), ("rx_errors", 0)];
        assert_eq!(cleared.of("tun00", &counters(&before), ms(1)), None);
        cleared.clear(&[tunnel(&before)], ms(10)).unwrap();
        let of = |values: &[(&str, u64)], at| cleared.of("tun00", &counters(values), at).unwrap();
        let after = [("rx_packets", 9), ("slow_packets", 3), ("rx_errors", 1)];
        let status = of(&after, ms(15));
        assert_eq!(status.ms_ago, 5);
        let shown = TunnelStatus {
            cleared: Some(status),
            ..tunnel(&after)
        };
        let since = ["rx_packets", "slow_packets", "rx_errors"].map(|n| shown.since_cleared(n));
        assert_eq!(since, [2, 0, 1]);
        // The slow path's begin anew with an agent; the others go on.
        let status = of(&[("rx_packets", 9), ("slow_packets", 1)], ms(20));
        assert_eq!(status.counters, counters(&[("rx_packets", 7)]));
        let status = of(&[("rx_packets", 9), ("slow_packets", 5)], ms(20));
        assert_eq!(status.counters, counters(&[("rx_packets", 7)]));
        let kept: Tunnels = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(kept["tun00"].counters["rx_packets"], 7);
        fs::remove_file(file).unwrap();
    }
}
