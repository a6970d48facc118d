//! `cargo xtask demo`: a failover to watch. The demo is a program of the tests' package; what its
//! arguments mean, and its help, are its own.

use std::ffi::OsString;

use anyhow::Result;

use crate::build::build_program;
use crate::process::exec;
use crate::setup;

pub fn demo(args: &[OsString]) -> Result<()> {
    setup::test_tools()?;
    // The scene of that name, which runs it.
    if args.iter().any(|arg| arg.to_string_lossy().contains("aws")) {
        setup::moto()?;
    }
    match exec(build_program("router-demo")?.args(args))? {}
}
