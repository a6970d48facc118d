//! Keeps the tunnels working while the interfaces around them change: one task that owns programs,
//! maps and devices, and is the only one to change them.

mod attachments;
pub mod fences;
mod gre_socket;
mod parts;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use router_common::time::BootTime;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{info, warn};

use self::{
    attachments::Attachments,
    fences::{Fences, Protected},
    gre_socket::{GreSocket, Outer},
    parts::{Part, Register},
};
use super::{
    clock_health::ClockHealth,
    ethernets,
    present::{Present, Presents},
};
use crate::{
    clock,
    config::{HeaderByte, Tunnel},
    control::protocol::{InterfaceRole, InterfaceStatus},
    dataplane::{Counters, Dataplane, ModeChoice},
    heartbeat,
    net::{
        Link, LinkEvent, LinkMonitor, Netlink,
        watch::{Change, Dependency, Finding, Watch},
    },
    path_mtu::{icmp::PathMtu, table::PathMtuTable},
    slow_path,
    tunnel::{
        self,
        keepalive::{self, Keepalive},
        quoted::{self, ByAddresses},
        state::{Action, Device, LearntMtu, TunnelState, Underlay},
    },
};

/// So often the agent looks whether its programs are still attached, which the kernel does not tell,
/// and tries again what failed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// So many routes are asked for at one look, in turn.
const ROUTES_AT_A_LOOK: usize = 256;
/// RFC 1812 §3.1 and the kernel's own choice for what is not forwarded.
const DEFAULT_TTL: u8 = 255;
/// Class selector 6, "network control" (RFC 4594 §3.1).
const NETWORK_CONTROL: u8 = 0xc0;

/// Chooses the XDP mode of an interface by its name.
pub type ChooseMode = Arc<dyn Fn(&str) -> ModeChoice + Send + Sync>;

/// The heartbeat socket of a tunnel.
#[derive(Clone, Debug)]
pub struct HeartbeatSocket {
    pub socket: Arc<UdpSocket>,
    pub address: Ipv4Addr,
}

pub struct Keeper {
    netlink: Netlink,
    /// None after it failed, until it could be opened again.
    monitor: Option<LinkMonitor>,
    watch: Watch,
    /// The addresses whose holders are the underlays: the first dependencies of `watch`. The
    /// tunnels' devices are those after them, then come the LANs, and then what is protected.
    locals: Vec<IpAddr>,
    /// Positions of the tunnels of each of `locals`.
    tunnels_of: Vec<Vec<usize>>,
    tunnels: Vec<TunnelState>,
    /// Interfaces between which and the tunnels packets may pass by the stack, as the configuration
    /// calls them.
    lans: Vec<String>,
    fences: Fences,
    /// The interfaces by which those tunnels' packets leave whose address is on one that leads
    /// nowhere.
    ways: HashMap<usize, u32>,
    next_way: usize,
    /// What of a tunnel failed last.
    troubles: HashMap<usize, String>,
    /// Tunnels to be looked at.
    dirty: BTreeSet<usize>,
    /// Indices.
    underlays: BTreeSet<u32>,
    attachments: Attachments,
    register: Register,
    choose_mode: ChooseMode,
    by_addresses: ByAddresses,
    paths: PathMtuTable,
    counters: Counters,
    slow_path: Arc<slow_path::Table>,
    gre_socket: Option<GreSocket>,
    heartbeats: HashMap<usize, HeartbeatSocket>,
    presents: Arc<Presents>,
    next_look: BootTime,
}

