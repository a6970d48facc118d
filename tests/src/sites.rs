//! Two sites behind the article's routers, whose hosts reach each other through the tunnel.

use std::net::IpAddr;

use crate::{
    article::{self, CLIENT, ROUTERS, Router, SERVER},
    cluster::{Cluster, PATIENCE},
    format::{await_pings, ping},
    poll,
};

/// A site behind each router: its host, and the third part of its IPv4 network and the second of its IPv6 network.
pub const SITES: [(&str, u16); 2] = [(CLIENT, 100), (SERVER, 200)];

/// Of the host of a site.
pub fn host_address(site: u16, ipv6: bool) -> IpAddr {
    let text = if ipv6 {
        format!("fd00:{site}::2")
    } else {
        format!("10.0.{site}.2")
    };
    text.parse().unwrap()
}

/// Both sites and routers with a configuration that has the tunnel's addresses of both families, once pings of both
/// go through.
pub fn routed(config: impl Fn(Router) -> String + 'static) -> Cluster {
    let lab = article::sites().unwrap();
    for (router, (host, site)) in ROUTERS.into_iter().zip(SITES) {
        lab.node(router.name)
            .ip_batch(&[
                format!("address add 10.0.{site}.1/24 dev eth1"),
                format!("address add fd00:{site}::1/64 dev eth1 nodad"),
            ])
            .unwrap();
        lab.node(host)
            .ip_batch(&[
                format!("address add 10.0.{site}.2/24 dev eth0"),
                format!("address add fd00:{site}::2/64 dev eth0 nodad"),
                format!("route add default via 10.0.{site}.1"),
                format!("route add fd00::/8 via fd00:{site}::1"),
            ])
            .unwrap();
    }
    let cluster = Cluster::start_in(lab, config).unwrap();
    await_pings(&cluster);
    for (router, (_, far)) in ROUTERS.into_iter().zip([SITES[1], SITES[0]]) {
        let peer = router.peer();
        cluster
            .node(router)
            .ip_batch(&[
                format!("route add 10.0.{far}.0/24 via {}", peer.tunnel),
                format!("route add fd00:{far}::/64 via {}", peer.tunnel_ipv6),
            ])
            .unwrap();
    }
    for ipv6 in [false, true] {
        let server = host_address(SITES[1].1, ipv6).to_string();
        poll::until(PATIENCE, || {
            ping(cluster.lab.node(CLIENT), &["-c1", "-W1", &server])
        })
        .unwrap();
    }
    cluster
}
