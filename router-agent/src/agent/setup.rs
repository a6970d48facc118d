//! From the configuration to devices, programs and sessions: first a plan that finds everything
//! that would go wrong, then its execution.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use ipnet::IpNet;
use router_common::{
    identity::{Epoch, NodeId},
    kdf::{self, session_number},
    lease::Length,
    map::{
        EpochSlot, Fence, Granted, Lease, LocalState, MAX_GROUPS, MAX_SESSIONS, MAX_TUNNELS,
        SessionConfig, SessionKey,
    },
};
use tokio::sync::mpsc::{Receiver, UnboundedSender, channel};
use tracing::{info, warn};

use super::{
    Options,
    board::{Facts, SessionFacts, TunnelFacts},
    cleared::Cleared,
    driver::{ClockStatistics, Group as DrivenGroup, Session},
    ethernets,
    keeper::{ChooseMode, HeartbeatSocket, Keeper, fences},
    preflight::{self, Problem, Unfit},
    report::Report,
};
use crate::{
    arbiter::{self, Etcd, Unusable},
    clock,
    cloud::Cloud,
    cluster::{ArbiterPolicy, Core, FormerLife, Policy, State},
    config::{Cluster, Config, Group, Role, Secret, Service, Track, Tunnel, Way, XdpMode},
    control::permission::Access,
    dataplane::{Dataplane, MappedArray, ModeChoice},
    duplicate::Lookout,
    heartbeat::{Prober, open_socket, rotation::starting},
    monitor::Monitor,
    net::{Address, Link, Netlink, Pair, dataplane_end},
    path_mtu::icmp::PathMtu,
    slow_path::{self, SlowPath, Worker},
    takeover::{
        AwsTarget, GroupResources, Resource, RouteTarget, ServiceTarget,
        command::check_executable,
        conntrack::{self, Conntrackd},
        find_script,
        notify::Notifier,
    },
    track,
    tunnel::{
        self, HeartbeatListener, Transit,
        epoch::{self, EpochSlots},
        mtu,
        state::{Device, TunnelState, Underlay},
    },
};

/// At millisecond timing too, a starting node gives its peer this long to be heard.
const SHORTEST_INITIAL_WAIT: Duration = Duration::from_secs(1);
/// How long both nodes must be well before a failback: this, or ten dead-intervals if longer.
const SHORTEST_FAILBACK_HOLD: Duration = Duration::from_secs(1);
/// How long a node whose takeover failed leaves the group to its peer.
const FAULT_HOLD: Duration = Duration::from_secs(10);

/// What the system showed to be possible.
pub struct Plan {
    /// The underlay of each tunnel, in the configuration's order.
    underlays: Vec<Link>,
    /// The service addresses of each group.
    pub targets: Vec<Vec<ServiceTarget>>,
    /// If the connections of a group are told.
    pub conntrackd: Option<Conntrackd>,
    /// If an arbiter is configured.
    etcd: Option<Asking>,
    /// For whom the control socket is.
    pub access: Access,
}

/// What it takes to ask the arbiter.
pub struct Asking {
    pub etcd: Etcd,
    /// Of the groups' records, in the groups' order.
    pub keys: Vec<String>,
}

