//! Figures as a table, as JSON and as a plot.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{plot, rounds::Spread};

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// Nanoseconds.
    pub ns: Spread,
    /// Median in parts of what it is compared with.
    pub ratio: f64,
}

/// What was measured together.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    pub title: String,
    /// What `ratio` is relative to.
    pub relative_to: String,
    pub rows: Vec<Row>,
}

/// Figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub benchmark: &'static str,
    pub machine: String,
    pub conditions: Vec<String>,
    pub sections: Vec<Section>,
}

impl Report {
    /// Prints the table, and writes JSON and plot.
    pub fn publish(&self) -> Result<()> {
        println!("{}: {}", self.benchmark, self.machine);
        for condition in &self.conditions {
            println!("  {condition}");
        }
        for section in &self.sections {
            println!(
                "\n{:<42}{:>8}{:>8}{:>8}{:>8}   × {}",
                section.title, "median", "min", "p10", "p90", section.relative_to
            );
            for Row { name, ns, ratio } in &section.rows {
                let Spread {
                    min,
                    p10,
                    median,
                    p90,
                } = ns;
                println!("  {name:<40}{median:>8.1}{min:>8.1}{p10:>8.1}{p90:>8.1}{ratio:>8.2}");
            }
        }
        let directory = output_directory()?;
        let json = directory.join(format!("{}.json", self.benchmark));
        fs::write(&json, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", json.display()))?;
        let svg = directory.join(format!("{}.svg", self.benchmark));
        plot::bars(self, &svg)?;
        println!("\nwritten: {}, {}", json.display(), svg.display());
        Ok(())
    }
}

/// Where files go: as xtask says, else into the working directory's `target/bench`.
pub fn output_directory() -> Result<PathBuf> {
    let directory = env::var_os("ROUTER_BENCH_OUTPUT").map_or("target/bench".into(), PathBuf::from);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}
