//! The network of the article's configuration: two routers in two zones, a LAN and a server side
//! that both of them touch, and between the zones a cloud that routes. On the underlay there is IPv6
//! too, as in fd00:1::10 beside 10.0.1.10.
//!
//! ```text
//!             client 10.0.0.100
//!                   │
//!      ───────┬─────┴─────┬─────── 10.0.0.0/24
//!        .11  │eth1       │eth1 .12
//!         vyatta-a     vyatta-c
//!  10.0.1.10 eth0 ─ cloud ─ eth0 10.0.2.10
//!        .11  │eth2       │eth2 .12
//!      ───────┴─────┬─────┴─────── 10.0.9.0/24
//!                   │
//!             server 10.0.9.100
//! ```

use anyhow::Result;

use crate::{
    lab::{End, Lab, NodeSpec, Topology},
    moto::METADATA,
};

pub const PRIMARY: &str = "vyatta-a";
pub const SECONDARY: &str = "vyatta-c";
pub const CLOUD: &str = "cloud";
pub const CLIENT: &str = "client";
pub const SERVER: &str = "server";
pub const FAR: &str = "far";
pub const ARBITER: &str = "arbiter";
pub const SWITCH: &str = "switch";

pub const CLIENT_ADDRESS: &str = "10.0.0.100";
pub const SERVER_ADDRESS: &str = "10.0.9.100";
pub const FAR_ADDRESS: &str = "10.0.3.10";
pub const ARBITER_ADDRESS: &str = "10.0.4.10";
/// Where the arbiter keeps the record of the cluster's group.
pub const RECORD: &str = "/router/vyatta-a+vyatta-c/aws";
/// Services of the second scene: the gateways of the client and of the server.
pub const SERVICES: [&str; 2] = ["10.0.0.254/24/eth1", "10.0.9.254/24/eth2"];

/// What differs between the two routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    pub name: &'static str,
    pub underlay: &'static str,
    pub underlay_ipv6: &'static str,
    pub tunnel: &'static str,
    pub tunnel_ipv6: &'static str,
    /// Its interface at the server side, by which the server sees who forwarded a packet.
    pub server_side_mac: [u8; 6],
}

pub const ROUTERS: [Router; 2] = [
    Router {
        name: PRIMARY,
        underlay: "10.0.1.10",
        underlay_ipv6: "fd00:1::10",
        tunnel: "169.254.0.1",
        tunnel_ipv6: "fd00:254::1",
        server_side_mac: [2, 0, 0, 0, 9, 11],
    },
    Router {
        name: SECONDARY,
        underlay: "10.0.2.10",
        underlay_ipv6: "fd00:2::10",
        tunnel: "169.254.0.2",
        tunnel_ipv6: "fd00:254::2",
        server_side_mac: [2, 0, 0, 0, 9, 12],
    },
];

impl Router {
    /// The router called `name`.
    ///
    /// # Panics
    ///
    /// If there is none of that name.
    pub fn named(name: &str) -> Self {
        ROUTERS
            .into_iter()
            .find(|router| router.name == name)
            .unwrap_or_else(|| panic!("no router {name:?}"))
    }

    pub fn by_mac(mac: [u8; 6]) -> Option<Self> {
        ROUTERS
            .into_iter()
            .find(|router| router.server_side_mac == mac)
    }

    #[must_use]
    pub fn peer(self) -> Self {
        let [a, c] = ROUTERS;
        if self == a { c } else { a }
    }

    /// The article's lines about the tunnel, with this router's addresses.
    pub fn tunnel_config(self) -> String {
        let Self {
            name,
            underlay,
            tunnel,
            ..
        } = self;
        let remote_underlay = self.peer().underlay;
        format!(
            "set system host-name {name}
set system time-zone Asia/Tokyo

set interfaces tunnel tun00 address '{tunnel}/24'
set interfaces tunnel tun00 encapsulation 'gre'
set interfaces tunnel tun00 local-ip '{underlay}'
set interfaces tunnel tun00 remote-ip '{remote_underlay}'
set interfaces tunnel tun00 multicast enable
"
        )
    }

    /// The article's configuration as it stands.
    pub fn article_config(self) -> String {
        self.tunnel_config() + CLUSTER_CONFIG
    }

    /// A pair that finds a death in 100 ms, with the group `g`, of which `lines` say more.
    pub fn group_config(self, lines: &str) -> String {
        self.tunnel_config()
            + "
set cluster interface tun00
set cluster pre-shared-secret cloudpack
set cluster keepalive-interval 20
set cluster dead-interval 100
set cluster group g primary vyatta-a
set cluster group g secondary vyatta-c
" + lines
    }

    /// A pair as by [`group_config`](Self::group_config), whose group has an address of each IP version on the LAN.
    pub fn addresses_config(self) -> String {
        let [ipv4, ipv6] = SERVICE_ADDRESSES;
        self.group_config(&format!(
            "set cluster agent-dead-interval 1000
set cluster group g service {ipv4}/24/eth1
set cluster group g service {ipv6}/64/eth1
"
        ))
    }

