//! What a configuration says, as plain data: each value in its proper type, defaults filled in,
//! and every rule between values already checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

pub use super::secret::Secret;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `system host-name`, else the kernel's name. The two are the same if both are known.
    pub host_name: String,
    /// In the order in which the file first names them; names are unique.
    pub tunnels: Vec<Tunnel>,
    pub cluster: Option<Cluster>,
}

/// `interfaces tunnel tunN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// `tun0` to `tun999`; `tun0` and `tun00` are two tunnels.
    pub name: String,
    /// Host address with the length of its network. May be empty.
    pub addresses: Vec<IpNet>,
    /// At most 256 characters.
    pub description: Option<String>,
    /// False if the configuration says `disable`.
    pub enabled: bool,
    pub local_ip: Ipv4Addr,
    pub remote_ip: Ipv4Addr,
    /// Bytes, 64 to 65511. Without it: the underlay's MTU less the overhead.
    pub mtu: Option<u16>,
    pub multicast: bool,
    /// The GRE key. Zero is a key; none means that packets carry no key.
    pub key: Option<u32>,
    pub ttl: HeaderByte,
    pub tos: HeaderByte,
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
    /// an IPv4 address.
    pub interfaces: Vec<String>,
    pub secret: Secret,
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
    /// A quarter of `monitor_dead_interval`.
    pub monitor_interval: Duration,
    /// Default 1 s.
    pub monitor_dead_interval: Duration,
    /// At least one, in the order of the file; names are unique, and this host is a member of each.
    pub groups: Vec<Group>,
}

/// `cluster group NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub primary: String,
    /// Not the primary.
    pub secondary: String,
    pub auto_failback: bool,
    pub monitors: Vec<IpAddr>,
    /// May be empty: such a group only decides who is active.
    pub services: Vec<ServiceAddress>,
}

impl Group {
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

/// An address that moves with the group. Displays as it is written: `10.0.0.254/24/eth1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAddress {
    /// `addr()` is the address itself, host bits included.
    pub address: IpNet,
    /// Without it: the interface whose network holds the address.
    pub interface: Option<String>,
    /// IPv4 only. Stated only together with an interface.
    pub broadcast: Option<Ipv4Addr>,
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            interface,
            broadcast,
        } = self;
        write!(f, "{address}")?;
        if let Some(interface) = interface {
            write!(f, "/{interface}")?;
        }
        if let Some(broadcast) = broadcast {
            write!(f, "/{broadcast}")?;
        }
        Ok(())
    }
}
