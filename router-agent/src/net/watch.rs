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
    /// A tunnel's device: the interface of this name, and that one further on if it is renamed.
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
    match (before.is_up(), now.is_up()) {
        (true, false) => changes.push(Change::Down),
        (false, true) => changes.push(Change::Up),
        (true, true) | (false, false) => {}
    }
    changes
}
