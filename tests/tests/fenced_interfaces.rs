//! The fences' programs on the interfaces that they protect: of every kind, under every name, and at
//! their place among others.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::Ipv6Addr,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use router_common::{
    checksum,
    net::{Ethernet, Ipv4, PROTO_UDP},
};
use router_tests::{
    agent::{self, Agent},
    article::{self, CLIENT, ROUTERS, Router, SERVER_ADDRESS},
    capture::Capture,
    cluster::PATIENCE,
    lab::{Lab, Node},
    poll,
};
use serde_json::Value;

const ROUTER: Router = ROUTERS[0];

/// A router whose peer never runs, so that its fence is closed. It protects `interface`.
fn alone(prepare: impl FnOnce(&Node), interface: &str) -> (Agent, Lab) {
    let lab = article::lab().unwrap();
    let node = lab.node(ROUTER.name);
    prepare(node);
    let config = ROUTER.article_config()
        + &format!(
            "set cluster group aws prefer consistency
set cluster group aws protect interface {interface}
"
        );
    let agent = Agent::start(node, &config).unwrap();
    poll::until(PATIENCE, || agent::status(node))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)));
    (agent, lab)
}

fn dropped_in(node: &Node) -> Result<u64> {
    dropped(node, "dropped_in")
}

fn dropped(node: &Node, counter: &str) -> Result<u64> {
    let text = agent::routerctl(node, &["maps", "dump", "fence_counters", "--json"])?;
    let document: Value = serde_json::from_str(&text)?;
    // One that is zero is left out.
    let count = document["entries"][0]["value"][counter].as_u64();
    Ok(count.unwrap_or(0))
}

/// A device whose packets begin with their IP headers (tun(4)).
fn tun(node: &Node, name: &str) -> Result<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const NAME_LENGTH: usize = 16;
    let file = node.run(|| -> Result<File> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // `struct ifreq` of linux/if.h: the name, and what of its union is used.
        let mut request = [0_u8; 40];
        request[..name.len()].copy_from_slice(name.as_bytes());
        let flags = libc::IFF_TUN | libc::IFF_NO_PI;
        request[NAME_LENGTH..][..2].copy_from_slice(&u16::try_from(flags)?.to_ne_bytes());
        // SAFETY: the kernel reads and writes a `struct ifreq`, which is as long.
        let status = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
        ensure!(status == 0, "{}", std::io::Error::last_os_error());
        Ok(file)
    })??;
    node.ip_batch(&[
        format!("address add 10.66.0.1/24 dev {name}"),
        format!("link set {name} up"),
    ])?;
    Ok(file)
}

fn packet(protocol: u8, destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(Ipv4::LEN + payload.len()).unwrap();
    let ip = Ipv4::new(protocol, [10, 66, 0, 9], destination, 0, 9, length);
    [bytemuck::bytes_of(&ip), payload].concat()
}

