//! `cargo xtask bench`: what packets cost. A program of the tests' package, which measures programs
//! of the kernel that are built for it alone.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum as _;

use crate::build::build_program;
use crate::build_ebpf::{self, Programs};
use crate::process::{exec, heading, run};
use crate::vm::{self, Kernel};
use crate::{setup, workspace};

/// `arguments` are those of router-bench, `dataplane` being the default, and `--kernel`.
pub fn bench(mut arguments: Vec<OsString>) -> Result<ExitCode> {
    let kernel = match take_kernel(&mut arguments)? {
        None if compares(&arguments) && !has_gre() => Some(Kernel::V6_1),
        kernel => kernel,
    };
    setup::test_tools()?;
    build_ebpf::build_with(&setup::toolchain()?, Programs::Bench)?;
    let mut bench = build_program("router-bench")?;
    let is_aws = |what: &OsString| what == "aws";
    if arguments.first().is_some_and(is_aws) {
        setup::moto()?;
    }
    let of_agent = |what: &OsString| what == "heartbeat" || what == "failover" || is_aws(what);
    if arguments.first().is_some_and(of_agent) {
        heading("build: the optimized agent, which is measured");
        run(workspace::cargo("build")?.args(["--release", "--package", "router-agent"]))?;
        bench.env("ROUTER_BIN_DIR", workspace::target_dir()?.join("release"));
    }
    let output = workspace::target_dir()?.join("bench");
    bench
        .args(arguments)
        .env("ROUTER_BENCH_OBJECT", workspace::bench_object()?)
        .env("ROUTER_BENCH_OUTPUT", &output);
    match kernel {
        Some(kernel) => in_guest(kernel, &bench, &output),
        None => match exec(&mut bench)? {},
    }
}

/// The kernel of the guest that is asked for, if any, wherever it stands.
fn take_kernel(arguments: &mut Vec<OsString>) -> Result<Option<Kernel>> {
    let Some(at) = arguments.iter().position(|word| word == "--kernel") else {
        return Ok(None);
    };
    arguments.remove(at);
    ensure!(at < arguments.len(), "--kernel lacks a version");
    let version = arguments.remove(at);
    Kernel::from_str(&version.to_string_lossy(), false)
        .map(Some)
        .map_err(|_| anyhow!("--kernel {}: no such guest", version.display()))
}

/// Whether the kernel's own GRE is measured too.
fn compares(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|what| what == "vm-ratio")
}

fn has_gre() -> bool {
    let loaded = Command::new("modprobe")
        .args(["--quiet", "ip_gre"])
        .stderr(Stdio::null())
        .status();
    loaded.is_ok_and(|status| status.success())
}

fn in_guest(kernel: Kernel, bench: &Command, output: &Path) -> Result<ExitCode> {
    let mut command = vec![OsString::from("env")];
    for (name, value) in bench.get_envs() {
        let mut variable = name.to_owned();
        variable.push("=");
        variable.push(value.unwrap_or_default());
        command.push(variable);
    }
    command.push(bench.get_program().to_owned());
    command.extend(bench.get_args().map(OsStr::to_owned));
    vm::run(kernel, &command, Some(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<(Option<Kernel>, String)> {
        let mut words = text.split(' ').map(OsString::from).collect();
        let kernel = take_kernel(&mut words)?;
        Ok((kernel, words.join(OsStr::new(" ")).into_string().unwrap()))
    }

    #[test]
    fn the_kernel_may_stand_anywhere() {
        for text in [
            "vm-ratio --turns 1 --kernel 6.12",
            "--kernel 6.12 vm-ratio --turns 1",
            "vm-ratio --kernel 6.12 --turns 1",
        ] {
            let rest = "vm-ratio --turns 1".to_owned();
            assert_eq!(taken(text).unwrap(), (Some(Kernel::V6_12), rest));
        }
        assert_eq!(taken("live").unwrap(), (None, "live".to_owned()));
    }

    #[test]
    fn a_kernel_that_is_not_there_is_an_error() {
        assert!(taken("vm-ratio --kernel 2.4").is_err());
        assert!(taken("vm-ratio --kernel").is_err());
    }
}
