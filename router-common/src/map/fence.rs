//! What protected packets of a group pass by, and the epochs that tunnels carry.

use bytemuck::{Pod, Zeroable};

/// What a group lets protected packets pass by; its one writer is the agent. All zero is closed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Fence {
    /// Until when the agent vouches by itself; zero if it lives on grants alone.
    pub authority_end_ns: u64,
    /// How long a grant lasts, from our transmit time that it echoes; zero if grants do not count.
    /// While the fence is closed: how long what we granted binds us, for the agent after this one.
    pub lease_ns: u64,
    /// [`Claim::to_word`] that grants must be for.
    pub claim: u64,
    /// Our clock when it was opened; zero while it is closed. Grants must echo what we sent since.
    /// Written last, so that a fence opens with all else in place.
    pub opened_ns: u64,
}

/// What the kernel knows of a group's lease; its one writer is the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Lease {
    /// The newest transmit time of ours that a grant echoed.
    pub granted_tx_ns: u64,
    /// Grants that renewed the lease.
    pub renewals: u64,
    /// Grants for another claim, or of an earlier activity.
    pub not_for_us: u64,
    /// Grants for a shorter time than ours.
    pub too_short: u64,
    /// When the first packet passed since the fence was opened, if that was later.
    pub first_passed_ns: u64,
    pub padding: [u8; 24],
}

counters! {
    /// Protected packets that the fence of a group dropped.
    FenceCounters {
        /// Came by a protected interface, to be forwarded.
        dropped_in,
        /// Forwarded, and about to leave by a protected interface.
        dropped_out,
        /// On the way past the stack.
        dropped_transit,
    }
}

/// An epoch that only grows: in a group's place the one under which we are active or last were,
/// which its tunnels send; in a place behind those the newest that tunnels received.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct EpochSlot {
    pub epoch: u64,
}

const _: () = {
    assert!(size_of::<Fence>() == 32);
    // A cache line: CPUs that forward for one group do not disturb those of another.
    assert!(size_of::<Lease>() == 64);
    assert!(size_of::<FenceCounters>() == 24);
    assert!(size_of::<EpochSlot>() == 8);
};
