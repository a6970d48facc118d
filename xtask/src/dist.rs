//! `cargo xtask dist`: a Debian package and a tarball under target/dist, of programs that need no
//! library of the system they run on.

mod debian;
mod tree;
mod version;

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::build_ebpf::{self, Programs};
use crate::process::{find_program, heading, note, output, run_timed};
use crate::{setup, workspace};

/// What is linked statically needs a libc that is made for it.
fn target() -> String {
    format!("{ARCH}-unknown-linux-musl")
}

pub fn dist() -> Result<()> {
    let toolchain = setup::toolchain()?;
    provide_target()?;
    build_ebpf::build_with(&toolchain, Programs::Router)?;
    let programs = build()?;

    let version = version::of_workspace()?;
    let into = workspace::target_dir()?.join("dist");
    // Of a run before this one; what lies there then is of one version.
    let _ = fs::remove_dir_all(&into);
    fs::create_dir_all(&into).with_context(|| format!("cannot create {}", into.display()))?;
    let tree = into.join(format!("router-agent-{version}"));
    heading(format_args!("dist: lay out version {version}"));
    tree::lay_out(&programs, &tree)?;
    let tarball = pack(&tree)?;
    shown(&tarball)?;
    if find_program("dpkg-deb").is_some() {
        shown(&debian::package(&tree, &version)?)?;
    } else {
        note("no Debian package: there is no dpkg-deb here");
    }
    fs::remove_dir_all(&tree)?;
    Ok(())
}

/// Finds or installs the standard library for [`target`], and a C compiler for it.
fn provide_target() -> Result<()> {
    let target = target();
    let has_target = || {
        let installed = output(Command::new("rustup").args(["target", "list", "--installed"]));
        installed.is_some_and(|list| list.lines().any(|line| line == target))
    };
    if !has_target() {
        let mut add = Command::new("rustup");
        add.args(["target", "add", &target]);
        run_timed("setup: no static standard library yet", &mut add)
            .with_context(|| format!("remedy: a toolchain of rustup that has target {target}"))?;
    }
    setup::programs(
        "a C compiler for static programs",
        &[("musl-gcc", "musl-tools")],
    )
}

/// The folder that holds the programs.
fn build() -> Result<PathBuf> {
    let target = target();
    let mut cargo = workspace::cargo("build")?;
    cargo
        .args([
            "--profile",
            "shipped",
            "--package",
            "router-agent",
            "--bins",
            "--target",
        ])
        .arg(&target);
    run_timed("dist: programs, linked statically", &mut cargo)?;
    let programs = workspace::target_dir()?.join(target).join("shipped");
    for program in tree::PROGRAMS {
        expect_static(&programs.join(program.name))?;
    }
    Ok(programs)
}

/// That a program asks for no loader and no library: the point of it all.
fn expect_static(program: &Path) -> Result<()> {
    let headers = output(
        Command::new("readelf")
            .args(["--program-headers", "--wide"])
            .arg(program),
    )
    .with_context(|| format!("readelf cannot read {}", program.display()))?;
    if headers.contains("INTERP") {
        bail!("{} is not linked statically", program.display());
    }
    Ok(())
}

/// A tarball beside the folder `tree`, with that folder in it, of root's.
fn pack(tree: &Path) -> Result<PathBuf> {
    let name = tree.file_name().context("a folder has a name")?;
    let mut file = name.to_owned();
    file.push(format!("-{ARCH}.tar.gz"));
    let tarball = tree.with_file_name(file);
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--gzip",
        "--owner=root:0",
        "--group=root:0",
        "--sort=name",
        "--file",
    ])
    .arg(&tarball)
    .arg("--directory")
    .arg(tree.parent().context("a folder has a parent")?)
    .arg(name);
    run_timed("dist: tarball", &mut tar)?;
    Ok(tarball)
}

fn shown(file: &Path) -> Result<()> {
    let kib = fs::metadata(file)?.len() / 1024;
    note(format_args!("{}: {kib} KiB", file.display()));
    Ok(())
}
