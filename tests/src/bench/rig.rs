//! A sender, a router and a sink, veth between them, and packets through them as fast as they go.
//!
//! The sender is XDP with live frames: the kernel makes frames and redirects them into the veth, so
//! that sending costs little. The sink is an XDP program that counts and drops. Every softirq runs
//! where the sender runs: all the work is done by one CPU.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    TestRunAttrs, TestRunOptions,
    programs::{TestRun as _, XdpMode},
};
use router_common::{
    bench::{Bench, HEADERS},
    checksum,
    gre::Format,
    net::{ETH_P_IPV4, Ethernet, Ipv4},
};
use rustix::process::setpriority_process;

use super::rounds;
use crate::{
    agent::{self, Agent},
    frames::{LOCAL, Outer, inner_udp},
    kernel::Kernel,
    lab::{End, Lab, Node, NodeSpec, Topology},
};

const SENDER: &str = "sender";
pub(crate) const ROUTER: &str = "router";
const SINK: &str = "sink";
const TUNNEL: &str = "tun0";

const ROUTER_MAC: &str = "02:00:00:00:01:0a";
const SINK_ADDRESS: [u8; 4] = [10, 9, 0, 2];
/// Behind the sender, from where the packets are.
const SOURCE: [u8; 4] = [10, 8, 0, 9];
/// The router has no route there.
const NOWHERE: [u8; 4] = [203, 0, 113, 9];
const PAYLOAD: usize = 64;

/// Frames of one system call.
const CALL: u32 = 64 * 256;
/// Of the sender's thread: it takes a quarter of the CPU when softirqs want it too.
const NICE: i32 = 5;
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// What the router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// XDP that counts and drops what comes, in place of the sink: what both of them take alone.
    Counter,
    /// The stack, for packets that are in no tunnel.
    Stack,
    /// The kernel's `gre`.
    Linux,
    /// Our agent and its programs.
    Ours,
    /// As [`Router::Ours`], with transit to the sink.
    OursInTransit,
}

/// How far packets get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The tunnel's device: behind it the stack has no route.
    Device,
    /// The sink, or what stands in its place.
    Sink,
}

/// Packets that arrived of those that were sent.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub sent: u64,
    pub arrived: u64,
    pub seconds: f64,
}

impl Rate {
    /// Nanoseconds for each packet that arrived, when sending one, arrived or not, takes `sending`
    /// of them that do not count.
    #[expect(clippy::cast_precision_loss, reason = "far fewer packets than 2^52")]
    pub fn ns_each(self, sending: f64) -> f64 {
        (self.seconds * 1e9 - self.sent as f64 * sending) / self.arrived as f64
    }
}

/// The programs that send and count.
pub struct Instruments {
    kernel: Kernel,
}

impl Instruments {
    pub fn load() -> Result<Self> {
        Ok(Self {
            kernel: Kernel::for_benchmark()?,
        })
    }
}

/// A network in which one thing is measured, as often as one likes.
pub struct Rig {
    // Before the lab, so that it ends before the network does.
    _agent: Option<Agent>,
    lab: Lab,
    router: Router,
    reach: Reach,
}

impl Rig {
    pub fn new(instruments: &mut Instruments, router: Router, reach: Reach) -> Result<Self> {
        let lab = lab()?;
        let node = lab.node(ROUTER);
        let mut agent = None;
        match router {
            Router::Counter => {}
            // A veth takes redirected frames only where XDP runs; the other routers' programs do.
            Router::Stack => node.attach_pass("eth0")?,
            Router::Linux => {
                linux_tunnel(node)?;
                node.attach_pass("eth0")?;
            }
            Router::Ours | Router::OursInTransit => agent = Some(start_agent(node, router)?),
        }
        let way_back = match router {
            Router::Counter | Router::Stack => "via 10.0.2.10".to_owned(),
            _ => format!("dev {TUNNEL}"),
        };
        node.ip_batch(&[format!("route add 10.8.0.0/16 {way_back}")])?;
        let counter = match router {
            Router::Counter => node,
            _ => lab.node(SINK),
        };
        let program = instruments.kernel.xdp("bench_count");
        counter
            .run(|| program.attach("eth0", XdpMode::Driver))?
            .with_context(|| format!("cannot attach the counter on {}", counter.name()))?;
        Ok(Self {
            _agent: agent,
            lab,
            router,
            reach,
        })
    }

