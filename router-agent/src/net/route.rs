//! Where the kernel sends packets, and the routes that only an active node has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
    },
};

use super::Netlink;

/// Marks the routes that an active node has (rtm_protocol). A number that nobody else uses.
const ACTIVE_PROTOCOL: RouteProtocol = RouteProtocol::Other(0x53);

/// A route in the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Without host bits.
    pub destination: IpNet,
    pub hop: Hop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    Router(IpAddr),
    /// By its index.
    Interface(u32),
}

impl Route {
    fn message(&self) -> Result<RouteMessage> {
        let Self { destination, hop } = self;
        let builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination.addr(), destination.prefix_len())?
            .protocol(ACTIVE_PROTOCOL);
        Ok(match *hop {
            Hop::Router(address) => builder.gateway(address)?,
            Hop::Interface(index) => builder.output_interface(index).scope(RouteScope::Link),
        }
        .build())
    }

    /// None if it is not of the kind that we make.
    fn from_message(message: &RouteMessage) -> Option<Self> {
        let address = |address: &RouteAddress| match address {
            RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
            RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
            _ => None,
        };
        let mut destination = match message.header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let (mut router, mut interface) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => destination = address(to)?,
                RouteAttribute::Gateway(by) => router = address(by),
                RouteAttribute::Oif(index) => interface = Some(*index),
                _ => {}
            }
        }
        let length = message.header.destination_prefix_length;
        Some(Self {
            destination: IpNet::new(destination, length).ok()?,
            hop: router.map(Hop::Router).or(interface.map(Hop::Interface))?,
        })
    }
}

impl Netlink {
    /// Index of the interface by which packets from an address of ours leave for `to`; `None` if
    /// there is no way.
    pub async fn way(&self, from: IpAddr, to: IpAddr) -> Result<Option<u32>> {
        let mut message = RouteMessage::default();
        let (family, length) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.header.source_prefix_length = length;
        message.attributes = vec![
            RouteAttribute::Destination(route_address(to)),
            RouteAttribute::Source(route_address(from)),
        ];
        let answer: Result<Vec<_>, _> = self
            .handle
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await;
        let routes = match answer {
            Ok(routes) => routes,
            Err(rtnetlink::Error::NetlinkError(error))
                if error.to_io().raw_os_error() == Some(libc::ENETUNREACH)
                    || error.to_io().raw_os_error() == Some(libc::EHOSTUNREACH) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot ask the way to {to}")),
        };
        let attributes = routes.into_iter().flat_map(|route| route.attributes);
        Ok(attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(index),
                _ => None,
            }))
    }

    /// Adds a route of an active node; it may be there already. One of ours that leads elsewhere makes
    /// room for it, one of others does not.
    pub async fn add_active_route(&self, route: &Route) -> Result<()> {
        let add = async || {
            self.handle
                .route()
                .add(route.message()?)
                .execute()
                .await
                .map_err(anyhow::Error::from)
        };
        let Err(error) = add().await else {
            return Ok(());
        };
        let destination = route.destination;
        if errno(&error) != Some(libc::EEXIST) {
            return Err(error).with_context(|| format!("cannot add the route to {destination}"));
        }
        let ours = self.active_routes(Some(destination)).await?;
        if ours.iter().any(|(ours, _)| ours == route) {
            return Ok(());
        }
        if ours.is_empty() {
            bail!(
                "there is a route to {destination} already, which is not ours: `ip route show \
                 {destination}` shows it, `ip route delete` removes it"
            );
        }
        self.remove_active_routes(|there| there == destination)
            .await?;
        add()
            .await
            .with_context(|| format!("cannot add the route to {destination}"))
    }

    /// Whether the kernel has this route of ours.
    pub async fn has_active_route(&self, route: &Route) -> Result<bool> {
        let ours = self.active_routes(Some(route.destination)).await?;
        Ok(ours.iter().any(|(ours, _)| ours == route))
    }

    /// Removes the routes of an active node to the destinations that `go`; which.
    pub async fn remove_active_routes(&self, go: impl Fn(IpNet) -> bool) -> Result<Vec<IpNet>> {
        let mut removed = Vec::new();
        for (Route { destination, .. }, message) in self.active_routes(None).await? {
            if !go(destination) {
                continue;
            }
            let deleted = self.handle.route().del(message).execute().await;
            match deleted.map_err(anyhow::Error::from) {
                Err(error) if errno(&error) != Some(libc::ESRCH) => {
                    return Err(error)
                        .with_context(|| format!("cannot remove the route to {destination}"));
                }
                Ok(()) | Err(_) => removed.push(destination),
            }
        }
        Ok(removed)
    }

    async fn active_routes(&self, to: Option<IpNet>) -> Result<Vec<(Route, RouteMessage)>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let routes = self
                .list(|handle| handle.route().get(message).execute())
                .await
                .context("cannot list the routes")?;
            found.extend(routes.into_iter().filter_map(|message| {
                let is_ours = message.header.protocol == ACTIVE_PROTOCOL;
                let route = Route::from_message(&message).filter(|_| is_ours)?;
                let is_meant = to.is_none_or(|to| route.destination == to);
                is_meant.then_some((route, message))
            }));
        }
        Ok(found)
    }
}

fn errno(error: &anyhow::Error) -> Option<i32> {
    match error.downcast_ref() {
        Some(rtnetlink::Error::NetlinkError(message)) => message.to_io().raw_os_error(),
        Some(_) | None => None,
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}