/// Looks at the system without changing it.
pub async fn plan(config: &Config, options: &Options, netlink: &Netlink) -> Result<Plan> {
    let mut problems = preflight::system_problems(&options.bpffs);
    let links = netlink.links().await?;
    let addresses = netlink.addresses().await?;
    let holders = holders(&links, &addresses);
    let by_name: HashMap<_, _> = links.iter().map(|link| (&*link.name, link)).collect();
    let mut underlays = Vec::new();
    for tunnel in &config.tunnels {
        match holders.get(&tunnel.local_ip) {
            Some(link) if link.leads_nowhere() => {
                let way = netlink.way(tunnel.local_ip, tunnel.remote_ip).await?;
                match links.iter().find(|link| Some(link.index) == way) {
                    Some(link) => underlays.push(link.clone()),
                    None => problems.push(Problem::new(
                        format!(
                            "tunnel {}: local-ip {} is on {}, and there is no route to remote-ip {}",
                            tunnel.name, tunnel.local_ip, link.name, tunnel.remote_ip
                        ),
                        format!("add a route; `ip route get {}` shows it", tunnel.remote_ip),
                    )),
                }
            }
            Some(link) => underlays.push(Link::clone(link)),
            None => problems.push(Problem::new(
                format!(
                    "tunnel {}: local-ip {} is on no interface of this system",
                    tunnel.name, tunnel.local_ip
                ),
                format!(
                    "add the address (`ip address add {}/24 dev eth0`), or set the local-ip that \
                     `ip address` shows",
                    tunnel.local_ip
                ),
            )),
        }
        for name in [tunnel.name.clone(), dataplane_end(&tunnel.name)] {
            if by_name.get(&*name).is_some_and(|link| !link.is_ours()) {
                problems.push(Problem::new(
                    format!("interface {name} exists already, and router-agent did not make it"),
                    format!("delete it (`ip link delete {name}`) or give the tunnel another name"),
                ));
            }
        }
    }
    problems.extend(missing_interfaces(config, &by_name));
    problems.extend(ethernets::unfit(config, &links));
    let targets = (config.groups().iter())
        .map(|group| targets(group, &links, &addresses, &mut problems))
        .collect();
    let conntrackd = conntrackd(config, options, &links, &addresses).unwrap_or_else(|unusable| {
        problems.push(Problem::new(
            format!("service conntrack-sync: {unusable}"),
            unusable.remedy(),
        ));
        None
    });
    let etcd = asking(config).unwrap_or_else(|unusable| {
        problems.push(Problem::new(
            format!("arbiter etcd: {unusable}"),
            unusable.remedy(),
        ));
        None
    });
    let access = Access::find(&config.control).unwrap_or_else(|error| {
        problems.push(Problem::new(
            format!("service control: {error}"),
            "make it (`groupadd --system GROUP`), or name one that `getent group` shows",
        ));
        Access::default()
    });
    if problems.is_empty() {
        Ok(Plan {
            underlays,
            targets,
            conntrackd,
            etcd,
            access,
        })
    } else {
        Err(Unfit(problems).into())
    }
}

/// The service addresses of a group. What else it needs of the system, and lacks, is a problem.
fn targets(
    group: &Group,
    links: &[Link],
    addresses: &[Address],
    problems: &mut Vec<Problem>,
) -> Vec<ServiceTarget> {
    let mut found = Vec::new();
    for service in &group.services {
        let (error, remedy) = match service {
            Service::Address(address) => match ServiceTarget::find(address, links, addresses) {
                Ok(target) => {
                    found.push(target);
                    continue;
                }
                Err(error) => (error, "`ip link` and `ip address` show what there is"),
            },
            Service::Script(call) => match find_script(call) {
                Ok(_) => continue,
                Err(error) => (error, "install the script, or correct its name"),
            },
            // Whether systemd knows it is asked again and again.
            Service::Unit(_) => continue,
        };
        problems.push(Problem::new(
            format!("group {}: {error}", group.name),
            remedy,
        ));
    }
    for track in &group.tracks {
        if let Track::Script { program, .. } = track
            && let Err(error) = check_executable(program)
        {
            problems.push(Problem::new(
                format!("group {}: {track}: {error:#}", group.name),
                "install the script, or correct its path",
            ));
        }
    }
    found
}

/// What tells of connections, if they are to be told.
fn conntrackd(
    config: &Config,
    options: &Options,
    links: &[Link],
    addresses: &[Address],
) -> Result<Option<Conntrackd>, conntrack::Unusable> {
    let mut groups = config.groups().iter();
    let Some(sync) = groups.find_map(|group| group.conntrack_sync.as_ref()) else {
        return Ok(None);
    };
    let ways = conntrack::Ways::find(sync, config, links, addresses)?;
    Conntrackd::new(&ways, options.run_directory()).map(Some)
}

/// Reads what the configuration names of certificates and passwords.
fn asking(config: &Config) -> Result<Option<Asking>, Unusable> {
    let Some(cluster) = &config.cluster else {
        return Ok(None);
    };
    let Some(etcd) = &cluster.arbiter else {
        return Ok(None);
    };
    let key = |group| arbiter::key(etcd, group);
    Ok(Some(Asking {
        etcd: arbiter::client(etcd)?,
        keys: cluster.groups.iter().map(key).collect(),
    }))
}

