//! What becomes of a tunnel when the interfaces around it change.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use router_tests::{
    agent::{self, routerctl},
    article::{self, CLIENT, CLOUD, ROUTERS, Router, cloud_interface},
    cluster::{Cluster, PATIENCE},
    format::GRE_OVER_IPV6,
    lab::Node,
    poll,
};

/// Both routers with `config`, once a ping goes through the tunnel.
fn tunnel(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let cluster = Cluster::start(config).unwrap();
    await_ping(&cluster);
    cluster
}

fn ping(cluster: &Cluster) -> Result<()> {
    let [a, c] = ROUTERS;
    cluster
        .node(a)
        .exec(&["ping", "-c1", "-W1", c.tunnel])
        .map(drop)
}

fn await_ping(cluster: &Cluster) {
    poll::until(PATIENCE, || ping(cluster)).unwrap_or_else(|error| {
        panic!("{error:#}\n{}", cluster.logs());
    });
}

/// `show interfaces tunnel` of the only tunnel, as JSON.
fn status(node: &Node) -> Result<serde_json::Value> {
    let text = routerctl(node, &["show", "interfaces", "tunnel", "--json"])?;
    let mut document: serde_json::Value = serde_json::from_str(&text)?;
    let tunnels = document["tunnels"].as_array_mut().context("no tunnels")?;
    ensure!(tunnels.len() == 1, "{} tunnels", tunnels.len());
    Ok(tunnels.remove(0))
}

fn await_status(node: &Node, what: &str, is: impl Fn(&serde_json::Value) -> bool) {
    poll::until(PATIENCE, || {
        let status = status(node)?;
        ensure!(is(&status), "not yet {what}: {status}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent::log(node)));
}

fn mentions(status: &serde_json::Value, words: &str) -> bool {
    status["notes"].to_string().contains(words)
}

fn counter(node: &Node, name: &str) -> u64 {
    status(node).unwrap()[name].as_u64().unwrap()
}

/// An attribute of tun00 as `ip` tells it.
fn device(node: &Node, attribute: &str) -> Result<serde_json::Value> {
    let text = node.exec(&["ip", "-json", "link", "show", "tun00"])?;
    let mut links: serde_json::Value = serde_json::from_str(&text)?;
    Ok(links[0][attribute].take())
}

#[test]
fn an_underlay_that_goes_down_comes_up() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    node.exec(&["ip", "link", "set", "eth0", "down"]).unwrap();
    await_status(node, "told", |tunnel| mentions(tunnel, "eth0 is down"));
    node.ip_batch(&[
        "link set eth0 up".to_owned(),
        "route add 10.0.0.0/16 via 10.0.1.1".to_owned(),
    ])
    .unwrap();
    await_ping(&cluster);
    await_status(node, "well", |tunnel| !mentions(tunnel, "down"));
}

#[test]
fn an_underlay_that_is_renamed_is_followed() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    node.exec(&["ip", "link", "set", "eth0", "name", "wan.5"])
        .unwrap();
    await_status(node, "renamed", |tunnel| {
        tunnel["underlay"] == "wan.5" && tunnel["xdp_mode"] == "native"
    });
    ping(&cluster).unwrap();
}

#[test]
fn an_underlay_that_is_made_anew_gets_the_programs() {
    let cluster = tunnel(Router::article_config);
    let [a, _] = ROUTERS;
    cluster.settle(a).unwrap();
    let node = cluster.node(a);
    let before = counter(node, "rx_packets");
    node.exec(&["ip", "link", "delete", "eth0"]).unwrap();
    await_status(node, "told", |tunnel| {
        tunnel["underlay"] == "none" && tunnel["xdp_mode"] == "none" && mentions(tunnel, a.underlay)
    });
    cluster.lab.replug(a.name, "eth0").unwrap();
    await_ping(&cluster);
    await_status(node, "well", |tunnel| {
        tunnel["underlay"] == "eth0"
            && tunnel["xdp_mode"] == "native"
            && tunnel["notes"].as_array().is_some_and(Vec::is_empty)
    });
    assert!(counter(node, "rx_packets") > before);
    // The same sessions, on both sides.
    cluster.settle_any().unwrap();
}

#[test]
fn an_address_that_moves_takes_the_tunnel_along() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    // The other way to the cloud is a macvlan of the same cable.
    let address = format!("{}/24", a.underlay);
    node.ip_batch(&[
        "link add wan1 link eth0 type macvlan mode bridge".to_owned(),
        "link set wan1 up".to_owned(),
        format!("address delete {address} dev eth0"),
        format!("address add {address} dev wan1"),
        "route add 10.0.0.0/16 via 10.0.1.1".to_owned(),
    ])
    .unwrap();
    await_status(node, "moved", |tunnel| tunnel["underlay"] == "wan1");
    await_ping(&cluster);
}