impl Keeper {
    /// Takes over tunnels whose devices have just been made, in the configuration's order.
    pub async fn new(
        netlink: Netlink,
        tunnels: Vec<TunnelState>,
        lans: Vec<String>,
        protected: Vec<Protected>,
        choose_mode: ChooseMode,
        counters: Counters,
        slow_path: Arc<slow_path::Table>,
    ) -> Result<Self> {
        let mut locals: Vec<IpAddr> = Vec::new();
        let mut tunnels_of: Vec<Vec<usize>> = Vec::new();
        let mut positions = HashMap::new();
        for (position, state) in tunnels.iter().enumerate() {
            let local = state.tunnel().local_ip;
            let number = *positions.entry(local).or_insert_with(|| {
                locals.push(local);
                tunnels_of.push(Vec::new());
                locals.len() - 1
            });
            tunnels_of[number].push(position);
        }
        let holders = locals.iter().map(|local| Dependency::Holder(*local));
        let devices = tunnels
            .iter()
            .map(|state| Dependency::Named(state.tunnel().name.clone()));
        let lan_names = lans.iter().cloned().map(Dependency::Named);
        let fences = Fences::new(protected);
        let dependencies = holders
            .chain(devices)
            .chain(lan_names)
            .chain(fences.dependencies())
            .collect();
        // Whatever happens after this is heard.
        let monitor = LinkMonitor::open()?;
        let links = netlink.links().await?;
        let watch = Watch::new(dependencies, links, &netlink.addresses().await?);
        let by_addresses = ByAddresses::of(tunnels.iter().map(TunnelState::tunnel));
        let presents = Arc::new(Presents::new(
            tunnels.iter().map(first_present).collect(),
            ClockHealth::read(),
        ));
        let now = clock::now();
        let mut keeper = Self {
            netlink,
            monitor: Some(monitor),
            watch,
            locals,
            tunnels_of,
            dirty: (0..tunnels.len()).collect(),
            ways: ways(&tunnels),
            next_way: 0,
            tunnels,
            lans,
            fences,
            troubles: HashMap::new(),
            underlays: BTreeSet::new(),
            attachments: Attachments::default(),
            register: Register::default(),
            choose_mode,
            by_addresses,
            paths: PathMtuTable::default(),
            counters,
            slow_path,
            gre_socket: None,
            heartbeats: HashMap::new(),
            presents,
            next_look: now.after(LOOK_INTERVAL),
        };
        keeper.begin_keepalives(now)?;
        keeper.begin_paths();
        for dependency in 0..keeper.locals.len() {
            keeper.refresh_underlay(dependency);
        }
        keeper.want_attachments();
        Ok(keeper)
    }

    pub fn presents(&self) -> Arc<Presents> {
        Arc::clone(&self.presents)
    }

    /// The socket is to follow its tunnel's device when that is made again.
    pub fn keep_socket(&mut self, tunnel: usize, socket: HeartbeatSocket) {
        self.heartbeats.insert(tunnel, socket);
    }

    fn begin_keepalives(&mut self, now: BootTime) -> Result<()> {
        for state in &mut self.tunnels {
            let tunnel = state.tunnel();
            let Some(config) = tunnel.keepalive.filter(|_| tunnel.enabled) else {
                continue;
            };
            if keepalive::packet(tunnel).is_none() {
                warn!(
                    tunnel = tunnel.name,
                    "no keepalive is sent: with checksum or sequence numbers none would come back"
                );
                continue;
            }
            if self.gre_socket.is_none() {
                let socket = GreSocket::open().context("cannot open a socket for keepalives")?;
                self.gre_socket = Some(socket);
            }
            let heard = self.counters.of(state.index())?.keepalives_heard;
            state.keepalive = Some(Keepalive::new(config, heard, now));
        }
        Ok(())
    }

    /// Goes on believing what devices that were kept show of their paths.
    fn begin_paths(&mut self) {
        for (position, state) in self.tunnels.iter().enumerate() {
            if let (Some(learnt), Some(underlay)) = (state.path_mtu(), state.underlay()) {
                self.paths
                    .note(position, learnt.mtu, underlay.mtu, learnt.at);
            }
        }
    }

    /// Attaches and sets everything for the first time. Unlike later, an error ends it.
    pub async fn begin(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        self.fence(dataplane)?;
        dataplane.end_other_fences(&self.fences.interfaces())?;
        self.attach(dataplane)?;
        for position in std::mem::take(&mut self.dirty) {
            self.settle(position, dataplane).await?;
            self.publish(position);
            let state = &self.tunnels[position];
            let tunnel = state.tunnel();
            if !tunnel.enabled {
                info!(tunnel = tunnel.name, "disabled: no packet passes");
                continue;
            }
            for note in state.notes() {
                warn!(tunnel = tunnel.name, "{note}");
            }
            info!(
                tunnel = tunnel.name,
                mtu = state.mtu().present,
                underlay = state.underlay().map(|underlay| underlay.name.as_str()),
                "tunnel {} to {}",
                tunnel.local_ip,
                tunnel.remote_ip
            );
        }
        self.tell_parts(dataplane)?;
        self.end_left_overs(dataplane)
    }