/// Interfaces that the configuration names and the system does not have.
fn missing_interfaces(config: &Config, by_name: &HashMap<&str, &Link>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for tunnel in &config.tunnels {
        let Some(port) = &tunnel.bridge else {
            continue;
        };
        let bridge = &port.bridge;
        if by_name
            .get(&**bridge)
            .is_none_or(|link| link.kind.as_deref() != Some("bridge"))
        {
            problems.push(Problem::new(
                format!("tunnel {}: there is no bridge {bridge}", tunnel.name),
                format!("create it (`ip link add {bridge} type bridge`), or name one that `ip link show type bridge` shows"),
            ));
        }
    }
    for fences::Protected { interface, .. } in fences::protected(config) {
        match by_name.get(&*interface) {
            None => problems.push(Problem::new(
                format!("interface {interface}, which is to be protected, does not exist"),
                "`ip link` shows what there is",
            )),
            Some(link) => problems.extend(unfit_for_a_fence(link, by_name)),
        }
    }
    let groups = config.groups().iter();
    for route in groups.flat_map(|group| &group.routes) {
        if let Way::Interface(name) = &route.way
            && !by_name.contains_key(&**name)
        {
            problems.push(Problem::new(
                format!("{route}: there is no interface {name}"),
                "`ip link` shows what there is",
            ));
        }
    }
    for ethernet in &config.ethernets {
        if !by_name.contains_key(&*ethernet.name) {
            problems.push(Problem::new(
                format!("interface {} does not exist", ethernet.name),
                "`ip link` shows what there is",
            ));
        }
    }
    problems
}

/// Why a fence on an interface would not see what is forwarded.
fn unfit_for_a_fence(link: &Link, by_name: &HashMap<&str, &Link>) -> Option<Problem> {
    let name = &link.name;
    if link.is_vrf() {
        return Some(Problem::new(
            format!(
                "interface {name} is a VRF: what is forwarded passes its members, and not itself"
            ),
            format!("protect those of its members that `ip link show master {name}` shows"),
        ));
    }
    let controller = link.controller?;
    let is_vrf = |other: &&Link| other.index == controller && other.is_vrf();
    if by_name.values().any(is_vrf) {
        return None;
    }
    Some(Problem::new(
        format!("interface {name} is part of another: its packets are not its own"),
        "protect the bridge or bond that `ip link` shows behind `master`",
    ))
}

/// The first interface that has each address.
fn holders<'a>(links: &'a [Link], addresses: &[Address]) -> HashMap<IpAddr, &'a Link> {
    let by_index: HashMap<_, _> = links.iter().map(|link| (link.index, link)).collect();
    let mut holders = HashMap::new();
    for Address { link_index, net } in addresses {
        if let Some(link) = by_index.get(link_index) {
            holders.entry(net.addr()).or_insert(*link);
        }
    }
    holders
}

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
            cleared: Cleared::open()?,
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

