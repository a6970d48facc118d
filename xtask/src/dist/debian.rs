//! The Debian package: the tree, and what dpkg is told about it.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::tree;
use crate::process::{output, run_timed};
use crate::workspace;

/// Files of `packaging/debian`, and whether dpkg runs them.
const CONTROL: [(&str, bool); 5] = [
    ("control", false),
    ("conffiles", false),
    ("postinst", true),
    ("prerm", true),
    ("postrm", true),
];

/// A package beside the folder `tree`, of what is in it.
pub fn package(tree: &Path, version: &str) -> Result<PathBuf> {
    let architecture = architecture()?;
    let kib = installed_kib(tree)?;
    for (file, is_run) in CONTROL {
        let path = workspace::root().join("packaging/debian").join(file);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .replace("@VERSION@", version)
            .replace("@ARCHITECTURE@", architecture)
            .replace("@KIB@", &kib);
        let mode = if is_run { 0o755 } else { 0o644 };
        tree::write(&tree.join("DEBIAN").join(file), text.as_bytes(), mode)?;
    }
    let package = tree.with_file_name(format!("router-agent_{version}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    build
        .args(["--build", "--root-owner-group"])
        .arg(tree)
        .arg(&package);
    run_timed("dist: Debian package", &mut build)?;
    Ok(package)
}

/// Debian's name for the processor.
fn architecture() -> Result<&'static str> {
    Ok(match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("Debian's name for {other} is not known here"),
    })
}

fn installed_kib(tree: &Path) -> Result<String> {
    let told = output(
        Command::new("du")
            .args(["--summarize", "--apparent-size", "--block-size=1024"])
            .arg(tree),
    );
    let told = told.context("du cannot measure what is to be packed")?;
    Ok(told
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}
