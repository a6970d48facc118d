//! What the programs leave to the stack: outer fragments, IP options, IPv6 extension headers, GRE
//! and UDP checksums, and everything while an underlay has no program. The kernel reassembles and
//! hands it to sockets here; what is in order goes into the tunnel's device.
//!
//! One thread of low priority does it, at a bounded rate. When that is used up it does not read:
//! then the kernel drops at the full sockets, at no cost for us.

mod bucket;
mod counters;
pub mod decapsulate;
#[cfg(test)]
mod fixture;
pub mod segments;
mod sockets;
mod table;

use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context as _, Result};
use router_common::{gre::Format, map::EpochSlot, time::BootTime};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::setpriority_process,
    thread::gettid,
};
use tokio::sync::mpsc::Sender;
use tracing::{debug, error, warn};

use self::{
    bucket::TokenBucket,
    decapsulate::{Datagram, Outcome, decapsulate},
    sockets::{Kind, RawSender, Received, Source},
};
pub use self::{
    counters::{Totals, TunnelCounters},
    table::{TUNNEL_PACKETS_PER_S, Table},
};
use crate::{
    clock,
    config::Tunnel,
    dataplane::MappedArray,
    net::announce::Announcer,
    path_mtu::icmp::{self, PathMtu},
    tunnel::format,
};

/// Packets in a second that are read in all.
pub const TOTAL_PACKETS_PER_S: u32 = 10_000;
/// Read at once before the other sockets have their turn. While the rate is used up the thread
/// sleeps until there is as much to read.
const BATCH: u32 = 64;
/// The largest IP packet.
const BUFFER_BYTES: usize = 65_536;
/// setpriority(2), where ordinary threads have 0 and the least important 19.
const NICE: i32 = 10;
/// Between two warnings of packets lost.
const WARN_INTERVAL: Duration = Duration::from_mins(1);

/// The slow path from outside. Dropping it ends the thread that runs its [`Worker`].
#[derive(Debug)]
pub struct SlowPath {
    kinds: Vec<Kind>,
    sources: mpsc::Sender<Source>,
    /// A byte says that there are new sources, its end that all is over.
    wake: UnixStream,
}

/// What a thread runs.
pub struct Worker {
    table: Arc<Table>,
    epochs: Arc<MappedArray<EpochSlot>>,
    path_mtus: Sender<PathMtu>,
    new_sources: mpsc::Receiver<Source>,
    wake: UnixStream,
    sources: Vec<Source>,
    packets: Announcer,
    /// Takes frames behind what the kernel is to do to them.
    segments: Announcer,
    raw: RawSender,
    total: TokenBucket,
    warned_at: BootTime,
    warned_of: u64,
}

/// Opens what `tunnels` need. What routers say of the path's MTU goes to `path_mtus`, or is
/// dropped when that is full.
pub fn open<'a>(
    table: Arc<Table>,
    epochs: Arc<MappedArray<EpochSlot>>,
    tunnels: impl IntoIterator<Item = &'a Tunnel>,
    path_mtus: Sender<PathMtu>,
) -> Result<(SlowPath, Worker)> {
    let (sources, new_sources) = mpsc::channel();
    let (wake, woken) = UnixStream::pair().context("cannot make a pair of sockets")?;
    for end in [&wake, &woken] {
        end.set_nonblocking(true)?;
    }
    let mut slow_path = SlowPath {
        kinds: Vec::new(),
        sources,
        wake,
    };
    slow_path.serve(tunnels)?;
    let worker = Worker {
        table,
        epochs,
        path_mtus,
        new_sources,
        wake: woken,
        sources: Vec::new(),
        packets: Announcer::open().context("cannot open a packet socket")?,
        segments: Announcer::open_with_offloads().context("cannot open a packet socket")?,
        raw: RawSender::open().context("cannot open a raw socket")?,
        total: TokenBucket::new(TOTAL_PACKETS_PER_S, TOTAL_PACKETS_PER_S / 10),
        warned_at: BootTime::NEVER,
        warned_of: 0,
    };
    Ok((slow_path, worker))
}

impl SlowPath {
    /// Opens what `tunnels` need and is not open yet. What they no longer need stays open.
    pub fn serve<'a>(&mut self, tunnels: impl IntoIterator<Item = &'a Tunnel>) -> Result<()> {
        for tunnel in tunnels {
            for kind in kinds(format(tunnel)) {
                if self.kinds.contains(&kind) {
                    continue;
                }
                let source = Source::open(kind)?;
                self.kinds.push(kind);
                // The worker is gone only while the agent stops.
                let _ = self.sources.send(source);
            }
        }
        // If the pipe is full, the worker has a reason to look already.
        let _ = io::Write::write(&mut &self.wake, &[0]);
        Ok(())
    }
}

/// The sockets that a tunnel's packets, and messages about them, come to.
fn kinds(format: Format) -> [Kind; 2] {
    match (format.has(Format::IPV6), format.has(Format::UDP)) {
        (false, false) => [Kind::Gre4, Kind::Icmp4],
        (false, true) => [Kind::GreUdp4, Kind::Icmp4],
        (true, false) => [Kind::Gre6, Kind::Icmp6],
        (true, true) => [Kind::GreUdp6, Kind::Icmp6],
    }
}