#[test]
fn packets_without_an_ethernet_header_are_fenced_too() {
    const ICMP: u8 = 1;
    const ECHO_REPLY: u8 = 0;
    let mut device = None;
    let (_agent, lab) = alone(|node| device = Some(tun(node, "wan0").unwrap()), "wan0");
    let node = lab.node(ROUTER.name);
    let mut device = device.unwrap();
    let server = SERVER_ADDRESS.parse::<std::net::Ipv4Addr>().unwrap();
    let transit = packet(PROTO_UDP, server.octets(), &[0, 7, 0, 7, 0, 8, 0, 0]);
    for sent in 1..=5 {
        device.write_all(&transit).unwrap();
        assert_eq!(dropped_in(node).unwrap(), sent);
    }
    // Its source is an Ethernet header's type, and what follows the header it does not have.
    let mut misleading = packet(PROTO_UDP, server.octets(), &[0x45; 40]);
    misleading[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
    agent::routerctl(node, &["log", "level", "info,bpf::fence=debug"]).unwrap();
    device.write_all(&misleading).unwrap();
    poll::until(PATIENCE, || {
        let fenced = agent::log_about(node, "bpf::fence")?;
        let line = fenced.first().context("none yet")?;
        let fields = line
            .fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        assert!(
            fields.eq([("group", "aws"), ("interface", "wan0")]),
            "{line:?}"
        );
        Ok(())
    })
    .unwrap();
    assert_eq!(dropped_in(node).unwrap(), 6);
    // What is for the router itself it gets, and answers.
    let mut echo = [8, 0, 0, 0, 0, 1, 0, 1];
    let sum = !checksum::sum(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    device
        .write_all(&packet(ICMP, [10, 66, 0, 1], &echo))
        .unwrap();
    poll::until(PATIENCE, || {
        let mut answer = [0; 256];
        let length = device.read(&mut answer)?;
        let answer = &answer[..length];
        ensure!(
            answer[0] == 0x45 && answer[9] == ICMP && answer[Ipv4::LEN] == ECHO_REPLY,
            "{answer:x?}"
        );
        Ok(())
    })
    .unwrap();
    assert_eq!(dropped_in(node).unwrap(), 6);
}

/// Ends the program's link, as an operator might.
fn detach_fence_in(node: &Node, interface: &str) -> String {
    let index = node.interface_index(interface).unwrap();
    let name = format!("fence_in-*-{index}");
    let found = node.exec(&["find", "/sys/fs/bpf/router/fences", "-name", &name]);
    let pin = found.unwrap().trim().to_owned();
    node.exec(&["rm", &pin]).unwrap();
    pin
}

fn is_attached_again(node: &Node, pin: &str) {
    poll::until(PATIENCE, || {
        ensure!(
            agent::log(node).contains("detached the fence's programs"),
            "not noticed"
        );
        node.exec(&["test", "-e", pin])
    })
    .unwrap();
}

#[test]
fn a_fence_that_is_detached_is_noticed_whatever_its_interface_is_called_now() {
    let (_agent, lab) = alone(|_| (), "eth1");
    let node = lab.node(ROUTER.name);
    node.ip_batch(&["down", "name lan0", "up"].map(|what| {
        let name = if what == "up" { "lan0" } else { "eth1" };
        format!("link set {name} {what}")
    }))
    .unwrap();
    let pin = detach_fence_in(node, "lan0");
    is_attached_again(node, &pin);
}

/// The programs at the TC ingress of an interface, in their order.
fn programs_at(node: &Node, interface: &str) -> Result<Vec<String>> {
    let query = || SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    let (_, programs) = node.run(query)??;
    let names = programs.iter().map(|program| program.name_as_str());
    let names = names.map(|name| name.map(ToOwned::to_owned));
    names.collect::<Option<_>>().context("a name in UTF-8")
}

/// What came by a tunnel came not by the underlay.
#[test]
fn a_fence_on_an_underlay_is_behind_the_handover_of_tunnels() {
    // The kernel keeps fifteen characters.
    let order = ["underlay_handov", "fence_in"];
    let (_agent, lab) = alone(|_| (), "eth0");
    let node = lab.node(ROUTER.name);
    assert_eq!(programs_at(node, "eth0").unwrap(), order);
    let pin = detach_fence_in(node, "eth0");
    is_attached_again(node, &pin);
    assert_eq!(programs_at(node, "eth0").unwrap(), order);
}

/// Connection tracking puts together what came in fragments. Where more room is needed before them than they
/// have, as by a device that puts on headers of its own, the stack cuts them anew, and over IPv6 those do not
/// tell by which interface they came.
#[test]
fn fragments_that_are_cut_anew_are_fenced_too() {
    let tracking = "table inet tracking {
    chain forward { type filter hook forward priority 0; ct state new,established accept; }
}";
    let lines = [
        "link add wan0 type vxlan id 5 dstport 4789 local 10.0.1.10 remote 10.0.2.10",
        "link set wan0 mtu 1400 up",
        "address add fd66::1/64 dev wan0 nodad",
        "neighbour add fd66::2 lladdr 02:00:00:00:00:66 dev wan0",
        "address add fd00:a::11/64 dev eth1 nodad",
    ];
    let prepare = |node: &Node| {
        node.ip_batch(&lines.map(str::to_owned)).unwrap();
        node.exec(&["nft", tracking]).unwrap();
    };
    let (_agent, lab) = alone(prepare, "wan0");
    let (node, client) = (lab.node(ROUTER.name), lab.node(CLIENT));
    let lines = [
        "address add fd00:a::100/64 dev eth0 nodad",
        "route add fd66::/64 via fd00:a::11 mtu 1400",
    ];
    client.ip_batch(&lines.map(str::to_owned)).unwrap();
    let capture = Capture::start(node, "wan0", "ip6[6] = 44", 100).unwrap();
    for length in ["2000", "4000", "8000"] {
        let before = dropped(node, "dropped_out").unwrap();
        let ping = |from: &Node| {
            let words = ["ping", "-6", "-n", "-c1", "-W1", "-s", length, "fd66::2"];
            from.output(&words).unwrap()
        };
        ping(client);
        // With one fragment the stack gives the others up.
        let after = dropped(node, "dropped_out").unwrap();
        assert!(after > before, "{length} bytes were let out");
        // What the router sends itself leaves, cut or not.
        ping(node);
        assert_eq!(dropped(node, "dropped_out").unwrap(), after);
    }
    poll::until(PATIENCE, || {
        let frames = capture.frames()?;
        // In pieces of 1352 bytes, with eight of ICMP before those of the pings.
        let sent = frames.len();
        ensure!(sent >= 2 + 3 + 6, "{sent} fragments left");
        let own = "fd66::1".parse::<Ipv6Addr>()?.octets();
        let source = Ethernet::LEN + 8..Ethernet::LEN + 24;
        assert!(frames.iter().all(|frame| frame[source.clone()] == own));
        Ok(())
    })
    .unwrap();
}

#[test]
fn status_says_what_is_not_fenced() {
    let (_agent, lab) = alone(|_| (), "eth1");
    let node = lab.node(ROUTER.name);
    let expected = "eth1 is not fenced";
    let status = || agent::routerctl(node, &["show", "cluster", "status"]);
    assert!(!status().unwrap().contains(expected));
    node.exec(&["ip", "link", "delete", "eth1"]).unwrap();
    poll::until(PATIENCE, || {
        let text = status()?;
        ensure!(text.contains(expected), "{text}");
        Ok(())
    })
    .unwrap();
}
