//! Service addresses on a LAN: that hosts find them where they are, over IPv4 and IPv6, whatever was on the
//! interface before; and that nothing else of it changes.

use std::{fs, net::Ipv4Addr};

use anyhow::{Result, ensure};
use router_tests::{
    agent,
    article::{CLIENT, Router, SERVICE_ADDRESSES},
    capture::Capture,
    cluster::{Cluster, Fault, PATIENCE},
    lab::Node,
    poll,
};

const IPV4: &str = SERVICE_ADDRESSES[0];
const IPV6: &str = SERVICE_ADDRESSES[1];

/// The client reaches both addresses.
fn formed() -> (Cluster, Router) {
    let cluster = Cluster::start(Router::addresses_config).unwrap();
    ip(
        cluster.lab.node(CLIENT),
        "address add fd00:77::100/64 dev eth0 nodad",
    );
    let active = cluster.settle_any().unwrap();
    cluster.await_active(active, PATIENCE).unwrap();
    for address in SERVICE_ADDRESSES {
        reaches(&cluster, address);
    }
    (cluster, active)
}

fn ip(node: &Node, line: &str) -> String {
    let words: Vec<_> = ["ip"].into_iter().chain(line.split_whitespace()).collect();
    node.exec(&words).unwrap()
}

fn reaches(cluster: &Cluster, address: &str) {
    let client = cluster.lab.node(CLIENT);
    poll::until(PATIENCE, || client.exec(&["ping", "-c1", "-W1", address]))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

/// Of the router's interface at the LAN, now.
fn mac(cluster: &Cluster, router: Router) -> String {
    let node = cluster.node(router);
    let text = node.exec(&["cat", "/sys/class/net/eth1/address"]).unwrap();
    text.trim().to_owned()
}

/// The client comes to know that both addresses are at `mac`. It sends nothing that would have it ask.
fn is_told_of(cluster: &Cluster, mac: &str) {
    let client = cluster.lab.node(CLIENT);
    poll::until(PATIENCE, || {
        for address in SERVICE_ADDRESSES {
            let known = ip(client, &format!("neighbour show {address} dev eth0"));
            ensure!(known.contains(mac), "not at {mac}: {known}");
        }
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

fn hand_over(cluster: &Cluster, from: Router) {
    agent::routerctl(cluster.node(from), &["force", "cluster", "standby"]).unwrap();
    cluster.await_active(from.peer(), PATIENCE).unwrap();
}

#[test]
fn hosts_are_told_where_an_address_is_by_a_planned_move_and_by_a_failover() {
    let (mut cluster, active) = formed();
    let successor = active.peer();
    is_told_of(&cluster, &mac(&cluster, active));
    hand_over(&cluster, active);
    is_told_of(&cluster, &mac(&cluster, successor));
    cluster.settle(successor).unwrap();
    cluster.inject(Fault::KillNode, successor).unwrap();
    is_told_of(&cluster, &mac(&cluster, active));
    for address in SERVICE_ADDRESSES {
        reaches(&cluster, address);
    }
}

/// What `ip` says of a router's IPv6 service address.
fn shown(node: &Node) -> String {
    ip(
        node,
        &format!("-6 -oneline address show dev eth1 to {IPV6}"),
    )
}

fn is_usable(node: &Node) -> Result<()> {
    let shown = shown(node);
    let is_there = shown.contains(&format!("{IPV6}/64 "));
    ensure!(is_there && !shown.contains("tentative"), "{shown}");
    Ok(())
}

/// An address that was added while the peer held it is not usable: the kernel asked, and the peer answered.
#[test]
fn an_ipv6_address_that_failed_duplicate_detection_is_taken_all_the_same() {
    let (cluster, active) = formed();
    let successor = active.peer();
    let node = cluster.node(successor);
    ip(node, &format!("address add {IPV6}/64 dev eth1"));
    poll::until(PATIENCE, || {
        let shown = shown(node);
        ensure!(shown.contains("dadfailed"), "{shown}");
        Ok(())
    })
    .unwrap();
    hand_over(&cluster, active);
    is_usable(node).unwrap();
    reaches(&cluster, IPV6);

    // It becomes so under the agent's eyes: the client is who answers.
    let client = cluster.lab.node(CLIENT);
    ip(client, &format!("address add {IPV6}/128 dev eth0 nodad"));
    ip(node, &format!("address delete {IPV6}/64 dev eth1"));
    let _ = node.output(&["ip", "address", "add", &format!("{IPV6}/64"), "dev", "eth1"]);
    poll::until(PATIENCE, || is_usable(node))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

/// With the prefix length of the service alone it is held.
#[test]
fn an_ipv6_address_with_another_prefix_length_is_taken_all_the_same() {
    let (cluster, active) = formed();
    let successor = active.peer();
    let node = cluster.node(successor);
    ip(node, &format!("address add {IPV6}/128 dev eth1 nodad"));
    hand_over(&cluster, active);
    is_usable(node).unwrap();
}

#[test]
fn hosts_are_told_the_ethernet_address_that_the_interface_has_now() {
    const OTHER: &str = "02:00:00:00:00:98";
    const YET_ANOTHER: &str = "02:00:00:00:00:99";
    let (cluster, active) = formed();
    let successor = active.peer();
    let node = cluster.node(successor);
    ip(node, &format!("link set eth1 address {OTHER}"));
    hand_over(&cluster, active);
    is_told_of(&cluster, OTHER);
    // Under the agent's eyes.
    ip(node, &format!("link set eth1 address {YET_ANOTHER}"));
    is_told_of(&cluster, YET_ANOTHER);
}

/// Whoever misses the first announcement of an address that is taken again hears another one.
#[test]
fn an_address_that_is_taken_again_is_announced_again_and_again() {
    /// At most two are left of the takeover.
    const MORE: u32 = 4;
    let (cluster, active) = formed();
    let client = cluster.lab.node(CLIENT);
    let address: Ipv4Addr = IPV4.parse().unwrap();
    // An answer to a host that asks is from the address too, and not for it.
    let bits = address.to_bits();
    let filter = format!("arp and arp[14:4] == {bits} and arp[24:4] == {bits}");
    let mut announcements = Capture::start(client, "eth0", &filter, MORE).unwrap();
    ip(
        cluster.node(active),
        &format!("address delete {IPV4}/24 dev eth1"),
    );
    announcements
        .wait_within(2 * PATIENCE)
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
}

/// As when the interface was given its own address anew, after the agent had taken the service.
#[test]
fn what_an_interface_has_besides_stays_when_a_service_is_released() {
    let (cluster, active) = formed();
    let node = cluster.node(active);
    let shown = || ip(node, "-4 -brief address show dev eth1");
    let all = shown();
    let mut words = all.split_whitespace();
    let own = words.find(|word| word.starts_with("10.0.0.1")).unwrap();
    // The kernel's default, whatever this machine's is.
    for of in ["all", "eth1"] {
        let file = format!("/proc/sys/net/ipv4/conf/{of}/promote_secondaries");
        node.run(|| fs::write(file, "0")).unwrap().unwrap();
    }
    // The service goes with it, and is taken again.
    ip(node, &format!("address delete {own} dev eth1"));
    poll::until(PATIENCE, || {
        let shown = shown();
        ensure!(shown.contains(IPV4), "{shown}");
        Ok(())
    })
    .unwrap();
    ip(node, &format!("address add {own} dev eth1"));
    ip(node, "route add 10.99.0.0/16 via 10.0.0.100");

    hand_over(&cluster, active);
    poll::until(PATIENCE, || {
        let shown = shown();
        ensure!(!shown.contains(IPV4), "{shown}");
        Ok(())
    })
    .unwrap();
    assert!(shown().contains(own), "{}", shown());
    let route = ip(node, "route show 10.99.0.0/16");
    assert!(route.contains("via 10.0.0.100"), "no route: {route}");
}
