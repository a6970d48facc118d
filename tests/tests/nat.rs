//! Address translation by the kernel at vyatta-a, in both directions: it is complete where packets
//! pass the stack, and there is none where they pass by it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use router_common::{
    net::{ETH_P_IPV4, Ipv4, Ipv6},
    packet::Packet as _,
};
use router_tests::{
    article::{CLIENT, CLIENT_ADDRESS, ROUTERS, SERVER, SERVER_ADDRESS},
    capture::{self, Capture},
    cluster::PATIENCE,
    lab::Node,
    transit::{BOTH, CLIENT6, FAST, Network, SLOW},
};

/// Of whatever is asked, at the client and at the server.
const PORT: u16 = 5001;
/// Of the client's service, as the router offers it to the tunnel.
const OFFERED_PORT: u16 = 8080;

/// The client's LAN needs the stack; the server's does not, at the other router.
const CLIENT_BY_THE_STACK: &str = "set interfaces ethernet eth1 fast-path disable
set interfaces ethernet eth2 fast-path enable
";

/// Hides the client behind the tunnel's address, and offers its service there.
fn translate(network: &Network) {
    let rules = format!(
        "add table inet nat
add chain inet nat out {{ type nat hook postrouting priority srcnat; }}
add rule inet nat out oifname tun00 masquerade
add chain inet nat in {{ type nat hook prerouting priority dstnat; }}
add rule inet nat in iifname tun00 meta nfproto ipv4 meta l4proto {{ tcp, udp }} th dport {OFFERED_PORT} \
         dnat ip to {CLIENT_ADDRESS}:{PORT}
add rule inet nat in iifname tun00 meta nfproto ipv6 meta l4proto {{ tcp, udp }} th dport {OFFERED_PORT} \
         dnat ip6 to [{CLIENT6}]:{PORT}"
    );
    let [a, _] = ROUTERS;
    network.router(a).exec(&["nft", &rules]).unwrap();
    let lines = [
        "route add 169.254.0.0/24 via 10.0.9.12",
        "route add fd00:254::/64 via fd00:9::12",
    ];
    network
        .node(SERVER)
        .ip_batch(&lines.map(str::to_owned))
        .unwrap();
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Address of vyatta-a in the tunnel, of the same family as `other`.
fn hidden_behind(other: IpAddr) -> IpAddr {
    let [a, _] = ROUTERS;
    address(if other.is_ipv4() {
        a.tunnel
    } else {
        a.tunnel_ipv6
    })
}

/// Long enough for several segments, short enough for the buffers of the sockets.
fn long_text() -> Vec<u8> {
    (0..=250).cycle().take(30_000).collect()
}

/// Speaks by TCP from one node to a service of another, which `target` should lead to, and back;
/// whom the service sees.
fn tcp(from: &Node, to: &Node, service: SocketAddr, target: SocketAddr) -> Result<IpAddr> {
    let listener = to.run(|| TcpListener::bind(service))??;
    let asking = from.run(|| TcpStream::connect_timeout(&target, PATIENCE))??;
    let (answering, peer) = listener.accept()?;
    for [mut sender, mut receiver] in [[&asking, &answering], [&answering, &asking]] {
        receiver.set_read_timeout(Some(PATIENCE))?;
        sender.write_all(&long_text())?;
        sender.shutdown(Shutdown::Write)?;
        let mut arrived = Vec::new();
        receiver.read_to_end(&mut arrived)?;
        ensure!(arrived == long_text(), "something else arrived");
    }
    Ok(peer.ip())
}

#[derive(Debug, PartialEq, Eq)]
struct Talk {
    /// Whom the service sees.
    asked_by: IpAddr,
    /// Whom who asks sees.
    answered_by: SocketAddr,
}

/// As [`tcp`], by UDP.
fn udp(from: &Node, to: &Node, service: SocketAddr, target: SocketAddr) -> Result<Talk> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let answering = to.run(|| UdpSocket::bind(service))??;
    let asking = from.run(|| UdpSocket::bind((any, 0)))??;
    for socket in [&answering, &asking] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    asking.send_to(b"question", target)?;
    let mut buffer = [0; 64];
    let (_, peer) = answering.recv_from(&mut buffer).context("no question")?;
    answering.send_to(b"answer", peer)?;
    let (_, answered_by) = asking.recv_from(&mut buffer).context("no answer")?;
    Ok(Talk {
        asked_by: peer.ip(),
        answered_by,
    })
}

