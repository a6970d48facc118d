//! `cargo xtask vm`: a command under another kernel. The guest sees this machine's files, cannot
//! change them, and has a processor in software: patience is needed, hardware is not.

mod guest;
mod image;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::process::{heading, is_root};

/// Kernels of Debian 12 that tests have been run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernel {
    /// Debian 12's own, the oldest that is supported: no TCX yet
    #[value(name = "6.1")]
    V6_1,
    /// From Debian 12's backports
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    pub fn version(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

/// How long a guest may run.
const MINUTES: u32 = 60;

#[derive(clap::Args)]
pub struct Args {
    /// Which kernel
    #[arg(long, default_value = "6.1")]
    kernel: Kernel,
    /// The guest is killed after so many minutes
    #[arg(long, default_value_t = MINUTES)]
    minutes: u32,
    /// What to run in the guest, as root
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs a command in a guest; its exit code.
pub fn vm(args: &Args) -> Result<ExitCode> {
    boot(args.kernel, &args.command, args.minutes, None)
}

/// As [`vm`], with a folder of this machine in which the command may write.
pub fn run(kernel: Kernel, command: &[OsString], writable: Option<&Path>) -> Result<ExitCode> {
    boot(kernel, command, MINUTES, writable)
}

fn boot(
    kernel: Kernel,
    command: &[OsString],
    minutes: u32,
    writable: Option<&Path>,
) -> Result<ExitCode> {
    if !is_root() {
        bail!(
            "a guest needs root: it reads all files of this machine. Run\n    \
             sudo -E env \"PATH=$PATH\" cargo xtask …"
        );
    }
    let image = image::provide(kernel)?;
    heading(format_args!(
        "vm: Linux {} boots; software emulation, about half a minute",
        kernel.version()
    ));
    guest::run(&image, command, minutes, writable)
}

/// Finds or installs all that a guest needs.
pub fn setup(kernel: Kernel) -> Result<()> {
    image::provide(kernel).map(drop)
}

/// The line of cargo's configuration that makes it run test programs in a guest: by this program.
pub fn as_runner(kernel: Kernel) -> Result<String> {
    let xtask = env::current_exe().context("cannot find this executable")?;
    let words = [
        &xtask.to_string_lossy(),
        "vm",
        "--kernel",
        kernel.version(),
        "--",
    ]
    .map(|word| format!("{word:?}"));
    Ok(format!(
        "target.'cfg(all())'.runner = [{}]",
        words.join(", ")
    ))
}
