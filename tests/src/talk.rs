//! What applications and hosts say to each other.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::lab::Node;

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `length` bytes by TCP to `address` of `to`; they must arrive as they were sent.
pub fn transfer(from: &Node, to: &Node, address: IpAddr, length: usize) -> Result<()> {
    let listener = to.run(|| TcpListener::bind((address, 0)))??;
    let target = listener.local_addr()?;
    let mut sender = from
        .run(|| TcpStream::connect_timeout(&target, PATIENCE))?
        .with_context(|| format!("{} cannot connect to {target}", from.name()))?;
    let (mut receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    // No two segments alike.
    let sent: Vec<u8> = (0..length.div_ceil(4))
        .flat_map(|word| u32::try_from(word).unwrap_or(0).to_be_bytes())
        .collect();
    let mut received = Vec::with_capacity(sent.len());
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            sender.write_all(&sent)?;
            sender.shutdown(std::net::Shutdown::Write)
        });
        let read = receiver.read_to_end(&mut received);
        writer
            .join()
            .map_err(|_| io::Error::other("the writer panicked"))??;
        read
    })
    .with_context(|| format!("TCP from {} to {target}", from.name()))?;
    ensure!(received == sent, "TCP delivered something else");
    Ok(())
}

/// A socket that is a member of a multicast group on an interface.
pub struct Member {
    socket: UdpSocket,
    group: SocketAddr,
}

impl Member {
    pub fn join(node: &Node, interface: &str, group: IpAddr) -> Result<Self> {
        const PORT: u16 = 5000;
        let index = node.interface_index(interface)?;
        let socket = node.run(|| {
            let socket = UdpSocket::bind((group, PORT))?;
            match group {
                IpAddr::V4(group) => sockopt::set_ip_add_membership_with_ifindex(
                    &socket,
                    &group,
                    &Ipv4Addr::UNSPECIFIED,
                    index,
                )?,
                IpAddr::V6(group) => socket.join_multicast_v6(&group, index)?,
            }
            anyhow::Ok(socket)
        })??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            group: SocketAddr::new(group, PORT),
        })
    }

    /// Sends to the group out of an interface of `from`; the member must get it.
    pub fn hears(&self, from: &Node, interface: &str) -> Result<()> {
        let index = from.interface_index(interface)?;
        let text = format!("from {}", from.name());
        from.run(|| {
            let any: IpAddr = match self.group {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            if any.is_ipv4() {
                sockopt::set_ip_multicast_if_with_ifindex(
                    &socket,
                    &Ipv4Addr::UNSPECIFIED,
                    &Ipv4Addr::UNSPECIFIED,
                    index,
                )?;
            } else {
                sockopt::set_ipv6_multicast_if(&socket, index)?;
            }
            socket.send_to(text.as_bytes(), self.group)?;
            anyhow::Ok(())
        })??;
        let mut buffer = [0; 64];
        let (length, _) = self
            .socket
            .recv_from(&mut buffer)
            .with_context(|| format!("nothing {text} to {}", self.group))?;
        ensure!(&buffer[..length] == text.as_bytes(), "something else");
        Ok(())
    }
}

/// Sends a whole Ethernet frame out of an interface.
pub fn send_frame(node: &Node, interface: &str, frame: &[u8]) -> Result<()> {
    let index = node.interface_index(interface)?;
    let socket = node.run(|| {
        socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
    })??;
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::sa_family_t::try_from(libc::AF_PACKET)?;
    address.sll_ifindex = i32::try_from(index)?;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: `frame` and `address` live through the call, and their lengths are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            length,
        )
    };
    ensure!(
        usize::try_from(sent) == Ok(frame.len()),
        "{}: cannot send a frame by {interface}: {}",
        node.name(),
        io::Error::last_os_error()
    );
    Ok(())
}

impl Node {
    /// # Errors
    ///
    /// If it has no interface of that name.
    pub fn interface_index(&self, interface: &str) -> Result<u32> {
        let path = format!("/sys/class/net/{interface}/ifindex");
        let text = self
            .run(|| fs::read_to_string(&path))?
            .with_context(|| format!("{} has no {interface}", self.name()))?;
        Ok(text.trim().parse()?)
    }
}
