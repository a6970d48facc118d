//! Fills the tables in front of the tunnels' hashes.

use anyhow::Result;
use aya::maps::MapData;
use router_common::{
    map::TunnelIngress,
    slot::{SLOTS, Slot},
};

use super::{MappedArray, elements::await_programs};

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

/// Whether packets of the tunnel of `key` find it in its slot, so that none looks for it in the hash.
pub fn has<S: Slot>(map: &MapData, key: &S::Key) -> Result<bool> {
    let number = S::number(key);
    let slot = MappedArray::<S>::around(map, number, SLOTS)?.read(number);
    Ok(slot.get(key).is_some())
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
