//! UDP packets at a fixed rate from one node to another, and who carried them.

use std::{
    collections::HashSet,
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use router_common::{
    net::{ETH_P_IPV4, Ethernet, Ipv4, Mac, PROTO_UDP, Udp},
    packet::Packet as _,
    time::BootTime,
};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with, sockopt,
};

use crate::{clock, lab::Node, packet_socket};

const PORT: u16 = 7000;
/// How long the receiver listens on after the sender has stopped.
const TAIL: Duration = Duration::from_millis(200);
/// Bytes; of small packets some ten thousand.
const RECEIVE_BUFFER: usize = 32 << 20;

/// A flow of packets under way.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<Vec<BootTime>>>,
    receiver: JoinHandle<Result<Vec<Arrival>>>,
}

/// A packet that came through.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub sequence: u64,
    pub sent: BootTime,
    pub at: BootTime,
    /// Who put it on the receiver's network.
    pub from: Mac,
}

/// What became of the packets of a flow.
#[derive(Clone, Debug)]
pub struct Report {
    /// When each packet was sent, by its sequence.
    sent: Vec<BootTime>,
    arrivals: Vec<Arrival>,
}

/// A time without arrivals.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    pub from: BootTime,
    pub to: BootTime,
}

impl Traffic {
    /// Sends from `source` to `address` of `target`, one packet each `interval`.
    pub fn start(source: &Node, target: &Node, address: &str, interval: Duration) -> Result<Self> {
        Self::begin(source, target, None, &[address], interval)
    }

    /// As [`Self::start`], each packet to all of the addresses, to which there are different ways.
    pub fn start_by_ways(
        source: &Node,
        target: &Node,
        addresses: &[&str],
        interval: Duration,
    ) -> Result<Self> {
        Self::begin(source, target, None, addresses, interval)
    }

    /// As [`Self::start`]; arrived is what the stack of `target` gets by `interface`.
    pub fn start_by(
        source: &Node,
        target: &Node,
        interface: &str,
        address: &str,
        interval: Duration,
    ) -> Result<Self> {
        let index = target.interface_index(interface)?;
        Self::begin(source, target, Some(index), &[address], interval)
    }

    fn begin(
        source: &Node,
        target: &Node,
        interface: Option<u32>,
        addresses: &[&str],
        interval: Duration,
    ) -> Result<Self> {
        // Packets are read below with their Ethernet header; this one only keeps the target from
        // answering that nobody listens.
        let listener = target.run(|| UdpSocket::bind(("0.0.0.0", PORT)))??;
        let tap = target.run(|| packet_socket(interface))??;
        let sockets = addresses
            .iter()
            .map(|address| {
                let to: SocketAddr = format!("{address}:{PORT}").parse()?;
                source.run(|| {
                    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
                    socket.connect(to)?;
                    Ok(socket)
                })?
            })
            .collect::<Result<Vec<_>>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let receiver = thread::spawn({
            let stop = Arc::clone(&stop);
            move || receive(&tap, &listener, &stop)
        });
        let sender = thread::spawn({
            let stop = Arc::clone(&stop);
            move || Ok(send(&sockets, interval, &stop)?)
        });
        Ok(Self {
            stop,
            sender,
            receiver,
        })
    }

    /// Ends the flow.
    pub fn finish(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = joined(self.sender)?;
        let arrivals = joined(self.receiver)?;
        Ok(Report { sent, arrivals })
    }
}

impl Report {
    /// The numbers of those that did not arrive.
    pub fn missing(&self) -> Vec<u64> {
        let arrived: HashSet<u64> = self.arrivals.iter().map(|a| a.sequence).collect();
        (0..self.sent.len() as u64)
            .filter(|sequence| !arrived.contains(sequence))
            .collect()
    }

