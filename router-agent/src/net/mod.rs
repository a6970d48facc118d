//! Interfaces and addresses, by netlink.

pub mod announce;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkUnspec, LinkVeth,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{LinkAttribute, LinkMessage},
    },
};

/// Marks the devices that this program made, in their alias: a device without it is not touched.
const OURS: &str = "router-agent tunnel";

/// A GSO packet and its outer headers must fit the 16 bits of an IPv4 length.
const GSO_MAX_SIZE: u32 = 65_000;

/// An interface as the kernel tells of it.
#[derive(Clone, Debug)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Bytes.
    pub mtu: u32,
    pub mac: [u8; 6],
    is_ours: bool,
    /// The other end of a veth pair, if it is one; else zero.
    peer_index: u32,
}

impl Link {
    /// Whether an agent made this device: it carries the alias, or it is one end of a veth pair
    /// called like a tunnel and its dataplane end, left by an agent that died in between.
    pub fn is_ours(&self, all: &[Self]) -> bool {
        let is_other_end = |other: &&Self| {
            other.index == self.peer_index
                && (other.name == dataplane_end(&self.name)
                    || self.name == dataplane_end(&other.name))
        };
        self.is_ours || all.iter().any(|other| is_other_end(&other))
    }

    fn from_message(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            mac: [0; 6],
            is_ours: false,
            peer_index: 0,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(mac) => link.mac = mac.try_into().unwrap_or_default(),
                LinkAttribute::IfAlias(alias) => link.is_ours = alias == OURS,
                LinkAttribute::Link(index) => link.peer_index = index,
                _ => {}
            }
        }
        link
    }
}

/// An address of an interface.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub link_index: u32,
    pub net: IpNet,
}

/// What a tunnel's device shall be like.
#[derive(Clone, Debug)]
pub struct TunnelDevice<'a> {
    pub name: &'a str,
    /// Bytes.
    pub mtu: u32,
    pub multicast: bool,
    pub addresses: &'a [IpNet],
    pub enabled: bool,
}

/// Name of the end of a tunnel's veth pair at which the TC program sits.
pub fn dataplane_end(tunnel: &str) -> String {
    format!("{tunnel}-dp")
}

