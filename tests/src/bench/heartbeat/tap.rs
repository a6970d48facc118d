//! Heartbeats as they pass an interface, with the kernel's stamps.
//!
//! Neither busy processes nor this one's own delays change when a packet is stamped: it waits in the
//! socket's buffer, and packets that found no room there are counted.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use router_common::{
    bench::HEARTBEAT_FRAME,
    heartbeat::{Content, Heartbeat, Kind},
    net::{ETH_P_IPV4, Ethernet, Ipv4, PROTO_GRE},
    packet::Packet as _,
};

use super::distribution::Distribution;
use crate::{article::Router, clock, lab::Node};

/// Bytes; some seconds of the fastest timing.
const BUFFER: libc::c_int = 64 << 20;
const CLOCKS_COMPARED_EVERY: Duration = Duration::from_secs(1);

/// Listens at one router until it is asked to stop.
pub struct Tap {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Heard>>,
}

/// What passed on the way to a router and from it.
#[derive(Debug, Default)]
pub struct Heard {
    /// From the transmit time in a probe of the router to the passing of its reply.
    pub round_trip: Vec<u64>,
    /// Between messages to the router.
    pub gaps: Vec<u64>,
    /// How much longer than `keepalive` two probes of a node were apart, by their transmit times.
    pub lateness: Vec<u64>,
    /// Probes of the router that passed, and replies to them.
    pub probes: u64,
    pub replies: u64,
    /// Packets that found no room in the buffer.
    pub dropped: u64,
    last_at_ns: Option<u64>,
    last_tx_ns: HashMap<u32, u64>,
}

impl Tap {
    /// Begins to listen at `interface` of `node`, which is the way to `router`.
    pub fn start(
        node: &Node,
        interface: &str,
        router: Router,
        keepalive: Duration,
    ) -> Result<Self> {
        let socket = node.run(|| open(interface))??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let address: std::net::Ipv4Addr = router.underlay.parse()?;
        let thread = thread::spawn(move || listen(&socket, &stopped, address.octets(), keepalive));
        Ok(Self { stop, thread })
    }

    pub fn finish(self) -> Result<Heard> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that listens panicked"))?
    }
}

impl Heard {
    fn take_in(&mut self, message: &Content, from_router: bool, at_ns: u64, keepalive_ns: u64) {
        if message.kind == Kind::Probe {
            let tx_ns = message.tx.as_ns();
            if let Some(before) = self.last_tx_ns.insert(message.sender.0, tx_ns) {
                let apart = tx_ns.saturating_sub(before);
                self.lateness.push(apart.saturating_sub(keepalive_ns));
            }
        }
        if from_router {
            self.probes += u64::from(message.kind == Kind::Probe);
            return;
        }
        if message.kind == Kind::Reply {
            self.replies += 1;
            self.round_trip
                .push(at_ns.saturating_sub(message.echo_tx.as_ns()));
        }
        if let Some(before) = self.last_at_ns.replace(at_ns) {
            self.gaps.push(at_ns.saturating_sub(before));
        }
    }

    /// Round trips, gaps and lateness, in this order.
    pub fn distributions(&mut self) -> [Distribution; 3] {
        [&mut self.round_trip, &mut self.gaps, &mut self.lateness]
            .map(|values| Distribution::of(values))
    }
}

fn listen(
    socket: &OwnedFd,
    stop: &AtomicBool,
    router: [u8; 4],
    keepalive: Duration,
) -> Result<Heard> {
    let keepalive_ns = u64::try_from(keepalive.as_nanos())?;
    let mut heard = Heard::default();
    let mut compared = Instant::now();
    let mut offset = boot_minus_real_ns();
    while !stop.load(Ordering::Relaxed) {
        if compared.elapsed() > CLOCKS_COMPARED_EVERY {
            compared = Instant::now();
            offset = boot_minus_real_ns();
        }
        let mut frame = [0; 256];
        let Some((length, real_ns)) = receive(socket, &mut frame).context("cannot receive")? else {
            continue;
        };
        let frame = &frame[..length];
        if let Some((source, message)) = heartbeat(frame) {
            let at_ns = u64::try_from(real_ns + offset).unwrap_or(0);
            heard.take_in(&message, source == router, at_ns, keepalive_ns);
        }
    }
    heard.dropped = dropped(socket)?;
    Ok(heard)
}

/// The outer source and the message of a heartbeat's frame.
fn heartbeat(frame: &[u8]) -> Option<([u8; 4], Content)> {
    let ethernet: Ethernet = frame.read(0)?;
    let outer: Ipv4 = frame.read(Ethernet::LEN)?;
    if frame.len() != HEARTBEAT_FRAME
        || ethernet.ether_type() != ETH_P_IPV4
        || outer.protocol != PROTO_GRE
    {
        return None;
    }
    let message: Heartbeat = frame.read(HEARTBEAT_FRAME - Heartbeat::LEN)?;
    Some((outer.source, message.content()?))
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

fn open(interface: &str) -> Result<OwnedFd> {
    let index = interface_index(interface)?;
    // packet(7): in network order; with any other protocol it sees only what comes in.
    let protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: a system call without memory arguments.
    let fd = unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(protocol)) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).context("cannot open a packet socket");
    }
    // SAFETY: a new descriptor, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is an address.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = protocol;
    address.sll_ifindex = index;
    // SAFETY: `address` is of the length told and lives through the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            u32::try_from(size_of_val(&address))?,
        )
    };
    if bound != 0 {
        return Err(io::Error::last_os_error()).context("cannot bind a packet socket");
    }
    set(&socket, libc::SO_RCVBUFFORCE, &BUFFER)?;
    set(&socket, libc::SO_TIMESTAMPNS, &1_i32)?;
    let patience = libc::timeval {
        tv_sec: 0,
        tv_usec: 50_000,
    };
    set(&socket, libc::SO_RCVTIMEO, &patience)?;
    Ok(socket)
}

fn interface_index(interface: &str) -> Result<i32> {
    let path = format!("/sys/class/net/{interface}/ifindex");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().parse()?)
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
