//! Epochs in GRE keys: packets of a router that has been deposed are refused where they arrive, even
//! if its clock stood still and its fence is open by its own reckoning.

use router_common::{
    gre::Gre,
    map::{TunnelEgress, TunnelIngress, egress_flag, ingress_flag},
};

use crate::{maps, verdict::Refusal};

/// What arrives with a lower epoch than came before is refused, by whichever tunnel of the same far
/// cluster that came.
#[inline(always)]
pub fn admit(gre: &Gre, tunnel: &TunnelIngress) -> Result<(), Refusal> {
    if tunnel.flags & ingress_flag::EPOCH == 0 {
        return Ok(());
    }
    let index = tunnel.index;
    let refused = Refusal::Epoch { index };
    let arrived = u64::from(gre.label.number());
    let slot = maps::EPOCHS
        .get_ptr_mut(u32::from(tunnel.epoch_slot))
        .ok_or(refused)?;
    // SAFETY: an array element, aligned and never freed while the program runs; others change the
    // word whole.
    let newest = unsafe { (&raw const (*slot).epoch).read_volatile() };
    if arrived < newest {
        return Err(refused);
    }
    if arrived > newest {
        // SAFETY: as above.
        if !unsafe { maps::raise(&raw mut (*slot).epoch, arrived) } {
            return Err(refused);
        }
        maps::count(index, |counters| counters.rx_epoch_raises += 1);
    }
    Ok(())
}

/// The key of a packet that leaves.
#[inline(always)]
pub fn key(egress: &TunnelEgress) -> Option<[u8; 4]> {
    if egress.flags & egress_flag::EPOCH == 0 {
        return Some(egress.key);
    }
    let slot = maps::EPOCHS.get_ptr(u32::from(egress.epoch_slot))?;
    // SAFETY: as in `admit`.
    let epoch = unsafe { (&raw const (*slot).epoch).read_volatile() };
    Some((epoch as u32).to_be_bytes())
}