/// A netlink connection in the network namespace of the thread that opened it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a connection; it is served by the current tokio runtime.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .context("cannot list the interfaces")?;
        Ok(messages.into_iter().map(Link::from_message).collect())
    }

    /// The interface called `name`, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let links = self.links().await?;
        Ok(links.into_iter().find(|link| link.name == name))
    }

    /// All addresses of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .context("cannot list the addresses")?;
        let mut addresses = Vec::new();
        for message in messages {
            // IFA_LOCAL is the address itself; IFA_ADDRESS is the peer's on a point-to-point link.
            let mut local = None;
            let mut address = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(ip) => local = Some(*ip),
                    AddressAttribute::Address(ip) => address = Some(*ip),
                    _ => {}
                }
            }
            if let Some(ip) = local.or(address) {
                addresses.push(Address {
                    link_index: message.header.index,
                    net: IpNet::new(ip, message.header.prefix_len)?,
                });
            }
        }
        Ok(addresses)
    }

    /// Makes a tunnel's veth pair anew and returns (the user's end, the dataplane end).
    ///
    /// A device of the same name that an earlier agent made is replaced; one that is not ours is
    /// an error.
    pub async fn create_tunnel(&self, device: &TunnelDevice<'_>) -> Result<(Link, Link)> {
        self.remove_tunnel(device.name).await?;
        let peer = dataplane_end(device.name);
        if self.link(&peer).await?.is_some() {
            bail!("interface {peer} exists already and is not ours; rename or delete it");
        }
        self.handle
            .link()
            .add(LinkVeth::new(device.name, &peer).build())
            .execute()
            .await
            .with_context(|| format!("cannot create interface {}", device.name))?;
        match self.set_up_tunnel(device, &peer).await {
            Ok(ends) => Ok(ends),
            Err(error) => {
                // The first error is the one to tell; what is left is replaced at the next start.
                let _ = self.delete(device.name).await;
                Err(error)
            }
        }
    }

    async fn set_up_tunnel(&self, device: &TunnelDevice<'_>, peer: &str) -> Result<(Link, Link)> {
        let name = device.name;
        // Layer 3 only: no ARP inside; neighbours are all behind the one link.
        let user_end = LinkUnspec::new_with_name(name)
            .mtu(device.mtu)
            .arp(false)
            .multicast(device.multicast)
            .allmulticast(device.multicast)
            .append_extra_attribute(LinkAttribute::IfAlias(OURS.to_owned()))
            .append_extra_attribute(LinkAttribute::GsoMaxSize(GSO_MAX_SIZE))
            .build();
        self.change(user_end, name).await?;
        // The dataplane end is no host: nothing of its own may appear in the tunnel.
        disable_ipv6(peer);
        let dataplane_end = LinkUnspec::new_with_name(peer)
            .mtu(device.mtu)
            .arp(false)
            .append_extra_attribute(LinkAttribute::IfAlias(OURS.to_owned()))
            .up()
            .build();
        self.change(dataplane_end, peer).await?;
        if device.enabled {
            let up = LinkUnspec::new_with_name(name).up().build();
            self.change(up, name).await?;
        }
        let user = self.existing(name).await?;
        for address in device.addresses {
            self.add_address(user.index, *address, None).await?;
        }
        Ok((user, self.existing(peer).await?))
    }

    async fn change(&self, message: LinkMessage, name: &str) -> Result<()> {
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .with_context(|| format!("cannot set up interface {name}"))
    }

    async fn existing(&self, name: &str) -> Result<Link> {
        self.link(name)
            .await?
            .with_context(|| format!("interface {name} has gone"))
    }

    /// Deletes a tunnel's device if there is one and it is ours.
    pub async fn remove_tunnel(&self, name: &str) -> Result<()> {
        let links = self.links().await?;
        match links.iter().find(|link| link.name == name) {
            None => Ok(()),
            Some(link) if link.is_ours(&links) => self.delete(name).await,
            Some(_) => {
                bail!("interface {name} exists already and is not ours; rename or delete it")
            }
        }
    }

    /// Deletes every device that an agent made.
    pub async fn remove_all_tunnels(&self) -> Result<Vec<String>> {
        let links = self.links().await?;
        let mut removed = Vec::new();
        for link in links.iter().filter(|link| link.is_ours) {
            // With one end of a pair goes the other.
            if links
                .iter()
                .any(|end| end.name == dataplane_end(&link.name))
            {
                self.delete(&link.name).await?;
                removed.push(link.name.clone());
            }
        }
        Ok(removed)
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let link = self.existing(name).await?;
        self.handle
            .link()
            .del(link.index)
            .execute()
            .await
            .with_context(|| format!("cannot delete interface {name}"))
    }

    /// Adds `net` to the interface; it may be there already. An IPv6 address is usable at once,
    /// without duplicate address detection: the epoch says whose it is.
    pub async fn add_address(
        &self,
        link_index: u32,
        net: IpNet,
        broadcast: Option<Ipv4Addr>,
    ) -> Result<()> {
        let mut request = self
            .handle
            .address()
            .add(link_index, net.addr(), net.prefix_len())
            .replace();
        let attributes = &mut request.message_mut().attributes;
        match net {
            IpNet::V4(net) => {
                attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
                if net.prefix_len() < 31 {
                    let broadcast = broadcast.unwrap_or_else(|| net.broadcast());
                    attributes.push(AddressAttribute::Broadcast(broadcast));
                }
            }
            IpNet::V6(_) => attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        request
            .execute()
            .await
            .with_context(|| format!("cannot add address {net}"))
    }

    /// Removes `net` from the interface; it may be gone already.
    pub async fn remove_address(&self, link_index: u32, net: IpNet) -> Result<()> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(link_index)
            .set_address_filter(net.addr())
            .set_prefix_length_filter(net.prefix_len())
            .execute()
            .try_collect()
            .await
            .context("cannot list the addresses")?;
        for message in messages {
            match self.handle.address().del(message).execute().await {
                Err(error) if !is_gone(&error) => {
                    return Err(error).with_context(|| format!("cannot remove address {net}"));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Whether the kernel says that there is nothing to remove.
fn is_gone(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return false;
    };
    matches!(
        message.to_io().raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::ENODEV)
    )
}

/// Keeps IPv6 off an interface, as far as the kernel has IPv6 at all.
fn disable_ipv6(interface: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
    if let Err(error) = std::fs::write(&path, "1") {
        tracing::debug!(%error, path, "IPv6 is left as it is");
    }
}
