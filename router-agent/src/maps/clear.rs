//! `clear interfaces tunnel epochs`: forgets what tunnels received.

use aya::maps::Array;
use router_common::map::{EpochSlot, MAX_GROUPS};

use super::{MapsError, PinnedMaps, catalogue::Known};

/// Forgets the newest epochs that came by tunnels, so that lower ones are believed again; how many of
/// them there were. Our own stay.
pub fn clear_epochs(pins: &PinnedMaps) -> Result<usize, MapsError> {
    let known = Known::Epochs;
    let name = known.name();
    let failed = |source| MapsError::Read { name, source };
    let map = pins.open_known(known)?;
    let mut epochs = Array::<_, EpochSlot>::try_from(map).map_err(failed)?;
    let mut cleared = 0;
    for slot in MAX_GROUPS..epochs.len() {
        if epochs.get(&slot, 0).map_err(failed)? != EpochSlot::default() {
            epochs.set(slot, EpochSlot::default(), 0).map_err(failed)?;
            cleared += 1;
        }
    }
    Ok(cleared)
}
