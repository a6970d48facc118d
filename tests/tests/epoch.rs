//! Packets of a deposed router are refused where they arrive. A far end, of no cluster, has a tunnel to
//! each router. The active one's clock stands still, as far as its fence can tell: its agent is stopped, and
//! when its peer has taken over its fence stands open for ever, so that it goes on forwarding.

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use router_agent::{
    control::protocol::TunnelStatus,
    dataplane::{DEFAULT_BPFFS, Pins},
};
use router_common::map::{EpochSlot, Fence, MAX_GROUPS, name};
use router_tests::{
    agent::{self, Agent},
    article::{self, CLIENT, FAR, FAR_ADDRESS, ROUTERS, Router},
    cluster::{Cluster, Fault, PATIENCE},
    lab::Node,
    poll,
};
use serde::Deserialize;
use serde_json::Value;

const PORT: u16 = 7000;
/// So many packets show what becomes of packets, and find room in any queue.
const MANY: u64 = 100;

/// Has the far end take all packets by its slow path.
const CHECKSUM: &str = "set interfaces tunnel tun1 parameters ip checksum
";

/// `routerctl show interfaces tunnel --json`.
#[derive(Deserialize)]
struct Document {
    tunnels: Vec<TunnelStatus>,
}

/// Both routers, the far end, and packets from the client to the far end by the one or the other.
struct Scene {
    _far: Agent,
    sender: UdpSocket,
    receiver: UdpSocket,
    sent: u64,
    /// Active at first, and its successor.
    old: Router,
    new: Router,
    cluster: Cluster,
}

/// The number of a router's network in the tunnel to the far end, and of the far end's tunnel to it.
fn number(router: Router) -> u32 {
    if router == ROUTERS[0] { 1 } else { 2 }
}

/// An address of the far end to which the client goes by `router`.
fn behind(router: Router) -> String {
    format!("10.3.0.{}", number(router))
}

fn config(router: Router, key: &str, more: &str) -> String {
    let (number, underlay) = (number(router), router.underlay);
    let [lan, _] = article::SERVICES;
    router.article_config()
        + &format!(
            "set interfaces tunnel tun1 address 169.254.{number}.1/24
set interfaces tunnel tun1 encapsulation gre
set interfaces tunnel tun1 local-ip {underlay}
set interfaces tunnel tun1 remote-ip {FAR_ADDRESS}
set interfaces tunnel tun1 parameters ip key {key}
set cluster group aws service {lan}
set cluster group aws protect interface eth1
set cluster agent-dead-interval 1000
{more}"
        )
}

fn far_config(key: &str, checksum: &str) -> String {
    ROUTERS
        .map(|router| {
            let (number, underlay) = (number(router), router.underlay);
            format!(
                "set interfaces tunnel tun{number} address 169.254.{number}.2/24
set interfaces tunnel tun{number} encapsulation gre
set interfaces tunnel tun{number} local-ip {FAR_ADDRESS}
set interfaces tunnel tun{number} remote-ip {underlay}
set interfaces tunnel tun{number} parameters ip key {key}
"
            ) + &checksum.replace("tun1", &format!("tun{number}"))
        })
        .concat()
}

impl Scene {
    /// With a router active and forwarding.
    fn start(key: &'static str, more: &'static str) -> Self {
        let lab = article::lab_with_far_end().unwrap();
        let cluster = Cluster::start_in(lab, move |router| config(router, key, more)).unwrap();
        let node = cluster.lab.node(FAR);
        let far = Agent::start(
            node,
            &far_config(key, if more == CHECKSUM { more } else { "" }),
        )
        .unwrap();
        let addresses = ROUTERS.map(|router| format!("address add {}/32 dev lo", behind(router)));
        node.ip_batch(&[&["link set lo up".to_owned()], &addresses[..]].concat())
            .unwrap();
        let client = cluster.lab.node(CLIENT);
        // Else a packet that passes by the stack has no checksum yet.
        client
            .exec(&["ethtool", "-K", "eth0", "tx", "off"])
            .unwrap();
        for router in ROUTERS {
            let (number, address) = (number(router), behind(router));
            let route = format!("route replace {address}/32 via 10.0.0.1{number}");
            client.ip_batch(&[route]).unwrap();
            let route = format!("route replace 10.3.0.0/24 via 169.254.{number}.2 dev tun1");
            poll::until(PATIENCE, || {
                cluster.node(router).ip_batch(std::slice::from_ref(&route))
            })
            .unwrap();
        }
        let old = cluster.settle_any().unwrap();
        let receiver = cluster
            .lab
            .node(FAR)
            .run(|| UdpSocket::bind(("0.0.0.0", PORT)))
            .unwrap()
            .unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sender = client
            .run(|| UdpSocket::bind(("0.0.0.0", 0)))
            .unwrap()
            .unwrap();
        let mut scene = Self {
            _far: far,
            sender,
            receiver,
            sent: 0,
            old,
            new: old.peer(),
            cluster,
        };
        // Until neighbours and the tunnels of the far end are there, packets are lost.
        poll::until(PATIENCE, || {
            let wanted = scene.send(old);
            scene.await_packet(wanted, Duration::from_millis(100))
        })
        .unwrap();
        scene
    }

