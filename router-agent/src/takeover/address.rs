//! A service address on its interface.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Result, bail};

use super::resource::Tools;
use crate::{
    config::ServiceAddress,
    net::{Address, Link, Netlink, announce::Announcer},
};

/// A service address and the interface that it goes to.
#[derive(Clone, Debug)]
pub struct ServiceTarget {
    service: ServiceAddress,
    /// As it was last found and announced.
    link: Arc<Mutex<Link>>,
}

impl ServiceTarget {
    /// Finds the interface of `service`: the one it names, else the one whose network holds the
    /// address.
    pub fn find(service: &ServiceAddress, links: &[Link], addresses: &[Address]) -> Result<Self> {
        let link = if let Some(name) = &service.interface {
            let Some(link) = links.iter().find(|link| link.name == *name) else {
                bail!("service {service}: there is no interface {name}");
            };
            link
        } else {
            let ip = service.address.addr();
            let holder = addresses
                .iter()
                .filter(|address| address.net.addr() != ip && address.net.contains(&ip))
                .max_by_key(|address| address.net.prefix_len());
            let link = holder
                .and_then(|address| links.iter().find(|link| link.index == address.link_index));
            let Some(link) = link else {
                bail!(
                    "service {service}: no interface has a network that holds {ip}; name the \
                     interface, as in {}/eth1",
                    service.address
                );
            };
            link
        };
        Ok(Self {
            service: service.clone(),
            link: Arc::new(Mutex::new(link.clone())),
        })
    }

    /// Adds the address. An interface that was made anew since the last time is
    /// found by its name.
    pub async fn take(&self, netlink: &Netlink) -> Result<()> {
        let (net, broadcast) = (self.service.address, self.service.broadcast);
        let Link { index, name, .. } = self.link().clone();
        if netlink.add_address(index, net, broadcast).await.is_ok() {
            return Ok(());
        }
        let Some(found) = netlink.link(&name).await? else {
            bail!("interface {name} has gone");
        };
        let index = found.index;
        *self.link() = found;
        netlink.add_address(index, net, broadcast).await
    }

    /// Whether the interface has the address, so that it can be used, and has been announced as it is.
    pub async fn is_held(&self, tools: &Tools) -> Result<bool> {
        let Tools { netlink, announcer } = tools;
        let Link { index, mac, .. } = self.interface();
        let is_there = netlink.has_address(self.address()).await?;
        Ok(is_there && announcer.mac(index).is_ok_and(|now| now == mac))
    }

    /// The address as the interface has it.
    pub fn address(&self) -> Address {
        Address {
            link_index: self.link().index,
            net: self.service.address,
        }
    }

    /// The interface that it is on, as it was last found and announced.
    pub fn interface(&self) -> Link {
        self.link().clone()
    }

    /// Announces it with the Ethernet address that the interface has now.
    pub fn announce(&self, announcer: &Announcer) -> io::Result<()> {
        let mut link = self.link();
        link.mac = announcer.mac(link.index)?;
        announcer.announce(&link, self.service.address.addr())
    }

    pub async fn release(&self, netlink: &Netlink) -> Result<()> {
        let Address { link_index, net } = self.address();
        netlink.remove_address(link_index, net).await
    }

    /// It is whole whatever happened to who held it.
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for ServiceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)
    }
}
