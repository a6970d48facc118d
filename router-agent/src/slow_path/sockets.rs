//! The sockets by which the kernel hands over what the programs left to it.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use router_common::{
    gre::Addresses6,
    net::{GRE_UDP_PORT, PROTO_GRE},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::decapsulate::{Addresses, Datagram};
use crate::net::socket::set_option;

/// Bytes that wait for us at a socket, as the kernel counts them, with what it needs to keep them.
/// Half of it: setsockopt(2) doubles.
const QUEUE_BYTES: i32 = 512 * 1024;

// linux/icmp.h and linux/icmpv6.h: bits say which types are kept away.
const ICMP_FILTER: i32 = 1;
const ICMP_DESTINATION_UNREACHABLE: u32 = 3;
const ICMP6_FILTER: i32 = 1;
const ICMP6_PACKET_TOO_BIG: u32 = 2;
/// linux/udp.h: takes zero checksums over IPv6 (RFC 6935, as RFC 8086 §5 allows for GRE).
const UDP_NO_CHECK6_RX: i32 = 102;
/// linux/sock_diag.h: what the socket dropped, among what `SO_MEMINFO` tells.
const SK_MEMINFO_DROPS: usize = 8;
const SK_MEMINFO_VARS: usize = 9;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gre4,
    Gre6,
    GreUdp4,
    GreUdp6,
    Icmp4,
    Icmp6,
}

#[derive(Debug)]
pub struct Source {
    pub kind: Kind,
    socket: Socket,
    /// As the kernel last told, modulo 2³².
    drops: u32,
}

/// A received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    Gre(Datagram<'a>),
    /// A whole IPv4 packet.
    Icmp4(&'a [u8]),
    /// From the ICMPv6 header on.
    Icmp6(&'a [u8]),
    /// Cut short, or without what we asked the kernel to tell of it.
    Unreadable,
}

impl Source {
    pub fn open(kind: Kind) -> Result<Self> {
        let socket = open(kind).with_context(|| match kind {
            Kind::Gre4 | Kind::Gre6 | Kind::Icmp4 | Kind::Icmp6 => {
                "cannot open a raw socket for packets that the programs leave to the stack: run \
                 router-agent as root or with CAP_NET_RAW"
                    .to_owned()
            }
            Kind::GreUdp4 | Kind::GreUdp6 => format!(
                "cannot listen at UDP port {GRE_UDP_PORT} for `encapsulation gre-udp`: `ss -lunp \
                 sport = :{GRE_UDP_PORT}` shows which program has the port; stop it, or use \
                 `encapsulation gre`"
            ),
        })?;
        Ok(Self {
            kind,
            socket,
            drops: 0,
        })
    }

    /// The next packet; `None` if there is none now. It must fit `buffer`.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let Some(message) = receive(&self.socket, buffer)? else {
            return Ok(None);
        };
        let Message {
            length,
            whole,
            remote,
            ancillary,
        } = message;
        let bytes = &buffer[..length];
        if !whole {
            return Ok(Some(Received::Unreadable));
        }
        let addresses = match (remote, ancillary.local) {
            (Some(Address::Ipv4(remote)), Some(Address::Ipv4(local))) => {
                Some(Addresses::Ipv4 { local, remote })
            }
            (Some(Address::Ipv6(remote)), Some(Address::Ipv6(local))) => {
                Some(Addresses::Ipv6(Addresses6 { remote, local }))
            }
            _ => None,
        };
        let datagram = match self.kind {
            Kind::Icmp4 => return Ok(Some(Received::Icmp4(bytes))),
            Kind::Icmp6 => return Ok(Some(Received::Icmp6(bytes))),
            Kind::Gre4 => Datagram::in_ipv4(bytes),
            Kind::Gre6 | Kind::GreUdp4 | Kind::GreUdp6 => addresses.map(|addresses| Datagram {
                addresses,
                tos: ancillary.tos,
                udp: self.kind != Kind::Gre6,
                gre: bytes,
            }),
        };
        Ok(Some(datagram.map_or(Received::Unreadable, Received::Gre)))
    }

    /// How many packets the kernel has dropped at this socket since it was last asked.
    pub fn new_drops(&mut self) -> u32 {
        let mut memory = [0_u32; SK_MEMINFO_VARS];
        let mut length = libc::socklen_t::try_from(size_of_val(&memory)).unwrap_or(0);
        // SAFETY: `memory` and `length` live through the call, and the one gives the other's size.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                memory.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return 0;
        }
        let drops = memory[SK_MEMINFO_DROPS];
        let new = drops.wrapping_sub(self.drops);
        self.drops = drops;
        new
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends packets that have their IPv4 header.
#[derive(Debug)]
pub struct RawSender(Socket);

impl RawSender {
    pub fn open() -> io::Result<Self> {
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(raw))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    pub fn send(&self, packet: &[u8], destination: [u8; 4]) -> io::Result<()> {
        let to = SocketAddrV4::new(destination.into(), 0);
        self.0.send_to(packet, &to.into()).map(drop)
    }
}

