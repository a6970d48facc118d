//! Fills the tables in front of the tunnels' hashes.

use std::io;

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use router_common::{
    map::TunnelIngress,
    slot::{SLOTS, Slot},
};

use super::MappedArray;

/// Puts a tunnel into its slot, or changes it there; nothing if another tunnel has the slot, for the
/// hash holds all.
pub fn set<S: Slot>(map: &MapData, key: S::Key, ingress: TunnelIngress) -> Result<()> {
    // See `router_common::slot` for what another machine would need.
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let number = S::number(&key);
    // For this moment only: the whole table in the agent's locked memory would be megabytes.
    let slots = MappedArray::<S>::around(map, number, SLOTS)?;
    let slot = slots.read(number);
    if !slot.is_for(&key) {
        return Ok(());
    }
    let differs =
        |before: &TunnelIngress| (before.index, before.format) != (ingress.index, ingress.format);
    if slot.held().is_some_and(|(_, before)| differs(before)) {
        slots.write(number, &slot.emptied());
        await_programs()?;
    }
    slots.write(number, &S::holding(key, ingress));
    Ok(())
}

/// Empties the slots of tunnels that are `gone`.
pub fn clear<S: Slot>(map: &MapData, gone: impl Fn(&S::Key, &TunnelIngress) -> bool) -> Result<()> {
    let slots = MappedArray::<S>::read_write(map, SLOTS)?;
    let mut any = false;
    for number in 0..SLOTS {
        let slot = slots.read(number);
        if slot.held().is_some_and(|(key, ingress)| gone(key, ingress)) {
            slots.write(number, &slot.emptied());
            any = true;
        }
    }
    if any { await_programs() } else { Ok(()) }
}

/// Returns when all programs that were running have ended: they run within RCU read-side critical
/// sections, and this waits until there have been none (membarrier(2), `MEMBARRIER_CMD_GLOBAL`).
fn await_programs() -> Result<()> {
    // SAFETY: a system call without memory arguments.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context("cannot wait for the running programs")
    }
}
