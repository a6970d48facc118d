//! `cargo xtask bench`: what packets cost. A program of the tests' package.

use anyhow::Result;

use crate::build::build_program;
use crate::process::exec;

pub fn bench() -> Result<()> {
    match exec(&mut build_program("router-bench")?)? {}
}