/// Whether every session that an agent before this one had is of a group that has the same place now.
fn keeps_groups(config: &Config, dataplane: &mut Dataplane) -> Result<bool> {
    let groups = config.groups().iter();
    let numbers: Vec<_> = groups.map(|group| session_number(&group.name)).collect();
    for (key, index) in dataplane.former_sessions()? {
        let group = dataplane.session_config(index)?.group;
        if numbers.get(group as usize) != Some(&key.session) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The tunnels with their devices: those that an agent before this one made, as far as they fit, and
/// new ones.
async fn make_devices(
    config: &Config,
    underlays: &[Link],
    netlink: &Netlink,
    dataplane: &mut Dataplane,
) -> Result<Vec<TunnelState>> {
    if config.tunnels.len() > MAX_TUNNELS as usize {
        return Err(anyhow!("more than {MAX_TUNNELS} tunnels"));
    }
    let devices: Vec<_> = config
        .tunnels
        .iter()
        .zip(underlays)
        .map(|(tunnel, underlay)| tunnel::device(tunnel, mtu::full(tunnel, underlay.mtu)))
        .collect();
    let egresses = dataplane.egresses()?;
    let mut kept = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let pairs = netlink
        .ensure_tunnels(&devices, |position, user, dataplane| {
            let Some(index) = tunnel::index_of_former(
                &config.tunnels[position],
                egresses.get(&user.index),
                egresses.get(&dataplane.index),
            ) else {
                return false;
            };
            let is_free = taken.insert(index);
            if is_free {
                kept.insert(position, index);
            }
            is_free
        })
        .await?;
    if dataplane.adopts() {
        let (kept, all) = (kept.len(), pairs.len());
        info!("{kept} of {all} tunnel devices are kept");
    }
    let indices = tunnel::indices(config.tunnels.len(), &kept);
    let (old, new) = indices
        .iter()
        .zip(&pairs)
        .map(|(index, pair)| (*index, pair.kept))
        .partition::<Vec<_>, _>(|(_, kept)| *kept);
    let epochs = allot_epochs(config, &kept, dataplane)?;
    let numbers = |some: Vec<(u32, bool)>| some.into_iter().map(|(index, _)| index).collect();
    dataplane.make_room(&numbers(old), &numbers(new))?;
    let has_lan = ethernets::lans(config).next().is_some();
    let now = clock::now();
    Ok(indices
        .into_iter()
        .zip(&config.tunnels)
        .zip(underlays)
        .zip(&pairs)
        .zip(epochs)
        .map(|((((index, tunnel), underlay), pair), epochs)| {
            let Pair {
                user,
                dataplane,
                kept,
            } = pair;
            let transit = Transit {
                has_lan,
                strict_reverse_path: ethernets::has_strict_reverse_path(&tunnel.name),
            };
            let state = TunnelState::new(
                tunnel.clone(),
                index,
                heartbeat_listener(config, tunnel),
                epochs,
                transit,
                Underlay::of(underlay),
                Device::of(user, dataplane),
            );
            if *kept {
                state.with_kept_device(dataplane.mtu, user.mtu, now)
            } else {
                state
            }
        })
        .collect())
}

/// Where the tunnels have their epochs, of which some are `kept`: their indices by position.
fn allot_epochs(
    config: &Config,
    kept: &BTreeMap<usize, u32>,
    dataplane: &mut Dataplane,
) -> Result<Vec<Option<EpochSlots>>> {
    let former = dataplane.epoch_slots()?;
    let former: BTreeMap<usize, u16> = kept
        .iter()
        .filter_map(|(position, index)| Some((*position, *former.get(index)?)))
        .collect();
    let epoch::Allotment { tunnels, new } = epoch::allot(config, &former);
    let received = dataplane.epochs()?;
    for place in &new {
        received.write((*place).into(), &EpochSlot::default());
    }
    // Of two domains that have become one the newest counts.
    for (position, place) in former {
        if let Some(EpochSlots { received: now, .. }) = tunnels[position]
            && !new.contains(&now)
        {
            received.raise_epoch(now.into(), received.epoch(place.into()));
        }
    }
    Ok(tunnels)
}

/// A session that the programs know.
pub struct OpenSession {
    facts: SessionFacts,
    key: SessionKey,
    prober: Prober,
    former: FormerLife,
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

/// Where heartbeats in `tunnel` come to; `None` if none run there.
fn heartbeat_listener(config: &Config, tunnel: &Tunnel) -> Option<HeartbeatListener> {
    let cluster = config.cluster.as_ref()?;
    if !cluster.interfaces.contains(&tunnel.name) {
        return None;
    }
    Some(HeartbeatListener {
        address: first_ipv4(tunnel)?.octets(),
        port: cluster.heartbeat_port,
    })
}

/// Closes the fences of groups of which no session goes on: their silence may be taken for ours.
fn close_where_silent(
    cluster: &Cluster,
    host_name: &str,
    tunnels: &[TunnelFacts],
    dataplane: &mut Dataplane,
) -> Result<()> {
    let former = former_sessions(dataplane)?;
    for (number, group) in (0..).zip(&cluster.groups) {
        let members = members(group, host_name);
        let mut is_silent = true;
        for path in &cluster.interfaces {
            let (_, tunnel) = tunnel_of(path, tunnels)?;
            if let Some(&index) = former.get(&session_key(tunnel, group)) {
                is_silent &= !goes_on(index, &members, dataplane)?;
            }
        }
        if is_silent {
            dataplane.close_fence(number)?;
        }
    }
    Ok(())
}

fn tunnel_of<'a>(path: &str, tunnels: &'a [TunnelFacts]) -> Result<(usize, &'a TunnelFacts)> {
    let mut tunnels = tunnels.iter().enumerate();
    tunnels
        .find(|(_, facts)| facts.tunnel.name == path)
        .ok_or_else(|| anyhow!("cluster interface {path} is no tunnel"))
}

fn session_key(tunnel: &TunnelFacts, group: &Group) -> SessionKey {
    SessionKey {
        tunnel_index: tunnel.index,
        session: session_number(&group.name),
    }
}

/// The sessions that an agent before this one had, with their places.
fn former_sessions(dataplane: &mut Dataplane) -> Result<HashMap<SessionKey, u32>> {
    let former = dataplane.former_sessions()?.into_iter();
    Ok(former.filter(|(_, index)| *index < MAX_SESSIONS).collect())
}

/// Whether the session in a place goes on: it was between the same nodes.
fn goes_on(index: u32, members: &Members, dataplane: &mut Dataplane) -> Result<bool> {
    let former = dataplane.session_config(index)?;
    let nodes = (NodeId(former.local_node), NodeId(former.peer_node));
    Ok(nodes == (members.node, members.peer))
}

fn open_sessions(
    cluster: &Cluster,
    host_name: &str,
    tunnels: &[TunnelFacts],
    dataplane: &mut Dataplane,
    keeper: &mut Keeper,
) -> Result<Vec<OpenSession>> {
    let former = former_sessions(dataplane)?;
    let mut free = {
        let used: BTreeSet<u32> = former.values().copied().collect();
        (0..MAX_SESSIONS).filter(move |index| !used.contains(index))
    };
    let (heard, said) = (dataplane.sessions()?, dataplane.local()?);
    let fences = dataplane.fences()?;
    let mut sessions = Vec::new();
    for path in &cluster.interfaces {
        let (position, tunnel) = tunnel_of(path, tunnels)?;
        let address = first_ipv4(&tunnel.tunnel)
            .ok_or_else(|| anyhow!("cluster interface {path} has no IPv4 address"))?;
        let socket = open_socket(path, address, cluster.heartbeat_port)
            .with_context(|| format!("cannot open the heartbeat socket on {path}"))?;
        let socket = Arc::new(socket);
        keeper.keep_socket(
            position,
            HeartbeatSocket {
                socket: Arc::clone(&socket),
                address,
            },
        );
        if cluster.groups.len() > MAX_GROUPS as usize {
            return Err(anyhow!("more than {MAX_GROUPS} groups"));
        }
        for (number, group) in cluster.groups.iter().enumerate() {
            let members = members(group, host_name);
            let key = session_key(tunnel, group);
            let known = former.get(&key).copied();
            let index = known
                .or_else(|| free.next())
                .with_context(|| format!("more than {MAX_SESSIONS} sessions"))?;
            if known.is_none() || !goes_on(index, &members, dataplane)? {
                dataplane.clear_session(index)?;
            }
            let Members { node, peer, name } = members;
            let keys_of = |secret: &Secret| {
                kdf::slot(secret.expose().as_bytes(), &group.name, host_name, name)
            };
            let config = SessionConfig {
                keys: starting(
                    keys_of(&cluster.secret),
                    cluster.previous_secret.as_ref().map(keys_of),
                ),
                session: key.session,
                local_node: node.0,
                peer_node: peer.0,
                local_address: address.octets(),
                group: u32::try_from(number)?,
                padding: [0; 4],
            };
            dataplane.set_session(index, key, config)?;
            let discovery = SocketAddrV4::new(cluster.mcast_group, cluster.heartbeat_port);
            sessions.push(OpenSession {
                facts: SessionFacts {
                    group: number,
                    index,
                    path: path.clone(),
                },
                key,
                prober: Prober::new(
                    Arc::clone(&socket),
                    discovery,
                    key.session,
                    node,
                    heard.read(index).reply_sequence,
                ),
                former: FormerLife::of(&said.read(index), &fences.read(config.group)),
            });
        }
    }
    Ok(sessions)
}

fn first_ipv4(tunnel: &Tunnel) -> Option<Ipv4Addr> {
    tunnel.addresses.iter().find_map(|net| match net {
        IpNet::V4(net) => Some(net.addr()),
        IpNet::V6(_) => None,
    })
}

/// This node and its peer in a group.
struct Members<'a> {
    node: NodeId,
    peer: NodeId,
    /// The peer's host name.
    name: &'a str,
}

fn members<'a>(group: &'a Group, host_name: &str) -> Members<'a> {
    const SECONDARY: NodeId = NodeId(2);
    match group.role_of(host_name) {
        Some(Role::Primary) => Members {
            node: NodeId::PRIMARY,
            peer: SECONDARY,
            name: &group.secondary,
        },
        // The check refuses a host that is neither.
        Some(Role::Secondary) | None => Members {
            node: SECONDARY,
            peer: NodeId::PRIMARY,
            name: &group.primary,
        },
    }
}

