//! Who speaks and by what authority: node, epoch, claim, flags.

/// A node's place in its group: 1 is the primary, 2 and up the secondaries. Zero means "no node"
/// and appears only as the owner of a group that nobody owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl NodeId {
    pub const NONE: Self = Self(0);
    pub const PRIMARY: Self = Self(1);
}

/// Counts the changes of active in a group. Zero means that nobody has been active yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of the next change of active; `None` when the 32 bits are used up.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(next) => Some(Self(next)),
            None => None,
        }
    }
}

/// Who owns a group, and since which epoch. Packed into one word so that a reader in the kernel
/// never sees the epoch of one claim with the owner of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    pub epoch: Epoch,
    pub owner: NodeId,
}

impl Claim {
    pub const fn to_word(self) -> u64 {
        ((self.epoch.0 as u64) << 32) | self.owner.0 as u64
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the two halves apart"
    )]
    pub const fn from_word(word: u64) -> Self {
        Self {
            epoch: Epoch((word >> 32) as u32),
            owner: NodeId(word as u32),
        }
    }
}

/// What a node says of itself in every heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// The node is active: it holds the group's services and forwards.
    pub const FORWARDING: Self = Self(1);
    /// The node could become active: started, no fault, not on its way out.
    pub const ELIGIBLE: Self = Self(1 << 1);
    /// The node asks to become active and waits for its turn.
    pub const CANDIDATE: Self = Self(1 << 2);
    /// The node is active, and wants the other to take over.
    pub const DRAINING: Self = Self(1 << 3);
    /// The node asks because its operator wants it to be active.
    pub const FORCED: Self = Self(1 << 4);
    /// The node could be active, and leaves the group to the other while that can.
    pub const STANDS_BACK: Self = Self(1 << 5);
    /// The upper byte is the priority.
    const PRIORITY_SHIFT: u32 = 8;

    /// The node's priority; zero says that it knows of none.
    pub const fn priority(self) -> Option<Priority> {
        match (self.0 >> Self::PRIORITY_SHIFT) as u8 {
            0 => None,
            told => Some(Priority(told)),
        }
    }

    #[must_use]
    pub const fn with_priority(self, priority: Priority) -> Self {
        let others = self.0 & ((1 << Self::PRIORITY_SHIFT) - 1);
        Self(others | (priority.0 as u16) << Self::PRIORITY_SHIFT)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How much a node is to be preferred to its peer, of two that are well: the base, and the weights of what
/// it tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    pub const BASE: Self = Self(100);
    const LOWEST: i32 = 1;
    const HIGHEST: i32 = 254;

    /// With `weights` in sum.
    pub fn weighted(weights: i32) -> Self {
        let sum = i32::from(Self::BASE.0).saturating_add(weights);
        let bounded = sum.clamp(Self::LOWEST, Self::HIGHEST);
        Self(u8::try_from(bounded).unwrap_or(u8::MAX))
    }

    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::BASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_stays_within_its_bounds_and_beside_the_flags() {
        for (weights, priority) in [
            (0, 100),
            (-20, 80),
            (-99, 1),
            (-500, 1),
            (154, 254),
            (999, 254),
        ] {
            let priority_of_sum = Priority::weighted(weights);
            assert_eq!(priority_of_sum.get(), priority);
            let flags = Flags::FORWARDING.with_priority(priority_of_sum);
            assert_eq!(flags.priority(), Some(priority_of_sum));
            assert!(flags.contains(Flags::FORWARDING));
            let anew = flags.with_priority(Priority::BASE);
            assert_eq!(anew.priority(), Some(Priority::BASE));
            assert_eq!(Flags::FORWARDING.priority(), None);
        }
    }

    #[test]
    fn claim_survives_its_word() {
        let claim = Claim {
            epoch: Epoch(u32::MAX),
            owner: NodeId(2),
        };
        assert_eq!(Claim::from_word(claim.to_word()), claim);
        assert_eq!(Epoch(u32::MAX).next(), None);
    }
}
