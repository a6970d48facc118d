//! Frames as they pass an interface, with the kernel's stamps.
//!
//! Neither busy processes nor this one's own delays change when a packet is stamped: it waits in the
//! socket's buffer, and packets that found no room there are counted.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{clock, lab::Node, packet_socket};

/// Bytes; some seconds of the fastest heartbeats.
const BUFFER: libc::c_int = 64 << 20;
/// With any other protocol a packet socket sees only what comes in: packet(7), `linux/if_ether.h`.
const ETH_P_ALL: u16 = 3;
const CLOCKS_COMPARED_EVERY: Duration = Duration::from_secs(1);

/// All that passes an interface of a node.
pub struct Passing {
    socket: OwnedFd,
    compared: Instant,
    /// Of the boottime clock before the one of the stamps.
    ahead_ns: i128,
}

impl Passing {
    pub fn at(node: &Node, interface: &str) -> Result<Self> {
        let index = node.interface_index(interface)?;
        Ok(Self {
            socket: node.run(|| open(index))??,
            compared: Instant::now(),
            ahead_ns: boot_minus_real_ns(),
        })
    }

    /// The next frame's length in `frame`, which may be shorter, and when it passed, by the boottime
    /// clock; `None` if none came within some milliseconds.
    pub fn next(&mut self, frame: &mut [u8]) -> Result<Option<(usize, u64)>> {
        if self.compared.elapsed() > CLOCKS_COMPARED_EVERY {
            self.compared = Instant::now();
            self.ahead_ns = boot_minus_real_ns();
        }
        let received = receive(&self.socket, frame).context("cannot receive")?;
        Ok(received.map(|(length, real_ns)| {
            let at_ns = u64::try_from(real_ns + self.ahead_ns).unwrap_or(0);
            (length, at_ns)
        }))
    }

    /// Frames that found no room in the buffer.
    pub fn dropped(&self) -> Result<u64> {
        dropped(&self.socket)
    }
}

/// How far the boottime clock is before the one of the stamps; of some tries the quickest.
fn boot_minus_real_ns() -> i128 {
    let real = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
    };
    (0..9)
        .map(|_| {
            let (before, boot, after) = (real(), clock::now(), real());
            (
                after - before,
                i128::from(boot.as_ns()) - i128::midpoint(before, after),
            )
        })
        .min()
        .map_or(0, |(_, offset)| offset)
}

fn open(interface: u32) -> Result<OwnedFd> {
    let protocol = ETH_P_ALL.to_be();
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: a system call without memory arguments.
    let fd = unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(protocol)) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot open a packet socket");
    }
    // SAFETY: a new descriptor, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    packet_socket::bind(&socket, interface, ETH_P_ALL)?;
    set(&socket, libc::SO_RCVBUFFORCE, &BUFFER)?;
    set(&socket, libc::SO_TIMESTAMPNS, &1_i32)?;
    let patience = libc::timeval {
        tv_sec: 0,
        tv_usec: 50_000,
    };
    set(&socket, libc::SO_RCVTIMEO, &patience)?;
    Ok(socket)
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> Result<()> {
    // SAFETY: `value` is of the length told and lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            u32::try_from(size_of::<T>())?,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot set up a packet socket");
    }
    Ok(())
}

/// A frame's length and its stamp, by the real-time clock; `None` if none came in time.
fn receive(socket: &OwnedFd, frame: &mut [u8]) -> io::Result<Option<(usize, i128)>> {
    let mut control = [0_u64; 8];
    let mut part = libc::iovec {
        iov_base: frame.as_mut_ptr().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: all-zero is a header.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header's parts live through the call and are of the lengths told.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    let Ok(length) = usize::try_from(length) else {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    };
    // SAFETY: the kernel has filled the header's control part, which is aligned as cmsg(3) asks.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        if message.is_null() || (*message).cmsg_type != libc::SCM_TIMESTAMPNS {
            return Ok(None);
        }
        let stamp: libc::timespec = libc::CMSG_DATA(message)
            .cast::<libc::timespec>()
            .read_unaligned();
        let ns = i128::from(stamp.tv_sec) * 1_000_000_000 + i128::from(stamp.tv_nsec);
        Ok(Some((length, ns)))
    }
}

fn dropped(socket: &OwnedFd) -> Result<u64> {
    // struct tpacket_stats of linux/if_packet.h: packets, drops.
    let mut counts = [0_u32; 2];
    let mut length = u32::try_from(size_of_val(&counts))?;
    // SAFETY: `counts` is of the length told and lives through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            counts.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot ask for lost packets");
    }
    Ok(u64::from(counts[1]))
}