/// A group with its core, and what of a former life goes on in it.
pub struct Beginning {
    pub group: DrivenGroup,
    /// Its services, if it is active, stay where they are.
    pub is_active: bool,
    /// Its monitors were reachable a moment ago.
    pub was_well: bool,
}

/// The groups as they begin; no epoch up to `newest` is used again.
pub fn driven_groups(config: &Config, sessions: Vec<OpenSession>, newest: Epoch) -> Vec<Beginning> {
    let Some(cluster) = &config.cluster else {
        return Vec::new();
    };
    let mut of_groups: Vec<Vec<OpenSession>> = Vec::new();
    of_groups.resize_with(cluster.groups.len(), Vec::new);
    for session in sessions {
        of_groups[session.facts.group].push(session);
    }
    (0..)
        .zip(&cluster.groups)
        .zip(of_groups)
        .map(|((place, group), sessions)| {
            let Members { node, peer, .. } = members(group, &config.host_name);
            let former = sessions.iter().map(|session| session.former);
            let former = former.max_by_key(|life| life.beat).unwrap_or_default();
            let policy = policy(cluster, group, node, peer);
            let core = Core::resumed(policy, &former, newest, clock::now());
            let state = core.state();
            if state != State::Initializing {
                info!(
                    group = group.name,
                    epoch = former.claim.epoch.0,
                    "goes on as {state}"
                );
            }
            let sessions = sessions.into_iter().map(|session| Session {
                index: session.facts.index,
                prober: session.prober,
            });
            Beginning {
                is_active: state == State::Active,
                was_well: state != State::Initializing && former.was_well(),
                group: DrivenGroup::new(group.name.clone(), place, core, sessions.collect()),
            }
        })
        .collect()
}

