//! The interfaces that groups protect, and whether the fences' programs are on them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use router_common::time::BootTime;
use tracing::{info, warn};

use super::detached::Detached;
use crate::{
    config::Config,
    dataplane::Dataplane,
    net::{Link, watch::Dependency},
};

/// An interface, as the configuration calls it, and the index of the group that protects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    pub interface: String,
    pub group: u32,
}

/// All of a configuration.
pub fn protected(config: &Config) -> Vec<Protected> {
    let groups = config.groups().iter();
    (0..)
        .zip(groups)
        .flat_map(|(group, of)| {
            of.protected.iter().map(move |interface| Protected {
                interface: interface.clone(),
                group,
            })
        })
        .collect()
}

#[derive(Debug, Default)]
pub struct Fences {
    protected: Vec<Protected>,
    /// The groups of the interfaces that are there, by their indices.
    present: BTreeMap<u32, u32>,
    /// Index and name of the interface that has the programs, for each that is protected.
    fenced: BTreeMap<usize, (u32, String)>,
    /// What failed last.
    troubles: BTreeMap<usize, String>,
    /// Those that were without the programs for a while.
    detached: Detached<usize>,
}

impl Fences {
    pub fn new(protected: Vec<Protected>) -> Self {
        Self {
            protected,
            ..Self::default()
        }
    }

    pub fn dependencies(&self) -> impl Iterator<Item = Dependency> + '_ {
        self.protected
            .iter()
            .map(|protected| Dependency::Named(protected.interface.clone()))
    }

    /// As [`Interface::protected_by`](router_common::map::Interface), whether the programs are on it
    /// or not.
    pub fn protected_by(&self, ifindex: u32) -> u16 {
        self.present
            .get(&ifindex)
            .and_then(|group| u16::try_from(group + 1).ok())
            .unwrap_or(0)
    }

    /// Puts the programs on the interfaces that are `present`, in the configuration's order, and do
    /// not have them yet. What failed is tried again with the next call; the first error is told.
    pub fn act(&mut self, present: &[Option<&Link>], dataplane: &mut Dataplane) -> Result<()> {
        let mut outcome = Ok(());
        self.present = present
            .iter()
            .zip(&self.protected)
            .filter_map(|(link, protected)| Some(((*link)?.index, protected.group)))
            .collect();
        for (position, link) in present.iter().enumerate() {
            let Protected { interface, group } = &self.protected[position];
            let now = link.map(|link| link.index);
            let before = self.fenced.get(&position).map(|(index, _)| *index);
            if let Some(gone) = before.filter(|before| Some(*before) != now) {
                self.fenced.remove(&position);
                if let Err(error) = dataplane.forget_protected(gone) {
                    warn!(interface, "{error:#}");
                }
            }
            let Some(link) = *link else {
                self.troubles.remove(&position);
                continue;
            };
            if let Some((index, name)) = self.fenced.get_mut(&position)
                && *index == link.index
            {
                // It may have been renamed.
                name.clone_from(&link.name);
                continue;
            }
            match dataplane.protect(&link.name, link.index, *group) {
                Ok(()) => {
                    info!(interface, index = link.index, "fenced");
                    let fenced = (link.index, link.name.clone());
                    self.fenced.insert(position, fenced);
                    self.troubles.remove(&position);
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if self.troubles.get(&position) != Some(&text) {
                        warn!(interface, "not fenced: {text}; it will be tried again");
                        self.troubles.insert(position, text);
                    }
                    outcome = outcome
                        .and(Err(error).with_context(|| format!("cannot fence {interface}")));
                }
            }
        }
        outcome
    }

    /// Why what should be fenced is not, or was not, with the group that it concerns.
    pub fn notes(&self) -> Vec<(u32, String)> {
        let mut notes = Vec::new();
        for (position, Protected { interface, group }) in self.protected.iter().enumerate() {
            let why = match self.troubles.get(&position) {
                Some(trouble) => Some(&**trouble),
                None if self.fenced.contains_key(&position) => None,
                None => Some("there is no such interface at present"),
            };
            let is_not = why.map(|why| format!("{interface} is not fenced: {why}"));
            let was_not = self.detached.is_told(&position).then(|| {
                format!(
                    "somebody detached the fence of {interface} within the last ten minutes: it may \
                     have forwarded meanwhile what it must not"
                )
            });
            notes.extend(is_not.into_iter().chain(was_not).map(|note| (*group, note)));
        }
        notes
    }

    /// Notices programs that somebody has detached.
    pub fn look(&mut self, dataplane: &Dataplane, now: BootTime) {
        self.detached.expire(now);
        self.fenced.retain(|position, (_, interface)| {
            let intact = dataplane.protects(interface).unwrap_or(true);
            if !intact {
                warn!(
                    interface,
                    "somebody has detached the fence's programs; they are attached again"
                );
                self.detached.tell(*position, now);
            }
            intact
        });
    }

    /// Indices and names of the interfaces that have the programs.
    pub fn interfaces(&self) -> Vec<(u32, String)> {
        self.fenced.values().cloned().collect()
    }
}
