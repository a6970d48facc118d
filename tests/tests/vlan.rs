//! Whose a frame with a VLAN tag is, wherever the tag is: before the packet, or beside it, where a
//! network card puts it that takes tags off.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use bytemuck::bytes_of;
use router_common::{
    gre::GreBase,
    map::Reason,
    net::{ETH_P_8021Q, ETH_P_IPV4, Ipv4, Mac, PROTO_GRE, PROTO_UDP, Udp},
};
use router_tests::{
    agent::{self, Agent},
    article::{self, CLIENT, CLIENT_ADDRESS, ROUTERS, SWITCH},
    cluster::PATIENCE,
    lab::{Lab, Node},
    poll, talk,
};

const LOCAL: [u8; 4] = [10, 0, 0, 11];
const LOCAL_MAC: Mac = [2, 0, 0, 0, 0, 11];
const INNER: [[u8; 4]; 2] = [[192, 168, 5, 1], [192, 168, 5, 2]];
const PORT: u16 = 5001;

/// The tunnel's far end is a host of the LAN.
fn config() -> String {
    let [local, inner] = [LOCAL, INNER[0]].map(Ipv4Addr::from);
    format!(
        "set interfaces tunnel tun5 address {inner}/24
set interfaces tunnel tun5 encapsulation gre
set interfaces tunnel tun5 local-ip {local}
set interfaces tunnel tun5 remote-ip {CLIENT_ADDRESS}
"
    )
}

/// `payload` in UDP in GRE from the tunnel's far end, in a VLAN if it is of one.
fn frame(vlan: Option<u16>, payload: &[u8]) -> Result<Vec<u8>> {
    let length = |headers: usize| u16::try_from(headers + payload.len());
    let [to, from] = INNER;
    let udp = Udp::without_checksum(PORT, PORT, length(Udp::LEN)?);
    let inner = Ipv4::new(PROTO_UDP, from, to, 0, 64, length(Ipv4::LEN + Udp::LEN)?);
    let gre = GreBase::new(0, ETH_P_IPV4);
    let remote = CLIENT_ADDRESS.parse::<Ipv4Addr>()?.octets();
    let outer_length = length(2 * Ipv4::LEN + GreBase::LEN + Udp::LEN)?;
    let outer = Ipv4::new(PROTO_GRE, remote, LOCAL, 0, 64, outer_length);
    let tag = vlan.map(|vlan| [ETH_P_8021Q.to_be_bytes(), vlan.to_be_bytes()].concat());
    Ok([
        &LOCAL_MAC[..],
        &[2, 0, 0, 0, 0, 99],
        &tag.unwrap_or_default(),
        &ETH_P_IPV4.to_be_bytes(),
        bytes_of(&outer),
        bytes_of(&gre),
        bytes_of(&inner),
        bytes_of(&udp),
        payload,
    ]
    .concat())
}

/// Frames so far that belong to no tunnel.
fn of_no_tunnel(node: &Node) -> Result<u64> {
    let text = agent::routerctl(node, &["maps", "dump", "reasons", "--json"])?;
    let document: serde_json::Value = serde_json::from_str(&text)?;
    let entries = document["entries"].as_array().context("no entries")?;
    let name = Reason::NoTunnel.name();
    let Some(entry) = entries.iter().find(|entry| entry["key"]["reason"] == name) else {
        // What never happened is not listed.
        return Ok(0);
    };
    let packets = entry["value"]["packets"].as_u64();
    packets.with_context(|| format!("no number: {text}"))
}

struct Lan {
    // Before the lab, so that it ends before the network does.
    _agent: Agent,
    lab: Lab,
    receiver: UdpSocket,
}

impl Lan {
    fn start() -> Self {
        let lab = article::lab().unwrap();
        let node = lab.node(ROUTERS[0].name);
        let agent = Agent::start(node, &config()).unwrap();
        agent::await_running(node, PATIENCE).unwrap();
        let bind = || UdpSocket::bind((Ipv4Addr::from(INNER[0]), PORT));
        let receiver = poll::until(PATIENCE, || Ok(node.run(bind)??)).unwrap();
        receiver.set_nonblocking(true).unwrap();
        Self {
            _agent: agent,
            lab,
            receiver,
        }
    }

    fn router(&self) -> &Node {
        self.lab.node(ROUTERS[0].name)
    }

    /// Whether the switch leaves tags to its port, which then delivers them beside the frame.
    fn take_tags_off(&self, yes: bool) {
        let on = if yes { "on" } else { "off" };
        self.lab
            .node(SWITCH)
            .exec(&["ethtool", "-K", "lan-a", "txvlan", on])
            .unwrap();
    }

    fn send(&self, vlan: Option<u16>, payload: &[u8]) {
        let frame = frame(vlan, payload).unwrap();
        talk::send_frame(self.lab.node(CLIENT), "eth0", &frame).unwrap();
    }

    /// What arrived by the tunnel.
    fn received(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 100];
        let length = self.receiver.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }
}

#[test]
fn a_frame_of_another_vlan_is_no_tunnels_wherever_its_tag_is() {
    let lan = Lan::start();
    // Priority 5 of no VLAN is a tag, too (IEEE 802.1Q).
    let of_none = [None, Some(5 << 13)];
    for taken_off in [true, false] {
        lan.take_tags_off(taken_off);
        for vlan in of_none {
            lan.send(vlan, b"untagged");
            poll::until(PATIENCE, || {
                let received = lan.received().context("nothing arrives")?;
                ensure!(received == b"untagged", "{received:?}");
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{vlan:?}, {taken_off}: {error:#}"));
        }
        let before = of_no_tunnel(lan.router()).unwrap();
        lan.send(Some(7), b"of VLAN 7");
        poll::until(PATIENCE, || {
            let counted = of_no_tunnel(lan.router())? - before;
            ensure!(
                counted == 1,
                "{counted} of no tunnel, taken off: {taken_off}"
            );
            Ok(())
        })
        .unwrap();
        // What follows it on the same way arrives first of all.
        lan.send(None, b"the last");
        let next = poll::until(PATIENCE, || lan.received().context("nothing arrives")).unwrap();
        assert_eq!(next, b"the last", "taken off: {taken_off}");
    }
}
