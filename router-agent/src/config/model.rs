//! What a configuration says, as plain data: each value in its proper type, defaults filled in,
//! and every rule between values already checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use router_common::lease::Length;

use super::conntrack_sync::ConntrackSync;
use super::resources::{Aws, KernelRoute, Service};
pub use super::secret::Secret;
use super::track::{Tracked, Weight};
pub use crate::cluster::Prefer;
use crate::cluster::wanted_answer;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `system host-name`, else the kernel's name. The two are the same if both are known.
    pub host_name: String,
    /// In the order in which the file first names them; names are unique.
    pub tunnels: Vec<Tunnel>,
    /// Those of which the file says something that is this router's business, in the order in
    /// which it first names them; names are unique and none is a tunnel's.
    pub ethernets: Vec<Ethernet>,
    pub cluster: Option<Cluster>,
    /// Where metrics are served; none unless it is stated.
    pub metrics: Option<SocketAddr>,
    pub control: Control,
}

impl Config {
    /// None without a cluster.
    pub fn groups(&self) -> &[Group] {
        self.cluster.as_ref().map_or(&[], |cluster| &cluster.groups)
    }

    /// Addresses that move with the groups.
    pub fn service_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let services = self.groups().iter().flat_map(|group| &group.services);
        services.filter_map(|service| match service {
            Service::Address(service) => Some(service.address.addr()),
            Service::Unit(_) | Service::Script(_) => None,
        })
    }
}

/// `service control`: for whom the control socket is, besides root and the agent's own user. Names of
/// groups of the system, which may not have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Who may change something.
    pub socket_group: Option<String>,
    /// Who may ask.
    pub read_only_group: Option<String>,
}

/// `interfaces ethernet NAME`: an interface that the host has, of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ethernet {
    pub name: String,
    /// Whether packets between it and the tunnels may pass by the stack. Default false.
    pub fast_path: bool,
    pub xdp_mode: XdpMode,
}

/// Where XDP programs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver if it can, else in the stack.
    #[default]
    Auto,
    Native,
    Generic,
}

/// `interfaces tunnel tunN`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a node that is on or off by itself"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// `tun0` to `tun9999`; `tun0` and `tun00` are two tunnels.
    pub name: String,
    /// Host address with the length of its network. May be empty, and is for a port of a bridge.
    pub addresses: Vec<IpNet>,
    /// At most 256 characters.
    pub description: Option<String>,
    /// False if the configuration says `disable`.
    pub enabled: bool,
    pub encapsulation: Encapsulation,
    /// Of the family of `remote_ip`. Neither is unspecified, multicast, loopback, IPv6 link-local
    /// or IPv4 mapped into IPv6.
    pub local_ip: IpAddr,
    /// Not `local_ip`.
    pub remote_ip: IpAddr,
    /// Bytes, 64 to 65511, and 1280 at least if the tunnel has an IPv6 address (RFC 8200 §5).
    /// Without it: the underlay's MTU less the overhead.
    pub mtu: Option<u16>,
    pub multicast: bool,
    /// None means that packets carry no key.
    pub key: Option<GreKey>,
    /// Tunnels of one domain receive the epochs of one cluster; those without a name are a domain of
    /// their own. Only with [`GreKey::ClusterEpoch`].
    pub epoch_domain: Option<String>,
    /// Whether packets carry a GRE checksum and must (RFC 2784 §2.3).
    pub checksum: bool,
    /// Whether packets carry a GRE sequence number and must (RFC 2890 §2.2).
    pub sequence: bool,
    /// Outer time to live, default 255, or hop limit, default 64. Never `Fixed(0)`.
    pub ttl: HeaderByte,
    /// Outer type of service, or traffic class. Default inherit.
    pub tos: HeaderByte,
    /// Of the outer IPv6 header. `Fixed(0)` over IPv4.
    pub flow_label: FlowLabel,
    /// None: segment sizes of TCP are left alone. Not with `GreBridge`.
    pub adjust_mss: Option<AdjustMss>,
    /// Only with `GreBridge`, which may be without: then it is a layer 2 interface.
    pub bridge: Option<BridgePort>,
    /// None: no keepalive is sent. Only with `Gre` over IPv4.
    pub keepalive: Option<Keepalive>,
    /// Whether packets between it and other interfaces may pass by the stack. Default true.
    pub fast_path: bool,
}