fn policy(cluster: &Cluster, group: &Group, node: NodeId, peer: NodeId) -> Policy {
    let dead = cluster.dead_interval;
    Policy {
        node,
        peer,
        keepalive: cluster.keepalive_interval,
        dead,
        prefer: group.prefer,
        arbiter: cluster.arbiter.as_ref().map(|etcd| ArbiterPolicy {
            term: etcd.term,
            timeout: etcd.timeout,
            contenders: 2,
        }),
        lease: Length::by_default(dead),
        agent_dead: cluster.agent_dead_interval,
        initial_wait: SHORTEST_INITIAL_WAIT.max(dead * 2),
        auto_failback: group.auto_failback,
        failback_hold: SHORTEST_FAILBACK_HOLD.max(dead * 10),
        fault_hold: FAULT_HOLD,
    }
}

fn monitors(cluster: &Cluster) -> Vec<Monitor> {
    let mut monitors = Vec::new();
    for (number, group) in cluster.groups.iter().enumerate() {
        for (index, address) in group.monitors.iter().enumerate() {
            monitors.push(Monitor {
                group: number,
                index,
                address: IpAddr::clone(address),
                interval: cluster.monitor_interval,
                dead: cluster.monitor_dead_interval,
            });
        }
    }
    monitors
}

/// What the groups track.
pub fn tracks(config: &Config, beginnings: &[Beginning]) -> Vec<track::Target> {
    let groups = config.groups().iter();
    groups
        .zip(beginnings)
        .enumerate()
        .flat_map(|(number, (group, beginning))| {
            let name: Arc<str> = group.name.as_str().into();
            let first = group.monitors.len();
            (first..)
                .zip(&group.tracks)
                .map(move |(index, track)| track::Target {
                    group: number,
                    group_name: Arc::clone(&name),
                    index,
                    was_well: beginning.was_well,
                    track: track.clone(),
                })
        })
        .collect()
}

/// Clears away what an earlier agent left and is not to go on; what moves with each group.
pub async fn gather(
    config: &Config,
    beginnings: &[Beginning],
    targets: Vec<Vec<ServiceTarget>>,
    mut conntrackd: Option<Conntrackd>,
    netlink: &Netlink,
) -> Vec<GroupResources> {
    let to_clear = beginnings.iter().zip(&targets);
    let to_clear = to_clear.filter(|(beginning, _)| !beginning.is_active);
    clear_services(to_clear.flat_map(|(_, targets)| targets), netlink).await;
    clear_other_services(&targets, netlink).await;
    let groups = config.groups().iter();
    let of_active = groups.clone().zip(beginnings).filter(|(_, b)| b.is_active);
    let kept = of_active.flat_map(|(group, _)| &group.routes);
    clear_routes(&kept.map(|route| route.destination).collect(), netlink).await;
    groups
        .zip(targets)
        .zip(beginnings)
        .map(|((group, targets), beginning)| {
            let of_group = group
                .conntrack_sync
                .as_ref()
                .and_then(|_| conntrackd.take());
            resources(group, targets, of_group, beginning.is_active)
        })
        .collect()
}