    /// Ends what an agent before this one had and this one has not.
    fn end_left_overs(&self, dataplane: &mut Dataplane) -> Result<()> {
        if !dataplane.adopts() {
            return Ok(());
        }
        dataplane.end_other_links(&self.attachments.interfaces())?;
        let known: Vec<_> = self
            .tunnels
            .iter()
            .filter_map(|state| state.entries().copied())
            .collect();
        dataplane.forget_others(&known, &self.register.indices())
    }

    /// Runs until `stop` is sent or dropped, and hands the programs back.
    pub async fn run(
        mut self,
        mut dataplane: Dataplane,
        mut path_mtus: mpsc::Receiver<PathMtu>,
        mut stop: oneshot::Receiver<()>,
    ) -> Dataplane {
        loop {
            let wait = self.next_deadline().since(clock::now());
            tokio::select! {
                _ = &mut stop => return dataplane,
                event = next_event(&mut self.monitor) => self.hear(event).await,
                Some(path) = path_mtus.recv() => self.learn(&path, clock::now()),
                () = sleep(wait) => {}
            }
            self.act(&mut dataplane).await;
        }
    }

    fn next_deadline(&self) -> BootTime {
        let keepalives = self
            .tunnels
            .iter()
            .filter_map(|state| Some(state.keepalive?.next()));
        keepalives
            .chain(self.paths.next_expiry())
            .fold(self.next_look, BootTime::min)
    }

    /// Does all that is due.
    async fn act(&mut self, dataplane: &mut Dataplane) {
        let now = clock::now();
        self.keep_alive(now);
        for position in self.paths.expire(now) {
            self.set_path_mtu(position, None);
        }
        if now >= self.next_look {
            self.look(dataplane).await;
        }
        for position in std::mem::take(&mut self.dirty) {
            match self.settle(position, dataplane).await {
                Ok(()) => {
                    self.troubles.remove(&position);
                }
                Err(error) => self.note_trouble(position, &error),
            }
            self.publish(position);
        }
    }

    fn note_trouble(&mut self, position: usize, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.troubles.get(&position) != Some(&text) {
            let tunnel = &self.tunnels[position].tunnel().name;
            warn!(tunnel, "{text}; it will be tried again");
            self.troubles.insert(position, text);
        }
    }

    async fn hear(&mut self, event: Result<LinkEvent>) {
        let findings = match event {
            Ok(LinkEvent::Resync) => {
                info!("changes of interfaces were lost; all are looked at anew");
                self.list_anew().await
            }
            Ok(event) => self.watch.observe(event),
            Err(error) => {
                warn!("{error:#}; interfaces are looked at from time to time");
                self.monitor = None;
                return;
            }
        };
        self.take_in(findings);
    }

    async fn list_anew(&mut self) -> Vec<Finding> {
        let listing = async {
            let links = self.netlink.links().await?;
            anyhow::Ok((links, self.netlink.addresses().await?))
        };
        match listing.await {
            Ok((links, addresses)) => self.watch.resync(links, &addresses),
            Err(error) => {
                warn!("{error:#}");
                // The next look opens a new one, and lists.
                self.monitor = None;
                Vec::new()
            }
        }
    }

    fn take_in(&mut self, findings: Vec<Finding>) {
        let first_device = self.locals.len();
        let first_lan = first_device + self.tunnels.len();
        let first_protected = first_lan + self.lans.len();
        let mut parts_changed = false;
        for Finding { dependency, change } in findings {
            let link = self.watch.link(dependency);
            let name = link.map(|link| link.name.as_str());
            if let Some(local) = self.locals.get(dependency) {
                log_underlay(*local, name, &change);
                self.refresh_underlay(dependency);
                parts_changed = true;
            } else if dependency < first_lan {
                self.refresh_device(dependency - first_device, &change);
            } else if dependency >= first_protected {
                // The next look, which is at once, is for fences, too.
                parts_changed = true;
            } else {
                log_lan(&self.lans[dependency - first_lan], name, &change);
                parts_changed = true;
            }
        }
        if parts_changed {
            self.want_attachments();
        }
    }

