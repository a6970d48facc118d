//! From the configuration to devices, programs and sessions: first a plan that finds everything
//! that would go wrong, then its execution.

mod devices;
mod groups;
mod plan;
mod resources;
mod sessions;

use std::{
    collections::HashMap,
    fs,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use router_common::map::{EpochSlot, Fence, Granted, Lease, LocalState, SessionConfig};
use tokio::sync::mpsc::{Receiver, channel};
use tracing::info;

use self::{
    devices::make_devices,
    groups::monitors,
    sessions::{OpenSession, close_where_silent, keeps_groups, open_sessions},
};
pub use self::{
    groups::{driven_groups, tracks},
    plan::{Asking, Plan, plan},
    resources::{clear_routes, clear_services, gather, lookout, notifiers},
};
use super::{
    Options,
    board::{Facts, TunnelFacts},
    cleared::Cleared,
    driver::ClockStatistics,
    ethernets,
    keeper::{ChooseMode, Keeper, fences},
};
use crate::{
    clock,
    config::{Config, Tunnel, XdpMode},
    dataplane::{Dataplane, MappedArray, ModeChoice},
    monitor::Monitor,
    net::Netlink,
    path_mtu::icmp::PathMtu,
    slow_path::{self, SlowPath, Worker},
    takeover::{ServiceTarget, conntrack::Conntrackd},
};

/// All that the threads need.
pub struct Setup {
    pub facts: Facts,
    pub keeper: Keeper,
    pub sessions: Vec<OpenSession>,
    pub keepalive: Duration,
    pub configs: MappedArray<SessionConfig>,
    pub local: MappedArray<LocalState>,
    pub granted: MappedArray<Granted>,
    pub fences: MappedArray<Fence>,
    pub leases: MappedArray<Lease>,
    pub epochs: Arc<MappedArray<EpochSlot>>,
    pub targets: Vec<Vec<ServiceTarget>>,
    pub conntrackd: Option<Conntrackd>,
    pub monitors: Vec<Monitor>,
    pub etcd: Option<Asking>,
    pub slow_path: OpenSlowPath,
}

/// The slow path with its sockets open, which do not work yet.
pub struct OpenSlowPath {
    pub slow_path: SlowPath,
    pub worker: Worker,
    /// What routers on the path say of its MTU.
    pub path_mtus: Receiver<PathMtu>,
}

/// Makes the devices and opens the sessions. What it made before it failed is the caller's to take
/// back.
pub async fn carry_out(
    config: Config,
    plan: Plan,
    options: &Options,
    netlink: &Netlink,
    dataplane: &mut Dataplane,
) -> Result<Setup> {
    let slow_path = Arc::new(slow_path::Table::default());
    let epochs = Arc::new(dataplane.epochs()?);
    // First what others may have taken: the rest takes its time, which an agent that is to try a
    // configuration does not have twice.
    let open_slow_path = open_slow_path(&config, &slow_path, &epochs)?;
    if !keeps_groups(&config, dataplane)? {
        info!("the groups are not those of before, or in other places: their fences are closed");
        dataplane.close_fences()?;
    }
    let states = make_devices(&config, &plan.underlays, netlink, dataplane).await?;
    if !states.is_empty() {
        netlink.ensure_egress(&dataplane.egress_program()?).await?;
    }
    let tunnels: Vec<_> = states
        .iter()
        .map(|state| TunnelFacts {
            tunnel: state.tunnel().clone(),
            index: state.index(),
            epochs: state.epochs(),
        })
        .collect();
    let mut keeper = Keeper::new(
        netlink.clone(),
        states,
        ethernets::lans(&config).map(ToOwned::to_owned).collect(),
        fences::protected(&config),
        mode_chooser(&config, options),
        dataplane.counters()?,
        Arc::clone(&slow_path),
    )
    .await?;
    keeper.begin(dataplane).await?;
    let sessions = match &config.cluster {
        Some(cluster) => {
            close_where_silent(cluster, &config.host_name, &tunnels, dataplane)?;
            open_sessions(cluster, &config.host_name, &tunnels, dataplane, &mut keeper)?
        }
        None => Vec::new(),
    };
    let kept = sessions.iter().map(|session| session.key).collect();
    dataplane.forget_other_sessions(&kept)?;
    let places = sessions.iter().map(|session| session.facts.index + 1).max();
    let cluster = config.cluster.as_ref();
    Ok(Setup {
        keepalive: cluster.map_or(Duration::from_secs(1), |c| c.keepalive_interval),
        monitors: cluster.map_or_else(Vec::new, monitors),
        configs: dataplane.session_configs()?,
        local: dataplane.local()?,
        granted: dataplane.granted()?,
        fences: dataplane.fences()?,
        leases: dataplane.leases()?,
        epochs: Arc::clone(&epochs),
        targets: plan.targets,
        conntrackd: plan.conntrackd,
        etcd: plan.etcd,
        slow_path: open_slow_path,
        facts: Facts {
            generation: generation()?,
            started: clock::now(),
            tunnels,
            epochs,
            presents: keeper.presents(),
            sessions: sessions
                .iter()
                .map(|session| session.facts.clone())
                .collect(),
            heard: Arc::new(dataplane.sessions()?),
            fences: dataplane.fences()?,
            leases: dataplane.leases()?,
            local: dataplane.local()?,
            granted: dataplane.granted()?,
            keys: Mutex::new(dataplane.session_keys()?),
            round_trips: dataplane.round_trips()?,
            counters: dataplane.counters()?,
            slow_path,
            clock: Arc::new(ClockStatistics::of_sessions(places.unwrap_or(0) as usize)),
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .context("cannot tell this boot from others")?,
            log: options.log.clone(),
            cleared: Cleared::open(dataplane.adopts())?,
            config,
        },
        keeper,
        sessions,
    })
}

fn open_slow_path(
    config: &Config,
    table: &Arc<slow_path::Table>,
    epochs: &Arc<MappedArray<EpochSlot>>,
) -> Result<OpenSlowPath> {
    /// How many words of routers on the path's MTU may wait.
    const PATH_MTUS: usize = 64;
    let enabled = config.tunnels.iter().filter(|tunnel| tunnel.enabled);
    let (words, path_mtus) = channel(PATH_MTUS);
    let (slow_path, worker) =
        slow_path::open(Arc::clone(table), Arc::clone(epochs), enabled, words)?;
    Ok(OpenSlowPath {
        slow_path,
        worker,
        path_mtus,
    })
}

/// The command line's choice goes before that of the configuration.
fn mode_chooser(config: &Config, options: &Options) -> ChooseMode {
    let stated: HashMap<_, _> = config
        .ethernets
        .iter()
        .map(|ethernet| (ethernet.name.clone(), ethernet.xdp_mode))
        .collect();
    let for_all = options.xdp_mode;
    Arc::new(move |interface| match (for_all, stated.get(interface)) {
        (ModeChoice::Native | ModeChoice::Generic, _) => for_all,
        (ModeChoice::Auto, None | Some(XdpMode::Auto)) => ModeChoice::Auto,
        (ModeChoice::Auto, Some(XdpMode::Native)) => ModeChoice::Native,
        (ModeChoice::Auto, Some(XdpMode::Generic)) => ModeChoice::Generic,
    })
}

fn first_ipv4(tunnel: &Tunnel) -> Option<Ipv4Addr> {
    tunnel.addresses.iter().find_map(|net| match net {
        IpNet::V4(net) => Some(net.addr()),
        IpNet::V6(_) => None,
    })
}

/// Tells this life of the agent from the ones before; never zero.
fn generation() -> Result<u32> {
    loop {
        let drawn = getrandom::u32().context("cannot draw a random number")?;
        if drawn != 0 {
            return Ok(drawn);
        }
    }
}