    /// The article's configuration with service addresses.
    pub fn article_with_services(self) -> String {
        self.article_config() + &service_lines()
    }

    /// The same, whose primary takes the group back, with [`QUICK_TIMING`].
    pub fn service_config(self) -> String {
        self.tunnel_config() + &service_cluster_config()
    }
}

/// Of the group that [`Router::addresses_config`] configures.
pub const SERVICE_ADDRESSES: [&str; 2] = ["10.0.0.254", "fd00:77::254"];

/// The article's lines about the cluster.
const CLUSTER_CONFIG: &str = "
set cluster interface tun00
set cluster pre-shared-secret cloudpack
set cluster group aws
set cluster group aws primary vyatta-a
set cluster group aws secondary vyatta-c
";

/// Frequent keepalives. The dead-interval is one that a busy machine does not outlast by itself.
pub const QUICK_TIMING: &str = "set cluster keepalive-interval 1
set cluster dead-interval 100
";

/// The fastest failover. A machine that stands still for 4 ms, as a busy virtual one may, fails over.
pub const FASTEST_TIMING: &str = "set cluster keepalive-interval 1
set cluster dead-interval 4
";

/// Fences at both sides.
pub const PROTECT: &str = "set cluster group aws protect interface eth1
set cluster group aws protect interface eth2
";

/// What [`Router::service_config`] says about the cluster.
pub fn service_cluster_config() -> String {
    CLUSTER_CONFIG.to_owned()
        + &service_lines()
        + "set cluster group aws auto-failback true\n"
        + QUICK_TIMING
}

fn service_lines() -> String {
    SERVICES
        .map(|service| format!("set cluster group aws service {service}\n"))
        .concat()
}

/// Builds the lab. The routers run nothing yet.
pub fn lab() -> Result<Lab> {
    Lab::new(topology())
}

/// Builds the lab with one more node at the cloud, at [`FAR_ADDRESS`], which belongs to no cluster.
pub fn lab_with_far_end() -> Result<Lab> {
    let topology = topology()
        .node(
            NodeSpec::new(FAR)
                .forwarding()
                .route("10.0.0.0/16", "10.0.3.1"),
        )
        .cable(
            End::new(FAR, "eth0").address(&format!("{FAR_ADDRESS}/24")),
            End::new(CLOUD, "to-far").address("10.0.3.1/24").pass(),
        );
    Lab::new(topology)
}

/// Builds the lab with one more node at the cloud, at [`ARBITER_ADDRESS`], for the arbiter.
pub fn lab_with_arbiter() -> Result<Lab> {
    let topology = topology()
        .node(NodeSpec::new(ARBITER).route("10.0.0.0/16", "10.0.4.1"))
        .cable(
            End::new(ARBITER, "eth0").address(&format!("{ARBITER_ADDRESS}/24")),
            End::new(CLOUD, "to-arbiter").address("10.0.4.1/24").pass(),
        );
    Lab::new(topology)
}

/// Drops what `router` sends to the arbiter, where the cloud forwards it.
pub fn cut_from_arbiter(lab: &Lab, router: &str) -> Result<()> {
    arbiter_rule(lab, router, "add")
}

/// Undoes it.
pub fn heal_to_arbiter(lab: &Lab, router: &str) -> Result<()> {
    arbiter_rule(lab, router, "delete")
}

fn arbiter_rule(lab: &Lab, router: &str, verb: &str) -> Result<()> {
    let from = cloud_interface(router);
    let rule = [
        "ip",
        "rule",
        verb,
        "pref",
        "2",
        "iif",
        from,
        "to",
        ARBITER_ADDRESS,
        "blackhole",
    ];
    lab.node(CLOUD).exec(&rule).map(drop)
}

fn topology() -> Topology {
    let mut topology = underlay()
        .node(NodeSpec::new(SWITCH).bridge("lan").bridge("servers"))
        .node(NodeSpec::new(CLIENT).route("10.0.9.0/24", "10.0.0.254"))
        .node(NodeSpec::new(SERVER).route("10.0.0.0/24", "10.0.9.254"))
        .cable(
            End::new(CLIENT, "eth0").address(&format!("{CLIENT_ADDRESS}/24")),
            End::new(SWITCH, "lan-client").port_of("lan"),
        )
        .cable(
            End::new(SERVER, "eth0").address(&format!("{SERVER_ADDRESS}/24")),
            End::new(SWITCH, "srv-server").port_of("servers"),
        );
    for (router, letter, host) in [(ROUTERS[0], 'a', 11), (ROUTERS[1], 'c', 12)] {
        let name = router.name;
        topology = topology
            .cable(
                End::new(name, "eth1")
                    .mac(&format!("02:00:00:00:00:{host:02x}"))
                    .address(&format!("10.0.0.{host}/24")),
                End::new(SWITCH, &format!("lan-{letter}")).port_of("lan"),
            )
            .cable(
                End::new(name, "eth2")
                    .mac(&format!("02:00:00:00:09:{host:02x}"))
                    .address(&format!("10.0.9.{host}/24")),
                End::new(SWITCH, &format!("srv-{letter}")).port_of("servers"),
            );
    }
    topology
}

