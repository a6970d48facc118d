//! Heartbeat sessions: what is configured, what was heard, what we say, what we granted.

use core::time::Duration;

use bytemuck::{Pod, Zeroable};

use crate::{
    identity::{Claim, Flags, NodeId},
    keys::{Keys, Named},
    lease::Length,
    time::BootTime,
};

/// Which session a heartbeat belongs to: where it arrived and what it says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SessionKey {
    pub tunnel_index: u32,
    pub session: u32,
}

/// What the kernel needs to verify and answer a session's messages; its one writer is the agent.
/// Holds secrets.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionConfig {
    pub keys: Keys,
    pub session: u32,
    pub local_node: u32,
    pub peer_node: u32,
    /// Inner source address of replies.
    pub local_address: [u8; 4],
    /// Index into FENCES and LEASES.
    pub group: u32,
    pub padding: [u8; 4],
}

impl core::fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            keys: _,
            session,
            local_node,
            peer_node,
            local_address,
            group,
            padding: _,
        } = self;
        f.debug_struct("SessionConfig")
            .field("session", session)
            .field("local_node", local_node)
            .field("peer_node", peer_node)
            .field("local_address", local_address)
            .field("group", group)
            .finish_non_exhaustive()
    }
}

/// What the kernel heard in a session; its one writer is the XDP program. All messages of a session
/// are one flow on the underlay, so they meet on one CPU; where a device spreads them all the same,
/// a counter may miss one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionState {
    /// Our clock at the newest message that was believed.
    pub last_heard_ns: u64,
    /// Our clock at the newest reply that was believed.
    pub last_reply_ns: u64,
    /// The newest transmit time heard, by the peer's clock: what we echo.
    pub peer_tx_ns: u64,
    /// The generation that we believe; zero if none.
    pub peer_generation: u64,
    /// [`Claim::to_word`] of the newest message.
    pub peer_claim: u64,
    /// Flags in the upper half, age of the peer's agent in µs in the lower.
    pub peer_status: u64,
    /// Inner source address of the newest message, see [`crate::net::ipv4_from_word`].
    pub peer_address: u64,
    /// The newest transmit time of ours that a believed message echoed.
    pub newest_echo_ns: u64,
    /// [`Named::to_word`] of the newest message.
    pub peer_keys: u64,
    // From here to the jitter: of this generation.
    pub probe_sequence: u64,
    pub reply_sequence: u64,
    /// Sequence of the first probe heard, for the loss.
    pub first_probe_sequence: u64,
    /// Sequence of the first reply heard, which is that of our probe.
    pub first_reply_sequence: u64,
    pub probes: u64,
    pub replies: u64,
    pub rtt_last_ns: u64,
    /// Zero until the first reply.
    pub rtt_min_ns: u64,
    pub rtt_max_ns: u64,
    pub rtt_sum_ns: u64,
    /// Our clock at the newest reply less the peer's at its sending, modulo 2⁶⁴: of use only as a
    /// difference to the next.
    pub transit_ns: u64,
    /// Of the replies on their way to us, smoothed, in sixteenths of a nanosecond (RFC 3550 §6.4.1,
    /// §A.8).
    pub jitter_16ths: u64,
    /// Messages whose MAC was wrong, or that name a secret which we do not have.
    pub mac_failures: u64,
    /// Our clock at the newest of them.
    pub last_mac_failure_ns: u64,
    pub stale: u64,
    pub unproven: u64,
    pub wrong_sender: u64,
    /// Authentic, but of a version or kind that we do not speak.
    pub not_understood: u64,
}

impl SessionState {
    pub const fn last_heard(&self) -> BootTime {
        BootTime::from_ns(self.last_heard_ns)
    }

    pub const fn claim(&self) -> Claim {
        Claim::from_word(self.peer_claim)
    }

    /// The secrets that the peer last named.
    pub const fn peer_keys(&self) -> Named {
        Named::from_word(self.peer_keys)
    }

