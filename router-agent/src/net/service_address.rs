//! The service addresses of interfaces.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use tracing::info;

use super::{Address, Netlink, SERVICE_PROTOCOL, address_message, is_gone, says};
use crate::maps::{InterfaceNames as _, KernelInterfaces};

impl Netlink {
    /// Adds a service address to the interface; it may be there already. An IPv6 address is usable at once,
    /// without duplicate address detection: the epoch says whose it is.
    pub async fn add_address(
        &self,
        link_index: u32,
        net: IpNet,
        broadcast: Option<Ipv4Addr>,
    ) -> Result<()> {
        let mut message = address_message(link_index, net, broadcast);
        message
            .attributes
            .push(AddressAttribute::Protocol(SERVICE_PROTOCOL));
        let context = || format!("cannot add address {net}");
        let request = || {
            let addresses = self.handle.address();
            let mut request = addresses.add(link_index, net.addr(), net.prefix_len());
            *request.message_mut() = message.clone();
            request
        };
        match request().execute().await {
            Err(error) if says(&error, &[libc::EEXIST]) => {}
            result => return result.with_context(context),
        }
        for obstacle in self.address_messages().await? {
            if is_obstacle(&obstacle, link_index, net) {
                self.delete_address(obstacle).await?;
            }
        }
        request().replace().execute().await.with_context(context)
    }

    /// Whether the interface has the address, and packets can be sent to it.
    pub async fn has_address(&self, address: Address) -> Result<bool> {
        let messages = self.address_messages().await?;
        Ok(messages
            .iter()
            .any(|it| Address::from_message(it) == Some(address) && is_usable(it)))
    }

    /// Removes `net` from the interface; it may be gone already. The interface's other addresses stay.
    pub async fn remove_address(&self, link_index: u32, net: IpNet) -> Result<()> {
        let address = Address { link_index, net };
        let messages = self.address_messages().await?;
        let Some(message) = messages
            .iter()
            .find(|it| Address::from_message(it) == Some(address))
        else {
            return Ok(());
        };
        if messages.iter().any(|it| goes_with(it, message)) {
            self.promote_secondaries(link_index).await?;
            let name = KernelInterfaces::open().name(link_index);
            let name = name.unwrap_or_else(|| link_index.to_string());
            info!(
                "promote_secondaries is set on interface {name}: its addresses stay as {net} goes"
            );
        }
        self.delete_address(message.clone()).await
    }

    async fn delete_address(&self, message: AddressMessage) -> Result<()> {
        let net = Address::from_message(&message).map(|address| address.net);
        match self.handle.address().del(message).execute().await {
            Err(error) if !is_gone(&error) => Err(error)
                .with_context(|| format!("cannot remove address {}", net.unwrap_or_default())),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Whether it is the IPv6 address of `net`, in a way that adding it once more does not mend: the kernel then
/// leaves the prefix length as it is, and what duplicate address detection has found.
fn is_obstacle(message: &AddressMessage, link_index: u32, net: IpNet) -> bool {
    let Some(address) = Address::from_message(message) else {
        return false;
    };
    let is_same = address.link_index == link_index && address.net.addr() == net.addr();
    net.addr().is_ipv6() && is_same && (address.net != net || !is_usable(message))
}

/// Whether the kernel, unless it is told otherwise, removes `message` with `first`: the first IPv4 address that
/// an interface was given of a network takes the others with it.
fn goes_with(message: &AddressMessage, first: &AddressMessage) -> bool {
    let is_secondary =
        |it: &AddressMessage| it.header.flags.contains(AddressHeaderFlags::Secondary);
    let network = |it| {
        let Address { link_index, net } = Address::from_message(it)?;
        net.addr().is_ipv4().then(|| (link_index, net.trunc()))
    };
    is_secondary(message)
        && !is_secondary(first)
        && network(first).is_some()
        && network(message) == network(first)
}

/// Nothing is received for an IPv6 address that others are still asked for, or have answered for.
fn is_usable(message: &AddressMessage) -> bool {
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    !message.header.flags.intersects(unusable)
}
