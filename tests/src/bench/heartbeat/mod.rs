//! What heartbeats cost, how regular they are, and what disturbs them.

mod programs;

use anyhow::Result;

pub fn run() -> Result<()> {
    programs::measure()
}