    /// Takes in what the interface with a tunnels' address is now.
    fn refresh_underlay(&mut self, dependency: usize) {
        for &position in &self.tunnels_of[dependency] {
            let underlay =
                underlay_of(&self.watch, &self.ways, dependency, position).map(Underlay::of);
            let state = &mut self.tunnels[position];
            let before = state.underlay().map(|underlay| underlay.ifindex);
            let now = underlay.as_ref().map(|underlay| underlay.ifindex);
            if before != now {
                // Another way, perhaps.
                self.paths.forget(position);
                state.set_path_mtu(None);
            }
            state.set_underlay(underlay);
            self.dirty.insert(position);
        }
    }

    /// Asks for the routes of tunnels whose address is on an interface that leads nowhere.
    async fn refresh_ways(&mut self) {
        let mut candidates = Vec::new();
        for (dependency, positions) in self.tunnels_of.iter().enumerate() {
            if self.watch.link(dependency).is_some_and(Link::leads_nowhere) {
                candidates.extend(positions.iter().map(|&position| (dependency, position)));
            }
        }
        let mut changed = BTreeSet::new();
        for number in in_turn(&mut self.next_way, candidates.len(), ROUTES_AT_A_LOOK) {
            let (dependency, position) = candidates[number];
            let tunnel = self.tunnels[position].tunnel();
            let Ok(way) = self.netlink.way(tunnel.local_ip, tunnel.remote_ip).await else {
                continue;
            };
            let known = match way {
                Some(index) => self.ways.insert(position, index),
                None => self.ways.remove(&position),
            };
            let now = way.and_then(|index| self.watch.interface(index));
            let now = now.map(Underlay::of);
            if known != way || self.tunnels[position].underlay() != now.as_ref() {
                changed.insert(dependency);
            }
        }
        for &dependency in &changed {
            self.refresh_underlay(dependency);
        }
        if !changed.is_empty() {
            self.want_attachments();
        }
    }

    /// Finds out which interfaces shall have the programs; the next look is at once.
    fn want_attachments(&mut self) {
        let Self {
            netlink,
            watch,
            tunnels_of,
            ways,
            attachments,
            choose_mode,
            next_look,
            ..
        } = self;
        let sees_tags = |parent: &str| match ethernets::keep_tags(parent, netlink) {
            Ok(()) => true,
            Err(error) => {
                warn!("{error:#}; its VLANs' frames are seen later, on their own devices");
                false
            }
        };
        let links = underlays(watch, tunnels_of, ways);
        self.underlays = links.iter().map(|link| link.index).collect();
        let with_vlans = with_vlans(watch);
        for link in links.iter().filter(|link| with_vlans.contains(&link.index)) {
            if let Err(error) = ethernets::keep_tags(&link.name, netlink) {
                warn!(
                    "{error:#}; heartbeats and packets that pass by the stack are taken whatever their VLAN"
                );
            }
        }
        let first_lan = self.locals.len() + self.tunnels.len();
        let lans = (first_lan..).zip(&self.lans).filter_map(|(lan, name)| {
            let link = watch.link(lan)?;
            // A LAN that was renamed is still what its old name says.
            ethernets::obstacle(link)
                .is_none()
                .then(|| (link, choose_mode(name)))
        });
        attachments.want(links.into_iter(), lans, watch, &**choose_mode, sees_tags);
        *next_look = BootTime::NEVER;
    }

    fn refresh_device(&mut self, position: usize, change: &Change) {
        let state = &mut self.tunnels[position];
        let name = &state.tunnel().name;
        let present = self.watch.link(self.locals.len() + position);
        match change {
            Change::Renamed { from, to } => {
                warn!(tunnel = name, from, to, "the tunnel's device was renamed");
            }
            Change::MacChanged { to } => {
                let mac = *to;
                state.set_user_mac(mac);
            }
            Change::Gone | Change::Reappeared { .. } => {
                let ours = state.device().map(|device| device.user_ifindex);
                if ours.is_some() && ours != present.map(|link| link.index) {
                    warn!(
                        tunnel = name,
                        "the tunnel's device is gone; it is made again"
                    );
                    state.lose_device();
                }
            }
            Change::Down => {
                warn!(tunnel = name, "down");
                state.set_device_up(false);
            }
            Change::Up => {
                info!(tunnel = name, "up");
                state.set_device_up(true);
            }
            Change::MtuChanged { .. } | Change::XdpDetached => return,
        }
        self.dirty.insert(position);
    }

