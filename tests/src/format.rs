//! Tunnels of the wire formats that there are, between the article's routers.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use router_common::gre;

use crate::{
    agent,
    article::{CLOUD, ROUTERS, Router, cloud_interface},
    capture::{Capture, Wrapped},
    cluster::{Cluster, PATIENCE},
    lab::Node,
    poll,
};

/// More frames than any test makes.
pub const ALL: u32 = 200_000;

/// A tunnel as it is configured, and what follows for the wire.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub encapsulation: &'static str,
    pub over_ipv6: bool,
    /// What else is behind `set interfaces tunnel tun00`.
    pub lines: &'static [&'static str],
    /// Bits of the GRE header.
    pub bits: u16,
    pub key: Option<u32>,
    /// Of outer headers and inner Ethernet header, in bytes.
    pub overhead: usize,
}

pub const GRE: Format = Format {
    encapsulation: "gre",
    over_ipv6: false,
    lines: &[],
    bits: 0,
    key: None,
    overhead: 24,
};

pub const GRE_OVER_IPV6: Format = Format {
    over_ipv6: true,
    overhead: 44,
    ..GRE
};

pub const GRE_UDP: Format = Format {
    encapsulation: "gre-udp",
    overhead: 32,
    ..GRE
};

pub const GRE_UDP_OVER_IPV6: Format = Format {
    over_ipv6: true,
    overhead: 52,
    ..GRE_UDP
};

pub const GRE_BRIDGE: Format = Format {
    encapsulation: "gre-bridge",
    overhead: 38,
    ..GRE
};

impl Format {
    pub fn is_udp(&self) -> bool {
        self.encapsulation == "gre-udp"
    }

    pub fn is_layer2(&self) -> bool {
        self.encapsulation == "gre-bridge"
    }

    pub fn has_sequence(&self) -> bool {
        self.bits & gre::bit::SEQUENCE != 0
    }

    /// Whether its packets come by the slow path.
    pub fn has_checksum(&self) -> bool {
        self.bits & gre::bit::CHECKSUM != 0
    }

    /// Whether the stack hands the tunnel segments longer than the MTU.
    pub fn has_long_segments(&self) -> bool {
        self.bits & (gre::bit::SEQUENCE | gre::bit::CHECKSUM) == 0
    }

    pub fn endpoint(&self, router: Router) -> &'static str {
        if self.over_ipv6 {
            router.underlay_ipv6
        } else {
            router.underlay
        }
    }

    /// The lines for a tunnel called `name`, without addresses of its own.
    pub fn bare_config(&self, router: Router, name: &str) -> String {
        let mut lines = vec![
            format!("encapsulation {}", self.encapsulation),
            format!("local-ip {}", self.endpoint(router)),
            format!("remote-ip {}", self.endpoint(router.peer())),
        ];
        lines.extend(self.lines.iter().map(|line| (*line).to_owned()));
        let prefix = format!("set interfaces tunnel {name} ");
        lines
            .iter()
            .flat_map(|line| [&prefix, line.as_str(), "\n"])
            .collect()
    }

    pub fn config(&self, router: Router) -> String {
        format!(
            "set system host-name {}
set interfaces tunnel tun00 address {}/24
set interfaces tunnel tun00 address {}/64
set interfaces tunnel tun00 multicast enable
",
            router.name, router.tunnel, router.tunnel_ipv6
        ) + &self.bare_config(router, "tun00")
    }

    /// Both routers with this tunnel, once pings of both families pass.
    pub fn start(self) -> Cluster {
        let cluster = Cluster::start(move |router| self.config(router)).unwrap();
        await_pings(&cluster);
        cluster
    }
}

/// Waits until IPv4 and IPv6 pass.
pub fn await_pings(cluster: &Cluster) {
    let [a, c] = ROUTERS;
    for address in [c.tunnel, c.tunnel_ipv6] {
        poll::until(PATIENCE, || ping(cluster.node(a), &["-c1", "-W1", address]))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.logs()));
    }
}

pub fn ping(node: &Node, arguments: &[&str]) -> Result<String> {
    node.exec(&[&["ping"], arguments].concat())
}

pub fn addresses(router: Router) -> [IpAddr; 2] {
    [router.tunnel, router.tunnel_ipv6].map(|address| address.parse().unwrap())
}

/// What each router sends, as the cloud gets it.
pub struct Wire {
    captures: [Capture; 2],
}

impl Wire {
    /// From here on, what the routers send is cut and summed before it leaves, as on a real wire.
    pub fn tap(cluster: &Cluster) -> Self {
        let cloud = cluster.lab.node(CLOUD);
        for router in ROUTERS {
            let off = ["ethtool", "-K", "eth0", "tx", "off"];
            cluster.node(router).exec(&off).unwrap();
            let off = ["ethtool", "-K", cloud_interface(router.name), "gro", "off"];
            cloud.exec(&off).unwrap();
        }
        let captures = ROUTERS.map(|router| {
            let filter = format!("ether src {} and {TUNNELLED}", underlay_mac(router));
            Capture::start(cloud, cloud_interface(router.name), &filter, ALL).unwrap()
        });
        Self { captures }
    }

    /// What `router` has sent so far.
    pub fn of(&self, router: Router) -> Result<Vec<Vec<u8>>> {
        let [a, c] = &self.captures;
        if router == ROUTERS[0] { a } else { c }.frames()
    }

    /// Those of the last moments may be missing.
    pub fn finish(self) -> [Vec<Vec<u8>>; 2] {
        self.captures.map(|capture| capture.finish().unwrap())
    }
}

const TUNNELLED: &str = "( ip proto 47 or ip6 proto 47 or udp dst port 4754 )";

pub fn underlay_mac(router: Router) -> &'static str {
    if router == ROUTERS[0] {
        "02:00:00:00:01:0a"
    } else {
        "02:00:00:00:02:0a"
    }
}

pub fn wrapped(frames: &[Vec<u8>]) -> Vec<Wrapped<'_>> {
    frames
        .iter()
        .map(|frame| Wrapped::read(frame).unwrap_or_else(|| panic!("not as sent: {frame:02x?}")))
        .collect()
}

/// One of a tunnel's counters.
pub fn counter(node: &Node, tunnel: &str, name: &str) -> Result<u64> {
    let words = ["show", "interfaces", "tunnel", tunnel, "--json"];
    let document: serde_json::Value = serde_json::from_str(&agent::routerctl(node, &words)?)?;
    document["tunnels"][0][name]
        .as_u64()
        .with_context(|| format!("no counter {name}: {document}"))
}

/// The counters of both routers, for messages.
pub fn state(cluster: &Cluster) -> String {
    ROUTERS
        .map(|router| {
            let node = cluster.node(router);
            let tunnels = agent::routerctl(node, &["show", "interfaces", "tunnel", "detail"]);
            let reasons = agent::routerctl(node, &["maps", "dump", "reasons"]);
            format!(
                "--- {} ---\n{}{}",
                router.name,
                tunnels.unwrap_or_default(),
                reasons.unwrap_or_default()
            )
        })
        .concat()
}