#[test]
fn an_address_on_the_loopback_is_reached_by_the_route() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    node.ip_batch(&[
        format!("address delete {}/24 dev eth0", a.underlay),
        "address add 10.0.1.20/24 dev eth0".to_owned(),
        format!("address add {}/32 dev lo", a.underlay),
    ])
    .unwrap();
    await_status(node, "told", |tunnel| tunnel["underlay"] == "none");
    node.exec(&["ip", "route", "add", "10.0.0.0/16", "via", "10.0.1.1"])
        .unwrap();
    await_status(node, "routed", |tunnel| {
        tunnel["underlay"] == "eth0" && tunnel["xdp_mode"] == "native"
    });
    await_ping(&cluster);
}

#[test]
fn programs_that_others_detach_are_attached_again() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    let pins = node
        .exec(&["find", "/sys/fs/bpf/router", "-path", "*links/underlay*"])
        .unwrap();
    assert_eq!(pins.lines().count(), 2, "{pins}");
    for pin in pins.lines() {
        node.exec(&["rm", pin]).unwrap();
    }
    let has_program = || {
        node.exec(&["ip", "link", "show", "eth0"])
            .unwrap()
            .contains("prog/xdp")
    };
    poll::until(PATIENCE, || {
        ensure!(
            agent::log(node).contains("detached our programs"),
            "not noticed"
        );
        ensure!(has_program(), "not attached again");
        Ok(())
    })
    .unwrap();
    await_ping(&cluster);
}

#[test]
fn a_tunnel_device_that_is_deleted_is_made_again() {
    let cluster = tunnel(Router::article_config);
    let [a, _] = ROUTERS;
    cluster.settle(a).unwrap();
    let node = cluster.node(a);
    let index = device(node, "ifindex").unwrap();
    node.exec(&["ip", "link", "delete", "tun00"]).unwrap();
    poll::until(PATIENCE, || {
        ensure!(device(node, "ifindex")? != index, "the same device");
        Ok(())
    })
    .unwrap();
    await_ping(&cluster);
    // Heartbeats go by the new device, out and in.
    let epoch = cluster.group(a).unwrap().epoch;
    cluster.settle_any().unwrap();
    let sent = |node| counter(node, "tx_packets");
    let before = sent(node);
    poll::until(PATIENCE, || {
        ensure!(sent(node) > before + 5, "no heartbeats");
        Ok(())
    })
    .unwrap();
    assert!(cluster.group(a).unwrap().epoch >= epoch);
}

#[test]
fn a_tunnel_device_that_is_set_down_stays_down() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    node.exec(&["ip", "link", "set", "tun00", "down"]).unwrap();
    await_status(node, "down", |tunnel| tunnel["link_up"] == false);
    // Something else changes meanwhile, and is acted on.
    node.exec(&["ip", "link", "set", "eth0", "mtu", "1400"])
        .unwrap();
    await_status(node, "narrower", |tunnel| tunnel["mtu"] == 1376);
    assert_eq!(device(node, "operstate").unwrap(), "DOWN");
    node.exec(&["ip", "link", "set", "tun00", "up"]).unwrap();
    await_ping(&cluster);
}