fn open(kind: Kind) -> io::Result<Socket> {
    let (domain, ty, protocol) = match kind {
        Kind::Gre4 => (
            Domain::IPV4,
            Type::RAW,
            Protocol::from(i32::from(PROTO_GRE)),
        ),
        Kind::Gre6 => (
            Domain::IPV6,
            Type::RAW,
            Protocol::from(i32::from(PROTO_GRE)),
        ),
        Kind::GreUdp4 => (Domain::IPV4, Type::DGRAM, Protocol::UDP),
        Kind::GreUdp6 => (Domain::IPV6, Type::DGRAM, Protocol::UDP),
        Kind::Icmp4 => (Domain::IPV4, Type::RAW, Protocol::ICMPV4),
        Kind::Icmp6 => (Domain::IPV6, Type::RAW, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, ty, Some(protocol))?;
    socket.set_nonblocking(true)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_BYTES)?;
    match kind {
        Kind::Gre4 => {}
        Kind::Gre6 => tell_of_ipv6(&socket)?,
        Kind::GreUdp4 => {
            set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1_i32)?;
            set_option(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1_i32)?;
            socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GRE_UDP_PORT).into())?;
        }
        Kind::GreUdp6 => {
            tell_of_ipv6(&socket)?;
            set_option(&socket, libc::SOL_UDP, UDP_NO_CHECK6_RX, 1_i32)?;
            socket.set_only_v6(true)?;
            let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, GRE_UDP_PORT, 0, 0);
            socket.bind(&any.into())?;
        }
        Kind::Icmp4 => {
            let others = !(1_u32 << ICMP_DESTINATION_UNREACHABLE);
            set_option(&socket, libc::SOL_RAW, ICMP_FILTER, others)?;
        }
        Kind::Icmp6 => {
            let mut others = [u32::MAX; 8];
            others[0] = !(1 << ICMP6_PACKET_TOO_BIG);
            set_option(&socket, libc::IPPROTO_ICMPV6, ICMP6_FILTER, others)?;
        }
    }
    Ok(socket)
}

fn tell_of_ipv6(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1_i32)?;
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1_i32)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Address {
    Ipv4([u8; 4]),
    Ipv6([u8; 16]),
}

struct Message {
    length: usize,
    whole: bool,
    remote: Option<Address>,
    ancillary: Ancillary,
}

/// What the kernel tells of a packet beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ancillary {
    local: Option<Address>,
    /// Zero if it is not told.
    tos: u8,
}

/// Room for the ancillary data that we ask for, aligned as its headers must be.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// recvmsg(2); `None` if nothing is there.
fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<Message>> {
    // SAFETY: integers in network structures, for which zero is a value.
    let mut remote: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut control = Control([0; 128]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: integers and pointers, for which zero is a value.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_name = (&raw mut remote).cast();
    header.msg_namelen = libc::socklen_t::try_from(size_of_val(&remote)).unwrap_or(0);
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: all that `header` points to lives through the call, with the lengths given.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let Ok(length) = usize::try_from(received) else {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    };
    Ok(Some(Message {
        length,
        whole: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0,
        remote: address(&remote),
        // SAFETY: the kernel has filled in `header`, and `control` is still there.
        ancillary: unsafe { ancillary(&header) },
    }))
}

fn address(storage: &libc::sockaddr_storage) -> Option<Address> {
    let storage: *const libc::sockaddr_storage = storage;
    // SAFETY: a `sockaddr_storage` is as large and as aligned as any socket address.
    let family = unsafe { i32::from((*storage).ss_family) };
    match family {
        libc::AF_INET => {
            // SAFETY: as above, and the family says that it is one.
            let address = unsafe { storage.cast::<libc::sockaddr_in>().read() };
            Some(Address::Ipv4(address.sin_addr.s_addr.to_ne_bytes()))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { storage.cast::<libc::sockaddr_in6>().read() };
            Some(Address::Ipv6(address.sin6_addr.s6_addr))
        }
        _ => None,
    }
}

/// # Safety
///
/// `header` must describe ancillary data as recvmsg(2) leaves it.
unsafe fn ancillary(header: &libc::msghdr) -> Ancillary {
    let mut found = Ancillary::default();
    // SAFETY: by the caller's word; the macros stay within the data.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: the macros gave a header that lies in the data, aligned, with its payload.
        let (control, data) = unsafe { (*next, libc::CMSG_DATA(next)) };
        match (control.cmsg_level, control.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel's payload of this type.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                found.local = Some(Address::Ipv4(info.ipi_addr.s_addr.to_ne_bytes()));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as above.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                found.local = Some(Address::Ipv6(info.ipi6_addr.s6_addr));
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                // SAFETY: as above; one byte.
                found.tos = unsafe { data.read() };
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // SAFETY: as above; an integer.
                let class = unsafe { data.cast::<i32>().read_unaligned() };
                found.tos = u8::try_from(class).unwrap_or(0);
            }
            _ => {}
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    found
}