/// What moves with a group, in the order of [`Group::resources`].
fn resources(
    group: &Group,
    targets: Vec<ServiceTarget>,
    conntrackd: Option<Conntrackd>,
    is_active: bool,
) -> GroupResources {
    let mut targets = targets.into_iter();
    let services = group.services.iter().filter_map(|service| match service {
        Service::Address(_) => targets.next().map(Resource::Address),
        Service::Unit(name) => Some(Resource::Unit(name.clone())),
        Service::Script(call) => Some(Resource::script(call.clone())),
    });
    let routes = group.routes.iter().cloned().map(RouteTarget);
    let aws = group.aws.iter().flat_map(|aws| {
        let cloud = Arc::new(Cloud::new(aws.clone()));
        aws.resources.iter().map(move |resource| AwsTarget {
            cloud: Arc::clone(&cloud),
            resource: resource.clone(),
        })
    });
    GroupResources {
        name: group.name.clone(),
        resources: services
            .chain(routes.map(Resource::Route))
            .chain(aws.map(Resource::Aws))
            .chain(conntrackd.map(Resource::Connections))
            .collect(),
        check: group
            .is_checked()
            .then(|| group.monitor_names().count() - 1),
        is_active,
    }
}

/// What watches over the groups' service addresses, if they have any.
pub fn lookout(
    config: &Config,
    netlink: &Netlink,
    reports: &UnboundedSender<Report>,
) -> Result<Option<Lookout>> {
    let groups = config.groups().iter();
    let mut addresses = groups
        .flat_map(|group| &group.services)
        .filter_map(|service| match service {
            Service::Address(service) => Some(service.address),
            Service::Unit(_) | Service::Script(_) => None,
        })
        .peekable();
    if addresses.peek().is_none() {
        return Ok(None);
    }
    let has_ipv6 = addresses.any(|address| address.addr().is_ipv6());
    Lookout::open(has_ipv6, netlink.clone(), reports.clone()).map(Some)
}

/// Starts what tells the scripts of those groups that have one.
pub fn notifiers(config: &Config) -> Vec<Option<Notifier>> {
    /// As in keepalived, the higher one is preferred.
    const PRIORITIES: (u8, u8) = (100, 50);
    let groups = config.groups().iter();
    groups
        .map(|group| {
            let node = &config.host_name;
            let priority = match group.role_of(node) {
                Some(Role::Primary) => PRIORITIES.0,
                // The check refuses a host that is neither.
                Some(Role::Secondary) | None => PRIORITIES.1,
            };
            let script = group.notify.clone()?;
            Some(Notifier::start(
                script,
                group.name.clone(),
                node.clone(),
                priority,
            ))
        })
        .collect()
}

/// Removes the routes that an earlier agent left, but for those to `kept`.
pub async fn clear_routes(kept: &HashSet<IpNet>, netlink: &Netlink) {
    let removed = netlink.remove_active_routes(|to| !kept.contains(&to)).await;
    if let Err(error) = removed {
        warn!("cannot clear routes of before: {error:#}");
    }
}

/// Removes service addresses that an earlier agent took and the configuration does not name any more.
async fn clear_other_services(targets: &[Vec<ServiceTarget>], netlink: &Netlink) {
    let known: Vec<_> = targets
        .iter()
        .flatten()
        .map(ServiceTarget::address)
        .collect();
    match netlink.remove_other_services(&known).await {
        Ok(removed) => {
            for Address { net, .. } in removed {
                info!("{net} is no service any more, and removed");
            }
        }
        Err(error) => warn!("cannot clear services of before: {error:#}"),
    }
}

/// Removes service addresses that an earlier agent left.
pub async fn clear_services(targets: impl Iterator<Item = &ServiceTarget>, netlink: &Netlink) {
    for target in targets {
        if let Err(error) = target.release(netlink).await {
            warn!(%target, "cannot clear a service address: {error:#}");
        }
    }
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
