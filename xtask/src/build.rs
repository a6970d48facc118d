//! `cargo xtask build`: the kernel programs, then the host's crates around them.

use std::process::Command;

use anyhow::Result;

use crate::build_ebpf::{self, Programs};
use crate::process::{heading, run};
use crate::{setup, workspace};

#[derive(Default, clap::Args)]
pub struct Args {
    /// Optimized; the kernel programs always are
    #[arg(long)]
    release: bool,
}

pub fn build(args: &Args) -> Result<()> {
    let toolchain = setup::toolchain()?;
    build_ebpf::build_with(&toolchain, Programs::Router)?;
    heading("build: agent, tools and tests");
    let mut cargo = workspace::cargo("build")?;
    if args.release {
        cargo.arg("--release");
    }
    run(&mut cargo)
}

/// Everything in its development build; returns one of its programs, ready to run.
pub fn build_program(name: &str) -> Result<Command> {
    build(&Args::default())?;
    let program = workspace::binary(name)?;
    heading(format_args!("run: {}", program.display()));
    Ok(Command::new(program))
}