    /// Sends a packet of its own number by `router`; the number.
    fn send(&mut self, router: Router) -> u64 {
        self.sent += 1;
        let to: SocketAddr = format!("{}:{PORT}", behind(router)).parse().unwrap();
        self.sender.send_to(&self.sent.to_be_bytes(), to).unwrap();
        self.sent
    }

    /// The numbers of all packets that have come.
    fn arrived(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut buffer = [0; 8];
        while let Ok(8) = self.receiver.recv(&mut buffer) {
            numbers.push(u64::from_be_bytes(buffer));
        }
        numbers
    }

    /// Waits for packet `number`, whatever comes before it.
    fn await_packet(&self, number: u64, patience: Duration) -> Result<()> {
        poll::until(patience, || {
            ensure!(
                self.arrived().contains(&number),
                "packet {number} is not there"
            );
            Ok(())
        })
    }

    /// Packets that the far end refused of those that came by `router`.
    fn refused(&self, router: Router) -> Result<u64> {
        let tunnel = self.far_tunnel(router)?;
        Ok(tunnel.counter("rx_epoch_errors") + tunnel.counter("slow_epoch_errors"))
    }

    /// The far end's tunnel to `router`.
    fn far_tunnel(&self, router: Router) -> Result<TunnelStatus> {
        let name = format!("tun{}", number(router));
        tunnel(self.cluster.lab.node(FAR), &name)
    }

    /// Sends [`MANY`] packets by the old router, each of which comes to a known end before this returns:
    /// how many were delivered, and how many refused.
    fn many_by_the_old(&mut self) -> (u64, u64) {
        assert_eq!(self.arrived(), [0_u64; 0], "all before have been taken");
        let before = self.refused(self.old).unwrap();
        let first = self.sent + 1;
        for _ in 0..MANY {
            self.send(self.old);
        }
        let mut delivered = Vec::new();
        let refused = poll::until(PATIENCE, || {
            delivered.extend(self.arrived());
            let refused = self.refused(self.old)? - before;
            ensure!(
                delivered.len() as u64 + refused >= MANY,
                "of {MANY} packets {} were delivered and {refused} refused",
                delivered.len()
            );
            Ok(refused)
        })
        .unwrap();
        assert!(
            delivered.iter().all(|number| *number >= first),
            "{delivered:?}"
        );
        (delivered.len() as u64, refused)
    }

    /// Deposes the old router, which does not learn of it.
    fn depose(&mut self) {
        self.cluster.inject(Fault::StopAgent, self.old).unwrap();
        self.cluster.await_active(self.new, PATIENCE).unwrap();
        open_for_ever(self.cluster.node(self.old)).unwrap();
    }
}

/// The planted defect: the fence of a router whose clock stands still.
fn open_for_ever(node: &Node) -> Result<()> {
    let pin = Pins::below(Path::new(DEFAULT_BPFFS)).map(name::FENCES);
    node.run(|| {
        let mut fences: Array<_, Fence> = Map::Array(MapData::from_pin(pin)?).try_into()?;
        let fence = fences.get(&0, 0)?;
        ensure!(fence.opened_ns != 0, "it is closed: {fence:?}");
        let for_ever = Fence {
            authority_end_ns: u64::MAX,
            ..fence
        };
        Ok(fences.set(0, for_ever, 0)?)
    })?
}