/// The kernel takes IPv6 off a device with less than 1280 bytes, and with it what was set there.
#[test]
fn ipv6_comes_back_when_the_underlay_is_wide_enough_again() {
    let with_ipv6 = |router: Router| {
        let address = format!("{}/64", router.tunnel_ipv6);
        router.tunnel_config() + &format!("set interfaces tunnel tun00 address {address}\n")
    };
    let without = |router: Router| {
        router
            .tunnel_config()
            .replace("set interfaces tunnel tun00 multicast enable\n", "")
    };
    let [a, c] = ROUTERS;
    let shown = |node: &Node, device: &str| {
        node.exec(&["ip", "-6", "-o", "address", "show", "dev", device])
            .unwrap()
    };
    let mtu = |node: &Node, bytes: &str| {
        node.exec(&["ip", "link", "set", "eth0", "mtu", bytes])
            .unwrap();
    };

    let cluster = tunnel(with_ipv6);
    let node = cluster.node(a);
    mtu(node, "1300");
    await_status(node, "narrow", |tunnel| {
        tunnel["mtu"] == 1276 && mentions(tunnel, "IPv6 needs an MTU of 1280")
    });
    assert_eq!(shown(node, "tun00"), "");
    // An agent that starts now goes on without.
    let mut cluster = cluster;
    cluster.take_agent(a).unwrap().kill().unwrap();
    cluster.start_agent(a).unwrap();
    let node = cluster.node(a);
    await_status(node, "narrow", |tunnel| tunnel["mtu"] == 1276);
    node.exec(&["ip", "link", "delete", "tun00"]).unwrap();
    poll::until(PATIENCE, || ping(&cluster)).unwrap();
    mtu(node, "1500");
    await_status(node, "wide", |tunnel| {
        tunnel["mtu"] == 1476 && !mentions(tunnel, "IPv6")
    });
    poll::until(PATIENCE, || {
        node.exec(&["ping", "-c1", "-W1", c.tunnel_ipv6])
    })
    .unwrap();
    assert!(shown(node, "tun00").contains("fe80::"));
    // That end is no host.
    assert_eq!(shown(node, "tun00-dp"), "");

    let cluster = tunnel(without);
    let node = cluster.node(a);
    for (underlay, expected) in [("1300", 1276), ("1500", 1476)] {
        mtu(node, underlay);
        await_status(node, "changed", |tunnel| tunnel["mtu"] == expected);
    }
    for device in ["tun00", "tun00-dp"] {
        assert_eq!(shown(node, device), "", "{device}");
    }
}

#[test]
fn the_mtu_follows_the_underlays() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let node = cluster.node(a);
    for (underlay, expected) in [("1400", 1376), ("3000", 2976)] {
        node.exec(&["ip", "link", "set", "eth0", "mtu", underlay])
            .unwrap();
        await_status(node, "changed", |tunnel| tunnel["mtu"] == expected);
        assert_eq!(device(node, "mtu").unwrap(), expected);
    }
    let fixed = tunnel(|router| router.tunnel_config() + "set interfaces tunnel tun00 mtu 1450\n");
    let node = fixed.node(a);
    node.exec(&["ip", "link", "set", "eth0", "mtu", "1460"])
        .unwrap();
    await_status(node, "told", |tunnel| mentions(tunnel, "do not fit"));
    assert_eq!(device(node, "mtu").unwrap(), 1450);
}

#[test]
fn without_keepalives_coming_back_the_tunnel_loses_its_carrier() {
    let cluster = tunnel(|router| {
        let keepalive = "set interfaces tunnel tun00 keepalive interval 1\n\
                         set interfaces tunnel tun00 keepalive retries 2\n";
        let mine = if router.name == article::PRIMARY {
            keepalive
        } else {
            ""
        };
        router.tunnel_config() + mine
    });
    let [a, c] = ROUTERS;
    let node = cluster.node(a);
    await_status(node, "heard", |tunnel| {
        tunnel["keepalives_heard"].as_u64() > Some(0)
    });
    await_status(cluster.node(c), "answered", |tunnel| {
        tunnel["keepalives_answered"].as_u64() > Some(0)
    });
    article::cut_tunnel(&cluster.lab).unwrap();
    await_status(node, "down", |tunnel| {
        tunnel["keepalive"]["up"] == false && tunnel["link_up"] == false
    });
    assert!(
        device(node, "flags")
            .unwrap()
            .to_string()
            .contains("NO-CARRIER")
    );
    assert_eq!(status(cluster.node(c)).unwrap()["link_up"], true);
    article::heal_tunnel(&cluster.lab).unwrap();
    await_status(node, "up", |tunnel| {
        tunnel["keepalive"]["up"] == true && tunnel["link_up"] == true
    });
    await_ping(&cluster);
}

