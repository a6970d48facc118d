//! `cargo xtask simulate`: groups of nodes under random faults, for as long as is wanted.

use anyhow::Result;

use crate::check_model::core_test;
use crate::process::run_timed;

#[derive(clap::Args)]
pub struct Args {
    /// How many steps of the virtual clock, each a quarter of a millisecond, all runs together take
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    steps: u64,
    /// The first run's; those after it count on from there
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

/// Fails at the first run that breaks a rule, and says by which seed.
pub fn simulate(args: &Args) -> Result<()> {
    run_timed(
        format_args!("simulate: {} steps from seed {}", args.steps, args.seed),
        core_test("sim::at_length")?
            .args(["--nocapture", "--ignored"])
            .env("SIMULATE_STEPS", args.steps.to_string())
            .env("SIMULATE_SEED", args.seed.to_string()),
    )
}
