//! A router's requests to EC2 as they pass its cable.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Result, anyhow, ensure};
use router_common::{
    net::{ETH_P_IPV4, Ethernet, Ipv4, PROTO_TCP},
    packet::Packet as _,
    time::BootTime,
};

use crate::{
    article::{CLOUD, Router, cloud_interface},
    lab::Lab,
    passing::Passing,
};

/// Of plain HTTP, in network order.
const PORT: [u8; 2] = 80_u16.to_be_bytes();
/// RFC 9293 §3.1: where in the header, and of which bits.
const FLAGS: usize = 13;
const SYN: u8 = 2;
/// More than a request has.
const LONGEST: usize = 4096;

/// A request, when its first byte passed.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: BootTime,
    /// When the router began to connect; `NEVER` if that was not seen.
    pub connecting: BootTime,
    /// Its body.
    pub text: String,
}

impl Request {
    /// Whether it lets a resource lead to another node, and is meant.
    pub fn moves(&self) -> bool {
        let action = self.text.split('&').next().unwrap_or_default();
        let moves = [
            "Action=ReplaceRoute",
            "Action=CreateRoute",
            "Action=AssociateAddress",
            "Action=AssignPrivateIpAddresses",
        ];
        moves.contains(&action) && !self.text.contains("DryRun")
    }
}

/// Listens at a router's cable until it is asked to stop.
pub struct Requests {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Request>>>,
}

impl Requests {
    pub fn listen(lab: &Lab, router: Router) -> Result<Self> {
        let mut passing = Passing::at(lab.node(CLOUD), cloud_interface(router.name))?;
        let source: Ipv4Addr = router.underlay.parse()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut connections = Connections::default();
            let mut frame = [0; LONGEST];
            while !stopped.load(Ordering::Relaxed) {
                if let Some((length, at_ns)) = passing.next(&mut frame)? {
                    let at = BootTime::from_ns(at_ns);
                    connections.take_in(&frame[..length], source.octets(), at);
                }
            }
            let dropped = passing.dropped()?;
            ensure!(dropped == 0, "{dropped} packets were not seen");
            Ok(connections.requests)
        });
        Ok(Self { stop, thread })
    }

    pub fn finish(self) -> Result<Vec<Request>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the thread that listens panicked"))?
    }
}

#[derive(Default)]
struct Connections {
    /// When each was begun, and its latest request, by the router's port.
    connecting: HashMap<[u8; 2], BootTime>,
    begun: HashMap<[u8; 2], BootTime>,
    requests: Vec<Request>,
}

impl Connections {
    fn take_in(&mut self, frame: &[u8], router: [u8; 4], at: BootTime) {
        let Some((port, flags, payload)) = segment(frame, router) else {
            return;
        };
        if flags & SYN != 0 {
            self.connecting.insert(port, at);
        }
        if payload.starts_with(b"POST ") {
            self.begun.insert(port, at);
        }
        // The body may come by itself.
        let text = String::from_utf8_lossy(payload);
        if let (Some(body), Some(at)) = (text.find("Action="), self.begun.get(&port)) {
            let connecting = self.connecting.get(&port);
            self.requests.push(Request {
                at: *at,
                connecting: connecting.copied().unwrap_or(BootTime::NEVER),
                text: text[body..].to_owned(),
            });
        }
    }
}

/// Source port, flags and payload of what `router` sends to port 80.
fn segment(frame: &[u8], router: [u8; 4]) -> Option<([u8; 2], u8, &[u8])> {
    let ethernet: Ethernet = frame.read(0)?;
    let ip: Ipv4 = frame.read(Ethernet::LEN)?;
    let is_ours = ethernet.ether_type() == ETH_P_IPV4
        && ip.protocol == PROTO_TCP
        && !ip.has_options()
        && ip.source == router;
    let tcp = frame.get(Ethernet::LEN + Ipv4::LEN..)?;
    let (source, destination): ([u8; 2], [u8; 2]) = (tcp.read(0)?, tcp.read(2)?);
    // The upper four bits of the octet before the flags: the header's length in words of four.
    let length = usize::from(*tcp.get(FLAGS - 1)? >> 4) * 4;
    let flags = *tcp.get(FLAGS)?;
    let payload = tcp.get(length..)?;
    (is_ours && destination == PORT).then_some((source, flags, payload))
}