/// From the cloud on, the primary's way to its peer is narrower.
fn narrow_the_path(cluster: &Cluster) {
    let interface = cloud_interface(article::SECONDARY);
    cluster
        .lab
        .node(CLOUD)
        .exec(&["ip", "link", "set", interface, "mtu", "1400"])
        .unwrap();
}

#[test]
fn a_narrower_path_is_learnt_from_routers() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, _] = ROUTERS;
    let (node, client) = (cluster.node(a), cluster.lab.node(CLIENT));
    // The client reaches the far router's server side through the tunnel.
    let target = "10.0.9.12";
    node.exec(&["ip", "route", "add", target, "dev", "tun00"])
        .unwrap();
    client
        .exec(&["ip", "route", "add", target, "via", "10.0.0.11"])
        .unwrap();
    let ping = |size: &str| client.exec(&["ping", "-Mdo", "-c1", "-W1", "-s", size, target]);
    ping("1400").unwrap();
    narrow_the_path(&cluster);
    // This one is lost; the cloud tells the router why.
    ping("1400").unwrap_err();
    await_status(node, "learnt", |tunnel| {
        tunnel["path_mtu"] == 1400 && tunnel["mtu"] == 1376
    });
    assert_eq!(device(node, "mtu").unwrap(), 1376);
    // And the router now tells the client. 28 bytes of IPv4 and ICMP headers.
    let error = ping("1400").unwrap_err().to_string();
    assert!(error.contains("mtu = 1376"), "{error}");
    ping("1348").unwrap();
    let text = routerctl(node, &["show", "interfaces", "tunnel", "detail"]).unwrap();
    assert!(text.contains("1400 bytes, learnt"), "{text}");
    // Another underlay, another path.
    node.exec(&[
        "ip",
        "address",
        "delete",
        &format!("{}/24", a.underlay),
        "dev",
        "eth0",
    ])
    .unwrap();
    await_status(node, "forgotten", |tunnel| {
        tunnel["path_mtu"].is_null() && tunnel["mtu"] == 1476
    });
}

/// By "packet too big" of a router on the way, over IPv6.
#[test]
fn a_narrower_path_over_ipv6_is_learnt_from_routers() {
    let cluster = tunnel(|router| GRE_OVER_IPV6.config(router));
    let [a, c] = ROUTERS;
    let node = cluster.node(a);
    let ping = |size: &str, address: &str| {
        let words = ["ping", "-Mdo", "-c1", "-W1", "-s", size, address];
        node.exec(&words)
    };
    ping("1400", c.tunnel).unwrap();
    narrow_the_path(&cluster);
    ping("1400", c.tunnel).unwrap_err();
    await_status(node, "learnt", |tunnel| {
        tunnel["path_mtu"] == 1400 && tunnel["mtu"] == 1356
    });
    assert_eq!(device(node, "mtu").unwrap(), 1356);
    // 28 and 48 bytes of IP and ICMP headers.
    ping("1328", c.tunnel).unwrap();
    ping("1308", c.tunnel_ipv6).unwrap();
}

#[test]
fn tcp_gets_through_a_path_that_has_become_narrower() {
    let cluster = tunnel(Router::tunnel_config);
    let [a, c] = ROUTERS;
    narrow_the_path(&cluster);
    let mut server = Command::new("iperf3");
    server
        .args(["-s", "-1", "-B", c.tunnel])
        .stdout(Stdio::null());
    let mut server = cluster.node(c).spawn("iperf3", &mut server).unwrap();
    let client = ["iperf3", "-c", c.tunnel, "-n4M"];
    poll::until(PATIENCE, || cluster.node(a).exec(&client)).unwrap();
    server.wait_within(PATIENCE).unwrap();
    assert_eq!(status(cluster.node(a)).unwrap()["path_mtu"], 1400);
}