/// Builds another lab: the same routers and cloud, and at eth1 of each router a site of its own.
/// The client is behind the primary, the server behind the secondary, and neither has a route yet.
///
/// ```text
/// client ─ eth1 vyatta-a eth0 ─ cloud ─ eth0 vyatta-c eth1 ─ server
/// ```
pub fn sites() -> Result<Lab> {
    let mut topology = underlay();
    for (router, host) in [(ROUTERS[0], CLIENT), (ROUTERS[1], SERVER)] {
        topology = topology
            .node(NodeSpec::new(host))
            .cable(End::new(router.name, "eth1"), End::new(host, "eth0"));
    }
    Lab::new(topology)
}

/// The routers and the cloud between them.
fn underlay() -> Topology {
    let mut topology = Topology::default().node(NodeSpec::new(CLOUD).forwarding());
    for (router, zone) in [(ROUTERS[0], 1), (ROUTERS[1], 2)] {
        let name = router.name;
        topology = topology
            .node(
                NodeSpec::new(name)
                    .forwarding()
                    .route("10.0.0.0/16", &format!("10.0.{zone}.1"))
                    .route(METADATA, &format!("10.0.{zone}.1"))
                    .route("fd00::/29", &format!("fd00:{zone}::1")),
            )
            .cable(
                End::new(name, "eth0")
                    .mac(&format!("02:00:00:00:{zone:02x}:0a"))
                    .address(&format!("{}/24", router.underlay))
                    .address(&format!("{}/64", router.underlay_ipv6)),
                End::new(CLOUD, cloud_interface(name))
                    .address(&format!("10.0.{zone}.1/24"))
                    .address(&format!("fd00:{zone}::1/64"))
                    .pass(),
            );
    }
    topology
}

/// The cloud's interface towards a router.
pub fn cloud_interface(router: &str) -> &'static str {
    if router == PRIMARY { "to-a" } else { "to-c" }
}

/// Drops what tunnels send where the cloud forwards it; all else, the LAN too, stays as it is.
pub fn cut_tunnel(lab: &Lab) -> Result<()> {
    drop_tunnels(lab, &[])
}

/// As [`cut_tunnel`], only for what `router` sends.
pub fn cut_tunnel_from(lab: &Lab, router: &str) -> Result<()> {
    drop_tunnels(lab, &["iif", cloud_interface(router)])
}

/// As [`cut_tunnel_from`], only for tunnels in UDP.
pub fn cut_tunnel_in_udp_from(lab: &Lab, router: &str) -> Result<()> {
    drop_carriers(lab, &[GRE_IN_UDP], &["iif", cloud_interface(router)])
}

/// Drops all that goes from one router's underlay to the other's; what others send to them stays.
pub fn cut_routers_apart(lab: &Lab) -> Result<()> {
    for router in ROUTERS {
        let (from, to) = (router.underlay, router.peer().underlay);
        let rule = [
            "ip",
            "rule",
            "add",
            "pref",
            "1",
            "from",
            from,
            "to",
            to,
            "blackhole",
        ];
        lab.node(CLOUD).exec(&rule)?;
    }
    Ok(())
}

/// Undoes [`cut_routers_apart`].
pub fn bring_routers_together(lab: &Lab) -> Result<()> {
    for _ in ROUTERS {
        lab.node(CLOUD)
            .exec(&["ip", "rule", "delete", "pref", "1"])?;
    }
    Ok(())
}

/// The ways in which tunnels cross the cloud, as `ip rule` tells them.
const CARRIERS: [&[&str]; 2] = [&["ipproto", "47"], GRE_IN_UDP];
const GRE_IN_UDP: &[&str] = &["ipproto", "17", "dport", "4754"];

fn drop_tunnels(lab: &Lab, from: &[&str]) -> Result<()> {
    drop_carriers(lab, &CARRIERS, from)
}

fn drop_carriers(lab: &Lab, carriers: &[&[&str]], from: &[&str]) -> Result<()> {
    for family in ["-4", "-6"] {
        for carrier in carriers {
            let rule = ["ip", family, "rule", "add", "pref", "1"];
            let words = [&rule, from, carrier, &["blackhole"]].concat();
            lab.node(CLOUD).exec(&words)?;
        }
    }
    Ok(())
}

/// Undoes one [`cut_tunnel`] or [`cut_tunnel_from`].
pub fn heal_tunnel(lab: &Lab) -> Result<()> {
    for family in ["-4", "-6"] {
        for _ in CARRIERS {
            let words = ["ip", family, "rule", "delete", "pref", "1"];
            lab.node(CLOUD).exec(&words)?;
        }
    }
    Ok(())
}