    /// The peer's generation that is believed; zero if none.
    #[expect(clippy::cast_possible_truncation, reason = "a generation has 32 bits")]
    pub const fn generation(&self) -> u32 {
        self.peer_generation as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "flags have 16 bits")]
    pub const fn flags(&self) -> Flags {
        Flags((self.peer_status >> 32) as u16)
    }

    /// Age of the peer's agent as its newest message told it.
    pub const fn agent_age(&self) -> Duration {
        Duration::from_micros(self.peer_status & 0xffff_ffff)
    }

    #[inline(always)]
    pub const fn status_word(flags: Flags, agent_age_us: u32) -> u64 {
        ((flags.0 as u64) << 32) | agent_age_us as u64
    }
}

/// What the node says of itself in a session; its one writer is the agent.
///
/// Claim, generation with flags, and sign of life are the first three words in every layout: by
/// them an agent of another version learns what the one before it said, and takes it back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LocalState {
    /// [`Claim::to_word`].
    pub claim: u64,
    /// Generation in the upper half, flags in the lower. A generation of zero closes the session.
    pub generation_flags: u64,
    /// The agent's last sign of life.
    pub agent_beat_ns: u64,
    /// How long the owner of [`LocalState::claim`] may forward by each of our messages, in µs; zero
    /// grants nothing. It is closed before, and opened after, anything else here changes.
    pub grant_us: u64,
}

impl LocalState {
    /// Grants nothing.
    pub const fn new(claim: Claim, generation: u32, flags: Flags, agent_beat: BootTime) -> Self {
        Self {
            claim: claim.to_word(),
            generation_flags: ((generation as u64) << 32) | flags.0 as u64,
            agent_beat_ns: agent_beat.as_ns(),
            grant_us: 0,
        }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a length has 32 bits")]
    pub const fn grant(&self) -> Length {
        Length::from_us(self.grant_us as u32)
    }

    #[inline(always)]
    pub const fn claim(&self) -> Claim {
        Claim::from_word(self.claim)
    }

    #[inline(always)]
    pub const fn generation(&self) -> u32 {
        (self.generation_flags >> 32) as u32
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "flags have 16 bits")]
    pub const fn flags(&self) -> Flags {
        Flags(self.generation_flags as u16)
    }

    #[inline(always)]
    pub const fn agent_beat(&self) -> BootTime {
        BootTime::from_ns(self.agent_beat_ns)
    }
}

/// What the node granted in a session. Kernel and agent both write it, by atomic instructions, before
/// the grant leaves.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Granted {
    /// Our clock at the newest grant; zero if it never granted.
    pub granted_ns: u64,
    /// Messages that granted, those that could not be sent among them.
    pub grants: u64,
}

const _: () = {
    assert!(size_of::<SessionKey>() == 8);
    assert!(size_of::<SessionConfig>() == 112);
    assert!(size_of::<SessionState>() == 27 * 8);
    assert!(size_of::<LocalState>() == 32);
    assert!(core::mem::offset_of!(LocalState, claim) == 0);
    assert!(core::mem::offset_of!(LocalState, generation_flags) == 8);
    assert!(core::mem::offset_of!(LocalState, agent_beat_ns) == 16);
    assert!(size_of::<Granted>() == 16);
    assert!(size_of::<NodeId>() == 4);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Epoch;

    #[test]
    fn local_state_gives_back_what_it_was_made_of() {
        let claim = Claim {
            epoch: Epoch(9),
            owner: NodeId(1),
        };
        let flags = Flags::ELIGIBLE.with(Flags::CANDIDATE);
        let local = LocalState::new(claim, u32::MAX, flags, BootTime::from_ns(3));
        assert_eq!(local.claim(), claim);
        assert_eq!(local.generation(), u32::MAX);
        assert_eq!(local.flags(), flags);
        assert_eq!(local.agent_beat().as_ns(), 3);
    }

    #[test]
    fn status_word_holds_flags_and_age() {
        let state = SessionState {
            peer_status: SessionState::status_word(Flags::FORWARDING, u32::MAX),
            ..SessionState::default()
        };
        assert_eq!(state.flags(), Flags::FORWARDING);
        assert_eq!(
            state.agent_age(),
            Duration::from_micros(u64::from(u32::MAX))
        );
    }
}
