//! Set-up, builds, demonstration and tests of the workspace: `cargo xtask --help`.
//!
//! One file per subcommand; [`toolchain`] knows how BPF programs are compiled, [`packages`] how
//! tools are installed, [`process`] how commands are run and shown.

mod bench;
mod build;
mod build_ebpf;
mod check_model;
mod clean_root;
mod demo;
mod dist;
mod fuzz;
mod lint;
mod load;
mod packages;
mod process;
mod run;
mod setup;
mod simulate;
mod summary;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Set-up, builds, demonstration and tests of the pair of routers.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
enum Cmd {
    /// Find or install what building needs; says what to run where it may not install
    Setup(setup::Args),
    /// Build the kernel programs into target/bpf/router.o
    BuildEbpf,
    /// Build everything: kernel programs, agent, tools
    Build(build::Args),
    /// Build, then run router-agent with the arguments given
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build, then load and attach the programs on an interface
    Load(load::LoadArgs),
    /// Build, then detach and unload the programs
    Unload,
    /// Build, then show a failover between two nodes on this machine; all arguments go to the demo
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build, then run all tests; the last line counts them
    Test(test::Args),
    /// Build, then measure what packets cost; needs root; arguments go to router-bench, but for
    /// `--kernel 6.1`, which has it run in a guest
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Check the failover core in every state that faults can bring it to
    CheckModel(check_model::Args),
    /// Simulate groups of nodes under random faults; a failure tells the seed that replays it
    Simulate(simulate::Args),
    /// Feed random input to the parsers of what comes from the network
    Fuzz(fuzz::Args),
    /// Run a command under another kernel, in a virtual machine that sees this machine's files
    Vm(vm::Args),
    /// Build, then make a Debian package and a tarball under target/dist
    Dist,
    /// Check formatting and run clippy over host crates and kernel programs
    Lint,
}

fn main() -> ExitCode {
    match dispatch(Cmd::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cmd: Cmd) -> Result<ExitCode> {
    match cmd {
        Cmd::Setup(args) => setup::setup(&args)?,
        Cmd::BuildEbpf => build_ebpf::build_ebpf()?,
        Cmd::Build(args) => build::build(&args)?,
        Cmd::Run { args } => run::run(&args)?,
        Cmd::Load(args) => load::load(&args)?,
        Cmd::Unload => load::unload()?,
        Cmd::Demo { args } => demo::demo(&args)?,
        Cmd::Test(args) => return test::test(&args),
        Cmd::Bench { args } => return bench::bench(args),
        Cmd::CheckModel(args) => check_model::check_model(&args)?,
        Cmd::Simulate(args) => simulate::simulate(&args)?,
        Cmd::Fuzz(args) => fuzz::fuzz(&args)?,
        Cmd::Vm(args) => return vm::vm(&args),
        Cmd::Dist => dist::dist()?,
        Cmd::Lint => lint::lint()?,
    }
    Ok(ExitCode::SUCCESS)
}
