//! `cargo xtask run -- ARGS…`: the agent as just built.

use std::ffi::OsString;

use anyhow::Result;

use crate::build::build_program;
use crate::process::exec;

pub fn run(args: &[OsString]) -> Result<()> {
    match exec(build_program("router-agent")?.args(args))? {}
}
