//! Which interfaces have programs, and which should.

use std::collections::{BTreeMap, btree_map::Entry};

use anyhow::Result;
use router_common::time::BootTime;
use tracing::{info, warn};

use super::{detached::Detached, generic::Reasons};
use crate::{
    dataplane::{Dataplane, Mode, ModeChoice, Programs},
    net::{Link, watch::Watch},
};

/// An interface that shall have programs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    /// Bytes.
    mtu: u32,
    choice: ModeChoice,
    programs: Programs,
    /// Without it something does not work; else it is only faster.
    needed: bool,
}

#[derive(Clone, Debug)]
struct Attached {
    name: String,
    mode: Mode,
    programs: Programs,
}

/// By interface index.
#[derive(Debug, Default)]
pub struct Attachments {
    wanted: BTreeMap<u32, Wanted>,
    attached: BTreeMap<u32, Attached>,
    /// Why the programs could not be attached.
    failed: BTreeMap<u32, String>,
    detached: Detached<u32>,
    reasons: Reasons,
}

impl Attachments {
    pub fn new(reasons: Reasons) -> Self {
        Self {
            reasons,
            ..Self::default()
        }
    }

    /// Makes `underlays` and `lans` the interfaces that shall have programs; each of `lans` comes
    /// with its mode. A VLAN's device has no native XDP: there they run behind the stack's search
    /// for the VLAN. So they run on the interface below an underlay, too, and see the tagged frames
    /// first, if `sees_tags` of it: where the driver takes tags off, every VLAN would pass for ours
    /// there, and answers would leave without a tag.
    pub fn want<'a>(
        &mut self,
        underlays: impl Iterator<Item = &'a Link>,
        lans: impl Iterator<Item = (&'a Link, ModeChoice)>,
        watch: &Watch,
        choice: impl Fn(&str) -> ModeChoice,
        sees_tags: impl Fn(&str) -> bool,
    ) {
        let mut wanted = BTreeMap::new();
        let mut below = BTreeMap::new();
        for link in underlays {
            let parent = vlan_parent(link, watch);
            if let Some(parent) = parent.filter(|parent| sees_tags(&parent.name)) {
                below.insert(parent.index, parent);
            }
            let choice = if parent.is_some() {
                ModeChoice::Generic
            } else {
                choice(&link.name)
            };
            wanted.insert(link.index, Wanted::new(link, choice, Programs::Underlay));
        }
        for (index, parent) in below {
            wanted.entry(index).or_insert(Wanted {
                needed: false,
                ..Wanted::new(parent, choice(&parent.name), Programs::Underlay)
            });
        }
        for (link, choice) in lans {
            match wanted.entry(link.index) {
                Entry::Occupied(mut both) => both.get_mut().needed = true,
                Entry::Vacant(place) => {
                    place.insert(Wanted::new(link, choice, Programs::Lan));
                }
            }
        }
        self.wanted = wanted;
    }

    /// Takes in what interfaces are called now and how long their packets may be: nobody tells of one that only lies
    /// below a VLAN's.
    pub fn refresh(&mut self, watch: &Watch) {
        for (index, wanted) in &mut self.wanted {
            if let Some(link) = watch.interface(*index) {
                wanted.name.clone_from(&link.name);
                wanted.mtu = link.mtu;
            }
        }
        for (index, attached) in &mut self.attached {
            if let Some(link) = watch.interface(*index) {
                attached.name.clone_from(&link.name);
            }
        }
    }

    /// Attaches what is missing and detaches what is too much; the first error that keeps tunnels
    /// from working. What failed is tried again with the next call, as native mode is where it was
    /// refused with another MTU.
    pub fn act(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        let mut outcome = Ok(());
        let mut is_new = false;
        let wanted = &self.wanted;
        let is_too_much = |index: &u32, attached: &mut Attached| {
            let wanted = wanted.get(index).map(|wanted| wanted.programs);
            wanted != Some(attached.programs)
        };
        for (index, Attached { name, programs, .. }) in self.attached.extract_if(.., is_too_much) {
            info!(interface = name, index, "takes no such part any more");
            if let Err(error) = dataplane.detach(programs, index, &name) {
                warn!(interface = name, "programs not detached: {error:#}");
            }
        }
        self.failed.retain(|index, _| wanted.contains_key(index));
        for (&index, wanted) in wanted {
            let &Wanted {
                ref name,
                mtu,
                choice,
                programs,
                needed,
            } = wanted;
            let against_native = self.reasons.against_native(index, mtu);
            if let Some(attached) = self.attached.get_mut(&index) {
                attached.name.clone_from(name);
                let is_generic = attached.mode != Mode::Native;
                if !(is_generic && choice == ModeChoice::Auto && against_native.is_none()) {
                    continue;
                }
                self.attached.remove(&index);
            }
            match dataplane.attach(programs, name, choice, against_native) {
                Ok(mode) => {
                    let refused_mtu = (choice == ModeChoice::Auto).then_some(mtu);
                    let generic = mode.reason().map(|reason| (reason, refused_mtu));
                    self.reasons.set(index, generic);
                    is_new = true;
                    match &mode {
                        Mode::Native => info!(interface = name, index, "XDP mode native"),
                        Mode::Generic(reason) => {
                            warn!(interface = name, index, reason, "XDP mode generic");
                        }
                    }
                    self.failed.remove(&index);
                    let name = name.clone();
                    let attached = Attached {
                        name,
                        mode,
                        programs,
                    };
                    self.attached.insert(index, attached);
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if self.failed.get(&index) != Some(&text) {
                        warn!(interface = name, index, "programs not attached: {text}");
                        self.failed.insert(index, text);
                    }
                    if needed && outcome.is_ok() {
                        outcome = Err(error);
                    }
                }
            }
        }
        if is_new {
            let attached = &self.attached;
            self.reasons.keep(|index| attached.contains_key(&index));
        }
        outcome
    }

