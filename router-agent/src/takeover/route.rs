//! A route that only the active node's kernel has.

use std::fmt;

use anyhow::{Result, bail};

use crate::{
    config::{KernelRoute, Way},
    net::{Hop, Netlink, Route},
};

#[derive(Clone, Debug)]
pub struct RouteTarget(pub KernelRoute);

impl RouteTarget {
    pub async fn take(&self, netlink: &Netlink) -> Result<()> {
        netlink.add_active_route(&self.find(netlink).await?).await
    }

    pub async fn is_held(&self, netlink: &Netlink) -> Result<bool> {
        netlink.has_active_route(&self.find(netlink).await?).await
    }

    pub async fn release(&self, netlink: &Netlink) -> Result<()> {
        let Self(KernelRoute { destination, .. }) = self;
        netlink
            .remove_active_routes(|there| there == *destination)
            .await?;
        Ok(())
    }

    /// An interface that was made anew has another index.
    async fn find(&self, netlink: &Netlink) -> Result<Route> {
        let Self(KernelRoute { destination, way }) = self;
        let hop = match way {
            Way::NextHop(address) => Hop::Router(*address),
            Way::Interface(name) => match netlink.link(name).await? {
                Some(link) => Hop::Interface(link.index),
                None => bail!("there is no interface {name}"),
            },
        };
        Ok(Route {
            destination: *destination,
            hop,
        })
    }
}

impl fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
