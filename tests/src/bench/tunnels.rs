//! Time to make and to remove thousands of tunnels: their devices alone, and by a whole agent.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{report::output_directory, rounds};
use crate::{
    agent::{self, Agent},
    lab::{End, Lab, NodeSpec, Topology},
    many_tunnels,
};

const ROUTER: &str = "router";
const TIMEOUT: Duration = Duration::from_mins(5);

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// How many tunnels
    #[arg(long, default_value_t = 10_000)]
    count: u32,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let count = arguments.count;
    let devices = many_tunnels::measure(count)?;
    let (start, stop) = agent_times(count)?;
    println!("tunnels: {}, {count} tunnels", rounds::machine());
    let rows = [
        ("devices made", devices.creation),
        ("devices removed", devices.removal),
        ("agent, from start to running", start),
        ("agent, from SIGTERM to end", stop),
    ];
    for (name, time) in rows {
        println!("  {name:<32}{:>9.2} s", time.as_secs_f64());
    }
    let path = output_directory()?.join("tunnels.json");
    let seconds = rows.map(|(name, time)| (name, time.as_secs_f64()));
    let document = serde_json::json!({
        "machine": rounds::machine(),
        "count": count,
        "seconds": std::collections::BTreeMap::from(seconds),
    });
    fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}

/// From start to running, and from the request to stop to the end.
fn agent_times(count: u32) -> Result<(Duration, Duration)> {
    let topology = Topology::default()
        .node(NodeSpec::new(ROUTER))
        .node(NodeSpec::new("far"))
        .cable(
            End::new(ROUTER, "eth0").address("10.0.1.10/16"),
            End::new("far", "eth0").address("10.0.1.1/16"),
        );
    let lab = Lab::new(topology)?;
    lab.node(ROUTER)
        .ip_batch(&["route add default via 10.0.1.1".into()])?;
    let node = lab.node(ROUTER);
    let begin = Instant::now();
    let mut agent = Agent::start(node, &configuration(count)?)?;
    agent::await_running(node, TIMEOUT)?;
    let start = begin.elapsed();
    let begin = Instant::now();
    agent.signal(Signal::TERM)?;
    let status = agent.wait_within(TIMEOUT)?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok((start, begin.elapsed()))
}

/// Distinct remotes, every second tunnel with a key.
fn configuration(count: u32) -> Result<String> {
    let mut text = String::new();
    for number in 0..count {
        let name = format!("tun{number}");
        let inner = Ipv4Addr::from(172 << 24 | 16 << 16 | (4 * number + 1));
        let remote = Ipv4Addr::from(198 << 24 | 18 << 16 | (number + 1));
        writeln!(
            text,
            "set interfaces tunnel {name} address {inner}/30
set interfaces tunnel {name} encapsulation gre
set interfaces tunnel {name} local-ip 10.0.1.10
set interfaces tunnel {name} remote-ip {remote}"
        )?;
        if number % 2 == 1 {
            writeln!(
                text,
                "set interfaces tunnel {name} parameters ip key {number}"
            )?;
        }
    }
    Ok(text)
}