    /// Whether all that is wanted is attached.
    pub fn are_whole(&self) -> bool {
        self.failed.is_empty()
    }

    /// Indices and names of the interfaces that have programs, with these.
    pub fn interfaces(&self) -> Vec<(u32, String, Programs)> {
        self.attached
            .iter()
            .map(|(index, attached)| (*index, attached.name.clone(), attached.programs))
            .collect()
    }

    /// Somebody has detached the programs from this interface.
    pub fn lose(&mut self, index: u32, now: BootTime) {
        self.attached.remove(&index);
        self.detached.tell(index, now);
    }

    /// Forgets what has been told for long enough; whether there was such.
    pub fn expire(&mut self, now: BootTime) -> bool {
        self.detached.expire(now)
    }

    /// The mode in which an interface has programs of its own.
    pub fn own_mode(&self, index: u32) -> Option<&Mode> {
        self.attached.get(&index).map(|attached| &attached.mode)
    }

    /// Whether any interface has programs in the driver.
    pub fn any_native(&self) -> bool {
        let mut attached = self.attached.values();
        attached.any(|attached| attached.mode == Mode::Native)
    }

    /// The mode of an interface where its frames are first seen.
    pub fn mode(&self, link: &Link, watch: &Watch) -> Option<&Mode> {
        vlan_parent(link, watch)
            .and_then(|parent| self.own_mode(parent.index))
            .or_else(|| self.own_mode(link.index))
    }

    /// What an operator should know of the programs on an interface, which is called `what`.
    pub fn notes(&self, link: &Link, what: &str) -> impl Iterator<Item = String> {
        let failure = self.failed.get(&link.index);
        let failure = failure.map(|reason| format!("our programs are not on {what}: {reason}"));
        let was_detached = self.detached.is_told(&link.index).then(|| {
            format!("somebody detached our programs from {what} within the last ten minutes")
        });
        failure.into_iter().chain(was_detached)
    }
}

impl Wanted {
    fn new(link: &Link, choice: ModeChoice, programs: Programs) -> Self {
        Self {
            name: link.name.clone(),
            mtu: link.mtu,
            choice,
            programs,
            needed: true,
        }
    }
}

/// The interface that a VLAN's device lies on.
fn vlan_parent<'a>(link: &Link, watch: &'a Watch) -> Option<&'a Link> {
    link.vlan_id?;
    watch.interface(link.parent?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample;

    fn wanted(underlays: &[u32], lans: &[u32]) -> Vec<(u32, Programs, ModeChoice, bool)> {
        let mut vlan = sample(4, "eth0.5");
        vlan.parent = Some(2);
        vlan.vlan_id = Some(5);
        let links = vec![sample(2, "eth0"), sample(3, "eth1"), vlan];
        let watch = Watch::new(Vec::new(), links, &[]);
        let links = |indices: &[u32]| {
            let links = indices.iter().map(|index| watch.interface(*index).unwrap());
            links.collect::<Vec<_>>()
        };
        let mut attachments = Attachments::default();
        attachments.want(
            links(underlays).into_iter(),
            links(lans)
                .into_iter()
                .map(|link| (link, ModeChoice::Native)),
            &watch,
            |_| ModeChoice::Auto,
            |_| true,
        );
        let wanted = attachments.wanted.into_iter();
        wanted
            .map(|(index, wanted)| (index, wanted.programs, wanted.choice, wanted.needed))
            .collect()
    }

    #[test]
    fn an_interface_below_a_vlan_may_be_renamed() {
        let watch = |parent: &str, mtu| {
            let mut below = sample(2, parent);
            below.mtu = mtu;
            let mut vlan = sample(4, "vlan5");
            vlan.parent = Some(2);
            vlan.vlan_id = Some(5);
            Watch::new(Vec::new(), vec![below, vlan], &[])
        };
        let before = watch("eth0", 9000);
        let mut attachments = Attachments::default();
        let vlan = before.interface(4).into_iter();
        let auto = |_: &str| ModeChoice::Auto;
        attachments.want(vlan, [].into_iter(), &before, auto, |_| true);
        let attached = Attached {
            name: "eth0".to_owned(),
            mode: Mode::Native,
            programs: Programs::Underlay,
        };
        attachments.attached.insert(2, attached);
        attachments.refresh(&watch("wan", 1500));
        let wanted = &attachments.wanted[&2];
        assert_eq!((&*wanted.name, wanted.mtu), ("wan", 1500));
        let names: Vec<_> = attachments
            .interfaces()
            .into_iter()
            .map(|(index, name, _)| (index, name))
            .collect();
        assert_eq!(names, [(2, "wan".to_owned())]);
    }

    #[test]
    fn an_underlay_that_is_a_lan_has_the_underlays_programs() {
        use Programs::{Lan, Underlay};
        let auto = ModeChoice::Auto;
        assert_eq!(
            wanted(&[2], &[2, 3]),
            [
                (2, Underlay, auto, true),
                (3, Lan, ModeChoice::Native, true)
            ]
        );
        let below = |needed| {
            [
                (2, Underlay, auto, needed),
                (4, Underlay, ModeChoice::Generic, true),
            ]
        };
        assert_eq!(wanted(&[4], &[]), below(false));
        assert_eq!(wanted(&[4], &[2]), below(true));
    }
}
