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
}

/// By what protected packets may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// When the group became ours.
    pub since: BootTime,
    pub by: Authority,
}

/// Who vouches for an active node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Its own agent, until then.
    Own { until: BootTime },
    /// Its peer, by grants of this length.
    Grants(Length),
}

impl Mandate {
    pub const NONE: Self = Self {
        opening: None,
        grant: Length::NONE,
    };

    /// As the kernel wants to know it.
    pub fn fence(&self, advertisement: &Advertisement) -> Fence {
        let Some(Opening { since, by }) = self.opening else {
            return Fence::default();
        };
        let (authority_end, lease) = match by {
            Authority::Own { until } => (until, Length::NONE),
            Authority::Grants(length) => (BootTime::NEVER, length),
        };
        Fence {
            authority_end_ns: authority_end.as_ns(),
            lease_ns: lease.as_ns(),
            claim: advertisement.claim.to_word(),
            opened_ns: since.as_ns(),
        }
    }
}
