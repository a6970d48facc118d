//! How the pre-shared secret changes while the agents run. Pure.
//!
//! Each node goes three steps, and the two nodes go them in any order:
//!
//! 1. [`begin`]: both secrets are accepted, and our messages ask for the new one.
//! 2. Nobody's decision: each node signs with what the other asks for ([`Keys::sign_for`]), so with the
//!    new one as soon as both have it.
//! 3. [`finish`]: the old one is accepted no more. Refused while the peer is not known to use the
//!    new one and to ask for it.
//!
//! The way back is to begin with the old secret. A node that starts knows what its configuration states,
//! and asks for `pre-shared-secret`.

use std::fmt;

use router_common::keys::{Keys, Named, Slot};

/// Why a step cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this is the secret that is in use")]
    InUse,
    #[error(
        "two secrets are accepted already: end the change that is under way by `routerctl rotate-secret --finish`"
    )]
    UnderWay,
    #[error(
        "heartbeats could not tell it from one that is accepted already: by chance they have the same number; choose another"
    )]
    SameNumber,
    #[error("no change of the secret is under way")]
    NotUnderWay,
    #[error(
        "the peer does not use the new secret yet: run `routerctl rotate-secret` on it with the same secret, or drop the old one all the same by --force"
    )]
    StillNeeded,
    #[error(
        "the file that the agent starts with does not state the new secret, and the peer would not understand the next start: `routerctl configure apply` it as `cluster pre-shared-secret`, with the old one as `cluster previous-pre-shared-secret`, or drop the old one all the same by --force"
    )]
    NotStated,
}

/// How far a session's change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One secret.
    None,
    /// The peer does not ask for the new one; it may not have it.
    PeerLacksIt,
    /// The peer asks for it, and has not used it yet.
    PeerHasIt,
    /// Both use it.
    BothUseIt,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::PeerLacksIt => "peer-lacks-it",
            Self::PeerHasIt => "peer-has-it",
            Self::BothUseIt => "both-use-it",
        })
    }
}

/// The keys of an agent that starts with these secrets.
pub fn starting(current: Slot, previous: Option<Slot>) -> Keys {
    Keys {
        slots: [current, previous.unwrap_or(Slot::EMPTY)],
        wanted: current.number,
    }
}

/// Accepts `new` beside what is accepted, and asks for it.
pub fn begin(keys: &Keys, new: &Slot) -> Result<Keys, Refusal> {
    let mut slots = keys.slots;
    match keys.find(new.number()) {
        Some(known) if known != new => return Err(Refusal::SameNumber),
        Some(_) if keys.wanted == new.number => return Err(Refusal::InUse),
        // The way back.
        Some(_) => {}
        None => match slots.iter_mut().find(|slot| slot.is_empty()) {
            Some(free) => *free = *new,
            None => return Err(Refusal::UnderWay),
        },
    }
    Ok(Keys {
        slots,
        wanted: new.number,
    })
}

pub fn progress(keys: &Keys, peer: Named) -> Progress {
    if keys.slots.iter().any(Slot::is_empty) {
        Progress::None
    } else if peer.wanted != keys.wanted() {
        Progress::PeerLacksIt
    } else if peer.used != keys.wanted() {
        Progress::PeerHasIt
    } else {
        Progress::BothUseIt
    }
}

/// Accepts only the secret that we ask for. `peer` is what the peer last named; `force` drops the old
/// one although the peer may need it.
pub fn finish(keys: &Keys, peer: Named, force: bool) -> Result<Keys, Refusal> {
    match progress(keys, peer) {
        Progress::None => return Err(Refusal::NotUnderWay),
        Progress::PeerLacksIt | Progress::PeerHasIt if !force => return Err(Refusal::StillNeeded),
        Progress::PeerLacksIt | Progress::PeerHasIt | Progress::BothUseIt => {}
    }
    Ok(Keys {
        slots: keys.slots.map(|slot| {
            if slot.number == keys.wanted {
                slot
            } else {
                Slot::EMPTY
            }
        }),
        ..*keys
    })
}

/// Whether a peer that last named `peer` understands who goes on from `present` with the secrets of `new`. It
/// accepts what it named. One that named nothing of what we accept was not heard, and may accept any of it.
pub fn goes_on(present: &Keys, peer: Named, new: &Keys) -> bool {
    let accepted = |keys: &Keys| keys.slots.into_iter().filter(|slot| !slot.is_empty());
    let is_named = |slot: &Slot| [peer.used, peer.wanted].contains(&slot.number());
    let hears_peer = accepted(present).any(|slot| is_named(&slot));
    accepted(present)
        .filter(|slot| !hears_peer || is_named(slot))
        .any(|slot| accepted(new).any(|new| new == slot))
}

/// Whether both accept the same secrets, and ask for the same.
pub fn is_same(one: &Keys, other: &Keys) -> bool {
    let has = |keys: &Keys, slot: &Slot| slot.is_empty() || keys.find(slot.number()) == Some(slot);
    one.wanted == other.wanted
        && one.slots.iter().all(|slot| has(other, slot))
        && other.slots.iter().all(|slot| has(one, slot))
}

#[cfg(test)]
mod tests;
