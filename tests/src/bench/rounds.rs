//! Measuring several things in turn, so that what disturbs the machine disturbs all alike.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

/// Nanoseconds of one run, over many batches.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub min: f64,
    pub p10: f64,
    pub median: f64,
    pub p90: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| values[(values.len() - 1) * percent / 100];
        Self {
            min: at(0),
            p10: at(10),
            median: at(50),
            p90: at(90),
        }
    }
}

/// Takes each of `count` measurements once a round; the samples of each, in nanoseconds.
pub fn interleaved(
    rounds: usize,
    count: usize,
    mut measure: impl FnMut(usize) -> Result<Duration>,
) -> Result<Vec<Vec<f64>>> {
    let mut samples = vec![Vec::with_capacity(rounds); count];
    for _ in 0..rounds {
        for (index, samples) in samples.iter_mut().enumerate() {
            samples.push(measure(index)?.as_secs_f64() * 1e9);
        }
    }
    Ok(samples)
}

/// `f` of the samples that were taken in the same round.
pub fn combined<const N: usize>(samples: [&[f64]; N], f: impl Fn([f64; N]) -> f64) -> Spread {
    let rounds = samples.iter().map(|samples| samples.len()).min();
    let values = (0..rounds.unwrap_or(0)).map(|round| f(samples.map(|samples| samples[round])));
    Spread::of(values.collect())
}

/// Keeps the calling thread on the last CPU, which has the fewest interrupts as a rule; its number.
pub fn pin() -> Result<usize> {
    let cpu = std::thread::available_parallelism()?.get() - 1;
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).context("cannot stay on one CPU")?;
    Ok(cpu)
}

/// Machine and kernel, for who reads the figures later.
pub fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpus = text
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, name)| name);
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    format!("{model}, {cpus} CPUs, Linux {release}")
}
