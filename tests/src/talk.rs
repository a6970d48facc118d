//! What applications and hosts say to each other.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use crate::{lab::Node, packet_socket};

const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `length` bytes by TCP to `address` of `to`; they must arrive as they were sent.
pub fn transfer(from: &Node, to: &Node, address: IpAddr, length: usize) -> Result<()> {
    transfer_to_port(from, to, (address, 0), length)
}

/// As [`transfer`], to a port that is known beforehand.
pub fn transfer_to_port(
    from: &Node,
    to: &Node,
    target: (IpAddr, u16),
    length: usize,
) -> Result<()> {
    let listener = to.run(|| TcpListener::bind(target))??;
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
    let mut arrived = Vec::with_capacity(sent.len());
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            sender.write_all(&sent)?;
            sender.shutdown(std::net::Shutdown::Write)
        });
        let read = receiver.read_to_end(&mut arrived);
        writer
            .join()
            .map_err(|_| io::Error::other("the writer panicked"))??;
        read
    })
    .with_context(|| format!("TCP from {} to {target}", from.name()))?;
    ensure!(arrived == sent, "TCP delivered something else");
    Ok(())
}

/// Sends datagrams to `address` of `to` that the stack gets as one packet, to be cut late (UDP_SEGMENT
/// of udp(7)); each must arrive.
pub fn datagrams(from: &Node, to: &Node, address: IpAddr) -> Result<()> {
    const LENGTH: usize = 1000;
    const COUNT: usize = 20;
    let receiver = to.run(|| UdpSocket::bind((address, 0)))??;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let target = receiver.local_addr()?;
    let sender = from.run(|| {
        let socket = UdpSocket::bind(match address {
            IpAddr::V4(_) => "0.0.0.0:0",
            IpAddr::V6(_) => "[::]:0",
        })?;
        socket.connect(target)?;
        io::Result::Ok(socket)
    })??;
    let size = libc::c_int::try_from(LENGTH)?;
    // SAFETY: `size` lives through the call, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            sender.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            libc::socklen_t::try_from(size_of_val(&size))?,
        )
    };
    ensure!(result == 0, "UDP_SEGMENT: {}", io::Error::last_os_error());
    let sent: Vec<u8> = (0..COUNT)
        .flat_map(|number| vec![number.to_le_bytes()[0]; LENGTH])
        .collect();
    sender.send(&sent)?;
    let mut arrived = vec![false; COUNT];
    let mut buffer = [0; 2 * LENGTH];
    for _ in 0..COUNT {
        let length = receiver
            .recv(&mut buffer)
            .with_context(|| format!("of the datagrams to {target} arrived: {arrived:?}"))?;
        let number = usize::from(buffer[0]);
        ensure!(
            length == LENGTH && buffer[..length] == sent[number * LENGTH..][..LENGTH],
            "another datagram arrived"
        );
        arrived[number] = true;
    }
    ensure!(arrived.iter().all(|arrived| *arrived), "{arrived:?}");
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
        /// By default multicast stays in its network.
        const HOPS: u32 = 8;
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
                sockopt::set_ip_multicast_ttl(&socket, HOPS)?;
            } else {
                sockopt::set_ipv6_multicast_if(&socket, index)?;
                sockopt::set_ipv6_multicast_hops(&socket, HOPS)?;
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
    send_frames(node, interface, frame, 1)
}

/// Sends the same frame again and again, as fast as it goes.
pub fn send_frames(node: &Node, interface: &str, frame: &[u8], times: u32) -> Result<()> {
    let index = node.interface_index(interface)?;
    let socket = node.run(|| {
        socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
    })??;
    let address = packet_socket::address(index, 0)?;
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    let deadline = Instant::now() + PATIENCE;
    let mut left = times;
    while left > 0 {
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
        let error = io::Error::last_os_error();
        // The device's queue is full; who empties it wants the CPU.
        if sent < 0 && error.raw_os_error() == Some(libc::ENOBUFS) && Instant::now() < deadline {
            thread::yield_now();
            continue;
        }
        ensure!(
            usize::try_from(sent) == Ok(frame.len()),
            "{}: cannot send a frame by {interface}: {error}",
            node.name(),
        );
        left -= 1;
    }
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
