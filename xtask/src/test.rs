//! `cargo xtask test`: all tiers of tests, one after the other, and their sum.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::build::{self, build};
use crate::process::{heading, is_root, note};
use crate::summary::Summary;
use crate::vm::{self, Kernel};
use crate::{dist, setup, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// Only the tests that touch nothing outside their process
    #[arg(long, conflicts_with = "peers")]
    host_only: bool,
    /// Also with other failover software and an emulator of AWS, which are installed if missing
    #[arg(long)]
    peers: bool,
    /// Also, under another kernel in a virtual machine, our tunnel beside Linux's own
    #[arg(
        long,
        value_name = "KERNEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "6.1",
        conflicts_with = "host_only"
    )]
    vm: Option<Kernel>,
    /// Also so many rounds of random faults
    #[arg(
        long,
        value_name = "ROUNDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "200",
        conflicts_with = "host_only"
    )]
    chaos: Option<u32>,
    /// Filter and options for the test programs
    #[arg(last = true)]
    extra: Vec<OsString>,
}

/// Tests that need the same surroundings.
struct Tier {
    name: &'static str,
    packages: &'static [&'static str],
    /// Only these test programs, which `cargo test` leaves out by default.
    programs: &'static [&'static str],
    needs_root: bool,
    /// The test programs run in a guest.
    guest: Option<Kernel>,
    /// More rounds of random faults than an ordinary run has.
    rounds: Option<u32>,
}

const HOST: Tier = Tier {
    name: "host: unit, property and documentation tests",
    packages: &["router-agent", "router-cluster", "router-common", "xtask"],
    programs: &[],
    needs_root: false,
    guest: None,
    rounds: None,
};

const KERNEL: Tier = Tier {
    name: "kernel: program fixtures and network namespaces",
    packages: &["router-tests"],
    programs: &[],
    needs_root: true,
    guest: None,
    rounds: None,
};

const PEERS: Tier = Tier {
    name: "peers: beside other failover software, and with an emulator of AWS",
    packages: &["router-tests"],
    programs: &["peers", "aws", "units", "conntrack", "package"],
    needs_root: true,
    guest: None,
    rounds: None,
};

const VM: Tier = Tier {
    name: "vm: beside Linux's own tunnels",
    packages: &["router-tests"],
    programs: &["vm"],
    needs_root: true,
    guest: None,
    rounds: None,
};

const CHAOS: Tier = Tier {
    name: "chaos: random faults of routers, paths and etcd",
    programs: &["chaos"],
    ..KERNEL
};

/// What became of a tier.
enum Outcome {
    Ran {
        counts: Summary,
        success: bool,
        took: Duration,
    },
    NeedsRoot,
}

/// Fails when any tier failed, after all have run. The last line of output is the sum.
pub fn test(args: &Args) -> Result<ExitCode> {
    let mut tiers = vec![HOST];
    if !args.host_only {
        tiers.push(KERNEL);
    }
    if args.peers {
        tiers.push(PEERS);
    }
    if args.vm.is_some() {
        tiers.push(Tier {
            guest: args.vm,
            ..VM
        });
    }
    if args.chaos.is_some() {
        tiers.push(Tier {
            rounds: args.chaos,
            ..CHAOS
        });
    }
    if is_root() && !args.host_only {
        setup::test_tools()?;
        if args.peers {
            setup::peers()?;
        }
        if let Some(kernel) = args.vm {
            vm::setup(kernel)?;
        }
    }
    build(&build::Args::default())?;
    if is_root() && args.peers {
        dist::dist()?;
    }

    let mut outcomes = Vec::new();
    for tier in &tiers {
        outcomes.push((tier, tier.run(&args.extra)?));
    }
    Ok(report(&outcomes))
}

impl Tier {
    fn run(&self, extra: &[OsString]) -> Result<Outcome> {
        if self.needs_root && !is_root() {
            return Ok(Outcome::NeedsRoot);
        }
        heading(format_args!("test: {}", self.name));
        let start = Instant::now();
        let (mut counts, success) = stream(&mut self.command(extra)?)?;
        if !success && counts.failed == 0 {
            note("It did not build, or a test program died: counted as one failure");
            counts.failed = 1;
        }
        let took = start.elapsed();
        note(format_args!("{counts} in {:.1} s", took.as_secs_f64()));
        Ok(Outcome::Ran {
            counts,
            success,
            took,
        })
    }

    fn command(&self, extra: &[OsString]) -> Result<Command> {
        let mut cargo = workspace::cargo("test")?;
        cargo.arg("--no-fail-fast");
        for package in self.packages {
            cargo.args(["--package", package]);
        }
        for program in self.programs {
            cargo.args(["--test", program]);
        }
        if let Some(kernel) = self.guest {
            cargo.arg("--config").arg(vm::as_runner(kernel)?);
        }
        cargo.arg("--");
        if self.needs_root {
            // They share the kernel and its processors, and measure time.
            cargo.arg("--test-threads=1");
        }
        if let Some(rounds) = self.rounds {
            cargo.env("ROUTER_CHAOS_ROUNDS", rounds.to_string());
            // Each round says what happened in it.
            cargo.arg("--nocapture");
        }
        cargo.args(extra);
        Ok(cargo)
    }
}

/// Passes a test run's output on while counting; and whether it succeeded.
fn stream(command: &mut Command) -> Result<(Summary, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut counts = Summary::default();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            std::io::stdout().write_all(&line)?;
            if let Some(result) = Summary::parse(String::from_utf8_lossy(&line).trim_end()) {
                counts += result;
            }
            line.clear();
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((counts, status.success()))
}

/// One line for each tier, then the sum alone on its line.
fn report(outcomes: &[(&Tier, Outcome)]) -> ExitCode {
    let mut sum = Summary::default();
    let mut success = true;
    let mut left_out = false;
    heading("test: in sum");
    for (Tier { name, .. }, outcome) in outcomes {
        match outcome {
            Outcome::Ran {
                counts,
                success: tier_success,
                took,
            } => {
                let verdict = if *tier_success { "ok" } else { "FAILED" };
                note(format_args!(
                    "{verdict:6}  {name}: {counts} in {:.1} s",
                    took.as_secs_f64()
                ));
                sum += *counts;
                success &= tier_success;
            }
            Outcome::NeedsRoot => {
                note(format_args!("NOT RUN {name}: needs root"));
                left_out = true;
            }
        }
    }
    if left_out {
        note("The tests that did not run are not counted below. To run them all:");
        note("    sudo -E env \"PATH=$PATH\" cargo xtask test");
    }
    println!("{sum}");
    if success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
