//! `router-bench`: what packets and tunnels cost. `cargo xtask bench` builds and starts it.

use anyhow::Result;
use clap::{Parser, Subcommand};
use router_tests::bench::{aws, dataplane, failover, heartbeat, live, tunnels, vm_ratio};

/// Measures; nothing is judged by timing.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; `dataplane` unless said
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// From the decision to take over until the requests to AWS are on the cable; moto plays EC2
    Aws(aws::Arguments),
    /// Nanoseconds of each program, by the kernel's test run
    Dataplane,
    /// From the loss of power of the active node to the first packet through its successor
    Failover(failover::Arguments),
    /// What heartbeats cost, how regular they are, and what disturbs them
    Heartbeat(heartbeat::Arguments),
    /// Packets through veth into a tunnel and beyond, one core
    Live(live::Arguments),
    /// Time to make and remove thousands of tunnels
    Tunnels(tunnels::Arguments),
    /// The same beside the kernel's own GRE; needs a kernel with ip_gre
    VmRatio(live::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        Some(What::Aws(arguments)) => aws::run(&arguments),
        None | Some(What::Dataplane) => dataplane::run(),
        Some(What::Failover(arguments)) => failover::run(&arguments),
        Some(What::Heartbeat(arguments)) => heartbeat::run(&arguments),
        Some(What::Live(arguments)) => live::run(&arguments),
        Some(What::Tunnels(arguments)) => tunnels::run(&arguments),
        Some(What::VmRatio(arguments)) => vm_ratio::run(&arguments),
    }
}
