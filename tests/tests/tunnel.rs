//! The tunnel as `ip`, `ping`, `tcpdump`, `iperf3` and multicast programs see it.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use router_common::{
    gre,
    net::{Ethernet, Ipv4},
    packet::Packet as _,
};
use router_tests::{
    article::{self, CLOUD, ROUTERS, Router, cloud_interface},
    capture::{self, Capture},
    cluster::{Cluster, PATIENCE},
    lab::Node,
    poll,
};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
    socket_with, sockopt,
};

const SECOND: Duration = Duration::from_secs(1);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 251, 252, 253);

/// Both routers with `config`, once a ping goes through the tunnel.
fn tunnel(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    let [a, c] = ROUTERS;
    poll::until(PATIENCE, || {
        ping(cluster.node(a), &["-c1", "-W1", c.tunnel])
    })
    .unwrap();
    cluster
}

fn ping(node: &Node, arguments: &[&str]) -> anyhow::Result<String> {
    node.exec(&[&["ping"], arguments].concat())
}

fn link(node: &Node) -> serde_json::Value {
    let text = node
        .exec(&["ip", "-json", "-details", "link", "show", "tun00"])
        .unwrap();
    let mut links: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    links.remove(0)
}

#[test]
fn carries_ipv4_and_ipv6() {
    let cluster = tunnel(|router| {
        let host = router.tunnel.rsplit_once('.').unwrap().1;
        router.tunnel_config()
            + &format!("set interfaces tunnel tun00 address 'fd00:254::{host}/64'\n")
    });
    for router in ROUTERS {
        let node = cluster.node(router);
        ping(node, &["-c3", "-i0.05", "-W1", router.peer().tunnel]).unwrap();
        let peer = if router.name == article::PRIMARY {
            2
        } else {
            1
        };
        let peer = format!("fd00:254::{peer}");
        // The address is tentative at first (RFC 4862 §5.4).
        poll::until(PATIENCE, || ping(node, &["-6", "-c1", "-W1", &peer])).unwrap();
    }
}

#[test]
fn the_default_mtu_is_the_underlays_less_the_headers() {
    let cluster = tunnel(Router::tunnel_config);
    for router in ROUTERS {
        let link = link(cluster.node(router));
        assert_eq!(link["mtu"], 1476);
        let flags = link["flags"].as_array().unwrap();
        for flag in ["UP", "MULTICAST", "NOARP"] {
            assert!(flags.contains(&flag.into()), "{flag} of {flags:?}");
        }
    }
    let [a, c] = ROUTERS;
    // 28 bytes of IPv4 and ICMP headers.
    let whole = ["-Mdo", "-c1", "-W1", "-s1448", c.tunnel];
    let too_long = ["-Mdo", "-c1", "-W1", "-s1449", c.tunnel];
    ping(cluster.node(a), &whole).unwrap();
    let error = ping(cluster.node(a), &too_long).unwrap_err().to_string();
    assert!(error.contains("message too long"), "{error}");
}

#[test]
fn a_configured_mtu_is_kept() {
    let cluster =
        tunnel(|router| router.tunnel_config() + "set interfaces tunnel tun00 mtu 1400\n");
    for router in ROUTERS {
        assert_eq!(link(cluster.node(router))["mtu"], 1400);
    }
}

#[test]
fn tcpdump_sees_both_directions() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, c] = ROUTERS;
    let mut dump = Command::new("tcpdump");
    let path = cluster.node(a).directory().join("tcpdump.txt");
    dump.args(["-nl", "-Zroot", "-i", "tun00", "-c2", "icmp"])
        .stdout(std::fs::File::create(&path).unwrap())
        .stderr(Stdio::null());
    let mut dump = cluster.node(a).spawn("tcpdump", &mut dump).unwrap();
    poll::until(PATIENCE, || {
        ping(cluster.node(a), &["-c1", "-W1", c.tunnel])?;
        ensure!(!dump.is_running()?, "tcpdump still waits");
        Ok(())
    })
    .unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let (here, there) = (a.tunnel, c.tunnel);
    assert!(
        text.contains(&format!("{here} > {there}: ICMP echo request")),
        "{text}"
    );
    assert!(
        text.contains(&format!("{there} > {here}: ICMP echo reply")),
        "{text}"
    );
}

/// Segmentation offload on the tunnel, none on the underlay: what the cloud captures is what a
/// real wire would carry.
#[test]
fn every_checksum_on_the_wire_is_right() {
    let cluster = tunnel(Router::tunnel_config);
    let cloud = cluster.lab.node(CLOUD);
    for router in ROUTERS {
        let node = cluster.node(router);
        node.exec(&["ethtool", "-K", "eth0", "tx", "off"]).unwrap();
        let interface = cloud_interface(router.name);
        cloud
            .exec(&["ethtool", "-K", interface, "gro", "off"])
            .unwrap();
    }
    let [a, c] = ROUTERS;
    let mut large = Capture::start(
        cluster.node(a),
        "tun00",
        "greater 3000 and dst host 169.254.0.2",
        1,
    )
    .unwrap();
    let on_wire = ROUTERS.map(|router| {
        let filter = format!("ip proto 47 and src host {}", router.underlay);
        Capture::start(cloud, cloud_interface(router.name), &filter, 10_000).unwrap()
    });
    for reverse in [None, Some("--reverse")] {
        iperf3(&cluster, a, c, reverse);
    }
    large
        .wait_within(SECOND)
        .expect("a segment longer than the MTU on the tunnel");
    for capture in on_wire {
        let findings = capture::verify(&capture.finish().unwrap());
        assert_eq!(findings.wrong, [""; 0]);
        assert!(findings.tcp_segments > 1000, "{findings:?}");
    }
}

