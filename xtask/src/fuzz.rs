//! `cargo xtask fuzz`: random input for the parsers of configurations and of what comes from the network.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{output, run_timed};
use crate::workspace;

/// cargo-fuzz's release.
const CARGO_FUZZ: &str = "0.13.2";
/// As in fuzz/fuzz_targets.
const TARGETS: [&str; 5] = ["config", "decapsulate", "gre", "heartbeat", "icmp"];

#[derive(clap::Args)]
pub struct Args {
    /// Only this target
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

/// Fails at the first input on which a target panics; libFuzzer says where it keeps that input.
pub fn fuzz(args: &Args) -> Result<()> {
    install()?;
    for target in TARGETS {
        if args.target.as_deref().is_none_or(|only| only == target) {
            run_target(target, args.seconds)?;
        }
    }
    Ok(())
}

fn install() -> Result<()> {
    let version = output(Command::new(workspace::cargo_program()).args(["fuzz", "--version"]));
    if version.is_some_and(|version| version.trim() == format!("cargo-fuzz {CARGO_FUZZ}")) {
        return Ok(());
    }
    let mut install = Command::new(workspace::cargo_program());
    install.args(["install", "--force", "--locked", "cargo-fuzz"]);
    install.args(["--version", CARGO_FUZZ]);
    run_timed(
        format_args!("fuzz: no cargo-fuzz {CARGO_FUZZ} yet"),
        &mut install,
    )
}

fn run_target(target: &str, seconds: u32) -> Result<()> {
    let fuzz = workspace::root().join("fuzz");
    let corpus = fuzz.join("corpus").join(target);
    std::fs::create_dir_all(&corpus)
        .with_context(|| format!("cannot create {}", corpus.display()))?;
    let mut cargo = Command::new(workspace::cargo_program());
    cargo
        .current_dir(&fuzz)
        .args(["fuzz", "run", target, "--target-dir"])
        .arg(workspace::target_dir()?.join("fuzz"))
        // The first folder also takes what is found.
        .arg(corpus)
        .arg(fuzz.join("seeds").join(target))
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg("-print_final_stats=1")
        // The sanitizer and the coverage flags are unstable, also where the compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1");
    run_timed(format_args!("fuzz: {target} for {seconds} s"), &mut cargo)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_target_is_run_and_has_seeds() {
        let names = |folder: &str| -> BTreeSet<String> {
            std::fs::read_dir(workspace::root().join("fuzz").join(folder))
                .unwrap()
                .map(|entry| {
                    let path = entry.unwrap().path();
                    path.file_stem().unwrap().to_str().unwrap().to_owned()
                })
                .collect()
        };
        let expected = TARGETS.map(str::to_owned).into();
        assert_eq!(names("fuzz_targets"), expected);
        assert_eq!(names("seeds"), expected);
    }
}
