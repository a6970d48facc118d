//! What moves with a group, as plain data.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::IpNet;

/// `cluster group NAME service`. Displays as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    Address(ServiceAddress),
    /// A systemd unit, with its suffix: `bird.service`.
    Unit(String),
    Script(ScriptCall),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unit(unit) => f.write_str(unit),
            Self::Script(call) => call.fmt(f),
        }
    }
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

/// A script in the calling form of heartbeat and LSB. Displays as it is written: `Filesystem::a::b`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScriptCall {
    /// A file name, without a directory.
    pub name: String,
    /// They come before `start`, `stop` or `status`.
    pub arguments: Vec<String>,
}

impl fmt::Display for ScriptCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, arguments } = self;
        f.write_str(name)?;
        for argument in arguments {
            write!(f, "::{argument}")?;
        }
        Ok(())
    }
}

/// `cluster group NAME route PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// Without host bits.
    pub destination: IpNet,
    pub way: Way,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Of the family of the destination.
    NextHop(IpAddr),
    Interface(String),
}

impl fmt::Display for KernelRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destination, way } = self;
        match way {
            Way::NextHop(address) => write!(f, "route {destination} next-hop {address}"),
            Way::Interface(name) => write!(f, "route {destination} interface {name}"),
        }
    }
}

/// `cluster group NAME aws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aws {
    /// In the order of the file; no two are the same.
    pub resources: Vec<AwsResource>,
    /// The network interface that packets are to come to: an `eni-…`, or the name that it has here.
    /// Without it: the instance's primary one.
    pub interface: Option<String>,
    /// Without it: as the environment, the profile or the instance says.
    pub region: Option<String>,
    /// Without it: the region's.
    pub endpoint: Option<String>,
    /// How often an active node sees whether all is still as it should be.
    pub verify_interval: Duration,
}

/// What belongs to the active node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AwsResource {
    /// An entry of a route table leads to it.
    Route {
        table: String,
        destination: RouteDestination,
    },
    /// An elastic IP address, by its allocation.
    ElasticIp(String),
    /// A secondary private address of its network interface.
    PrivateIp(Ipv4Addr),
}

impl fmt::Display for AwsResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route { table, destination } => write!(f, "aws {table} {destination}"),
            Self::ElasticIp(allocation) => write!(f, "aws elastic-ip {allocation}"),
            Self::PrivateIp(address) => write!(f, "aws private-ip {address}"),
        }
    }
}

/// What an entry of a route table is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteDestination {
    /// Without host bits.
    Network(IpNet),
    /// `pl-…`.
    PrefixList(String),
}

impl fmt::Display for RouteDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::PrefixList(list) => f.write_str(list),
        }
    }
}
