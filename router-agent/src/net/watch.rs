//! What happens to the interfaces that we depend on. Pure: changes come in, findings go out.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use super::{Address, Link, LinkEvent};

/// An interface that we depend on, and what makes it this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// An underlay: the interface that holds this address.
    Holder(IpAddr),
    /// A tunnel's device, or a LAN: the interface of this name, and that one further on if it is renamed.
    Named(String),
}

/// What has happened to an interface that we depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Gone,
    /// It is there again, or another has its place. Its programs and settings are lost, and it may
    /// be down.
    Reappeared {
        index: u32,
    },
    Renamed {
        from: String,
        to: String,
    },
    /// Bytes.
    MtuChanged {
        from: u32,
        to: u32,
    },
    MacChanged {
        to: [u8; 6],
    },
    /// It has become part of a bridge, a bond or a VRF, of another one, or of none.
    ControllerChanged,
    /// No packet passes: set down, or without a carrier.
    Down,
    Up,
    /// The program is not attached any more. The kernel does not announce this by itself: it is
    /// found with the next change, or the next listing.
    XdpDetached,
}

/// A change of one dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Position among the dependencies.
    pub dependency: usize,
    pub change: Change,
}

/// Knows the interfaces and addresses, and tells what their changes mean.
#[derive(Debug)]
pub struct Watch {
    links: HashMap<u32, Link>,
    names: HashMap<String, u32>,
    /// The interfaces that hold an address.
    holders: HashMap<IpAddr, BTreeSet<u32>>,
    watched: Vec<Watched>,
    /// Positions of the dependencies that a change of a name, an address or an interface may concern.
    by_name: HashMap<String, Vec<usize>>,
    by_address: HashMap<IpAddr, Vec<usize>>,
    by_index: HashMap<u32, HashSet<usize>>,
}

#[derive(Debug)]
struct Watched {
    dependency: Dependency,
    link: Option<Link>,
    program: Option<u32>,
}

impl Watch {
    /// Begins with a listing. What is missing there is as if it had gone before.
    pub fn new(dependencies: Vec<Dependency>, links: Vec<Link>, addresses: &[Address]) -> Self {
        let mut watch = Self {
            links: HashMap::new(),
            names: HashMap::new(),
            holders: HashMap::new(),
            watched: Vec::new(),
            by_name: HashMap::new(),
            by_address: HashMap::new(),
            by_index: HashMap::new(),
        };
        for (position, dependency) in dependencies.into_iter().enumerate() {
            match &dependency {
                Dependency::Holder(ip) => watch.by_address.entry(*ip).or_default().push(position),
                Dependency::Named(name) => {
                    watch
                        .by_name
                        .entry(name.clone())
                        .or_default()
                        .push(position);
                }
            }
            watch.watched.push(Watched {
                dependency,
                link: None,
                program: None,
            });
        }
        watch.resync(links, addresses);
        watch
    }

    /// The interface that `dependency` is at present.
    pub fn link(&self, dependency: usize) -> Option<&Link> {
        self.watched.get(dependency)?.link.as_ref()
    }

