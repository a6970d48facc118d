//! `cargo xtask lint`: formatting, and clippy over both worlds, warnings being errors.

use anyhow::Result;

use crate::build_ebpf::{self, Programs};
use crate::process::run_timed;
use crate::{setup, workspace};

const DENY_WARNINGS: [&str; 3] = ["--", "--deny", "warnings"];

pub fn lint() -> Result<()> {
    run_timed(
        "lint: formatting",
        workspace::cargo("fmt")?.args(["--all", "--check"]),
    )?;

    // The agent does not compile without the object it embeds.
    build_ebpf::build_with(&setup::toolchain()?, Programs::Router)?;
    run_timed(
        "lint: host crates",
        workspace::cargo("clippy")?
            .arg("--all-targets")
            .args(DENY_WARNINGS),
    )?;
    // All targets are those of the ordinary run. By name the others are found, too.
    run_timed(
        "lint: test programs",
        workspace::cargo("clippy")?
            .args(["--package", "router-tests", "--test", "*"])
            .args(DENY_WARNINGS),
    )?;

    // For the host's target: there a clippy is at hand, and aya-ebpf compiles there with stubs for
    // the kernel's helpers. Without `std` nothing can unwind, hence the panic setting.
    run_timed(
        "lint: kernel programs",
        workspace::cargo("clippy")?
            .args(["--package", "router-ebpf", "--all-features"])
            .args(DENY_WARNINGS)
            .env("CARGO_PROFILE_DEV_PANIC", "abort"),
    )
}
