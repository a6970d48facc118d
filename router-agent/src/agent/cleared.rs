//! Counters that an operator had cleared: what they had come to then, for whoever shows them. They
//! themselves go on, for those who watch them grow.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use router_common::time::BootTime;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{board::whole_ms, lock};
use crate::control::protocol::ClearedStatus;

/// Kept for the next agent, until the machine ends, as the counters themselves are.
pub struct Cleared {
    file: PathBuf,
    clearings: Mutex<Clearings>,
}

/// What a tunnel or a session has counted, by name.
pub type Counters = BTreeMap<&'static str, Counter>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub value: u64,
    /// With another one it begins anew; zero if it lives as long as the maps.
    pub life: u32,
}

/// By the name of who counts.
type Clearings = BTreeMap<String, Clearing>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Clearing {
    /// Of the boottime clock.
    at_ns: u64,
    /// Those that were not zero.
    counters: BTreeMap<String, Counter>,
}

impl Cleared {
    /// With what was cleared before this agent, if it `goes_on` with the maps.
    pub fn open(goes_on: bool) -> Result<Self> {
        let file = lock::file_of_namespace("cleared")?;
        let clearings = if goes_on {
            read(&file)
        } else {
            forget(&file);
            Clearings::new()
        };
        Ok(Self {
            file,
            clearings: Mutex::new(clearings),
        })
    }

    /// Has the counters of these shown from now on.
    pub fn clear(&self, now: &[(String, Counters)], at: BootTime) -> Result<()> {
        let mut clearings = self.clearings();
        let mut new = clearings.clone();
        for (name, counters) in now {
            let counters = counters.iter().filter(|(_, counter)| counter.value > 0);
            let clearing = Clearing {
                at_ns: at.as_ns(),
                counters: counters
                    .map(|(name, counter)| ((*name).to_owned(), *counter))
                    .collect(),
            };
            new.insert(name.clone(), clearing);
        }
        let mut text = serde_json::to_vec(&new)?;
        text.push(b'\n');
        let beside = self.file.with_extension("cleared.new");
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        *clearings = new;
        Ok(())
    }

    /// What to take off these counters. One that has begun anew meanwhile is whole from then on.
    pub fn of(&self, name: &str, counters: &Counters, now: BootTime) -> Option<ClearedStatus> {
        let mut clearings = self.clearings();
        let clearing = clearings.get_mut(name)?;
        clearing.counters.retain(|name, before| {
            counters
                .get(&**name)
                .is_some_and(|now| now.life == before.life && now.value >= before.value)
        });
        let counters = clearing.counters.iter();
        Some(ClearedStatus {
            ms_ago: whole_ms(now.since(BootTime::from_ns(clearing.at_ns))),
            counters: counters
                .map(|(name, before)| (name.clone(), before.value))
                .collect(),
        })
    }

    /// A panic elsewhere leaves whole values behind.
    fn clearings(&self) -> MutexGuard<'_, Clearings> {
        self.clearings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &Path) -> Clearings {
    // What cannot be read was not written: nothing was cleared.
    let Ok(text) = fs::read(file) else {
        return Clearings::new();
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(
            %error,
            "{} is damaged or of another build: counters are shown whole",
            file.display()
        );
        Clearings::new()
    })
}

fn forget(file: &Path) {
    if let Err(error) = fs::remove_file(file)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, "cannot remove {}", file.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_MAPS: u32 = 0;
    const OF_AGENT: u32 = 7;
    const OF_NEXT_AGENT: u32 = 8;

    fn counters(values: &[(&'static str, u64, u32)]) -> Counters {
        let named = values.iter().map(|(name, value, life)| {
            (
                *name,
                Counter {
                    value: *value,
                    life: *life,
                },
            )
        });
        named.collect()
    }

    fn at(file: &Path) -> Cleared {
        Cleared {
            file: file.to_owned(),
            clearings: Mutex::new(read(file)),
        }
    }

    #[test]
    fn what_was_counted_before_is_taken_off_until_it_begins_anew() {
        let file = std::env::temp_dir().join(format!("cleared-{}", std::process::id()));
        let cleared = at(&file);
        let ms = |ms: u64| BootTime::from_ns(ms * 1_000_000);
        let before = counters(&[
            ("rx_packets", 7, OF_MAPS),
            ("slow_packets", 3, OF_AGENT),
            ("rx_errors", 0, OF_MAPS),
        ]);
        assert_eq!(cleared.of("tun00", &before, ms(1)), None);
        let session = counters(&[("stale", 1, OF_MAPS)]);
        let both = [
            ("tun00".to_owned(), before),
            ("aws over tun00".to_owned(), session),
        ];
        cleared.clear(&both, ms(10)).unwrap();
        let off = |cleared: &Cleared, values: &[_], at| {
            let status = cleared.of("tun00", &counters(values), at).unwrap();
            (status.ms_ago, status.counters)
        };
        let named = |values: &[(&str, u64)]| -> BTreeMap<_, _> {
            let named = values.iter();
            named
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect()
        };
        let after = [
            ("rx_packets", 9, OF_MAPS),
            ("slow_packets", 3, OF_AGENT),
            ("rx_errors", 1, OF_MAPS),
        ];
        let expected = named(&[("rx_packets", 7), ("slow_packets", 3)]);
        assert_eq!(off(&cleared, &after, ms(15)), (5, expected));

        // The next agent's own counters begin anew, however far they have come when they are looked at.
        let next = at(&file);
        let after = [
            ("rx_packets", 9, OF_MAPS),
            ("slow_packets", 5, OF_NEXT_AGENT),
        ];
        let expected = named(&[("rx_packets", 7)]);
        assert_eq!(off(&next, &after, ms(20)), (10, expected));
        let stale = counters(&[("stale", 1, OF_MAPS)]);
        let status = next.of("aws over tun00", &stale, ms(20)).unwrap();
        assert_eq!(status.counters, named(&[("stale", 1)]));
        // So does one that is lower than it was, and stays whole.
        for packets in [6, 8] {
            let after = [("rx_packets", packets, OF_MAPS)];
            assert_eq!(off(&next, &after, ms(20)), (10, named(&[])));
        }

        // That of an older build.
        fs::write(
            &file,
            r#"{"tun00":{"at_ns":1,"counters":{"rx_packets":7}}}"#,
        )
        .unwrap();
        let older = at(&file);
        assert_eq!(older.of("tun00", &counters(&after), ms(20)), None);
        forget(&file);
        assert!(!file.exists());
    }
}