/// Source of a ping from the client as it arrives at the server.
fn ping(network: &Network, server: &str) -> IpAddr {
    let filter = "icmp[icmptype] == icmp-echo or icmp6[icmp6type] == icmp6-echo";
    let mut capture = Capture::start(network.node(SERVER), "eth0", filter, 1).unwrap();
    network.ping(&["-c1", "-W2", server]).unwrap();
    capture.wait_within(PATIENCE).unwrap();
    let frames = capture.finish().unwrap();
    match capture::ip_of_frame(&frames[0]).unwrap() {
        (ETH_P_IPV4, ip) => ip.read::<Ipv4>(0).unwrap().source.into(),
        (_, ip) => ip.read::<Ipv6>(0).unwrap().source.into(),
    }
}

/// The connections from the client to the server that vyatta-a tracks.
fn tracked(network: &Network) -> Vec<String> {
    let [a, _] = ROUTERS;
    let words = ["cat", "/proc/net/nf_conntrack"];
    let text = network.router(a).exec(&words).unwrap();
    let from_client = format!("src={CLIENT_ADDRESS} dst={SERVER_ADDRESS} ");
    let lines = text.lines().filter(|line| line.contains(&from_client));
    lines.map(str::to_owned).collect()
}

/// The client speaks to the server by everything there is; it must be taken for `expected`.
fn the_server_sees(network: &Network, expected: impl Fn(IpAddr) -> IpAddr) {
    let [from, to] = [CLIENT, SERVER].map(|name| network.node(name));
    for [client, server] in BOTH {
        let expected = expected(address(client));
        let service = SocketAddr::new(address(server), PORT);
        assert_eq!(tcp(from, to, service, service).unwrap(), expected);
        let talk = Talk {
            asked_by: expected,
            answered_by: service,
        };
        assert_eq!(udp(from, to, service, service).unwrap(), talk);
        assert_eq!(ping(network, server), expected);
    }
}

#[test]
fn what_passes_the_stack_is_translated() {
    for config in ["", CLIENT_BY_THE_STACK, SLOW] {
        let network = Network::start(config);
        translate(&network);
        let growth = network.transit_during(|| {
            the_server_sees(&network, hidden_behind);
            let tracked = tracked(&network);
            for protocol in ["tcp", "udp", "icmp"] {
                let [a, _] = ROUTERS;
                let back = format!(" src={SERVER_ADDRESS} dst={} ", a.tunnel);
                let found = tracked
                    .iter()
                    .any(|line| line.contains(protocol) && line.contains(&back));
                assert!(found, "{config}: no {protocol} in {tracked:#?}");
            }
            // The other way: what the router offers is the client's.
            let [from, to] = [SERVER, CLIENT].map(|name| network.node(name));
            for [client, server] in BOTH {
                let service = SocketAddr::new(address(client), PORT);
                let target = SocketAddr::new(hidden_behind(service.ip()), OFFERED_PORT);
                let asked_by = address(server);
                assert_eq!(tcp(from, to, service, target).unwrap(), asked_by);
                let talk = Talk {
                    asked_by,
                    answered_by: target,
                };
                assert_eq!(udp(from, to, service, target).unwrap(), talk);
            }
        });
        let [[received, _], [sent, _]] = growth;
        assert_eq!(
            [received, sent],
            [0; 2],
            "{config}: vyatta-a passed some by"
        );
    }
}

#[test]
fn what_passes_by_the_stack_is_not_translated() {
    let network = Network::start(FAST);
    translate(&network);
    let growth = network.transit_during(|| the_server_sees(&network, |client| client));
    let fewest = growth.as_flattened().iter().min().unwrap();
    assert!(*fewest > 4, "{growth:?}");
    assert_eq!(tracked(&network), [""; 0]);
    // What is for the router itself passes the stack and is translated, its answer is not.
    let [from, to] = [SERVER, CLIENT].map(|name| network.node(name));
    for [client, server] in BOTH {
        let service = SocketAddr::new(address(client), PORT);
        let target = SocketAddr::new(hidden_behind(service.ip()), OFFERED_PORT);
        let talk = Talk {
            asked_by: address(server),
            answered_by: service,
        };
        assert_eq!(udp(from, to, service, target).unwrap(), talk);
    }
}
