//! `cargo xtask bench`: what packets cost. A program of the tests' package, which measures programs
//! of the kernel that are built for it alone.

use std::ffi::OsString;

use anyhow::Result;

use crate::build::build_program;
use crate::build_ebpf::{self, Programs};
use crate::process::{exec, heading, run};
use crate::{setup, workspace};

/// `arguments` are those of router-bench, `dataplane` being the default.
pub fn bench(arguments: &[OsString]) -> Result<()> {
    build_ebpf::build_with(&setup::toolchain()?, Programs::Bench)?;
    let mut bench = build_program("router-bench")?;
    if arguments.first().is_some_and(|what| what == "heartbeat") {
        heading("build: the optimized agent, whose use of the CPU is measured");
        run(workspace::cargo("build")?.args(["--release", "--package", "router-agent"]))?;
        bench.env("ROUTER_BIN_DIR", workspace::target_dir()?.join("release"));
    }
    bench
        .args(arguments)
        .env("ROUTER_BENCH_OBJECT", workspace::bench_object()?)
        .env(
            "ROUTER_BENCH_OUTPUT",
            workspace::target_dir()?.join("bench"),
        );
    match exec(&mut bench)? {}
}
