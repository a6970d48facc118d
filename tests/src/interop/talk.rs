//! What two nodes say to each other through the tunnel, byte by byte.

use std::{
    io::{self, Read as _, Write as _},
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
        UdpSocket,
    },
    os::fd::OwnedFd,
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::net::{
    AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, listen,
    sendto, socket_with, sockopt,
};

use super::PATIENCE;
use crate::lab::Node;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
/// Of link-local scope: only then does an address say which interface is meant (RFC 4007 §6).
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0, 0x123);
const PORT: u16 = 5000;
/// Of multicast: enough for the underlay too, where the outer header inherits it.
const HOPS: u32 = 8;

/// Bytes in which no piece is like its neighbours.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let step = || {
        // Numerical Recipes' linear congruential generator; its high bits are the good ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// `length` bytes over TCP from one node to `address` of another, where they are compared.
pub fn transfer(from: &Node, to: &Node, address: &str, length: usize) -> Result<()> {
    transfer_by(ipproto::TCP, from, to, address, length)
        .with_context(|| format!("TCP from {} to {address} of {}", from.name(), to.name()))
}

/// As [`transfer`], over SCTP.
pub fn transfer_by_sctp(from: &Node, to: &Node, address: &str, length: usize) -> Result<()> {
    transfer_by(ipproto::SCTP, from, to, address, length)
        .with_context(|| format!("SCTP from {} to {address} of {}", from.name(), to.name()))
}

fn transfer_by(
    protocol: Protocol,
    from: &Node,
    to: &Node,
    address: &str,
    length: usize,
) -> Result<()> {
    /// SCTP takes no message that is longer than its buffer.
    const AT_ONCE: usize = 16 << 10;
    let address = SocketAddr::new(address.parse()?, 0);
    let listener = to.run(|| {
        let socket = stream_socket(address, protocol)?;
        bind(&socket, &address)?;
        listen(&socket, 1)?;
        anyhow::Ok(TcpListener::from(socket))
    })??;
    let target = listener.local_addr()?;
    let connected = || {
        let socket = stream_socket(target, protocol)?;
        connect(&socket, &target)?;
        anyhow::Ok(TcpStream::from(socket))
    };
    let sent = pattern(length);
    let received = thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let mut bytes = Vec::new();
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.read_to_end(&mut bytes)?;
            anyhow::Ok(bytes)
        });
        let sending = from.run(|| {
            let mut stream = connected()?;
            stream.set_write_timeout(Some(PATIENCE))?;
            for piece in sent.chunks(AT_ONCE) {
                stream.write_all(piece)?;
            }
            anyhow::Ok(())
        });
        if !matches!(sending, Ok(Ok(()))) {
            // The receiver may still wait for a connection.
            let _ = to.run(connected);
        }
        let result = taker.join().map_err(|_| anyhow!("the receiver panicked"))?;
        sending??;
        result
    })?;
    ensure!(
        received == sent,
        "{} bytes of {length} came, and not as they were",
        received.len()
    );
    Ok(())
}

fn stream_socket(address: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        family,
        SocketType::STREAM,
        flags,
        Some(protocol),
    )?)
}

/// A UDP packet of `length` bytes of payload to `address`.
pub fn datagram(from: &Node, to: &Node, address: &str, length: usize) -> Result<()> {
    let address: IpAddr = address.parse()?;
    let receiver = to.run(|| UdpSocket::bind((address, 0)))??;
    let target = receiver.local_addr()?;
    let payload = pattern(length);
    let any = unspecified(address);
    from.run(|| UdpSocket::bind((any, 0))?.send_to(&payload, target))??;
    expect(&receiver, &payload)
        .with_context(|| format!("UDP from {} to {address} of {}", from.name(), to.name()))
}

/// An IPv4 packet as it is, header included, to a host that is on its way.
pub fn send_raw(from: &Node, to: &str, packet: &[u8]) -> Result<()> {
    let to = SocketAddrV4::new(to.parse()?, 0);
    from.run(|| {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(ipproto::RAW),
        )?;
        sendto(&socket, packet, SendFlags::empty(), &to)?;
        anyhow::Ok(())
    })?
}

/// A multicast packet to everybody on the interface of that name, in IPv4 and in IPv6.
pub fn multicast(from: &Node, to: &Node, interface: &str) -> Result<()> {
    for group in [IpAddr::V4(GROUP_V4), IpAddr::V6(GROUP_V6)] {
        let receiver = to.run(|| join(group, index(interface)?))??;
        let target = match group {
            IpAddr::V4(group) => SocketAddr::from((group, PORT)),
            IpAddr::V6(group) => {
                let index = from.run(|| index(interface))??;
                SocketAddrV6::new(group, PORT, 0, index).into()
            }
        };
        let payload = from.name().as_bytes();
        from.run(|| {
            let socket = UdpSocket::bind((unspecified(group), 0))?;
            if group.is_ipv4() {
                sockopt::set_ip_multicast_if_with_ifindex(
                    &socket,
                    &Ipv4Addr::UNSPECIFIED,
                    &Ipv4Addr::UNSPECIFIED,
                    index(interface)?,
                )?;
                socket.set_multicast_ttl_v4(HOPS)?;
            } else {
                sockopt::set_ipv6_multicast_hops(&socket, HOPS)?;
            }
            socket.send_to(payload, target)?;
            anyhow::Ok(())
        })??;
        expect(&receiver, payload)
            .with_context(|| format!("multicast to {group} from {}", from.name()))?;
    }
    Ok(())
}

fn join(group: IpAddr, interface: u32) -> Result<UdpSocket> {
    match group {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind((group, PORT))?;
            let any = Ipv4Addr::UNSPECIFIED;
            sockopt::set_ip_add_membership_with_ifindex(&socket, &group, &any, interface)?;
            Ok(socket)
        }
        IpAddr::V6(group) => {
            let socket = UdpSocket::bind(SocketAddrV6::new(group, PORT, 0, interface))?;
            socket.join_multicast_v6(&group, interface)?;
            Ok(socket)
        }
    }
}

/// That the next packet is `payload`.
pub fn expect(receiver: &UdpSocket, payload: &[u8]) -> Result<()> {
    receiver.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; payload.len() + 1];
    let length = receiver.recv(&mut buffer).context("nothing came")?;
    ensure!(buffer[..length] == *payload, "another packet came");
    Ok(())
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Of the network namespace of the thread.
fn index(interface: &str) -> Result<u32> {
    let path = format!("/sys/class/net/{interface}/ifindex");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().parse()?)
}
