//! What the demonstration prints, aligned for reading.

use std::{fmt::Display, time::Duration};

use router_common::time::BootTime;

use crate::clock::milliseconds_between;

pub fn heading(text: &str) {
    println!("\n{text}\n{}\n", "=".repeat(text.chars().count()));
}

pub fn step(text: impl Display) {
    println!("\n> {text}");
}

/// Output of a command, set off from ours.
pub fn quote(command: &str, output: &str) {
    println!("\n  $ {command}");
    for line in output.trim_end().lines() {
        println!("  {line}");
    }
}

pub fn fact(label: impl Display, value: impl Display) {
    println!(
        "  {label:<46} {value:>14}",
        label = label.to_string(),
        value = value.to_string()
    );
}

/// Instants relative to a first one.
pub struct Timeline {
    origin: BootTime,
    rows: Vec<(BootTime, String)>,
}

impl Timeline {
    pub fn from(origin: BootTime, label: String) -> Self {
        Self {
            origin,
            rows: vec![(origin, label)],
        }
    }

    /// Adds an instant; one that was never stamped says so.
    pub fn at(&mut self, instant: BootTime, label: String) {
        if instant.is_never() {
            fact(label, "not measured");
        } else {
            self.rows.push((instant, label));
        }
    }

    /// Prints the instants in their order.
    pub fn print(mut self) {
        self.rows.sort_by_key(|(instant, _)| *instant);
        for (instant, label) in self.rows {
            let offset = milliseconds_between(self.origin, instant);
            fact(label, format!("{offset:+.2} ms"));
        }
    }
}

/// Minimum, median and maximum of durations.
pub fn spread(label: &str, mut samples: Vec<Duration>) {
    samples.sort_unstable();
    let ms = |duration: &Duration| duration.as_secs_f64() * 1e3;
    match (
        samples.first(),
        samples.get(samples.len() / 2),
        samples.last(),
    ) {
        (Some(min), Some(median), Some(max)) => println!(
            "  {label:<46} min {:.2}  median {:.2}  max {:.2} ms ({} rounds)",
            ms(min),
            ms(median),
            ms(max),
            samples.len()
        ),
        _ => fact(label, "not measured"),
    }
}
