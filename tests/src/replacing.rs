//! Agents that are replaced under a stream of packets, and what must last.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::TunnelStatus;
use router_common::map::name;
use serde::Deserialize;

use crate::{
    agent,
    article::{CLIENT, PROTECT, ROUTERS, Router, SERVICES},
    clock,
    cluster::{Cluster, PATIENCE},
    lab::Node,
    poll,
    traffic::{Report, Traffic},
};

const PRIMARY: Router = ROUTERS[0];
const SECONDARY: Router = ROUTERS[1];
/// 10,000 packets a second.
const INTERVAL: Duration = Duration::from_micros(100);
pub const PACKETS: usize = 100_000;

/// The article's pair with its service addresses, at the default timing. What it forwards passes a
/// fence, which is open by the agent's own word.
pub fn config(router: Router) -> String {
    preferring("availability", router)
}

/// The same, with the fence open by the peer's grants alone.
pub fn by_grants(router: Router) -> String {
    preferring("consistency", router)
}

/// However slow the machine is, a new agent comes before its peer gives up the one before it.
pub const PATIENT: &str = "set cluster agent-dead-interval 10000";

fn preferring(prefer: &str, router: Router) -> String {
    router.article_with_services()
        + PROTECT
        + &format!("set cluster group aws prefer {prefer}\n{PATIENT}\n")
}

/// The primary active, and the client's way to the tunnel's far end through it.
pub fn formed() -> Cluster {
    formed_with(config)
}

/// As [`formed`], with another configuration that names the same.
pub fn formed_with(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    cluster.settle(PRIMARY).unwrap();
    let epoch = cluster.await_active(PRIMARY, PATIENCE).unwrap().epoch;
    poll::until(PATIENCE, || {
        let known = cluster.group(SECONDARY)?.epoch;
        ensure!(known == epoch, "the secondary knows epoch {known}");
        Ok(())
    })
    .unwrap();
    let client = cluster.lab.node(CLIENT);
    client
        .exec(&["ip", "route", "add", "169.254.0.0/24", "via", "10.0.0.254"])
        .unwrap();
    cluster
}

/// What must not change with an agent.
#[derive(Debug, PartialEq, Eq)]
pub struct Lasting {
    pub epoch: u32,
    pub device: [u32; 2],
    /// How the maps are known to the kernel.
    pub maps: Vec<u32>,
    services: usize,
}

impl Lasting {
    pub fn of(cluster: &Cluster, router: Router) -> Result<Self> {
        let node = cluster.node(router);
        let text = node.exec(&["ip", "-brief", "-4", "address"])?;
        let services = SERVICES.iter().filter(|service| {
            let address = service.rsplit_once('/').map_or("", |(address, _)| address);
            text.contains(address)
        });
        Ok(Self {
            epoch: cluster.group(router)?.epoch,
            device: [
                node.interface_index("tun00")?,
                node.interface_index("tun00-dp")?,
            ],
            maps: map_ids(node)?,
            services: services.count(),
        })
    }
}

#[derive(Deserialize)]
struct Maps {
    maps: Vec<Map>,
}

#[derive(Deserialize)]
struct Map {
    name: String,
    id: u32,
}

/// Of the layout's: those of the log are each build's own.
pub fn map_ids(node: &Node) -> Result<Vec<u32>> {
    let text = agent::routerctl(node, &["maps", "list", "--json"])?;
    let Maps { maps } = serde_json::from_str(&text)?;
    let lasting = maps
        .into_iter()
        .filter(|map| name::ALL.contains(&map.name.as_str()));
    Ok(lasting.map(|map| map.id).collect())
}

#[derive(Deserialize)]
struct Tunnels {
    tunnels: Vec<TunnelStatus>,
}

pub fn tunnels(node: &Node) -> Result<Vec<TunnelStatus>> {
    let text = agent::routerctl(node, &["show", "interfaces", "tunnel", "--json"])?;
    let Tunnels { tunnels } = serde_json::from_str(&text)?;
    Ok(tunnels)
}

pub fn tunnel(node: &Node) -> Result<TunnelStatus> {
    tunnels(node)?.pop().context("no tunnel")
}

/// Replaces a router's agent.
pub type Replace<'a> = &'a dyn Fn(&mut Cluster, Router) -> Result<()>;

/// A stream of [`PACKETS`] through the active router and the tunnel, while the agents of `routers` are replaced one
/// after the other.
pub fn under_traffic(cluster: &mut Cluster, routers: &[Router], replace: Replace) -> Report {
    under_packets(PACKETS, cluster, routers, replace)
}

/// As [`under_traffic`], of so many packets, or as many as the replacements take.
pub fn under_packets(
    packets: usize,
    cluster: &mut Cluster,
    routers: &[Router],
    replace: Replace,
) -> Report {
    let traffic = Traffic::start_by(
        cluster.lab.node(CLIENT),
        cluster.node(SECONDARY),
        "tun00",
        SECONDARY.tunnel,
        INTERVAL,
    )
    .unwrap();
    let began = clock::now();
    for &router in routers {
        thread::sleep(Duration::from_secs(2));
        replace(cluster, router)
            .and_then(|()| cluster.settle_any())
            .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    }
    let length = INTERVAL * u32::try_from(packets).unwrap() + Duration::from_millis(100);
    clock::sleep_until(began.after(length)).unwrap();
    traffic.finish().unwrap()
}

/// All arrived that was sent.
pub fn none_lost(report: &Report, cluster: &Cluster) {
    let missing = report.missing();
    assert!(
        missing.is_empty(),
        "{} of {} lost, among them {:?}\n{}",
        missing.len(),
        report.sent(),
        &missing[..missing.len().min(20)],
        cluster.logs()
    );
    println!("{} sent, 0 lost", report.sent());
}
