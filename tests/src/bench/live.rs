//! Packets per second through real devices: a sender and a router, veth between them, all work of
//! both on one CPU.
//!
//! The sender is XDP with live frames: the kernel makes frames and redirects them into the veth,
//! so that sending costs little. The receiving device's softirq runs where the sender runs.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    TestRunAttrs, TestRunOptions,
    programs::{TestRun as _, Xdp},
};
use router_common::{
    bench::{Bench, HEADERS},
    gre::Format,
    net::{ETH_P_IPV4, Ipv4},
};
use serde::Serialize;

use super::{report::output_directory, rounds};
use crate::{
    agent::{self, Agent},
    frames::{LOCAL, Outer, inner_udp},
    kernel::Kernel,
    lab::{End, Lab, Node, NodeSpec, Topology},
    poll,
};

const SENDER: &str = "sender";
const ROUTER: &str = "router";
const SINK: &str = "sink";
const TUNNEL: &str = "tun0";

/// Frames of one system call, and of one bulk within it.
const CALL: u32 = 64 * 256;
const BULK: u32 = 64;
const START_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Seconds of sending, for each row
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// What a receiver does with the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The stack finds no route and drops them behind the tunnel.
    Delivered,
    /// The stack forwards them out of another interface.
    Forwarded,
}

/// Packets that a receiver got of those that were sent.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    pub name: String,
    pub sent: u64,
    pub arrived: u64,
    pub seconds: f64,
    pub per_second: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let cpu = rounds::pin()?;
    let during = Duration::from_secs(arguments.seconds);
    let mut rates = Vec::new();
    for (name, fate) in [
        ("decapsulated into the tunnel", Fate::Delivered),
        ("decapsulated and forwarded by the stack", Fate::Forwarded),
    ] {
        let lab = lab(fate)?;
        let agent = start_our_tunnel(&lab)?;
        rates.push(measure(&lab, name, fate, during)?);
        agent.terminate()?;
    }
    println!("live: {}", rounds::machine());
    println!("  veth, XDP live frames; sender, softirq and stack all on CPU {cpu}");
    print(&rates);
    write("live", &rates)
}

pub fn print(rates: &[Rate]) {
    for Rate {
        name,
        sent,
        arrived,
        seconds,
        per_second,
    } in rates
    {
        println!(
            "  {name:<42}{per_second:>12.0} packets/s ({arrived} of {sent} in {seconds:.2} s)"
        );
    }
}

/// Writes `target/bench/NAME.json`.
pub fn write(name: &str, rates: &[Rate]) -> Result<()> {
    let path = output_directory()?.join(format!("{name}.json"));
    let document = serde_json::json!({ "machine": rounds::machine(), "rates": rates });
    fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Sender, router and what is behind the router. The router has no tunnel yet.
pub fn lab(fate: Fate) -> Result<Lab> {
    let mut router = NodeSpec::new(ROUTER);
    if fate == Fate::Forwarded {
        router = router.forwarding();
    }
    let topology = Topology::default()
        .node(NodeSpec::new(SENDER))
        .node(router)
        .node(NodeSpec::new(SINK))
        .cable(
            End::new(SENDER, "eth0").address("10.0.2.10/16"),
            End::new(ROUTER, "eth0")
                .mac("02:00:00:00:01:0a")
                .address("10.0.1.10/16"),
        )
        .cable(
            End::new(ROUTER, "eth1").address("10.9.0.1/16"),
            End::new(SINK, "eth0")
                .mac("02:00:00:00:09:02")
                .address("10.9.0.2/16"),
        );
    let lab = Lab::new(topology)?;
    // What nobody answers for need not be asked for.
    lab.node(ROUTER).ip_batch(&[
        "neigh replace 10.9.0.2 lladdr 02:00:00:00:09:02 dev eth1 nud permanent".into(),
    ])?;
    Ok(lab)
}

/// Our tunnel, carried by the agent.
pub fn start_our_tunnel(lab: &Lab) -> Result<Agent> {
    let node = lab.node(ROUTER);
    let config = format!(
        "set interfaces tunnel {TUNNEL} address 169.254.0.1/24
set interfaces tunnel {TUNNEL} encapsulation gre
set interfaces tunnel {TUNNEL} local-ip 10.0.1.10
set interfaces tunnel {TUNNEL} remote-ip 10.0.2.10
"
    );
    let agent = Agent::start(node, &config)?;
    poll::until(START_TIMEOUT, || {
        let log = agent::log(node);
        ensure!(
            log.contains("running"),
            "the agent does not run yet:\n{log}"
        );
        Ok(())
    })?;
    Ok(agent)
}

/// The router's namespace.
pub fn router(lab: &Lab) -> &Node {
    lab.node(ROUTER)
}

/// Sends for `during`; what the tunnel, or the interface behind the router, counted.
pub fn measure(lab: &Lab, name: &str, fate: Fate, during: Duration) -> Result<Rate> {
    let counter = match fate {
        Fate::Delivered => format!("/sys/class/net/{TUNNEL}/statistics/rx_packets"),
        Fate::Forwarded => "/sys/class/net/eth1/statistics/tx_packets".into(),
    };
    let count = || -> Result<u64> {
        let text = router(lab).run(|| fs::read_to_string(&counter))??;
        Ok(text.trim().parse()?)
    };
    let sender = lab.node(SENDER);
    let ifindex = sender
        .run(|| fs::read_to_string("/sys/class/net/eth0/ifindex"))??
        .trim()
        .parse()?;
    // The router's stack shall find a route in the one case, and none in the other.
    let mut inner = inner_udp(9, &[0; 64]);
    inner[12..16].copy_from_slice(&[169, 254, 0, 2]);
    inner[16..20].copy_from_slice(match fate {
        Fate::Delivered => &[203, 0, 113, 9],
        Fate::Forwarded => &[10, 9, 0, 2],
    });
    inner[10..12].fill(0);
    let sum = !router_common::checksum::sum(&inner[..Ipv4::LEN]);
    inner[10..12].copy_from_slice(&sum.to_be_bytes());
    let frame = Outer::new(Format::default()).around(ETH_P_IPV4, &inner);
    assert_eq!(LOCAL, [10, 0, 1, 10], "as the lab has it");

    let mut kernel = Kernel::for_benchmark()?;
    let mut headers = [0; HEADERS];
    headers.copy_from_slice(&frame[..HEADERS]);
    kernel.set_bench(&Bench {
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
    let program: &mut Xdp = kernel
        .programs
        .program_mut("bench_send")
        .context("the object has no program bench_send")?
        .try_into()?;
    let before = count()?;
    let start = Instant::now();
    let mut sent = 0;
    sender.run(|| -> Result<()> {
        rounds::pin()?;
        while start.elapsed() < during {
            program.test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: CALL,
                attrs: TestRunAttrs::new().xdp_live_frames(BULK),
                ..TestRunOptions::default()
            })?;
            sent += u64::from(CALL);
        }
        Ok(())
    })??;
    let seconds = start.elapsed().as_secs_f64();
    // What is still queued is a few frames of many; it is let in before the next measurement.
    let arrived = count()? - before;
    sleep(Duration::from_millis(100));
    ensure!(arrived > 0, "{name}: nothing arrived");
    #[expect(clippy::cast_precision_loss, reason = "far fewer packets than 2^52")]
    let per_second = arrived as f64 / seconds;
    Ok(Rate {
        name: name.into(),
        sent,
        arrived,
        seconds,
        per_second,
    })
}
