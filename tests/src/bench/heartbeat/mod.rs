//! What heartbeats cost, how regular they are, and what disturbs them.

pub(super) mod distribution;
mod flood;
mod live;
mod programs;
mod sessions;
mod tap;
mod usage;

use std::fs;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use super::{report::output_directory, rounds};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Seconds of each state of the live pair, of the flood, and of each number of sessions; a
    /// quarter of it for each timing that is tried
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What to measure; all of it unless said
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Dead-intervals that `tightest` tries, in milliseconds
    #[arg(
        long,
        value_name = "MS",
        value_delimiter = ',',
        default_value = "20,10,6,4,3"
    )]
    dead_intervals_ms: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Nanoseconds in the program, by the kernel's test run
    Programs,
    /// Round trips, gaps and lateness of two agents, idle and with all CPUs busy
    Live,
    /// Ever shorter dead-intervals, with all CPUs busy
    Tightest,
    /// Forged heartbeats on the queue of the real ones
    Flood,
    /// CPU and memory for 1, 100 and 1,000 sessions, and at rest
    Sessions,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments {
        seconds,
        ref part,
        ref dead_intervals_ms,
    } = *arguments;
    for each in Part::value_variants() {
        if !part.is_empty() && !part.contains(each) {
            continue;
        }
        match each {
            Part::Programs => on_a_thread(programs::measure)?,
            Part::Live => live::measure(seconds)?,
            Part::Tightest => {
                live::measure_tightest(seconds.div_ceil(4), dead_intervals_ms)?;
            }
            Part::Flood => flood::measure(seconds)?,
            Part::Sessions => sessions::measure(seconds)?,
        }
    }
    Ok(())
}

/// For what stays on one CPU: agents that are started later shall not.
fn on_a_thread(work: fn() -> Result<()>) -> Result<()> {
    std::thread::spawn(work)
        .join()
        .map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

/// Writes `target/bench/NAME.json`.
fn publish(name: &str, figures: impl Serialize) -> Result<()> {
    let path = output_directory()?.join(format!("{name}.json"));
    let document = serde_json::json!({ "machine": rounds::machine(), "figures": figures });
    fs::write(&path, serde_json::to_string_pretty(&document)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}
