//! `router-demo`: a failover to watch.

use std::process::ExitCode;

use clap::Parser as _;
use router_tests::demo::{Args, run};

fn main() -> ExitCode {
    run(&Args::parse())
}
