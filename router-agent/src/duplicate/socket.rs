//! The sockets by which claims are heard, on all interfaces of the network namespace.

use std::{io, mem::MaybeUninit, net::Ipv4Addr, time::Duration};

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};
use tracing::debug;

use super::claim::Claim;

const ETHER_TYPE_ARP: u16 = 0x0806;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
/// Bytes; an advertisement with its usual options is much shorter, and what is cut off claims nothing.
const LONGEST: usize = 256;

/// An error that stays must not keep the thread busy.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Lets neighbour advertisements pass, and none of the IPv6 traffic: next header (byte 20 of the frame) 58,
/// and type (byte 54) 136.
const ADVERTISEMENTS: [SockFilter; 6] = {
    // linux/bpf_common.h
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_EQUAL, 0, 3, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(JUMP_EQUAL, 0, 1, 136),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

/// Lets ARP pass whose sender (byte 28 of the frame) says that it has one of `addresses`. Of more of them
/// than a filter should hold, all ARP is heard.
fn claims_of(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    // linux/bpf_common.h
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Instructions take memory of the socket's, of which there are some 20 kB (net.core.optmem_max).
    const MOST: usize = 500;
    if addresses.len() > MOST {
        return Vec::new();
    }
    let compare = |address: &Ipv4Addr| {
        [
            SockFilter::new(JUMP_EQUAL, 0, 1, address.to_bits()),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ]
    };
    let comparisons = addresses.iter().flat_map(compare);
    [SockFilter::new(LOAD_WORD, 0, 0, 28)]
        .into_iter()
        .chain(comparisons)
        .chain([SockFilter::new(RETURN, 0, 0, 0)])
        .collect()
}

/// Hears what comes in.
#[derive(Debug)]
pub struct Ear(AsyncFd<Socket>);

impl Ear {
    /// Of those who claim one of `addresses`: other ARP traffic of a LAN wakes nobody.
    pub fn of_arp(addresses: &[Ipv4Addr]) -> io::Result<Self> {
        Self::open(ETHER_TYPE_ARP, &claims_of(addresses))
    }

    pub fn of_advertisements() -> io::Result<Self> {
        Self::open(ETHER_TYPE_IPV6, &ADVERTISEMENTS)
    }

    fn open(ether_type: u16, filter: &[SockFilter]) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(ether_type.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        if !filter.is_empty() {
            // What came in before it is looked at all the same.
            socket.attach_filter(filter)?;
        }
        socket.set_nonblocking(true)?;
        // SAFETY: a `Socket` owns its descriptor, and nothing here closes or replaces it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(Self(socket))
    }

    /// The next claim, and the index of the interface by which it came. Nothing is lost if the future is
    /// dropped.
    pub async fn hear(&self) -> (u32, Claim) {
        let Self(socket) = self;
        loop {
            let heard = match socket.readable().await {
                Ok(mut guard) => match guard.try_io(|socket| receive(socket.get_ref())) {
                    Ok(heard) => heard,
                    // Another look was too early.
                    Err(_) => continue,
                },
                Err(error) => Err(error),
            };
            match heard {
                Ok(Some(claim)) => return claim,
                Ok(None) => {}
                Err(error) => {
                    debug!(%error, "claims of addresses cannot be heard");
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

fn receive(socket: &Socket) -> io::Result<Option<(u32, Claim)>> {
    let mut buffer = [MaybeUninit::uninit(); LONGEST];
    let (length, from) = socket.recv_from(&mut buffer)?;
    // SAFETY: the kernel has written as many bytes.
    let frame = unsafe { buffer[..length].assume_init_ref() };
    let Some((link_index, packet_type)) = origin(&from) else {
        return Ok(None);
    };
    // To another host, or of a VLAN that has no interface here.
    if packet_type == libc::PACKET_OTHERHOST {
        return Ok(None);
    }
    Ok(Claim::in_frame(frame).map(|claim| (link_index, claim)))
}

/// Interface and packet type, packet(7).
fn origin(from: &SockAddr) -> Option<(u32, u8)> {
    let is_whole = from.family() == libc::sa_family_t::try_from(libc::AF_PACKET).ok()?
        && from.len() as usize >= size_of::<libc::sockaddr_ll>() - 8;
    if !is_whole {
        return None;
    }
    // SAFETY: `SockAddr` has room for any address, and the family says that it is this one.
    let address = unsafe { from.as_ptr().cast::<libc::sockaddr_ll>().read_unaligned() };
    Some((
        u32::try_from(address.sll_ifindex).ok()?,
        address.sll_pkttype,
    ))
}