    /// Looks for what nobody tells, and tries again what failed.
    async fn look(&mut self, dataplane: &mut Dataplane) {
        if self.monitor.is_none() {
            match LinkMonitor::open() {
                Ok(monitor) => {
                    self.monitor = Some(monitor);
                    let findings = self.list_anew().await;
                    self.take_in(findings);
                }
                Err(error) => warn!("{error:#}"),
            }
        }
        for (index, name, programs) in self.attachments.interfaces() {
            let Ok(Some(link)) = self.netlink.link(&name).await else {
                continue;
            };
            if link.index == index && !dataplane.is_on(programs, &link).unwrap_or(true) {
                warn!(
                    interface = name,
                    "somebody has detached our programs; they are attached again"
                );
                self.attachments.lose(index);
            }
        }
        self.look_at_the_clock();
        self.fences.look(dataplane);
        // It was logged.
        let _ = self.fence(dataplane);
        self.refresh_ways().await;
        self.next_look = clock::now().after(LOOK_INTERVAL);
        let was_whole = self.attachments.are_whole();
        // It was logged, and is in the notes.
        let _ = self.attach(dataplane);
        if let Err(error) = self.tell_parts(dataplane) {
            warn!("the programs cannot be told of interfaces: {error:#}; it will be tried again");
        }
        if let Err(error) = self.confirm_neighbours().await {
            warn!("{error:#}: packets that pass by the stack may go to where their next hop was");
        }
        if !was_whole {
            self.dirty.extend(0..self.tunnels.len());
        }
        self.dirty.extend(self.troubles.keys());
    }

    fn look_at_the_clock(&self) {
        let before = self.presents.clock();
        let now = before.looked_at_again();
        if now != before {
            warn!(
                from = before.source,
                to = now.source,
                "the clock source has changed"
            );
            self.presents.set_clock(now);
        }
    }

    /// Sees to it that what passes by the stack has next hops that are confirmed as often as the stack's.
    async fn confirm_neighbours(&self) -> Result<()> {
        let interfaces = self.register.indices();
        if interfaces.is_empty() {
            return Ok(());
        }
        self.netlink.confirm_neighbours(&interfaces).await
    }

    /// Tells the programs and an operator which part interfaces have in forwarding by the stack.
    fn tell_parts(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        let Self {
            watch,
            attachments,
            register,
            presents,
            fences,
            ..
        } = self;
        let first_lan = self.locals.len() + self.tunnels.len();
        let lans: BTreeMap<u32, &Link> = (first_lan..first_lan + self.lans.len())
            .filter_map(|lan| watch.link(lan))
            .map(|link| (link.index, link))
            .collect();
        let with_vlans = with_vlans(watch);
        let indices: BTreeSet<u32> = self.underlays.iter().chain(lans.keys()).copied().collect();
        let parts: Vec<Part> = indices
            .into_iter()
            .filter_map(|index| {
                let link = watch.interface(index)?;
                let role = match (self.underlays.contains(&index), lans.contains_key(&index)) {
                    (true, true) => InterfaceRole::Both,
                    (false, true) => InterfaceRole::Lan,
                    (_, false) => InterfaceRole::Underlay,
                };
                let obstacle = if role == InterfaceRole::Underlay {
                    None
                } else {
                    ethernets::obstacle(link).or_else(|| {
                        let error = with_vlans
                            .contains(&index)
                            .then(|| ethernets::keep_tags(&link.name, &self.netlink).err())??;
                        Some(format!("no fast-path: {error:#}"))
                    })
                };
                Some(Part {
                    link,
                    role,
                    obstacle,
                    mode: attachments.mode(link, watch),
                    own_mode: attachments.own_mode(index),
                    has_strict_reverse_path: ethernets::has_strict_reverse_path(&link.name),
                    protected_by: fences.protected_by(index),
                })
            })
            .collect();
        // Without LANs nothing passes by the stack.
        let wanted = if self.lans.is_empty() {
            BTreeMap::new()
        } else {
            let any_native = attachments.any_native();
            let interfaces = parts
                .iter()
                .filter_map(|part| Some((part.link.index, part.interface(any_native)?)));
            interfaces.collect()
        };
        let outcome = register.act(&wanted, dataplane);
        let before = presents.interfaces();
        let mut statuses = Vec::new();
        for part in parts {
            let link = part.link;
            let mut status = part.status(register.get(link.index));
            log_part(&status, before.iter().find(|old| old.name == link.name));
            let failure = attachments.failure(link);
            status
                .notes
                .extend(failure.map(|reason| format!("our programs are not on it: {reason}")));
            if !link.is_up() {
                status.notes.push("it is down".to_owned());
            }
            statuses.push(status);
        }
        statuses.extend(
            (first_lan..)
                .zip(&self.lans)
                .filter(|(lan, _)| watch.link(*lan).is_none())
                .map(|(_, name)| parts::missing(name)),
        );
        presents.set_interfaces(statuses);
        outcome
    }

