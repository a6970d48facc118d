//! Sends GRE packets as the node itself.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use router_common::net::PROTO_GRE;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// `BPF_RET | BPF_K` with zero: nothing is let in.
const REFUSE: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Headers' bytes that the kernel is to write.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    pub local: Ipv4Addr,
    pub remote: Ipv4Addr,
    pub ttl: u8,
    pub tos: u8,
}

/// A raw socket that receives nothing.
#[derive(Debug)]
pub struct GreSocket(Socket);

impl GreSocket {
    pub fn open() -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(PROTO_GRE));
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
        socket.attach_filter(&[REFUSE])?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// `packet` begins with the GRE header.
    pub fn send(&self, outer: &Outer, packet: &[u8]) -> io::Result<()> {
        let Outer {
            local,
            remote,
            ttl,
            tos,
        } = *outer;
        let Self(socket) = self;
        socket.set_ttl_v4(ttl.into())?;
        socket.set_tos_v4(tos.into())?;
        socket.bind(&SocketAddrV4::new(local, 0).into())?;
        socket.send_to(packet, &SocketAddrV4::new(remote, 0).into())?;
        Ok(())
    }
}