    /// The interface of this index at present, one that is depended on or not.
    pub fn interface(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// All interfaces at present.
    pub fn interfaces(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// From now on the XDP program with this id must be on the interface, until it is gone or found
    /// detached. A change from before the program was attached may still be on its way and tell of
    /// it as detached: whoever hears that should look, or attach again.
    pub fn attached(&mut self, dependency: usize, program: u32) {
        if let Some(watched) = self.watched.get_mut(dependency) {
            watched.program = Some(program);
        }
    }

    /// Takes in a change. [`LinkEvent::Resync`] tells nothing here: list, and call
    /// [`Self::resync`].
    pub fn observe(&mut self, event: LinkEvent) -> Vec<Finding> {
        let mut concerned = BTreeSet::new();
        let mut told = None;
        match event {
            LinkEvent::New(link) => {
                concerned.extend(self.by_name.get(&link.name).into_iter().flatten());
                concerned.extend(self.by_index.get(&link.index).into_iter().flatten());
                // Its addresses may have become known first.
                let index = link.index;
                told = Some(index);
                if self.insert(link).is_none() {
                    for (ip, positions) in &self.by_address {
                        if self.holders.get(ip).is_some_and(|at| at.contains(&index)) {
                            concerned.extend(positions);
                        }
                    }
                }
            }
            LinkEvent::Removed { index, name: _ } => {
                self.remove(index);
                concerned.extend(self.by_index.get(&index).into_iter().flatten());
            }
            LinkEvent::AddressAdded(Address { link_index, net }) => {
                let ip = net.addr();
                self.holders.entry(ip).or_default().insert(link_index);
                concerned.extend(self.by_address.get(&ip).into_iter().flatten());
            }
            LinkEvent::AddressRemoved(Address { link_index, net }) => {
                let ip = net.addr();
                if let Some(at) = self.holders.get_mut(&ip) {
                    at.remove(&link_index);
                }
                concerned.extend(self.by_address.get(&ip).into_iter().flatten());
            }
            LinkEvent::Resync => {}
        }
        let mut findings = Vec::new();
        for position in concerned {
            self.look(position, |index| told == Some(index), &mut findings);
        }
        findings
    }

    /// Takes in a listing of everything; what has changed since the last change taken in.
    pub fn resync(&mut self, links: Vec<Link>, addresses: &[Address]) -> Vec<Finding> {
        self.links.clear();
        self.names.clear();
        for link in links {
            self.insert(link);
        }
        self.holders.clear();
        for Address { link_index, net } in addresses {
            self.holders
                .entry(net.addr())
                .or_default()
                .insert(*link_index);
        }
        let mut findings = Vec::new();
        for position in 0..self.watched.len() {
            self.look(position, |_| true, &mut findings);
        }
        findings
    }

    fn insert(&mut self, link: Link) -> Option<Link> {
        let before = self.remove(link.index);
        self.names.insert(link.name.clone(), link.index);
        self.links.insert(link.index, link);
        before
    }

    fn remove(&mut self, index: u32) -> Option<Link> {
        let link = self.links.remove(&index)?;
        if self.names.get(&link.name) == Some(&index) {
            self.names.remove(&link.name);
        }
        Some(link)
    }

    /// `is_told` says of which interfaces the kernel has just told all there is. What is known of
    /// others is older than a program that was attached meanwhile.
    fn look(
        &mut self,
        position: usize,
        is_told: impl Fn(u32) -> bool,
        findings: &mut Vec<Finding>,
    ) {
        let now = self.present(position).cloned();
        let watched = &mut self.watched[position];
        let before = std::mem::replace(&mut watched.link, now);
        let now = watched.link.as_ref();
        let mut changes = changes(before.as_ref(), now);
        if changes.iter().any(ends_programs) {
            watched.program = None;
        }
        if let (Some(program), Some(link)) = (watched.program, now)
            && is_told(link.index)
            && !link.xdp_programs.contains(&program)
        {
            watched.program = None;
            changes.push(Change::XdpDetached);
        }
        if let Some(link) = before
            && let Some(positions) = self.by_index.get_mut(&link.index)
        {
            positions.remove(&position);
        }
        if let Some(link) = now {
            self.by_index
                .entry(link.index)
                .or_default()
                .insert(position);
        }
        findings.extend(changes.into_iter().map(|change| Finding {
            dependency: position,
            change,
        }));
    }

    fn present(&self, position: usize) -> Option<&Link> {
        let watched = &self.watched[position];
        let before = watched.link.as_ref().map(|link| link.index);
        match &watched.dependency {
            Dependency::Holder(ip) => {
                let holders = self.holders.get(ip)?;
                let same = before.filter(|index| holders.contains(index));
                let mut candidates = same.iter().chain(holders);
                candidates.find_map(|index| self.links.get(index))
            }
            Dependency::Named(name) => before
                .and_then(|index| self.links.get(&index))
                .or_else(|| self.links.get(self.names.get(name)?)),
        }
    }
}

fn ends_programs(change: &Change) -> bool {
    matches!(change, Change::Gone | Change::Reappeared { .. })
}

fn changes(before: Option<&Link>, now: Option<&Link>) -> Vec<Change> {
    let (before, now) = match (before, now) {
        (None, None) => return Vec::new(),
        (Some(_), None) => return vec![Change::Gone],
        (Some(before), Some(now)) if before.index == now.index => (before, now),
        (_, Some(now)) => return vec![Change::Reappeared { index: now.index }],
    };
    let mut changes = Vec::new();
    if before.name != now.name {
        changes.push(Change::Renamed {
            from: before.name.clone(),
            to: now.name.clone(),
        });
    }
    if before.mtu != now.mtu {
        changes.push(Change::MtuChanged {
            from: before.mtu,
            to: now.mtu,
        });
    }
    if before.mac != now.mac {
        changes.push(Change::MacChanged { to: now.mac });
    }
    if before.controller != now.controller {
        changes.push(Change::ControllerChanged);
    }
    match (before.is_up(), now.is_up()) {
        (true, false) => changes.push(Change::Down),
        (false, true) => changes.push(Change::Up),
        (true, true) | (false, false) => {}
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::{super::link::sample, *};

    const UNDERLAY: usize = 0;
    const TUNNEL: usize = 1;

    fn address(link_index: u32) -> Address {
        Address {
            link_index,
            net: "10.0.1.10/24".parse().unwrap(),
        }
    }

    /// Watches eth0, index 2, which holds 10.0.1.10, and tun0, index 5. There is eth1, index 3.
    fn watch() -> Watch {
        let dependencies = vec![
            Dependency::Holder("10.0.1.10".parse().unwrap()),
            Dependency::Named("tun0".into()),
        ];
        Watch::new(dependencies, listing(), &[address(2)])
    }

    fn listing() -> Vec<Link> {
        vec![sample(2, "eth0"), sample(3, "eth1"), sample(5, "tun0")]
    }

    fn removed(index: u32, name: &str) -> LinkEvent {
        LinkEvent::Removed {
            index,
            name: name.into(),
        }
    }

    /// What the events lead to, all of one dependency.
    fn changes_of(watch: &mut Watch, dependency: usize, events: Vec<LinkEvent>) -> Vec<Change> {
        let findings = events.into_iter().flat_map(|event| watch.observe(event));
        findings
            .map(|finding| {
                assert_eq!(finding.dependency, dependency);
                finding.change
            })
            .collect()
    }

    #[test]
    fn what_does_not_concern_us_is_no_finding() {
        let mut watch = watch();
        let other = Link {
            mtu: 900,
            ..sample(3, "eth1")
        };
        let events = vec![
            LinkEvent::New(other),
            LinkEvent::New(sample(2, "eth0")),
            LinkEvent::New(sample(9, "eth9")),
            removed(3, "eth1"),
            LinkEvent::Resync,
        ];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), []);
    }

    #[test]
    fn each_change_is_told() {
        let mut watch = watch();
        let link = Link {
            name: "wan".into(),
            mtu: 1400,
            mac: [2; 6],
            controller: Some(3),
            carrier: false,
            ..sample(2, "eth0")
        };
        let expected = vec![
            Change::Renamed {
                from: "eth0".into(),
                to: "wan".into(),
            },
            Change::MtuChanged {
                from: 1500,
                to: 1400,
            },
            Change::MacChanged { to: [2; 6] },
            Change::ControllerChanged,
            Change::Down,
        ];
        let events = vec![LinkEvent::New(link)];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), expected);
        let down = Link {
            admin_up: false,
            ..sample(5, "tun0")
        };
        let events = vec![LinkEvent::New(down), LinkEvent::New(sample(5, "tun0"))];
        let expected = [Change::Down, Change::Up];
        assert_eq!(changes_of(&mut watch, TUNNEL, events), expected);
    }

    #[test]
    fn an_interface_made_anew_has_a_new_index() {
        let mut watch = watch();
        let events = vec![
            LinkEvent::AddressRemoved(address(2)),
            removed(2, "eth0"),
            LinkEvent::New(sample(8, "eth0")),
            LinkEvent::AddressAdded(address(8)),
        ];
        let expected = [Change::Gone, Change::Reappeared { index: 8 }];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), expected);
        assert_eq!(watch.link(UNDERLAY).map(|link| link.index), Some(8));

        let events = vec![removed(5, "tun0"), LinkEvent::New(sample(9, "tun0"))];
        let expected = [Change::Gone, Change::Reappeared { index: 9 }];
        assert_eq!(changes_of(&mut watch, TUNNEL, events), expected);
    }

    #[test]
    fn an_address_may_be_told_of_before_its_interface() {
        let mut watch = watch();
        let events = vec![
            removed(2, "eth0"),
            LinkEvent::AddressAdded(address(8)),
            LinkEvent::New(sample(8, "eth0")),
        ];
        let expected = [Change::Gone, Change::Reappeared { index: 8 }];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), expected);
    }

    #[test]
    fn the_underlay_follows_its_address() {
        let mut watch = watch();
        // While both hold it, the first stays.
        let events = vec![LinkEvent::AddressAdded(address(3))];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), []);
        let events = vec![LinkEvent::AddressRemoved(address(2))];
        let expected = [Change::Reappeared { index: 3 }];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), expected);
        let events = vec![LinkEvent::AddressRemoved(address(3))];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), [Change::Gone]);
    }

    #[test]
    fn a_tunnel_that_is_renamed_stays_ours_until_it_goes() {
        let mut watch = watch();
        let events = vec![
            LinkEvent::New(sample(5, "old")),
            // Another takes the name.
            LinkEvent::New(sample(9, "tun0")),
            removed(5, "old"),
        ];
        let expected = [
            Change::Renamed {
                from: "tun0".into(),
                to: "old".into(),
            },
            Change::Reappeared { index: 9 },
        ];
        assert_eq!(changes_of(&mut watch, TUNNEL, events), expected);
    }

    #[test]
    fn a_program_that_is_detached_is_missed_once() {
        let mut watch = watch();
        let with = |programs: &[u32]| {
            LinkEvent::New(Link {
                xdp_programs: programs.to_vec(),
                ..sample(2, "eth0")
            })
        };
        watch.attached(UNDERLAY, 40);
        // What was known before the program was attached says nothing of it.
        let events = vec![LinkEvent::AddressAdded(address(3)), with(&[40])];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), []);
        let events = vec![with(&[41]), with(&[])];
        let expected = [Change::XdpDetached];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), expected);

        // With the interface goes the program: that is no finding of its own.
        watch.attached(UNDERLAY, 40);
        let events = vec![
            LinkEvent::AddressRemoved(address(3)),
            removed(2, "eth0"),
            LinkEvent::New(sample(2, "eth0")),
        ];
        let expected = [Change::Gone, Change::Reappeared { index: 2 }];
        assert_eq!(changes_of(&mut watch, UNDERLAY, events), expected);
    }

    #[test]
    fn a_listing_tells_what_was_missed() {
        let mut watch = watch();
        watch.attached(UNDERLAY, 40);
        assert_eq!(
            watch.resync(vec![sample(2, "eth0"), sample(7, "tun0")], &[address(2)]),
            [
                Finding {
                    dependency: UNDERLAY,
                    change: Change::XdpDetached
                },
                Finding {
                    dependency: TUNNEL,
                    change: Change::Reappeared { index: 7 }
                },
            ]
        );
        let findings = watch.resync(Vec::new(), &[]);
        assert!(
            findings
                .iter()
                .all(|finding| finding.change == Change::Gone)
        );
        assert_eq!(findings.len(), 2);
        assert_eq!(watch.resync(listing(), &[address(2)]).len(), 2);
    }
}
