//! Heartbeats as they pass an interface, with the kernel's stamps.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow};
use router_common::{
    bench::HEARTBEAT_FRAME,
    heartbeat::{Content, Heartbeat, Kind},
    net::{ETH_P_IPV4, Ethernet, Ipv4, PROTO_GRE},
    packet::Packet as _,
};

use super::distribution::Distribution;
use crate::{article::Router, lab::Node, passing::Passing};

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
        let passing = Passing::at(node, interface)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let address: std::net::Ipv4Addr = router.underlay.parse()?;
        let thread = thread::spawn(move || listen(passing, &stopped, address.octets(), keepalive));
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
    mut passing: Passing,
    stop: &AtomicBool,
    router: [u8; 4],
    keepalive: Duration,
) -> Result<Heard> {
    let keepalive_ns = u64::try_from(keepalive.as_nanos())?;
    let mut heard = Heard::default();
    while !stop.load(Ordering::Relaxed) {
        let mut frame = [0; 256];
        let Some((length, at_ns)) = passing.next(&mut frame)? else {
            continue;
        };
        if let Some((source, message)) = heartbeat(&frame[..length]) {
            heard.take_in(&message, source == router, at_ns, keepalive_ns);
        }
    }
    heard.dropped = passing.dropped()?;
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