/// As a packet of `epoch` would, in the only domain that there is.
fn raise(node: &Node, epoch: u64) -> Result<()> {
    raise_at(node, 0, epoch)
}

/// The same, in the domain that has that place among those that there are.
fn raise_at(node: &Node, place: u32, epoch: u64) -> Result<()> {
    let pin = Pins::below(Path::new(DEFAULT_BPFFS)).map(name::EPOCHS);
    node.run(|| {
        let mut epochs: Array<_, EpochSlot> = Map::Array(MapData::from_pin(pin)?).try_into()?;
        Ok(epochs.set(MAX_GROUPS + place, EpochSlot { epoch }, 0)?)
    })?
}

fn tunnel(node: &Node, name: &str) -> Result<TunnelStatus> {
    let text = agent::routerctl(node, &["show", "interfaces", "tunnel", "--json"])?;
    let document: Document = serde_json::from_str(&text)?;
    let mut tunnels = document.tunnels.into_iter();
    tunnels
        .find(|tunnel| tunnel.name == name)
        .with_context(|| format!("no {name}: {text}"))
}

/// What the old router sends and the new, as their maps say: a stopped agent answers nobody.
fn epochs_sent(scene: &Scene) -> [u64; 2] {
    [scene.old, scene.new].map(|router| {
        let words = ["maps", "dump", "epochs", "--json"];
        let text = agent::routerctl(scene.cluster.node(router), &words).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let entries = document["entries"].as_array().unwrap();
        let of_the_group = entries
            .iter()
            .find(|entry| entry["key"]["group_index"] == 0);
        // One that is zero is left out.
        of_the_group.map_or(0, |entry| entry["value"]["epoch"].as_u64().unwrap())
    })
}

fn a_deposed_router_is_refused(more: &'static str) -> Scene {
    let mut scene = Scene::start("cluster-epoch", more);
    let [first, none] = epochs_sent(&scene);
    assert!(first > 0 && none == 0, "{first} and {none}");
    // Local traffic of the one that was never active is of no epoch either.
    let far_address = format!("169.254.{}.2", number(scene.new));
    let standby = scene.cluster.node(scene.new);
    // Its stack reports its multicast groups by itself (MLD), which is refused, too.
    let before = scene.refused(scene.new).unwrap();
    assert!(standby.exec(&["ping", "-c1", "-W1", &far_address]).is_err());
    assert!(scene.refused(scene.new).unwrap() > before);
    assert_eq!(scene.many_by_the_old(), (MANY, 0));

    scene.depose();
    // Nothing of the successor has arrived yet: nobody can know.
    assert_eq!(scene.many_by_the_old(), (MANY, 0));
    let [still, successor] = epochs_sent(&scene);
    assert!(
        still == first && successor > first,
        "{still} and {successor}"
    );

    poll::until(PATIENCE, || {
        let packet = scene.send(scene.new);
        scene.await_packet(packet, Duration::from_millis(100))
    })
    .unwrap();
    assert_eq!(scene.many_by_the_old(), (0, MANY));
    let of_new = scene.far_tunnel(scene.new).unwrap();
    let raises = of_new.counter("rx_epoch_raises") + of_new.counter("slow_epoch_raises");
    assert_eq!(raises, 1);
    let received = of_new.epoch_key.unwrap();
    assert_eq!(u64::from(received.newest_received), successor);
    let of_old = scene.far_tunnel(scene.old).unwrap().epoch_key.unwrap();
    assert_eq!(of_old, received, "the two have one domain");

    // Awake, it learns that it is deposed; what it says itself is refused all the same.
    scene.cluster.heal(Fault::StopAgent, scene.old).unwrap();
    scene.cluster.settle(scene.new).unwrap();
    assert_eq!(epochs_sent(&scene), [first, successor]);
    scene
}

