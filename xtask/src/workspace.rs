//! Where things are in the workspace, and cargo as the workspace is built with.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The folder of the root Cargo.toml.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Cargo's target directory, absolute.
pub fn target_dir() -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(dir).context("CARGO_TARGET_DIR is not a usable path"),
        None => Ok(default_target_dir()),
    }
}

fn default_target_dir() -> PathBuf {
    root().join("target")
}

/// The finished object with the kernel programs, which router-agent builds in.
pub fn ebpf_object() -> Result<PathBuf> {
    Ok(target_dir()?.join("bpf/router.o"))
}

/// The object that also holds the programs which the benchmark measures.
pub fn bench_object() -> Result<PathBuf> {
    Ok(target_dir()?.join("bpf/router-bench.o"))
}

/// A program that `cargo build` made.
pub fn binary(name: &str) -> Result<PathBuf> {
    Ok(target_dir()?.join("debug").join(name))
}

/// The cargo that runs this xtask.
pub fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// `cargo` in the workspace's root, for the host's crates.
pub fn cargo(subcommand: &str) -> Result<Command> {
    let target = target_dir()?;
    let mut cargo = Command::new(cargo_program());
    cargo.arg(subcommand).current_dir(root());
    if target != default_target_dir() {
        // Told only where it differs from what router-agent's build script expects: a variable
        // that comes and goes would rebuild the agent.
        cargo
            .env("CARGO_TARGET_DIR", target)
            .env("ROUTER_EBPF_OBJECT", ebpf_object()?);
    }
    Ok(cargo)
}
