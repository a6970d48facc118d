//! `cargo xtask load` and `unload`: the kernel programs on an interface, without the daemon.

use anyhow::Result;
use clap::ValueEnum;

use crate::build::build_program;
use crate::process::exec;

#[derive(clap::Args)]
pub struct LoadArgs {
    /// Interface to attach to
    #[arg(long, value_name = "IF")]
    iface: String,
    /// Where XDP runs; without this, the agent chooses and says which
    #[arg(long)]
    mode: Option<Mode>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// In the driver
    Native,
    /// In the kernel's general receive path
    Generic,
}

pub fn load(args: &LoadArgs) -> Result<()> {
    let mut agent = build_program("router-agent")?;
    agent.args(["load", "--iface", &args.iface]);
    match args.mode {
        Some(Mode::Native) => agent.args(["--mode", "native"]),
        Some(Mode::Generic) => agent.args(["--mode", "generic"]),
        None => &mut agent,
    };
    match exec(&mut agent)? {}
}

pub fn unload() -> Result<()> {
    let mut agent = build_program("router-agent")?;
    agent.arg("unload");
    match exec(&mut agent)? {}
}