    /// Before anything of a new interface is made use of: what it must not forward it must not for a
    /// moment.
    fn fence(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        let first = self.locals.len() + self.tunnels.len() + self.lans.len();
        let present: Vec<_> = (first..first + self.fences.dependencies().count())
            .map(|dependency| self.watch.link(dependency))
            .collect();
        let outcome = self.fences.act(&present, dataplane);
        self.presents.set_fence_notes(self.fences.notes());
        outcome
    }

    fn attach(&mut self, dataplane: &mut Dataplane) -> Result<()> {
        self.attachments.act(dataplane)
    }

    /// Does for one tunnel what is due: the only place where a tunnel is changed.
    async fn settle(&mut self, position: usize, dataplane: &mut Dataplane) -> Result<()> {
        let Self {
            netlink,
            tunnels,
            heartbeats,
            slow_path,
            ..
        } = self;
        let state = &mut tunnels[position];
        while let Some(action) = state.due() {
            let device = state.device();
            match (action, device) {
                (Action::Create { mtu }, _) => {
                    let device = create(netlink, state.tunnel(), mtu).await?;
                    netlink.ensure_egress(&dataplane.egress_program()?).await?;
                    if let Some(HeartbeatSocket { socket, address }) = heartbeats.get(&position) {
                        // If it fails, the device is made once more.
                        heartbeat::bind_again(socket, &state.tunnel().name, *address)
                            .context("the heartbeat socket cannot follow its device")?;
                    }
                    state.created(device, mtu);
                }
                (Action::Forget(lost), _) => dataplane.forget_device(&lost)?,
                (Action::SetEntries(entries), _) => {
                    dataplane.set_tunnel(&entries)?;
                    slow_path.set(&entries);
                }
                (Action::SetMtu { full, present }, Some(device)) => {
                    netlink.set_mtu(device.dataplane_ifindex, full).await?;
                    netlink.set_mtu(device.user_ifindex, present).await?;
                    info!(tunnel = state.tunnel().name, mtu = present, "MTU changed");
                }
                (Action::SetCarrier(up), Some(device)) => {
                    netlink.set_up(device.dataplane_ifindex, up).await?;
                }
                (Action::SetMtu { .. } | Action::SetCarrier(_), None) => {
                    return Err(anyhow!("the device is gone"));
                }
            }
            state.done(action);
        }
        Ok(())
    }

    /// Takes in a router's word.
    fn learn(&mut self, path: &PathMtu, now: BootTime) {
        let positions: Vec<usize> = self
            .by_addresses
            .between(path)
            .iter()
            .copied()
            .filter(|&position| quoted::may_be_of(path, self.tunnels[position].tunnel()))
            .collect();
        for position in positions {
            let state = &self.tunnels[position];
            let Some(underlay) = state.underlay() else {
                continue;
            };
            let lowered = self.paths.note(position, path.mtu, underlay.mtu, now);
            if let Some(mtu) = lowered {
                self.set_path_mtu(position, Some(LearntMtu { mtu, at: now }));
            }
        }
    }

