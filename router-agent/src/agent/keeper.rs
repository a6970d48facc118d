//! Keeps the tunnels working while the interfaces around them change: one task that owns programs,
//! maps and devices, and is the only one to change them.

mod attachments;
mod detached;
mod egress;
pub mod fences;
mod generic;
mod gre_socket;
mod interfaces;
mod keepalives;
mod looks;
mod parts;
mod paths;
mod programs;
mod settle;

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use router_common::time::BootTime;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{info, warn};

use self::{
    attachments::Attachments,
    egress::Egress,
    fences::{Fences, Protected},
    generic::Reasons,
    gre_socket::GreSocket,
    interfaces::ways,
    parts::Register,
};
use super::{
    clock_health::ClockHealth,
    lock,
    present::{Present, Presents},
};
use crate::{
    clock,
    dataplane::{Counters, Dataplane, ModeChoice},
    net::{
        LinkEvent, LinkMonitor, Netlink,
        watch::{Dependency, Watch},
    },
    path_mtu::{icmp::PathMtu, table::PathMtuTable},
    slow_path,
    tunnel::{quoted::ByAddresses, state::TunnelState},
};

/// So often the agent looks whether its programs are still attached, which the kernel does not tell,
/// and tries again what failed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

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
    /// Whose reverse path filter is looked at next.
    next_filter: usize,
    /// What of a tunnel failed last.
    troubles: HashMap<usize, String>,
    /// Tunnels to be looked at.
    dirty: BTreeSet<usize>,
    /// Indices.
    underlays: BTreeSet<u32>,
    attachments: Attachments,
    egress: Egress,
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
            next_filter: 0,
            tunnels,
            lans,
            fences,
            troubles: HashMap::new(),
            underlays: BTreeSet::new(),
            attachments: Attachments::new(Reasons::open(lock::file_of_namespace("generic-xdp")?)),
            egress: Egress::default(),
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
