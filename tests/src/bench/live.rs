//! Packets per second through real devices, all work of sender, router and sink on one CPU.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    report::{Report, Row, Section},
    rig::{Instruments, Rate, Reach, Rig, Router},
    rounds::{self, Spread},
};

#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Seconds of sending, for each row and turn
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Turns, each over all rows
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
}

/// What is measured.
pub struct Subject(pub &'static str, pub Router, pub Reach);

/// What is in all others too.
const INSTRUMENTS: Subject = Subject("sending and counting", Router::Counter, Reach::Sink);

const SUBJECTS: [Subject; 3] = [
    Subject("forwarded by the stack", Router::Ours, Reach::Sink),
    Subject("forwarded by XDP", Router::OursInTransit, Reach::Sink),
    Subject("no route behind it", Router::Ours, Reach::Device),
];

pub fn run(arguments: &Arguments) -> Result<()> {
    measure("live", &SUBJECTS, arguments)?.publish()
}

/// Measures all in turns. Rates are compared with the first's.
pub fn measure(
    benchmark: &'static str,
    subjects: &[Subject],
    arguments: &Arguments,
) -> Result<Report> {
    let cpu = rounds::pin()?;
    let during = Duration::from_secs(arguments.seconds);
    let mut instruments = Instruments::load()?;
    let mut rigs = Vec::new();
    for &Subject(name, router, reach) in [&INSTRUMENTS].into_iter().chain(subjects) {
        let rig = Rig::new(&mut instruments, router, reach).context(name)?;
        rigs.push((name, rig, Vec::new()));
    }
    for _ in 0..arguments.turns {
        for (name, rig, rates) in &mut rigs {
            rates.push(rig.measure(&mut instruments, during).context(*name)?);
        }
    }
    let spread = |rates: &[Rate], sending: f64| {
        Spread::of(rates.iter().map(|rate| rate.ns_each(sending)).collect())
    };
    // The plot has all rows side by side: `suffix` tells them apart.
    let section = |title: &str, suffix: &str, sending: f64, skipped: usize| {
        let (first, _, rates) = &rigs[1];
        let compared_with = spread(rates, sending).median;
        let rows = rigs[skipped..].iter().map(|(name, _, rates)| {
            let ns = spread(rates, sending);
            Row {
                name: format!("{name}{suffix}"),
                ratio: compared_with / ns.median,
                ns,
            }
        });
        Section {
            title: title.into(),
            relative_to: format!("rate of {first}"),
            rows: rows.collect(),
        }
    };
    let sending = spread(&rigs[0].2, 0.0).median;
    let sections = vec![
        section("ns for each packet", "", 0.0, 0),
        section("of these, the router's", ", alone", sending, 1),
    ];
    let mut conditions = vec![
        format!("veth, XDP live frames; sender, router and sink all on CPU {cpu}"),
        format!("{} turns over all rows, {during:?} each", arguments.turns),
    ];
    conditions.extend(rigs.iter().map(|(name, _, rates)| in_short(name, rates)));
    Ok(Report {
        benchmark,
        machine: rounds::machine(),
        conditions,
        sections,
    })
}

fn in_short(name: &str, rates: &[Rate]) -> String {
    let ns = Spread::of(rates.iter().map(|rate| rate.ns_each(0.0)).collect());
    let sent: u64 = rates.iter().map(|rate| rate.sent).sum();
    let arrived = rates.iter().map(|rate| rate.arrived).sum();
    let lost = sent.saturating_sub(arrived);
    let rate = 1e9 / ns.median;
    format!("{name}: {rate:.0} packets a second; of {sent} sent, {lost} did not arrive in time")
}
