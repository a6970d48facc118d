//! Waiting for something to become true, with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

const INTERVAL: Duration = Duration::from_millis(10);

/// Asks `probe` again and again until it gives a value. Its `Err` says what is still missing; the
/// last one is part of the error when `within` is over.
pub fn until<T>(within: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(missing) if Instant::now() >= deadline => {
                return Err(missing.context(format!("not within {within:?}")));
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

/// Asks `probe` again and again for the whole of `during`; fails as soon as it does.
pub fn throughout(during: Duration, mut probe: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < during {
        if let Err(broken) = probe() {
            bail!("after {:?} of {during:?}: {broken:#}", start.elapsed());
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}