/// How a tunnel wraps packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// IPv4 and IPv6 packets in GRE (RFC 2784, RFC 7676).
    Gre,
    /// Ethernet frames in GRE, protocol type 0x6558. On the wire told from `Gre` by that alone.
    GreBridge,
    /// IPv4 and IPv6 packets in GRE in UDP (RFC 8086).
    GreUdp,
}

impl fmt::Display for Encapsulation {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gre => "gre",
            Self::GreBridge => "gre-bridge",
            Self::GreUdp => "gre-udp",
        })
    }
}

/// What a GRE key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GreKey {
    /// Which tunnel a packet is of. Zero is a key.
    Fixed(u32),
    /// Under which epoch its sender is active, or last was; zero if it is no member of a cluster. Not
    /// with heartbeats or keepalives, nor where there are several groups.
    ClusterEpoch,
}

impl GreKey {
    pub const fn fixed(self) -> Option<u32> {
        match self {
            Self::Fixed(key) => Some(key),
            Self::ClusterEpoch => None,
        }
    }
}

impl fmt::Display for GreKey {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(key) => key.fmt(f),
            Self::ClusterEpoch => f.write_str("cluster-epoch"),
        }
    }
}

/// The flow label of the outer IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowLabel {
    /// 20 bits.
    Fixed(u32),
    /// The inner header's; zero if that is IPv4.
    Inherit,
}

/// What the segment size in TCP's SYNs is lowered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdjustMss {
    /// What fits the tunnel's MTU.
    Auto,
    /// Bytes, 536 to 65495.
    Fixed(u16),
}

/// The bridge that a tunnel is a port of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgePort {
    pub bridge: String,
    /// 1 to 65535. Without it: the kernel's choice.
    pub cost: Option<u16>,
    /// 0 to 63. Without it: the kernel's choice.
    pub priority: Option<u8>,
}

/// Cisco's keepalives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// 1 s to 32767 s, default 10 s.
    pub interval: Duration,
    /// Keepalives in a row without an answer after which the tunnel is down: 1 to 255, default 3.
    pub retries: u32,
}

/// Where a byte of the outer header comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderByte {
    Fixed(u8),
    /// The inner header's.
    Inherit,
}

/// `cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The tunnels that carry heartbeats: at least one, each of them enabled, with multicast and
    /// an IPv4 address; none is `GreBridge` or has checksums, sequence
    /// numbers or an epoch for its key.
    pub interfaces: Vec<String>,
    pub secret: Secret,
    /// Still accepted, while the secret is being changed.
    pub previous_secret: Option<Secret>,
    /// Kept as stated; heartbeats are unicast inside the tunnel.
    pub mcast_group: Ipv4Addr,
    /// UDP, default 6940.
    pub heartbeat_port: u16,
    /// At least 1 ms, default 50 ms.
    pub keepalive_interval: Duration,
    /// More than twice `keepalive_interval` and less than 30 s, default 200 ms.
    pub dead_interval: Duration,
    /// At least `dead_interval`; default 3 s, or `dead_interval` if that is longer.
    pub agent_dead_interval: Duration,
    /// Between pings; default a quarter of `monitor_dead_interval`.
    pub monitor_interval: Duration,
    /// More than twice `monitor_interval`, default 1 s.
    pub monitor_dead_interval: Duration,
    pub arbiter: Option<Etcd>,
    /// At least one, in the order of the file; names are unique, and this host is a member of each.
    pub groups: Vec<Group>,
}

