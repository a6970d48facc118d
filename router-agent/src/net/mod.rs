//! Interfaces and addresses, by netlink.

pub mod announce;
mod egress;
mod filters;
mod keep;
mod link;
mod monitor;
mod neighbours;
mod offload;
mod requests;
mod route;
mod service_address;
mod settings;
pub(crate) mod socket;
mod tunnels;
pub mod watch;

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result};
use futures::{TryStream, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol},
        link::LinkExtentMask,
    },
};
use tokio::sync::Mutex;

#[cfg(test)]
pub use self::link::sample;
pub use self::{
    egress::EgressProgram,
    filters::{FilterPlace, program_at},
    keep::Pair,
    link::Link,
    monitor::{LinkEvent, LinkMonitor},
    offload::Offload,
    route::{Hop, Route},
    tunnels::{BridgePortSpec, TunnelDevice, dataplane_mtu},
};
use self::{offload::Ethtool, requests::Requests};

/// Marks the devices that this program made, in their alias: a device without it is not touched.
const OURS: &str = "router-agent tunnel";
/// Mark the addresses that it gave them, and the service addresses (IFA_PROTO, Linux 5.18). Numbers
/// that nobody else uses.
const OURS_PROTOCOL: AddressProtocol = AddressProtocol::Other(0x52);
const SERVICE_PROTOCOL: AddressProtocol = AddressProtocol::Other(0x53);

/// Ends the name of the end of a tunnel's veth pair at which the TC program sits.
const DATAPLANE_SUFFIX: &str = "-dp";

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub link_index: u32,
    pub net: IpNet,
}

impl Address {
    /// `None` if the message holds no address.
    fn from_message(message: &AddressMessage) -> Option<Self> {
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
        Some(Self {
            link_index: message.header.index,
            net: IpNet::new(local.or(address)?, message.header.prefix_len).ok()?,
        })
    }
}

/// Name of the end of a tunnel's veth pair at which the TC program sits.
pub fn dataplane_end(tunnel: &str) -> String {
    format!("{tunnel}{DATAPLANE_SUFFIX}")
}

/// A netlink connection in the network namespace of the thread that opened it.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
    /// Held by the list that is under way.
    listing: Arc<Mutex<()>>,
    requests: Requests,
    ethtool: Ethtool,
}

impl Netlink {
    /// Opens a connection; it is served by the current tokio runtime.
    pub fn open() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            listing: Arc::default(),
            requests: Requests::open().context("cannot open a netlink socket")?,
            ethtool: Ethtool::open().context("cannot open a socket for ethtool")?,
        })
    }

    /// All that a request lists. The kernel makes one list at a time for a socket and refuses the next
    /// with EBUSY meanwhile (`__netlink_dump_start`, net/netlink/af_netlink.c), so each waits for the one
    /// before, which goes on to its end although nobody waits for it any more.
    async fn list<Stream>(
        &self,
        request: impl FnOnce(Handle) -> Stream + Send + 'static,
    ) -> Result<Vec<Stream::Ok>>
    where
        Stream: TryStream<Error = rtnetlink::Error, Ok: Send> + Send + 'static,
    {
        let handle = self.handle.clone();
        let listing = Arc::clone(&self.listing);
        let all = async move {
            let _guard = listing.lock().await;
            request(handle).try_collect().await
        };
        Ok(tokio::spawn(all).await??)
    }

    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let mask = vec![LinkExtentMask::SkipStats];
        let messages = self
            .list(|handle| {
                let request = handle.link().get();
                request
                    .set_filter_mask(AddressFamily::Unspec, mask)
                    .execute()
            })
            .await
            .context("cannot list the interfaces")?;
        let mut links: Vec<_> = messages
            .into_iter()
            .filter_map(Link::from_message)
            .collect();
        link::find_ours(&mut links);
        Ok(links)
    }

    /// The interface called `name`, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let request = self.handle.link().get().match_name(name);
        let outcome: Result<Vec<_>, _> = request.execute().try_collect().await;
        match outcome {
            Ok(messages) => Ok(messages.into_iter().find_map(Link::from_message)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot ask for interface {name}")),
        }
    }

    /// All addresses of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<Address>> {
        let messages = self.address_messages().await?;
        Ok(messages.iter().filter_map(Address::from_message).collect())
    }

    async fn address_messages(&self) -> Result<Vec<AddressMessage>> {
        self.list(|handle| handle.address().get().execute())
            .await
            .context("cannot list the addresses")
    }

    /// Lets a driver do work in the stack's place, or not.
    pub fn set_offloads(&self, interface: &str, offloads: &[(Offload, bool)]) -> Result<()> {
        for (offload, on) in offloads {
            self.ethtool
                .set(interface, *offload, *on)
                .with_context(|| format!("cannot set offload {offload:?} of {interface}"))?;
        }
        Ok(())
    }

    /// Name of an interface's driver: `ena`, `veth`.
    pub fn driver(&self, interface: &str) -> Result<String> {
        self.ethtool
            .driver(interface)
            .with_context(|| format!("cannot ask for the driver of {interface}"))
    }
}

/// An address as it is added. IPv6 goes without duplicate address detection. IPv4 has the
/// network's broadcast address unless another is given.
fn address_message(link_index: u32, net: IpNet, broadcast: Option<Ipv4Addr>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link_index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![
        AddressAttribute::Local(net.addr()),
        AddressAttribute::Address(net.addr()),
    ];
    match net {
        IpNet::V4(net) => {
            message.header.family = AddressFamily::Inet;
            if net.prefix_len() < 31 {
                let broadcast = broadcast.unwrap_or_else(|| net.broadcast());
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(broadcast));
            }
        }
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

/// Whether the kernel says that there is nothing to remove.
fn is_gone(error: &rtnetlink::Error) -> bool {
    says(error, &[libc::EADDRNOTAVAIL, libc::ENODEV])
}

/// Whether the kernel refuses with one of `codes`.
fn says(error: &rtnetlink::Error, codes: &[i32]) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return false;
    };
    let code = message.to_io().raw_os_error();
    code.is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use futures::{future::try_join_all, poll};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn lists_that_many_ask_for_at_once_are_whole() {
        const AT_ONCE: usize = 64;
        let netlink = Netlink::open().unwrap();
        // Nobody waits for this one to its end.
        let _ = poll!(Box::pin(netlink.links()));
        let lists = try_join_all((0..AT_ONCE).map(|_| netlink.links()));
        let addresses = try_join_all((0..AT_ONCE).map(|_| netlink.addresses()));
        let (lists, addresses) = tokio::try_join!(lists, addresses).unwrap();
        assert!(lists.iter().all(|links| !links.is_empty()));
        assert!(addresses.iter().all(|all| *all == addresses[0]));
    }
}
