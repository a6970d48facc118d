//! A Debian as it is installed, under target/clean-root: what the package is tested in.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::run_timed;
use crate::setup;
use crate::workspace::target_dir;

const ARCHIVE: &str = "http://deb.debian.org/debian";
/// What a minimal one has not: an init, the bus by which that is spoken with, and what the package needs.
const PACKAGES: &str = "systemd-sysv,dbus,procps";

/// Finds or makes it. Quick when it is there.
pub fn provide() -> Result<()> {
    let root = target_dir()?.join("clean-root");
    if root.is_dir() {
        return Ok(());
    }
    setup::programs("what makes a clean Debian", &[("mmdebstrap", "mmdebstrap")])?;
    let partial = root.with_added_extension("partial");
    // Of a run that was interrupted.
    let _ = fs::remove_dir_all(&partial);
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--mode=root", "--variant=minbase"])
        .arg(format!("--include={PACKAGES}"))
        .arg("bookworm")
        .arg(&partial)
        .arg(ARCHIVE);
    run_timed(
        "setup: a clean Debian 12 to install the package in",
        &mut make,
    )?;
    fs::rename(&partial, &root)
        .with_context(|| format!("cannot rename {} to its final name", partial.display()))
}