/// TCP from `from` to `to` for a second and a half, or the other way round.
fn iperf3(cluster: &Cluster, from: Router, to: Router, reverse: Option<&str>) {
    let mut server = Command::new("iperf3");
    server
        .args(["-s", "-1", "-B", to.tunnel])
        .stdout(Stdio::null());
    let mut server = cluster.node(to).spawn("iperf3", &mut server).unwrap();
    let mut words = vec!["iperf3", "-c", to.tunnel, "-t1.5", "-b100M"];
    words.extend(reverse);
    poll::until(PATIENCE, || cluster.node(from).exec(&words)).unwrap();
    server.wait_within(PATIENCE).unwrap();
}

#[test]
fn multicast_goes_both_ways() {
    let cluster = tunnel(Router::tunnel_config);
    for from in ROUTERS {
        let to = from.peer();
        let receiver = cluster
            .node(to)
            .run(|| {
                let socket = UdpSocket::bind((GROUP, 5000))?;
                socket.join_multicast_v4(&GROUP, &to.tunnel.parse().unwrap())?;
                socket.set_read_timeout(Some(SECOND))?;
                anyhow::Ok(socket)
            })
            .unwrap()
            .unwrap();
        let sender = cluster
            .node(from)
            .run(|| {
                let socket = UdpSocket::bind((from.tunnel, 0))?;
                sockopt::set_ip_multicast_if(&socket, &from.tunnel.parse().unwrap())?;
                anyhow::Ok(socket)
            })
            .unwrap()
            .unwrap();
        sender.send_to(from.name.as_bytes(), (GROUP, 5000)).unwrap();
        let mut buffer = [0; 64];
        let (length, source) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], from.name.as_bytes());
        assert_eq!(source.ip().to_string(), from.tunnel);
    }
}

#[test]
fn gre_that_is_not_ours_reaches_the_stack_as_it_was() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, c] = ROUTERS;
    let receiver = raw_gre(cluster.node(c));
    sockopt::set_socket_timeout(&receiver, sockopt::Timeout::Recv, Some(SECOND)).unwrap();
    let sender = raw_gre(cluster.node(a));
    let target = SocketAddrV4::new(c.underlay.parse().unwrap(), 0);
    for (description, packet) in [
        (
            "an unknown key",
            [&[0x20, 0, 8, 0, 0, 0, 0, 99], [7; 40].as_slice()].concat(),
        ),
        (
            "version 1",
            [&[0x30, 1, 0x88, 0x0b, 0, 32, 0, 1], [7; 36].as_slice()].concat(),
        ),
    ] {
        sendto(&sender, &packet, SendFlags::empty(), &target).unwrap();
        let mut buffer = [0; 256];
        let (length, _) = recv(&receiver, &mut buffer, RecvFlags::empty())
            .unwrap_or_else(|error| panic!("{description}: {error}"));
        assert_eq!(buffer[Ipv4::LEN..length], packet, "{description}");
    }
    // Other protocols on the same interface.
    ping(cluster.node(a), &["-c1", "-W1", c.underlay]).unwrap();
}

fn raw_gre(node: &Node) -> OwnedFd {
    node.run(|| {
        socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ipproto::GRE),
        )
    })
    .unwrap()
    .unwrap()
}

/// Frames of a few pings as the cloud gets them from the primary.
fn pings_on_the_wire(cluster: &Cluster) -> Vec<Vec<u8>> {
    let [a, c] = ROUTERS;
    // GRE whose protocol type is IPv4: the devices' own MLD reports are IPv6.
    let filter = format!(
        "ip proto 47 and src host {} and ip[22:2] = 0x0800",
        a.underlay
    );
    let interface = cloud_interface(a.name);
    let mut capture = Capture::start(cluster.lab.node(CLOUD), interface, &filter, 3).unwrap();
    ping(cluster.node(a), &["-c3", "-i0.05", "-W1", "-t7", c.tunnel]).unwrap();
    capture.wait_within(PATIENCE).unwrap();
    capture.finish().unwrap()
}

#[test]
fn the_outer_header_has_a_ttl_of_its_own() {
    let cluster = tunnel(Router::tunnel_config);
    for frame in pings_on_the_wire(&cluster) {
        let outer: Ipv4 = frame.as_slice().read(Ethernet::LEN).unwrap();
        assert_eq!(outer.ttl, 255);
        let (_, gre) = gre::parse(frame.as_slice()).unwrap();
        let inner: Ipv4 = frame.as_slice().read(gre.inner_offset).unwrap();
        assert_eq!(inner.ttl, 7);
    }
}

#[test]
fn a_key_is_carried() {
    let cluster = tunnel(|router| {
        router.tunnel_config() + "set interfaces tunnel tun00 parameters ip key 4294967295\n"
    });
    for frame in pings_on_the_wire(&cluster) {
        let (_, gre) = gre::parse(frame.as_slice()).unwrap();
        assert_eq!(gre.label.key(), Some(u32::MAX));
    }
}