impl Worker {
    /// Works until its [`SlowPath`] is dropped.
    pub fn run(mut self) {
        if let Err(error) = setpriority_process(Some(gettid()), NICE) {
            warn!(%error, "the slow path has the priority of any other thread");
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match self.wait() {
                Ok(Event::Stop) => return,
                Ok(Event::Ready(ready)) => {
                    for at in ready {
                        self.read(at, &mut buffer);
                    }
                    // Who had none of this share is the first to have of the next.
                    if !self.sources.is_empty() {
                        self.sources.rotate_left(1);
                    }
                    self.warn_of_losses();
                }
                Err(error) => {
                    error!(%error, "the slow path cannot wait for packets");
                    return;
                }
            }
        }
    }

    /// Waits for packets; while the rate is used up, for it alone.
    fn wait(&mut self) -> io::Result<Event> {
        let pause = self.total.ready_in(BATCH, clock::now());
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        let timeout = if pause.is_zero() {
            let sources = self.sources.iter();
            fds.extend(sources.map(|source| PollFd::new(source, PollFlags::IN)));
            None
        } else {
            Some(Timespec::try_from(pause).map_err(io::Error::other)?)
        };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Event::Ready(Vec::new())),
            Err(error) => return Err(error.into()),
        }
        let mut events = fds.iter().map(|fd| !fd.revents().is_empty());
        let woken = events.next().unwrap_or(false);
        let ready = events
            .enumerate()
            .filter_map(|(at, ready)| ready.then_some(at))
            .collect();
        drop(fds);
        if woken && self.is_over()? {
            return Ok(Event::Stop);
        }
        self.sources.extend(self.new_sources.try_iter());
        Ok(Event::Ready(ready))
    }

    fn is_over(&mut self) -> io::Result<bool> {
        match self.wake.read(&mut [0; 64]) {
            Ok(0) => Ok(true),
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a batch from the source at index `at`.
    fn read(&mut self, at: usize, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let now = clock::now();
            if !self.total.ready_in(1, now).is_zero() {
                break;
            }
            let received = match self.sources[at].receive(buffer) {
                Ok(None) => break,
                other => other,
            };
            self.total.take(now);
            match received {
                Ok(received) => received.into_iter().for_each(|one| self.take_in(one, now)),
                // Of an earlier packet of ours; it is told once.
                Err(error) => debug!(%error, kind = ?self.sources[at].kind, "cannot receive"),
            }
        }
        let drops = self.sources[at].new_drops();
        self.table.totals().queue_drops.add(drops.into());
    }

    fn take_in(&self, received: Received<'_>, now: BootTime) {
        let is_ours = |address| self.table.is_local(address);
        let totals = self.table.totals();
        let path_mtu = match received {
            Received::Gre(datagram) => return self.receive(&datagram, now),
            Received::Unreadable => return totals.unknown.add(1),
            Received::Icmp4(packet) => icmp::from_ipv4(packet, is_ours),
            Received::Icmp6(message) => icmp::from_ipv6(message, is_ours),
        };
        if let Some(path_mtu) = path_mtu
            && self.path_mtus.try_send(path_mtu).is_err()
        {
            totals.path_mtu_drops.add(1);
        }
    }

    fn receive(&self, datagram: &Datagram<'_>, now: BootTime) {
        let Some((header, tunnel)) = datagram
            .header()
            .and_then(|(header, key)| Some((header, self.table.find(&key)?)))
        else {
            return self.table.totals().unknown.add(1);
        };
        let counters = tunnel.counters();
        let mut state = tunnel.state();
        if !state.bucket.take(now) {
            return counters.rate_limited.add(1);
        }
        let entries = &tunnel.entries;
        let slot = entries.ingress.epoch_slot.into();
        let raise = |epoch| {
            let before = self.epochs.raise_epoch(slot, epoch);
            counters.epoch_raises.add(u64::from(before < epoch));
            before
        };
        let sequence = state.sequence(entries.ingress.format, now);
        match decapsulate(datagram, &header, entries, sequence, raise) {
            Ok(outcome) => self.carry_out(&outcome, counters),
            Err(refusal) => counters.refused(refusal),
        }
    }

    fn carry_out(&self, outcome: &Outcome<'_>, counters: &TunnelCounters) {
        let sent = match outcome {
            Outcome::Deliver {
                dataplane_ifindex,
                frame,
                inner_length,
                offload,
            } => match offload {
                None => self.packets.send(*dataplane_ifindex, frame),
                Some(offload) => {
                    let frame = segments::with_offload(offload, frame);
                    self.segments.send(*dataplane_ifindex, &frame)
                }
            }
            .map(|()| {
                counters.packets.add(1);
                counters.bytes.add(*inner_length as u64);
            }),
            Outcome::GiveBack {
                packet,
                destination,
            } => self
                .raw
                .send(packet, *destination)
                .map(|()| counters.keepalives_answered.add(1)),
            Outcome::KeepaliveHeard => {
                counters.keepalives_heard.add(1);
                Ok(())
            }
        };
        if let Err(error) = sent {
            debug!(%error, "cannot send on");
            counters.send_errors.add(1);
        }
    }

    /// Says at most once in a while that packets are lost at the sockets.
    fn warn_of_losses(&mut self) {
        let now = clock::now();
        let total = self.table.totals().queue_drops.get();
        let lost = total - self.warned_of;
        if lost > 0 && now.since(self.warned_at) >= WARN_INTERVAL {
            (self.warned_at, self.warned_of) = (now, total);
            warn!(
                lost,
                "more packets come by the slow path than the {TOTAL_PACKETS_PER_S}/s that it takes"
            );
        }
    }
}

enum Event {
    /// Indices of the sources that have packets.
    Ready(Vec<usize>),
    Stop,
}
