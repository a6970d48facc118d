//! Fills the tables in front of the tunnels' hashes.

use anyhow::Result;
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
    if slots.read(number).is_for(&key) {
        slots.write(number, &S::holding(key, ingress));
    }
    Ok(())
}
