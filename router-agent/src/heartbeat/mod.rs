//! The probes that a node sends on its clock. What comes back the kernel keeps.

pub mod rotation;

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::Arc,
};

use router_common::{
    heartbeat::{Content, Heartbeat, Kind},
    identity::NodeId,
    keys::Keys,
    lease::Length,
    map::{LocalState, SessionState},
    net::ipv4_from_word,
    time::BootTime,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Class selector 6, "network control" (RFC 4594 §3.1), in the place of the type of service.
const NETWORK_CONTROL: u32 = 0xc0;

/// Opens the socket for the probes of all sessions over `tunnel`. Nothing is received on it: the
/// XDP program takes what comes to its port.
pub fn open_socket(tunnel: &str, address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(tunnel.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(address, port).into())?;
    socket.set_multicast_if_v4(&address)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_tos_v4(NETWORK_CONTROL)?;
    // A tunnel that inherits the TTL must carry probes across the underlay, to a group as well.
    socket.set_ttl_v4(255)?;
    socket.set_multicast_ttl_v4(255)?;
    // A probe that cannot be sent now is late anyway: the clock must not wait for it.
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Lets a socket of [`open_socket`] send by the device that is called `tunnel` now. A socket stays
/// with the device it was opened for, also when that is gone.
pub fn bind_again(socket: &UdpSocket, tunnel: &str, address: Ipv4Addr) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.bind_device(Some(tunnel.as_bytes()))?;
    socket.set_multicast_if_v4(&address)
}

/// Sends the probes of one session.
#[derive(Debug)]
pub struct Prober {
    socket: Arc<UdpSocket>,
    /// Where to probe while the peer's address is not known.
    discovery: SocketAddrV4,
    session: u32,
    node: NodeId,
    sequence: u64,
}

impl Prober {
    /// The sequence goes on after `sequence`, the newest that the peer is known to have answered: our
    /// kernel would take answers to lower ones for repeated.
    pub fn new(
        socket: Arc<UdpSocket>,
        discovery: SocketAddrV4,
        session: u32,
        node: NodeId,
        sequence: u64,
    ) -> Self {
        Self {
            socket,
            discovery,
            session,
            node,
            sequence,
        }
    }

    /// Sends one probe that says `local` of us and echoes what was `heard`, signed with the one of
    /// `keys` that the peer wants. What it grants must have been noted before.
    pub fn probe(
        &mut self,
        keys: &Keys,
        local: &LocalState,
        heard: &SessionState,
        grant: Length,
        now: BootTime,
    ) -> io::Result<()> {
        let slot = keys
            .sign_for(heard.peer_keys())
            .ok_or_else(|| io::Error::other("the session has no secret"))?;
        self.sequence += 1;
        let message = Heartbeat::signed(
            &Content {
                kind: Kind::Probe,
                flags: local.flags(),
                session: self.session,
                sender: self.node,
                generation: local.generation(),
                sequence: self.sequence,
                tx: now,
                echo_tx: BootTime::from_ns(heard.peer_tx_ns),
                echo_generation: heard.generation(),
                claim: local.claim(),
                agent_age_us: now.us_since(local.agent_beat()),
                grant,
                wanted_key: keys.wanted(),
            },
            &slot.tx(),
        );
        let to = match ipv4_from_word(heard.peer_address) {
            Some(address) => SocketAddrV4::new(address, self.discovery.port()),
            None => self.discovery,
        };
        self.socket.send_to(bytemuck::bytes_of(&message), to)?;
        Ok(())
    }
}
