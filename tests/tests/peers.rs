//! Other people's programs over our tunnel, unmodified: Debian's heartbeat, which sends multicast and
//! fails a resource over, and FRR's routing daemons, which find their neighbours by multicast. Not
//! run by default: they need the packages.

use std::{
    fs,
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use router_tests::{
    article::{self, CLIENT, PRIMARY, ROUTERS, Router, SECONDARY, SERVER},
    cluster::{Cluster, PATIENCE},
    format::{Format, GRE, GRE_UDP_OVER_IPV6, await_pings},
    lab::{Node, Process},
    poll,
    talk::Member,
};

const HEARTBEAT: &str = "/usr/libexec/heartbeat/heartbeat";
const RESOURCE: &str = "10.0.0.254/24/eth1";
/// It waits for its peer before it acts alone, and starts resources by scripts.
const START: Duration = Duration::from_secs(60);

/// Files of heartbeat: multicast over the tunnel at its fastest timing, the shared secret, and an
/// address that belongs to the primary.
fn install(node: &Node) {
    let ha_cf = format!(
        "logfacility none
debugfile /run/ha-debug
logfile /run/ha-log
keepalive 100ms
deadtime 500ms
warntime 300ms
initdead 10
udpport 694
mcast tun00 239.251.252.253 694 1 0
auto_failback off
node {PRIMARY}
node {SECONDARY}
crm no
"
    );
    let files = node.directory().join("ha.d");
    fs::create_dir_all(&files).unwrap();
    for (name, text) in [
        ("ha.cf", ha_cf),
        ("authkeys", "auth 1\n1 sha1 cloudpack\n".to_owned()),
        ("haresources", format!("{PRIMARY} IPaddr2::{RESOURCE}\n")),
    ] {
        fs::write(files.join(name), text).unwrap();
    }
    let script = format!(
        "set -e
mount -t tmpfs tmpfs /var/lib/heartbeat
mkdir -p /var/lib/heartbeat/crm /var/lib/heartbeat/cores/root /var/lib/heartbeat/cores/hacluster
chown -R hacluster:haclient /var/lib/heartbeat
mkdir -p /run/heartbeat/ccm /run/heartbeat/dopd /run/heartbeat/crm /run/heartbeat/rsctmp
chown hacluster:haclient /run/heartbeat/ccm /run/heartbeat/dopd /run/heartbeat/crm
mkdir -p /run/ha.d
cp -a /etc/ha.d/. /run/ha.d
cp {files}/* /run/ha.d
chmod 600 /run/ha.d/authkeys
mount --bind /run/ha.d /etc/ha.d",
        files = files.display()
    );
    node.exec(&["sh", "-c", &script]).unwrap();
}

fn start(node: &Node) -> Process {
    let mut command = Command::new(HEARTBEAT);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    node.spawn("heartbeat", &mut command).unwrap()
}

fn holds_resource(cluster: &Cluster, router: Router) -> bool {
    cluster
        .node(router)
        .exec(&["ip", "-brief", "address", "show", "eth1"])
        .is_ok_and(|text| text.contains("10.0.0.254/24"))
}

fn log(cluster: &Cluster) -> String {
    ROUTERS
        .map(|router| {
            let text = cluster.node(router).exec(&["cat", "/run/ha-log"]);
            format!("--- {} ---\n{}", router.name, text.unwrap_or_default())
        })
        .concat()
}

#[test]
fn heartbeat_finds_its_peer_through_the_tunnel_and_fails_over() {
    assert!(
        fs::exists(HEARTBEAT).unwrap(),
        "no {HEARTBEAT}: apt-get install --no-install-recommends heartbeat"
    );
    let [a, c] = ROUTERS;
    let mut cluster = Cluster::start(Router::tunnel_config).unwrap();
    poll::until(PATIENCE, || {
        cluster.node(a).exec(&["ping", "-c1", "-W1", c.tunnel])
    })
    .unwrap();
    for router in ROUTERS {
        install(cluster.node(router));
    }
    let _processes = ROUTERS.map(|router| start(cluster.node(router)));
    poll::until(START, || {
        let log = log(&cluster);
        for router in ROUTERS {
            let up = format!("Status update for node {}: status active", router.name);
            ensure!(log.contains(&up), "no {up:?} in:\n{log}");
        }
        ensure!(holds_resource(&cluster, a), "no resource yet:\n{log}");
        ensure!(
            !holds_resource(&cluster, c),
            "both hold the resource:\n{log}"
        );
        Ok(())
    })
    .unwrap();
    cluster.lab.kill_node(a.name).unwrap();
    poll::until(START, || {
        ensure!(
            holds_resource(&cluster, c),
            "not taken over:\n{}",
            log(&cluster)
        );
        Ok(())
    })
    .unwrap();
    let words = ["ping", "-c1", "-W1", "10.0.0.254"];
    poll::until(PATIENCE, || cluster.lab.node(CLIENT).exec(&words)).unwrap();
}

const FRR: &str = "/usr/lib/frr";
/// Of the sites behind the routers: the third part of their networks.
const SITES: [(&str, u8); 2] = [(CLIENT, 100), (SERVER, 200)];

/// Writes FRR's files for a router and starts its daemons: zebra, ospfd, and pimd if the kernel
/// routes multicast.
fn start_frr(node: &Node, router: Router, multicast: bool) -> Vec<Process> {
    let id = router.underlay;
    let rendezvous_point = ROUTERS[0].tunnel;
    let ospf = format!(
        "interface tun00
 ip ospf area 0
 ip ospf hello-interval 1
 ip ospf dead-interval 4
interface eth1
 ip ospf area 0
 ip ospf passive
router ospf
 ospf router-id {id}
"
    );
    let pim = format!(
        "ip pim rp {rendezvous_point} 239.0.0.0/8
interface tun00
 ip pim
 ip pim hello 1
interface eth1
 ip pim
 ip igmp
"
    );
    let files = node.directory().join("frr");
    fs::create_dir_all(&files).unwrap();
    for (name, text) in [
        ("zebra.conf", ""),
        ("ospfd.conf", &ospf),
        ("pimd.conf", &pim),
        ("vtysh.conf", "no service integrated-vtysh-config\n"),
    ] {
        fs::write(files.join(name), text).unwrap();
    }
    let script = format!(
        "set -e
mkdir -p /run/frr /run/frr-files
cp {files}/* /run/frr-files
chown -R frr:frr /run/frr /run/frr-files
mount --bind /run/frr-files /etc/frr",
        files = files.display()
    );
    node.exec(&["sh", "-c", &script]).unwrap();
    let daemons = ["zebra", "ospfd", "pimd"];
    let count = if multicast { 3 } else { 2 };
    daemons[..count]
        .iter()
        .map(|daemon| {
            let log = fs::File::create(files.join(format!("{daemon}.log"))).unwrap();
            let mut command = Command::new(format!("{FRR}/{daemon}"));
            command
                .args([
                    "--vty_addr",
                    "127.0.0.1",
                    "--log",
                    "stdout",
                    "--config_file",
                ])
                .arg(format!("/etc/frr/{daemon}.conf"))
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log);
            let process = node.spawn(daemon, &mut command).unwrap();
            // The others speak to zebra.
            if *daemon == "zebra" {
                poll::until(PATIENCE, || {
                    node.exec(&["test", "-S", "/run/frr/zserv.api"])
                })
                .unwrap();
            }
            process
        })
        .collect()
}

fn vtysh(node: &Node, command: &str) -> anyhow::Result<serde_json::Value> {
    let text = node.exec(&["vtysh", "-c", command])?;
    serde_json::from_str(&text).with_context(|| format!("{command}: {text}"))
}

/// Whether the kernel forwards multicast for a routing daemon (CONFIG_IP_MROUTE).
fn kernel_routes_multicast(node: &Node) -> bool {
    node.exec(&["test", "-e", "/proc/net/ip_mr_vif"]).is_ok()
}

/// Two sites whose routers learn the way to each other by OSPF through the tunnel, and that of
/// multicast by PIM.
fn routing_daemons_find_each_other(format: Format) {
    assert!(
        fs::exists(FRR).unwrap(),
        "no {FRR}: apt-get install --no-install-recommends frr"
    );
    let lab = article::sites().unwrap();
    for (router, (host, site)) in ROUTERS.into_iter().zip(SITES) {
        let gateway = format!("10.0.{site}.1");
        let node = lab.node(router.name);
        node.ip_batch(&[format!("address add {gateway}/24 dev eth1")])
            .unwrap();
        lab.node(host)
            .ip_batch(&[
                format!("address add 10.0.{site}.2/24 dev eth0"),
                format!("route add default via {gateway}"),
            ])
            .unwrap();
    }
    let cluster = Cluster::start_in(lab, move |router| format.config(router)).unwrap();
    await_pings(&cluster);
    let multicast = kernel_routes_multicast(cluster.node(ROUTERS[0]));
    let _daemons = ROUTERS.map(|router| start_frr(cluster.node(router), router, multicast));
    for router in ROUTERS {
        let (node, peer) = (cluster.node(router), router.peer());
        poll::until(START, || {
            let neighbours = vtysh(node, "show ip ospf neighbor json")?;
            let state = neighbours["neighbors"][peer.underlay][0]["nbrState"].to_string();
            ensure!(state.contains("Full/"), "{neighbours}");
            Ok(())
        })
        .unwrap();
    }
    let [(client, _), (server, site)] = SITES;
    let [client, server] = [client, server].map(|name| cluster.lab.node(name));
    poll::until(START, || {
        let route = cluster.node(ROUTERS[0]).exec(&[
            "ip",
            "route",
            "show",
            &format!("10.0.{site}.0/24"),
        ])?;
        ensure!(
            route.contains("dev tun00 proto ospf"),
            "the route is {route:?}"
        );
        client.exec(&["ping", "-c1", "-W1", &format!("10.0.{site}.2")])
    })
    .unwrap();
    if !multicast {
        println!("NOT TESTED: PIM, as this kernel has no CONFIG_IP_MROUTE");
        return;
    }
    for router in ROUTERS {
        poll::until(START, || {
            let neighbours = vtysh(cluster.node(router), "show ip pim neighbor json")?;
            let neighbour = &neighbours["tun00"][router.peer().tunnel];
            ensure!(neighbour.is_object(), "{neighbours}");
            Ok(())
        })
        .unwrap();
    }
    // A member at one site hears who speaks at the other.
    let group: IpAddr = "239.1.2.3".parse().unwrap();
    let member = Member::join(server, "eth0", group).unwrap();
    poll::until(START, || member.hears(client, "eth0")).unwrap();
}

#[test]
fn ospf_and_pim_find_their_neighbours_through_gre() {
    routing_daemons_find_each_other(GRE);
}

#[test]
fn ospf_and_pim_find_their_neighbours_through_gre_in_udp_over_ipv6() {
    routing_daemons_find_each_other(GRE_UDP_OVER_IPV6);
}
