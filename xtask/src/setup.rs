//! `cargo xtask setup`: finds or installs what building and testing need.
//!
//! Idempotent, and quick when nothing is missing. Where it may not install, it says what to run.

use std::path::Path;

use anyhow::{Result, bail};

use crate::packages::{self, NoServices};
use crate::process::{find_program, heading, note, run_timed, shown};
use crate::toolchain::{self, DEBIAN_COMPILER, DEBIAN_LLVM, Shortfall, Toolchain};
use crate::vm::{self, Kernel};
use crate::{clean_root, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// Also the tools that namespace tests and the demo use
    #[arg(long)]
    tests: bool,
    /// Also the other failover software that peer tests compare with
    #[arg(long)]
    peers: bool,
    /// Also a virtual machine with this kernel
    #[arg(long, value_name = "KERNEL", num_args = 0..=1, require_equals = true, default_missing_value = "6.1")]
    vm: Option<Kernel>,
}

/// Programs that tests and the demo run, and the Debian packages they come in.
const TEST_TOOLS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
    ("ethtool", "ethtool"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("etcd", "etcd-server"),
];

/// Programs of other projects that peer tests run, where they may be, and their Debian packages.
const PEERS: [(&[&str], &str); 5] = [
    (
        &[
            "/usr/libexec/heartbeat/heartbeat",
            "/usr/lib/heartbeat/heartbeat",
        ],
        "heartbeat",
    ),
    (&["/usr/lib/frr/zebra"], "frr"),
    (&["/usr/lib/systemd/systemd"], "systemd"),
    (&["/usr/bin/dbus-daemon"], "dbus-daemon"),
    (&["/usr/sbin/conntrackd"], "conntrackd"),
];

/// The compiler that the client of etcd is generated with, and the definitions that it includes.
const PROTOC: [(&[&str], &str); 2] = [
    (
        &["/usr/bin/protoc", "/usr/local/bin/protoc"],
        "protobuf-compiler",
    ),
    (
        &[
            "/usr/include/google/protobuf/descriptor.proto",
            "/usr/local/include/google/protobuf/descriptor.proto",
        ],
        "libprotobuf-dev",
    ),
];

/// An emulator of AWS. The tests find it beside their programs, as `moto`.
const MOTO: &str = "moto[server]==5.2.5";

pub fn setup(args: &Args) -> Result<()> {
    toolchain()?;
    if args.tests {
        test_tools()?;
    }
    if args.peers {
        peers()?;
    }
    if let Some(kernel) = args.vm {
        vm::setup(kernel)?;
    }
    Ok(())
}

/// Finds or installs compiler and linker for BPF programs, and what else building needs.
pub fn toolchain() -> Result<Toolchain> {
    let mut found = Toolchain::find();
    if let Err(Shortfall::NoCompiler) = found {
        install_compiler();
        found = Toolchain::find();
    }
    if let Err(Shortfall::NoLinker) = found {
        install_linker();
        found = Toolchain::find();
    }
    match found {
        Ok(toolchain) => {
            heading(format_args!("setup: {toolchain}"));
            // Whoever names one has one.
            if std::env::var_os("PROTOC").is_none() {
                provide("protocol buffers", &missing(&PROTOC))?;
            }
            Ok(toolchain)
        }
        Err(shortfall) => bail!("{shortfall}. To mend this, run\n{}", remedy(&shortfall)),
    }
}

/// Debian's compiler where packages can be installed, else a nightly of rustup.
fn install_compiler() {
    let what = "no compiler for BPF programs yet";
    let installed = packages::can_install() && {
        attempt(packages::install(what, &DEBIAN_COMPILER));
        !matches!(Toolchain::find(), Err(Shortfall::NoCompiler))
    };
    if !installed && find_program("rustup").is_some() {
        attempt(run_timed(
            format_args!("setup: {what}"),
            &mut toolchain::install_nightly(),
        ));
    }
}

/// Builds bpf-linker, with the distribution's LLVM where there is none yet.
fn install_linker() {
    if !toolchain::has_llvm() && packages::can_install() {
        attempt(packages::install(
            "no LLVM to build bpf-linker with yet",
            &[DEBIAN_LLVM],
        ));
    }
    let mut install = toolchain::install_linker();
    attempt(run_timed("setup: no bpf-linker yet", &mut install));
}

/// One of several ways: a failure is told, and the next one tried.
fn attempt(way: Result<()>) {
    if let Err(error) = way {
        note(format_args!("did not work: {error:#}"));
    }
}

/// Exactly what to run where setup may not or cannot.
fn remedy(shortfall: &Shortfall) -> String {
    let linker = shown(&toolchain::install_linker());
    let llvm = packages::install_command(&[DEBIAN_LLVM]);
    match shortfall {
        Shortfall::NoCompiler => format!(
            "    {}\n  or, on Debian,\n    {}\n  then again\n    cargo xtask setup",
            shown(&toolchain::install_nightly()),
            packages::install_command(&DEBIAN_COMPILER),
        ),
        Shortfall::NoLinker if !toolchain::has_llvm() => format!("    {llvm}\n    {linker}"),
        Shortfall::NoLinker | Shortfall::Misfit(_) => format!("    {linker}"),
    }
}

pub fn test_tools() -> Result<()> {
    programs("tools for tests and the demo", &TEST_TOOLS)
}

/// Installs the packages of those programs that are missing, or says how to.
pub fn programs(what: &str, wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    provide(what, &missing)
}

pub fn peers() -> Result<()> {
    provide("peers to compare with", &missing(&PEERS))?;
    clean_root::provide()?;
    moto()
}

/// The packages of those files of which none of several is there.
fn missing(wanted: &[(&[&str], &'static str)]) -> Vec<&'static str> {
    wanted
        .iter()
        .filter(|(paths, _)| !paths.iter().any(|path| Path::new(path).is_file()))
        .map(|(_, package)| *package)
        .collect()
}

/// Installs moto if it is missing, or only half there.
pub fn moto() -> Result<()> {
    let directory = workspace::target_dir()?.join("moto");
    if directory.join("bin/moto_server").is_file() {
        return Ok(());
    }
    programs("Python, for moto", &[("python3", "python3-venv")])?;
    packages::python_environment("moto, which emulates AWS", &directory, MOTO)
}

/// Installs packages, if any are missing, or says how to.
fn provide(what: &str, missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        heading(format_args!("setup: {what}: all there"));
        return Ok(());
    }
    if !packages::can_install() {
        bail!(
            "{what}: missing {}. Run\n    {}",
            missing.join(", "),
            packages::install_command(missing)
        );
    }
    // Held until the packages are configured; they would start services on this machine.
    let _no_services = NoServices::new()?;
    packages::install(what, missing)
}
