//! Our tunnel beside the kernel's own on the same packets: decapsulate and forward. Needs a kernel
//! with ip_gre, as Debian's in a VM.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    live::{self, Fate, Rate},
    rounds,
};
use crate::lab::Lab;

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Seconds of sending, for each turn
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Turns of each of the two, one after the other
    #[arg(long, default_value_t = 5)]
    turns: usize,
}

const OURS: &str = "router: decapsulated and forwarded";
const THEIRS: &str = "ip_gre: decapsulated and forwarded";

pub fn run(arguments: &Arguments) -> Result<()> {
    let cpu = rounds::pin()?;
    let during = Duration::from_secs(arguments.seconds);
    // First, as it may not be there.
    linux_tunnel().map(drop)?;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..arguments.turns {
        let lab = live::lab(Fate::Forwarded)?;
        let agent = live::start_our_tunnel(&lab)?;
        ours.push(live::measure(&lab, OURS, Fate::Forwarded, during)?);
        agent.terminate()?;
        let lab = linux_tunnel()?;
        sleep(Duration::from_millis(200));
        theirs.push(live::measure(&lab, THEIRS, Fate::Forwarded, during)?);
    }
    let ratio = median(&ours) / median(&theirs);
    println!("vm-ratio: {}", rounds::machine());
    println!("  veth, XDP live frames; sender, softirq and stack all on CPU {cpu}");
    let rates = [ours, theirs].concat();
    live::print(&rates);
    println!("  ratio of the medians: {ratio:.2} (goal, for information: 3)");
    live::write("vm-ratio", &rates)
}

fn median(rates: &[Rate]) -> f64 {
    rounds::Spread::of(rates.iter().map(|rate| rate.per_second).collect()).median
}

/// The kernel's tunnel. The underlay runs an XDP program that passes, because a veth takes
/// redirected frames only so; it is what the same frames meet before our programs.
fn linux_tunnel() -> Result<Lab> {
    let lab = live::lab(Fate::Forwarded)?;
    let router = live::router(&lab);
    router
        .ip_batch(&[
            "link add tun0 type gre local 10.0.1.10 remote 10.0.2.10 ttl 255".into(),
            "address add 169.254.0.1/24 dev tun0".into(),
            "link set tun0 up".into(),
        ])
        .context("this kernel makes no GRE tunnel of its own: module ip_gre is missing; run this in a VM whose kernel has it")?;
    router.attach_pass("eth0")?;
    Ok(lab)
}
