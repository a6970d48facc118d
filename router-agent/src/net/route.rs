//! Where the kernel would send a packet.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use super::Netlink;

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
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}
