//! Somebody else who uses a service address is told of, with its MAC address, and the address stays.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use router_agent::control::protocol::GroupStatus;
use router_tests::{
    agent,
    article::{CLIENT, ROUTERS, Router, SERVICE_ADDRESSES},
    cluster::{Cluster, Fault, PATIENCE},
    poll,
};

const IPV4: &str = SERVICE_ADDRESSES[0];
const IPV6: &str = SERVICE_ADDRESSES[1];
const KIND: &str = "duplicate-address";

fn formed() -> (Cluster, Router) {
    let cluster = Cluster::start(Router::addresses_config).unwrap();
    let active = cluster.settle_any().unwrap();
    cluster.await_active(active, PATIENCE).unwrap();
    (cluster, active)
}

fn mac(cluster: &Cluster, node: &str, interface: &str) -> String {
    let file = format!("/sys/class/net/{interface}/address");
    let text = cluster.lab.node(node).exec(&["cat", &file]).unwrap();
    text.trim().to_owned()
}

/// That the service is held, and by whom it is used, too.
fn is_shared(group: &GroupStatus, address: &str, mac: &str) -> Result<()> {
    let mut services = group.services.iter();
    let service = services.find(|it| it.service.starts_with(&format!("{address}/")));
    let service = service.context("no such service")?;
    ensure!(service.held, "{address} is not held");
    let macs: Vec<_> = service.duplicates.iter().map(|it| &*it.mac).collect();
    ensure!(macs == [mac], "{address}: {macs:?}");
    ensure!(service.duplicates[0].claims > 0);
    let text = format!("{mac} uses {}, too", service.service);
    let told = group
        .findings
        .iter()
        .filter(|finding| finding.kind == KIND && finding.text.starts_with(&text));
    ensure!(told.count() == 1, "{:?}", group.findings);
    Ok(())
}

#[test]
fn a_host_that_answers_for_a_service_address_is_told_of() {
    let (cluster, active) = formed();
    let client = cluster.lab.node(CLIENT);
    let add = |address: &str| {
        let words = ["ip", "address", "add", address, "dev", "eth0"];
        client.exec(&words).map(drop)
    };
    add(&format!("{IPV4}/32")).unwrap();
    let words = [
        "ip",
        "address",
        "add",
        &format!("{IPV6}/128"),
        "dev",
        "eth0",
        "nodad",
    ];
    client.exec(&words).unwrap();
    let mac = mac(&cluster, CLIENT, "eth0");
    poll::until(PATIENCE, || {
        let group = cluster.group(active)?;
        is_shared(&group, IPV4, &mac)?;
        is_shared(&group, IPV6, &mac)?;
        ensure!(
            group.finding_counts[KIND] == 2,
            "{:?}",
            group.finding_counts
        );
        Ok(())
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    let text = cluster.status_text(active).unwrap();
    assert!(text.contains(&format!("{mac} uses it, too: ")), "{text}");
    let history = agent::routerctl(cluster.node(active), &["show", "cluster", "history"]).unwrap();
    assert!(
        history.contains(&format!("{mac} uses {IPV4}/24/eth1, too")),
        "{history}"
    );
    let told = format!("{mac} uses {IPV4}/24/eth1, too");
    agent::line_about_a_group(cluster.node(active), &told).unwrap();
    let group = cluster.group(active).unwrap();
    assert_eq!(group.state, "active");
    // The standby does not hold them.
    let standby = cluster.group(active.peer()).unwrap();
    assert_eq!(standby.finding_counts[KIND], 0);
}

#[test]
fn a_node_whose_agent_stands_still_is_told_of_by_its_successor() {
    let (mut cluster, active) = formed();
    let successor = active.peer();
    cluster.inject(Fault::StopAgent, active).unwrap();
    cluster.await_active(successor, PATIENCE).unwrap();
    let mac = mac(&cluster, active.name, "eth1");
    poll::until(PATIENCE, || {
        is_shared(&cluster.group(successor)?, IPV4, &mac)
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    cluster.heal(Fault::StopAgent, active).unwrap();
}

#[test]
fn handing_over_is_no_duplicate() {
    let (cluster, mut active) = formed();
    for _ in ROUTERS {
        let successor = active.peer();
        agent::routerctl(cluster.node(active), &["force", "cluster", "standby"]).unwrap();
        cluster.settle(successor).unwrap();
        active = successor;
        // Long enough for the new owner to have asked, and for what it heard to count.
        poll::throughout(Duration::from_secs(3), || {
            for router in ROUTERS {
                let group = cluster.group(router)?;
                ensure!(group.finding_counts[KIND] == 0, "{:?}", group.findings);
            }
            Ok(())
        })
        .unwrap();
    }
}
