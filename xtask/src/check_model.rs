//! `cargo xtask check-model`: the failover core in every state that faults can bring it to.

use std::process::Command;

use anyhow::Result;

use crate::process::run_timed;
use crate::workspace;

#[derive(clap::Args)]
pub struct Args {
    /// Also with two faults at a time; takes many minutes
    #[arg(long)]
    deep: bool,
}

/// Says how many states there were.
pub fn check_model(args: &Args) -> Result<()> {
    run_timed(
        "check-model: one fault of any kind",
        core_test("model::what_is_promised_holds_in_every_state")?.arg("--nocapture"),
    )?;
    if args.deep {
        run_timed(
            "check-model: two faults",
            core_test("model::deep")?.args(["--nocapture", "--ignored"]),
        )?;
    }
    Ok(())
}

/// One test of the core, which is worth optimising fully.
pub fn core_test(name: &str) -> Result<Command> {
    let mut cargo = workspace::cargo("test")?;
    cargo.args(["--release", "--package", "router-cluster", "--lib"]);
    cargo.args(["--", "--exact", name]);
    Ok(cargo)
}
