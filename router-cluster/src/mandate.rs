//! What a core lets its node do at this moment: forward, and let the peer forward.

use router_common::{lease::Length, map::Fence, time::BootTime};

use super::core::Advertisement;

/// Follows from the core's state alone, and holds until the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mandate {
    /// Closed if none.
    pub opening: Option<Opening>,
    /// What each of our messages grants to the owner of the claim that it brings.
    pub grant: Length,
    /// While closed: the longest of our grants that may still be in force.
    pub bound: Length,
}

/// By what protected packets may pass: either suffices, and each ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// When the group became ours.
    pub since: BootTime,
    /// Until when this node needs nobody else: by its own agent's word, or by the arbiter's record.
    /// Never, if by neither.
    pub own_until: BootTime,
    /// How long a grant of the peer lasts; none if its grants do not count.
    pub lease: Length,
}

impl Mandate {
    pub const NONE: Self = Self {
        opening: None,
        grant: Length::NONE,
        bound: Length::NONE,
    };

    /// As the kernel wants to know it.
    pub fn fence(&self, advertisement: &Advertisement) -> Fence {
        let Some(Opening {
            since,
            own_until,
            lease,
        }) = self.opening
        else {
            return Fence {
                lease_ns: self.bound.as_ns(),
                ..Fence::default()
            };
        };
        Fence {
            authority_end_ns: own_until.as_ns(),
            lease_ns: lease.as_ns(),
            claim: advertisement.claim.to_word(),
            opened_ns: since.as_ns(),
        }
    }
}