impl Cluster {
    /// Within what time the arbiter must answer so that the death of a standby stops nothing.
    pub fn wanted_answer(&self) -> Duration {
        let lease = Length::by_default(self.dead_interval);
        wanted_answer(self.keepalive_interval, lease)
    }
}

/// `cluster arbiter etcd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// At least one URL of scheme, host and port; all of one scheme.
    pub endpoints: Vec<String>,
    /// If the endpoints' scheme is `https`, and only then.
    pub tls: Option<Tls>,
    pub user: Option<EtcdUser>,
    /// Begins with a slash and does not end with one.
    pub prefix: String,
    /// Default 3 s.
    pub term: Duration,
    /// At most a third of `term`; default 500 ms.
    pub timeout: Duration,
}

/// Files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub ca: PathBuf,
    /// This node's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUser {
    pub name: String,
    pub password_file: PathBuf,
}

/// `cluster group NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub primary: String,
    /// Not the primary.
    pub secondary: String,
    pub auto_failback: bool,
    /// Default availability.
    pub prefer: Prefer,
    /// Interfaces whose transit traffic only the active node forwards; none is a tunnel's, and none
    /// is another group's.
    pub protected: Vec<String>,
    /// Addresses that are pinged.
    pub monitors: Vec<IpAddr>,
    pub tracks: Vec<Tracked>,
    /// In the order in which they start. They, `routes`, `aws` and `conntrack_sync` may be empty: such a group only
    /// decides who is active.
    pub services: Vec<Service>,
    /// One for each destination.
    pub routes: Vec<KernelRoute>,
    pub aws: Option<Aws>,
    /// Stated as `service conntrack-sync`, of one group.
    pub conntrack_sync: Option<ConntrackSync>,
    /// Is run at each change of state; an absolute path.
    pub notify: Option<PathBuf>,
}

impl Group {
    /// All that moves with it, as it is written: in the order of services, routes, AWS, connections.
    pub fn resources(&self) -> impl Iterator<Item = String> {
        let services = self.services.iter().map(ToString::to_string);
        let routes = self.routes.iter().map(ToString::to_string);
        let aws = self.aws.iter().flat_map(|aws| &aws.resources);
        let aws = aws.map(ToString::to_string);
        let connections = self.conntrack_sync.iter().map(ToString::to_string);
        services.chain(routes).chain(aws).chain(connections)
    }

    /// The names of all its monitors: `monitors`, `tracks`, and if [`Self::is_checked`], what it takes to
    /// hold its resources.
    pub fn monitor_names(&self) -> impl Iterator<Item = String> {
        let addresses = self.monitors.iter().map(ToString::to_string);
        let tracks = self.tracks.iter().map(ToString::to_string);
        let resources = self.is_checked().then(|| "resources".to_owned());
        addresses.chain(tracks).chain(resources)
    }

    /// What each of its monitors but for the addresses counts; their places are behind these.
    pub fn weights(&self) -> Vec<Weight> {
        let tracks = self.tracks.iter().map(|tracked| tracked.weight);
        let resources = self.is_checked().then(Weight::default);
        tracks.chain(resources).collect()
    }

    /// Whether a node can lack what it takes to hold them. Then that is one more monitor, the last.
    pub fn is_checked(&self) -> bool {
        let has_aws = self
            .aws
            .as_ref()
            .is_some_and(|aws| !aws.resources.is_empty());
        has_aws
            || self.conntrack_sync.is_some()
            || self.services.iter().any(|service| match service {
                Service::Address(_) => false,
                Service::Unit(_) | Service::Script(_) => true,
            })
    }

    /// What `host` is in this group; none if it is not a member.
    pub fn role_of(&self, host: &str) -> Option<Role> {
        if host == self.primary {
            Some(Role::Primary)
        } else if host == self.secondary {
            Some(Role::Secondary)
        } else {
            None
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Primary,
    Secondary,
}