    pub fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Packets that arrived, each counted once.
    pub fn received(&self) -> usize {
        let mut sequences: Vec<u64> = self.arrivals.iter().map(|a| a.sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        sequences.len()
    }

    pub fn lost(&self) -> usize {
        self.sent().saturating_sub(self.received())
    }

    /// In the order in which they came.
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// The longest time without arrivals between the first and the last.
    pub fn longest_gap(&self) -> Option<Gap> {
        self.arrivals
            .windows(2)
            .map(|pair| Gap {
                from: pair[0].at,
                to: pair[1].at,
            })
            .max_by_key(|gap| gap.to.since(gap.from))
    }

    /// The first arrival after `instant` that came from `mac`.
    pub fn first_from(&self, mac: Mac, instant: BootTime) -> Option<Arrival> {
        self.arrivals
            .iter()
            .copied()
            .find(|arrival| arrival.at >= instant && arrival.from == mac)
    }

    /// The last arrival that came from `mac`.
    pub fn last_from(&self, mac: Mac) -> Option<Arrival> {
        self.arrivals
            .iter()
            .copied()
            .rfind(|arrival| arrival.from == mac)
    }
}

fn send(
    sockets: &[UdpSocket],
    interval: Duration,
    stop: &AtomicBool,
) -> std::io::Result<Vec<BootTime>> {
    prefer_this_thread();
    let mut sent = Vec::new();
    let mut next = clock::now();
    while !stop.load(Ordering::Relaxed) {
        clock::sleep_until(next)?;
        next = next.after(interval);
        let now = clock::now();
        let mut payload = [0; 16];
        payload[..8].copy_from_slice(&(sent.len() as u64).to_be_bytes());
        payload[8..].copy_from_slice(&now.as_ns().to_be_bytes());
        for socket in sockets {
            // A packet for which there is no way just now is a lost packet.
            let _ = socket.send(&payload);
        }
        sent.push(now);
    }
    Ok(sent)
}

/// Listens to `tap` until some time after `stop`. `listener` is held open meanwhile.
fn receive(tap: &OwnedFd, listener: &UdpSocket, stop: &AtomicBool) -> Result<Vec<Arrival>> {
    prefer_this_thread();
    listener.set_nonblocking(true)?;
    let mut arrivals = Vec::new();
    let mut end: Option<BootTime> = None;
    let mut frame = [0; 256];
    loop {
        let now = clock::now();
        if stop.load(Ordering::Relaxed) && now > *end.get_or_insert(now.after(TAIL)) {
            return Ok(arrivals);
        }
        match recv(tap, &mut frame, RecvFlags::empty()) {
            Ok((length, _)) => arrivals.extend(arrival(&frame[..length], clock::now())),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

/// A socket that sees whole IPv4 frames of one interface, or of all, of the thread's network
/// namespace.
fn packet_socket(interface: Option<u32>) -> Result<OwnedFd> {
    // packet(7): the protocol is an EtherType in network order.
    let protocol = Protocol::from_raw(
        u32::from(ETH_P_IPV4.to_be())
            .try_into()
            .context("an EtherType is not zero")?,
    );
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )
    .context("cannot open a packet socket")?;
    sockopt::set_socket_timeout(
        &socket,
        sockopt::Timeout::Recv,
        Some(Duration::from_millis(50)),
    )?;
    // What the receiver has no time for must wait, and not be taken for lost.
    sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
    if let Some(index) = interface {
        packet_socket::bind(&socket, index, ETH_P_IPV4)?;
    }
    Ok(socket)
}

fn arrival(frame: &[u8], at: BootTime) -> Option<Arrival> {
    let ethernet: Ethernet = frame.read(0)?;
    let ip: Ipv4 = frame.read(Ethernet::LEN)?;
    let udp: Udp = frame.read(Ethernet::LEN + Ipv4::LEN)?;
    if ip.has_options() || ip.protocol != PROTO_UDP || udp.destination() != PORT {
        return None;
    }
    let payload = Ethernet::LEN + Ipv4::LEN + Udp::LEN;
    Some(Arrival {
        sequence: u64::from_be_bytes(frame.read(payload)?),
        sent: BootTime::from_ns(u64::from_be_bytes(frame.read(payload + 8)?)),
        at,
        from: ethernet.source,
    })
}

/// Asks for real-time scheduling of this thread, so that load does not pass for loss. Where that
/// is not allowed the flow is less even, and no less true.
fn prefer_this_thread() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let _ = Command::new("chrt")
        .args(["--fifo", "--pid", "10", &thread])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a thread of the traffic panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(arrivals: &[(u64, u64)]) -> Report {
        Report {
            sent: vec![BootTime::from_ns(1); 5],
            arrivals: arrivals
                .iter()
                .map(|&(sequence, at)| Arrival {
                    sequence,
                    sent: BootTime::from_ns(1),
                    at: BootTime::from_ns(at),
                    from: [2; 6],
                })
                .collect(),
        }
    }

    #[test]
    fn a_packet_that_comes_twice_is_received_once() {
        let report = report(&[(0, 1), (0, 2), (3, 40), (4, 41)]);
        assert_eq!((report.received(), report.lost()), (3, 2));
        let gap = report.longest_gap().unwrap();
        assert_eq!((gap.from.as_ns(), gap.to.as_ns()), (2, 40));
    }

    #[test]
    fn the_first_packet_of_a_router_is_after_the_instant() {
        let report = report(&[(0, 1), (1, 20)]);
        let at = |mac, ns| {
            report
                .first_from(mac, BootTime::from_ns(ns))
                .map(|a| a.sequence)
        };
        assert_eq!(at([2; 6], 2), Some(1));
        assert_eq!(at([2; 6], 21), None);
        assert_eq!(at([3; 6], 0), None);
    }
}
