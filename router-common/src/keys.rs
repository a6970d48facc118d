//! The keys of a session: of one secret, or of two while the secret is being changed.
//!
//! Every message names the secret that it is signed with, and the one that its sender wants to be
//! answered with, as `KeyID` and `RNextKeyID` do in TCP-AO (RFC 5925 §2.2, §7.5.2). So a receiver
//! computes one MAC at most, and nobody signs with a secret that the other does not have yet.
//! docs/protocol.md describes the change.

use bytemuck::{Pod, Zeroable};

use crate::siphash::Key;

/// A key, and the number of the secret that it was derived from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NumberedKey {
    /// Never zero.
    pub number: u16,
    pub key: Key,
}

/// The keys of one secret.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Slot {
    /// By which messages name the secret; zero if the slot is empty. First, so that a slot is empty
    /// before its keys are wiped.
    pub number: u64,
    /// Of the peer's messages.
    pub rx: Key,
    /// Of ours.
    pub tx: Key,
}

/// What messages say of their secrets: those of the peer, as they were last believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The secret that they are signed with; zero if none was believed.
    pub used: u16,
    /// The secret that they are to be answered with.
    pub wanted: u16,
}

/// The keys of a session. Holds secrets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Keys {
    pub slots: [Slot; 2],
    /// Number of the secret that the peer shall use.
    pub wanted: u64,
}

const _: () = {
    assert!(size_of::<Slot>() == 40);
    assert!(size_of::<Keys>() == 88);
};

impl Slot {
    pub const EMPTY: Self = Self {
        rx: [0; 2],
        tx: [0; 2],
        number: 0,
    };

    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.number == 0
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a number has 16 bits")]
    pub const fn number(&self) -> u16 {
        self.number as u16
    }

    #[inline(always)]
    pub const fn rx(&self) -> NumberedKey {
        NumberedKey {
            number: self.number(),
            key: self.rx,
        }
    }

    #[inline(always)]
    pub const fn tx(&self) -> NumberedKey {
        NumberedKey {
            number: self.number(),
            key: self.tx,
        }
    }
}

/// Numbers are no secret.
impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Slot")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Named {
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        (self.used as u64) << 16 | self.wanted as u64
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "two numbers of 16 bits")]
    pub const fn from_word(word: u64) -> Self {
        Self {
            used: (word >> 16) as u16,
            wanted: word as u16,
        }
    }
}

impl Keys {
    /// Of one secret.
    pub const fn of(slot: Slot) -> Self {
        Self {
            slots: [slot, Slot::EMPTY],
            wanted: slot.number,
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a number has 16 bits")]
    pub const fn wanted(&self) -> u16 {
        self.wanted as u16
    }

    /// The keys of the secret of that number.
    #[inline(always)]
    pub const fn find(&self, number: u16) -> Option<&Slot> {
        let [first, second] = &self.slots;
        if number == 0 {
            None
        } else if first.number() == number {
            Some(first)
        } else if second.number() == number {
            Some(second)
        } else {
            None
        }
    }

    /// What to sign a message with, for a peer that named these: with what it wants, else with what
    /// it used, else with what we want.
    #[inline(always)]
    pub fn sign_for(&self, peer: Named) -> Option<&Slot> {
        self.find(peer.wanted)
            .or_else(|| self.find(peer.used))
            .or_else(|| self.find(self.wanted()))
    }
}