    fn set_path_mtu(&mut self, position: usize, learnt: Option<LearntMtu>) {
        let state = &mut self.tunnels[position];
        let tunnel = &state.tunnel().name;
        if let Some(LearntMtu { mtu, at: _ }) = learnt {
            info!(tunnel, mtu, "the path's MTU is lower");
        } else {
            info!(
                tunnel,
                "the path's MTU is the underlay's again, as far as we know"
            );
        }
        state.set_path_mtu(learnt);
        self.dirty.insert(position);
    }

    /// Sends the keepalives that are due, and looks who answers.
    fn keep_alive(&mut self, now: BootTime) {
        let Some(socket) = &self.gre_socket else {
            return;
        };
        for (position, state) in self.tunnels.iter_mut().enumerate() {
            let Some(mut keepalive) = state.keepalive else {
                continue;
            };
            // The map was there when the agent started.
            let heard = self.counters.of(state.index()).unwrap_or_default();
            // What comes back by the slow path has been to the far end too.
            let slow = self.slow_path.counters(&tunnel::key(state.tunnel()));
            let slow_heard = slow.map_or(0, |counters| counters.keepalives_heard.get());
            let was_up = keepalive.is_up();
            let due = keepalive.tick(heard.keepalives_heard + slow_heard, now);
            state.keepalive = Some(keepalive);
            let tunnel = state.tunnel();
            match (was_up, keepalive.is_up()) {
                (true, false) => warn!(
                    tunnel = tunnel.name,
                    "no keepalive comes back: the tunnel goes down"
                ),
                (false, true) => info!(
                    tunnel = tunnel.name,
                    "a keepalive has come back: the tunnel goes up"
                ),
                (true, true) | (false, false) => {}
            }
            if due {
                // One that cannot be sent does not come back either, which is what counts.
                let _ = send_keepalive(socket, tunnel);
            }
            self.dirty.insert(position);
        }
    }

    /// Lets an operator see what is.
    fn publish(&self, position: usize) {
        let state = &self.tunnels[position];
        let link = state
            .underlay()
            .and_then(|underlay| self.watch.interface(underlay.ifindex));
        let mut notes = state.notes();
        let failure = link.and_then(|link| self.attachments.failure(link));
        if let Some(reason) = failure {
            notes.push(format!("our programs are not on its underlay: {reason}"));
        }
        notes.extend(self.troubles.get(&position).cloned());
        let present = Present {
            mtu: state.mtu().present,
            path_mtu: state.path_mtu(),
            underlay: state.underlay().map(|underlay| underlay.name.clone()),
            mode: link
                .and_then(|link| self.attachments.mode(link, &self.watch))
                .cloned(),
            keepalive: state.keepalive,
            notes,
        };
        self.presents.set(position, present);
    }
}

/// Where the devices were made for, which [`Keeper::refresh_underlay`] only heeds where it must.
fn ways(tunnels: &[TunnelState]) -> HashMap<usize, u32> {
    let underlays = tunnels.iter().filter_map(TunnelState::underlay);
    underlays
        .map(|underlay| underlay.ifindex)
        .enumerate()
        .collect()
}

/// The interface with a tunnel's address, or the one by which its packets leave if that leads
/// nowhere.
fn underlay_of<'a>(
    watch: &'a Watch,
    ways: &HashMap<usize, u32>,
    dependency: usize,
    position: usize,
) -> Option<&'a Link> {
    let holder = watch.link(dependency)?;
    if holder.leads_nowhere() {
        watch.interface(*ways.get(&position)?)
    } else {
        Some(holder)
    }
}

/// The underlays of all tunnels, each once.
fn underlays<'a>(
    watch: &'a Watch,
    tunnels_of: &[Vec<usize>],
    ways: &HashMap<usize, u32>,
) -> Vec<&'a Link> {
    let mut links = BTreeMap::new();
    for (dependency, positions) in tunnels_of.iter().enumerate() {
        for position in positions {
            if let Some(link) = underlay_of(watch, ways, dependency, *position) {
                links.insert(link.index, link);
            }
        }
    }
    links.into_values().collect()
}

/// Indices of the interfaces that VLANs' devices lie on.
fn with_vlans(watch: &Watch) -> BTreeSet<u32> {
    watch
        .interfaces()
        .filter(|link| link.vlan_id.is_some())
        .filter_map(|link| link.parent)
        .collect()
}