#[test]
fn by_the_stack() {
    let mut scene = a_deposed_router_is_refused("");
    // A forged packet, or a cluster that has begun anew, leaves a far end that takes nothing; an
    // operator has it forget.
    let [_, sent] = epochs_sent(&scene);
    let forged = sent + 1_000;
    raise(scene.cluster.lab.node(FAR), forged).unwrap();
    let lost = scene.send(scene.new);
    poll::until(PATIENCE, || {
        let refused = scene.refused(scene.new)?;
        ensure!(refused >= 2, "{refused} have been refused");
        Ok(())
    })
    .unwrap();
    assert!(!scene.arrived().contains(&lost));
    let far = scene.cluster.lab.node(FAR);
    let words = ["clear", "interfaces", "tunnel", "epochs"];
    let said = agent::routerctl(far, &words).unwrap();
    assert_eq!(said, "1 newest epochs forgotten\n");
    let taken = scene.send(scene.new);
    scene.await_packet(taken, PATIENCE).unwrap();
    let received = scene.far_tunnel(scene.new).unwrap().epoch_key.unwrap();
    assert_eq!(u64::from(received.newest_received), sent);
    assert_eq!(epochs_sent(&scene)[1], sent);
}

#[test]
fn by_the_slow_path() {
    let scene = a_deposed_router_is_refused(CHECKSUM);
    let slow = scene
        .far_tunnel(scene.old)
        .unwrap()
        .counter("slow_epoch_errors");
    assert!(slow >= MANY, "{slow}");
}

#[test]
fn past_the_stack() {
    let scene = a_deposed_router_is_refused("set interfaces ethernet eth1 fast-path enable\n");
    for router in ROUTERS {
        let tunnel = tunnel(scene.cluster.node(router), "tun1").unwrap();
        assert!(tunnel.counter("tx_transit") > 0, "{}", router.name);
    }
}

/// What the epoch is for.
#[test]
fn with_a_key_that_says_nothing_the_deposed_goes_on() {
    let mut scene = Scene::start("7", "");
    assert_eq!(scene.many_by_the_old(), (MANY, 0));
    scene.depose();
    poll::until(PATIENCE, || {
        let packet = scene.send(scene.new);
        scene.await_packet(packet, Duration::from_millis(100))
    })
    .unwrap();
    assert_eq!(scene.many_by_the_old(), (MANY, 0));
}

/// A far end with a tunnel to each of `clusters`: their domains, and their routers' last number.
fn far_end_of(clusters: &[(&str, u8)]) -> String {
    let tunnel = |(domain, host): &(&str, u8)| {
        format!(
            "set interfaces tunnel tun{host} encapsulation gre
set interfaces tunnel tun{host} local-ip {FAR_ADDRESS}
set interfaces tunnel tun{host} remote-ip 10.0.1.{host}
set interfaces tunnel tun{host} parameters ip key cluster-epoch
set interfaces tunnel tun{host} parameters ip epoch-domain {domain}
"
        )
    };
    clusters.iter().map(tunnel).collect()
}

fn newest_received(node: &Node, host: u8) -> Result<u32> {
    let key = tunnel(node, &format!("tun{host}"))?.epoch_key;
    Ok(key.context("its key is no epoch")?.newest_received)
}

/// The map outlives the agent, and the order of domains need not.
#[test]
fn what_a_domain_received_stays_with_it_over_a_new_agent() {
    let lab = article::lab_with_far_end().unwrap();
    let node = lab.node(FAR);
    let agent = Agent::start(node, &far_end_of(&[("b", 12), ("c", 13)])).unwrap();
    poll::until(PATIENCE, || newest_received(node, 13)).unwrap();
    for (place, epoch) in [(0, 20), (1, 30)] {
        raise_at(node, place, epoch).unwrap();
    }
    assert_eq!(newest_received(node, 12).unwrap(), 20);
    assert_eq!(newest_received(node, 13).unwrap(), 30);
    assert!(agent.detach().unwrap().success());

    // One has gone, and another comes before the one that stays.
    let agent = Agent::start(node, &far_end_of(&[("a", 11), ("c", 13)])).unwrap();
    poll::until(PATIENCE, || newest_received(node, 11)).unwrap();
    assert_eq!(newest_received(node, 13).unwrap(), 30);
    assert_eq!(newest_received(node, 11).unwrap(), 0);
    assert!(agent.detach().unwrap().success());

    // The place of the one that has gone is used again, and nothing is left in it.
    let clusters = [("b", 12), ("a", 11), ("c", 13)];
    let _agent = Agent::start(node, &far_end_of(&clusters)).unwrap();
    poll::until(PATIENCE, || newest_received(node, 12)).unwrap();
    for (host, epoch) in [(11, 0), (12, 0), (13, 30)] {
        assert_eq!(newest_received(node, host).unwrap(), epoch, "tun{host}");
    }
}