    /// Sends for `during`.
    pub fn measure(&self, instruments: &mut Instruments, during: Duration) -> Result<Rate> {
        let frame = self.frame();
        let sender = self.lab.node(SENDER);
        let ifindex = sender
            .run(|| fs::read_to_string("/sys/class/net/eth0/ifindex"))??
            .trim()
            .parse()?;
        let mut headers = [0; HEADERS];
        headers.copy_from_slice(&frame[..HEADERS]);
        instruments.kernel.set_bench(&Bench {
            headers,
            removed: 0,
            number_offset: 0,
            first: 0,
            end: 0,
            next: 0,
            step: 1,
            ifindex,
            padding: 0,
        });
        instruments.kernel.count_to(match self.router {
            Router::Counter => LOCAL,
            _ => SINK_ADDRESS,
        })?;
        let through_device = self.device_count()?;
        let start = Instant::now();
        let sent = sender.run(|| -> Result<u64> {
            rounds::pin()?;
            // The router goes first: what it has not taken when the queue before it is full is lost.
            setpriority_process(None, NICE)?;
            send_live(&mut instruments.kernel, &frame, CALL, during)
        })??;
        let seconds = start.elapsed().as_secs_f64();
        // What is still queued then is a few frames of many; it is let in before the next turn.
        let counted = instruments.kernel.arrived();
        let through_device = self.device_count()? - through_device;
        sleep(Duration::from_millis(100));
        let arrived = match self.reach {
            Reach::Device => through_device,
            Reach::Sink => counted,
        };
        ensure!(arrived > 0, "nothing arrived");
        ensure!(
            self.router != Router::OursInTransit || through_device < sent / 100,
            "{through_device} of {sent} packets took the way through the stack"
        );
        Ok(Rate {
            sent,
            arrived,
            seconds,
        })
    }

    /// Packets that came out of the tunnel's device.
    fn device_count(&self) -> Result<u64> {
        if matches!(self.router, Router::Counter | Router::Stack) {
            return Ok(0);
        }
        let path = format!("/sys/class/net/{TUNNEL}/statistics/rx_packets");
        let text = self
            .lab
            .node(ROUTER)
            .run(|| fs::read_to_string(&path))?
            .with_context(|| format!("cannot read {path}"))?;
        Ok(text.trim().parse()?)
    }

    fn frame(&self) -> Vec<u8> {
        assert_eq!(LOCAL, [10, 0, 1, 10], "as the lab has it");
        let mut inner = inner_udp(9, &[0; PAYLOAD]);
        inner[12..16].copy_from_slice(&SOURCE);
        inner[16..20].copy_from_slice(match self.reach {
            Reach::Device => &NOWHERE,
            Reach::Sink => &SINK_ADDRESS,
        });
        inner[10..12].fill(0);
        let sum = !checksum::sum(&inner[..Ipv4::LEN]);
        inner[10..12].copy_from_slice(&sum.to_be_bytes());
        let whole = Outer::new(Format::default()).around(ETH_P_IPV4, &inner);
        match self.router {
            Router::Stack => [&whole[..Ethernet::LEN], &inner].concat(),
            _ => whole,
        }
    }
}

/// Has the sending program of `kernel` send `frame`, `call` times in a system call, for `during`; how
/// many it sent. The kernel makes frames in bulks of 64, as its devices do.
pub(super) fn send_live(
    kernel: &mut Kernel,
    frame: &[u8],
    call: u32,
    during: Duration,
) -> Result<u64> {
    const BULK: u32 = 64;
    let program = kernel.xdp("bench_send");
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < during {
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat: call,
            attrs: TestRunAttrs::new().xdp_live_frames(BULK),
            ..TestRunOptions::default()
        })?;
        sent += u64::from(call);
    }
    Ok(sent)
}

/// The router has no tunnel yet.
pub(crate) fn lab() -> Result<Lab> {
    let topology = Topology::default()
        .node(NodeSpec::new(SENDER))
        .node(NodeSpec::new(ROUTER).forwarding())
        .node(NodeSpec::new(SINK))
        .cable(
            End::new(SENDER, "eth0").address("10.0.2.10/16"),
            End::new(ROUTER, "eth0")
                .mac(ROUTER_MAC)
                .address("10.0.1.10/16"),
        )
        .cable(
            End::new(ROUTER, "eth1").address("10.9.0.1/16"),
            End::new(SINK, "eth0")
                .mac("02:00:00:00:09:02")
                .address("10.9.0.2/16"),
        );
    let lab = Lab::new(topology)?;
    // Transit wants it so of what sends to it.
    for node in [SENDER, SINK] {
        lab.node(node)
            .exec(&["ethtool", "-K", "eth0", "tx", "off"])?;
    }
    // What nobody answers for need not be asked for.
    lab.node(ROUTER).ip_batch(&[
        "neigh replace 10.9.0.2 lladdr 02:00:00:00:09:02 dev eth1 nud permanent".into(),
    ])?;
    Ok(lab)
}

/// Our tunnel, carried by the agent.
fn start_agent(node: &Node, router: Router) -> Result<Agent> {
    let mut config = format!(
        "set interfaces tunnel {TUNNEL} address 169.254.0.1/24
set interfaces tunnel {TUNNEL} encapsulation gre
set interfaces tunnel {TUNNEL} local-ip 10.0.1.10
set interfaces tunnel {TUNNEL} remote-ip 10.0.2.10
"
    );
    if router == Router::OursInTransit {
        config += "set interfaces ethernet eth1 fast-path enable\n";
    }
    let agent = Agent::start(node, &config)?;
    agent::await_running(node, START_TIMEOUT)?;
    Ok(agent)
}

/// The kernel's tunnel.
fn linux_tunnel(node: &Node) -> Result<()> {
    node.ip_batch(&[
        format!("link add {TUNNEL} type gre local 10.0.1.10 remote 10.0.2.10 ttl 255"),
        format!("address add 169.254.0.1/24 dev {TUNNEL}"),
        format!("link set {TUNNEL} up"),
    ])
    .context("this kernel makes no GRE tunnel of its own: module ip_gre is missing")
}