fn first_present(state: &TunnelState) -> Present {
    Present {
        mtu: state.mtu().present,
        path_mtu: None,
        underlay: state.underlay().map(|underlay| underlay.name.clone()),
        mode: None,
        keepalive: None,
        notes: Vec::new(),
    }
}

/// Without a monitor, never.
async fn next_event(monitor: &mut Option<LinkMonitor>) -> Result<LinkEvent> {
    match monitor {
        Some(monitor) => monitor.next().await,
        None => std::future::pending().await,
    }
}

async fn create(netlink: &Netlink, tunnel: &Tunnel, mtu: u32) -> Result<Device> {
    let ends = netlink
        .create_tunnels(&[tunnel::device(tunnel, mtu)])
        .await?;
    let (user, dataplane) = ends.first().context("no device was made")?;
    info!(tunnel = tunnel.name, "its device was made again");
    Ok(Device::of(user, dataplane))
}

fn log_underlay(local: IpAddr, name: Option<&str>, change: &Change) {
    match change {
        Change::Gone => warn!("no interface has the address {local} any more"),
        Change::Reappeared { index } => info!(index, name, "underlay of {local}"),
        Change::Renamed { from, to } => info!(from, to, "underlay of {local} renamed"),
        Change::MtuChanged { from, to } => info!(name, from, to, "MTU of {local}'s underlay"),
        Change::MacChanged { .. } => info!(name, "another hardware address"),
        Change::Down => warn!(name, "underlay of {local} is down"),
        Change::Up => info!(name, "underlay of {local} is up"),
        Change::XdpDetached => {}
    }
}

fn log_lan(configured: &str, name: Option<&str>, change: &Change) {
    match change {
        Change::Gone => warn!("there is no interface {configured} any more"),
        Change::Reappeared { index } => info!(index, name, "interface {configured}"),
        Change::Renamed { from, to } => info!(from, to, "interface {configured} renamed"),
        Change::MacChanged { .. } => info!(name, "another hardware address"),
        Change::Down => warn!(name, "down"),
        Change::Up => info!(name, "up"),
        Change::MtuChanged { .. } | Change::XdpDetached => {}
    }
}

/// Logs what is new of an interface's part in forwarding by the stack.
fn log_part(now: &InterfaceStatus, before: Option<&InterfaceStatus>) {
    let InterfaceStatus {
        name: interface,
        role,
        fast_path,
        notes,
        ..
    } = now;
    let was_fast = before.is_some_and(|before| before.fast_path);
    if *role != InterfaceRole::Underlay && *fast_path && !was_fast {
        info!(interface, "fast-path enabled");
    }
    for note in notes {
        if before.is_none_or(|before| !before.notes.contains(note)) {
            warn!(interface, "{note}");
        }
    }
}

/// Up to `most` of the numbers below `count`, going on after those of the last time.
fn in_turn(next: &mut usize, count: usize, most: usize) -> Vec<usize> {
    let most = most.min(count);
    let turn = (0..most).map(|step| (*next + step) % count).collect();
    *next = (*next + most).checked_rem(count).unwrap_or(0);
    turn
}

fn send_keepalive(socket: &GreSocket, tunnel: &Tunnel) -> Option<()> {
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (tunnel.local_ip, tunnel.remote_ip) else {
        return None;
    };
    let fixed = |byte, default| match byte {
        HeaderByte::Fixed(value) => value,
        HeaderByte::Inherit => default,
    };
    let outer = Outer {
        local,
        remote,
        ttl: fixed(tunnel.ttl, DEFAULT_TTL),
        tos: fixed(tunnel.tos, NETWORK_CONTROL),
    };
    socket.send(&outer, &keepalive::packet(tunnel)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn() {
        let mut next = 0;
        assert_eq!(in_turn(&mut next, 5, 3), [0, 1, 2]);
        assert_eq!(in_turn(&mut next, 5, 3), [3, 4, 0]);
        // There are fewer now.
        assert_eq!(in_turn(&mut next, 1, 3), [0]);
        assert_eq!(in_turn(&mut next, 0, 3), [0; 0]);
        assert_eq!(in_turn(&mut next, 2, 3), [0, 1]);
    }
}
