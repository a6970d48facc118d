//! Changes of interfaces and addresses, as the kernel announces them.

use std::{fmt, os::fd::AsFd as _};

use anyhow::{Context as _, Result, bail};
use futures::{FutureExt as _, StreamExt as _};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{RouteNetlinkMessage, link::LinkMessage},
    proto::{NetlinkCodec, NetlinkFramed},
    sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use tokio::task::unconstrained;

use super::{Address, Link};

/// Bytes; some hundred changes may wait.
const RECEIVE_BUFFER: usize = 1 << 20;

const GROUPS: [MulticastGroup; 3] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An interface is new, or something about it has changed. Whether it is ours, it tells by its
    /// alias alone.
    New(Link),
    Removed {
        index: u32,
        name: String,
    },
    AddressAdded(Address),
    AddressRemoved(Address),
    /// Changes were lost: list everything anew.
    Resync,
}

/// Hears of changes in the network namespace of the thread that opened it. It reads only when asked;
/// if that is too seldom, it says [`LinkEvent::Resync`].
pub struct LinkMonitor {
    socket: NetlinkFramed<RouteNetlinkMessage, TokioSocket, NetlinkCodec>,
}

impl LinkMonitor {
    /// Hears all that happens from now on; what was before is to be listed after this.
    pub fn open() -> Result<Self> {
        let context = "cannot open a netlink socket to hear of changes";
        let mut socket = TokioSocket::new(NETLINK_ROUTE).context(context)?;
        let groups = GROUPS
            .iter()
            .fold(0, |all, &group| all | 1 << (group as u32 - 1));
        let netlink = socket.socket_mut();
        netlink.bind(&SocketAddr::new(0, groups)).context(context)?;
        set_socket_recv_buffer_size_force(netlink.as_fd(), RECEIVE_BUFFER).context(context)?;
        Ok(Self {
            socket: NetlinkFramed::new(socket),
        })
    }

    /// The next change. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<LinkEvent> {
        loop {
            let Some((message, _)) = self.socket.next().await else {
                bail!("the netlink socket that hears of changes has failed");
            };
            match LinkEvent::from_message(message) {
                Some(LinkEvent::Resync) => {
                    self.drain();
                    return Ok(LinkEvent::Resync);
                }
                Some(event) => return Ok(event),
                None => {}
            }
        }
    }

    /// Throws away what waits. Until the last of it is read the kernel drops what happens, and does
    /// not say so again.
    fn drain(&mut self) {
        while unconstrained(self.socket.next())
            .now_or_never()
            .flatten()
            .is_some()
        {}
    }
}

impl fmt::Debug for LinkMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkMonitor").finish_non_exhaustive()
    }
}

impl LinkEvent {
    fn from_message(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Self> {
        let inner = match message.payload {
            NetlinkPayload::InnerMessage(inner) => inner,
            NetlinkPayload::Overrun(_) => return Some(Self::Resync),
            _ => return None,
        };
        match inner {
            RouteNetlinkMessage::NewLink(message) => Link::from_message(message).map(Self::New),
            RouteNetlinkMessage::DelLink(message) => removed(message),
            RouteNetlinkMessage::NewAddress(message) => {
                Address::from_message(&message).map(Self::AddressAdded)
            }
            RouteNetlinkMessage::DelAddress(message) => {
                Address::from_message(&message).map(Self::AddressRemoved)
            }
            _ => None,
        }
    }
}

/// `None` if the interface has only left its bridge.
fn removed(message: LinkMessage) -> Option<LinkEvent> {
    let Link { index, name, .. } = Link::from_message(message)?;
    Some(LinkEvent::Removed { index, name })
}
