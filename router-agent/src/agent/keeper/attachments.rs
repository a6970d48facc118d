//! Which interfaces have the underlay programs, and which should.

use std::collections::BTreeMap;

use anyhow::Result;
use tracing::{info, warn};

use crate::{
    dataplane::{Dataplane, Mode, ModeChoice},
    net::{Link, watch::Watch},
};

/// An interface that shall have the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    choice: ModeChoice,
    /// Without it nothing works; else it is only faster.
    needed: bool,
}

/// By interface index.
#[derive(Debug, Default)]
pub struct Attachments {
    wanted: BTreeMap<u32, Wanted>,
    attached: BTreeMap<u32, (String, Mode)>,
    /// Why the programs could not be attached.
    failed: BTreeMap<u32, String>,
}

impl Attachments {
    /// Makes `underlays` the interfaces that shall have the programs. A VLAN's device has no native
    /// XDP: there they run behind the stack's search for the VLAN. So they run on the interface
    /// below it, too, and see the tagged frames first.
    pub fn want<'a>(
        &mut self,
        underlays: impl Iterator<Item = &'a Link>,
        watch: &Watch,
        choice: impl Fn(&str) -> ModeChoice,
    ) {
        let mut wanted = BTreeMap::new();
        let mut below = BTreeMap::new();
        for link in underlays {
            let parent = vlan_parent(link, watch);
            if let Some(parent) = parent {
                let choice = choice(&parent.name);
                below.insert(parent.index, (parent.name.clone(), choice));
            }
            let choice = if parent.is_some() {
                ModeChoice::Generic
            } else {
                choice(&link.name)
            };
            let name = link.name.clone();
            wanted.insert(
                link.index,
                Wanted {
                    name,
                    choice,
                    needed: true,
                },
            );
        }
        for (index, (name, choice)) in below {
            wanted.entry(index).or_insert(Wanted {
                name,
                choice,
                needed: false,
            });
        }
        self.wanted = wanted;
    }

    /// Attaches what is missing and detaches what is too much; the first error that keeps tunnels
    /// from working. What failed is tried again with the next call.
    pub fn act(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        let mut outcome = Ok(());
        let wanted = &self.wanted;
        for (index, (name, _)) in self
            .attached
            .extract_if(.., |index, _| !wanted.contains_key(index))
        {
            info!(interface = name, index, "no underlay any more");
            if let Err(error) = dataplane.detach_underlay(index, &name) {
                warn!(interface = name, "programs not detached: {error:#}");
            }
        }
        self.failed.retain(|index, _| wanted.contains_key(index));
        for (&index, wanted) in wanted {
            let Wanted {
                name,
                choice,
                needed,
            } = wanted;
            if let Some((known, _)) = self.attached.get_mut(&index) {
                known.clone_from(name);
                continue;
            }
            match dataplane.attach_underlay(name, *choice) {
                Ok(mode) => {
                    match &mode {
                        Mode::Native => info!(interface = name, index, "XDP mode native"),
                        Mode::Generic(reason) => {
                            warn!(interface = name, index, reason, "XDP mode generic");
                        }
                    }
                    self.failed.remove(&index);
                    self.attached.insert(index, (name.clone(), mode));
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if self.failed.get(&index) != Some(&text) {
                        warn!(interface = name, index, "programs not attached: {text}");
                        self.failed.insert(index, text);
                    }
                    if *needed && outcome.is_ok() {
                        outcome = Err(error);
                    }
                }
            }
        }
        outcome
    }

    /// Whether all that is wanted is attached.
    pub fn are_whole(&self) -> bool {
        self.failed.is_empty()
    }

    /// Indices and names of the interfaces that have the programs.
    pub fn interfaces(&self) -> Vec<(u32, String)> {
        self.attached
            .iter()
            .map(|(index, (name, _))| (*index, name.clone()))
            .collect()
    }

    /// The programs are not on this interface any more.
    pub fn lose(&mut self, index: u32) {
        self.attached.remove(&index);
    }

    /// The mode of an underlay: where frames are first seen.
    pub fn mode(&self, underlay: &Link, watch: &Watch) -> Option<&Mode> {
        let parent = vlan_parent(underlay, watch);
        parent
            .and_then(|parent| self.attached.get(&parent.index))
            .or_else(|| self.attached.get(&underlay.index))
            .map(|(_, mode)| mode)
    }

    /// Why the programs are not on an underlay.
    pub fn failure(&self, underlay: &Link) -> Option<&str> {
        self.failed.get(&underlay.index).map(String::as_str)
    }
}

/// The interface that a VLAN's device lies on.
fn vlan_parent<'a>(link: &Link, watch: &'a Watch) -> Option<&'a Link> {
    link.vlan_id?;
    watch.interface(link.parent?)
}
