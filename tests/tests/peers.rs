//! Other people's programs over our tunnel: Debian's heartbeat, unmodified, which sends multicast
//! and fails a resource over. Not run by default: it needs the package.

use std::{fs, process::Command, process::Stdio, time::Duration};

use anyhow::ensure;
use router_tests::{
    article::{CLIENT, PRIMARY, ROUTERS, Router, SECONDARY},
    cluster::{Cluster, PATIENCE},
    lab::{Node, Process},
    poll,
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
