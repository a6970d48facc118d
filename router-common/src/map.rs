//! Keys and values of the BPF maps. Integers and byte arrays only, explicit padding, so that every
//! bit pattern is a value and kernel and user see the same bytes.
//!
//! Values that lie in memory-mapped arrays consist of 64-bit words, each written whole: a reader
//! may see the words of two messages side by side, but never half a word.

use core::time::Duration;

use bytemuck::{Pod, Zeroable};

pub use crate::gre::TunnelKey;
use crate::{
    identity::{Claim, Flags, NodeId},
    net::Mac,
    siphash::Key,
    time::BootTime,
};

/// Raised with every change of a map's layout; the pins of each layout live in a directory of
/// their own.
pub const LAYOUT_VERSION: u32 = 1;

pub const MAX_TUNNELS: u32 = 16_384;
pub const MAX_SESSIONS: u32 = 4_096;

/// Names of the maps, as in the object and as pinned.
pub mod name {
    /// [`TunnelKey`](super::TunnelKey) → [`TunnelIngress`](super::TunnelIngress).
    pub const TUNNELS: &str = "TUNNELS";
    /// Interface index of a tunnel's dataplane end → [`TunnelEgress`](super::TunnelEgress).
    pub const EGRESS: &str = "EGRESS";
    /// Tunnel index → [`TunnelCounters`](super::TunnelCounters), per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`Reason`](super::Reason) → packets, per CPU.
    pub const REASONS: &str = "REASONS";
    /// [`SessionKey`](super::SessionKey) → session index.
    pub const SESSION_INDEX: &str = "SESSION_INDEX";
    /// Session index → [`SessionConfig`](super::SessionConfig).
    pub const SESSION_CONFIG: &str = "SESSION_CONFIG";
    /// Session index → [`SessionState`](super::SessionState), memory-mapped, kernel writes.
    pub const SESSIONS: &str = "SESSIONS";
    /// Session index → [`LocalState`](super::LocalState), memory-mapped, agent writes.
    pub const LOCAL: &str = "LOCAL";

    pub const ALL: [&str; 8] = [
        TUNNELS,
        EGRESS,
        COUNTERS,
        REASONS,
        SESSION_INDEX,
        SESSION_CONFIG,
        SESSIONS,
        LOCAL,
    ];
}

/// Where packets of a tunnel go that arrive on the underlay.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TunnelIngress {
    /// Index into COUNTERS; also part of [`SessionKey`].
    pub index: u32,
    /// The dataplane end of the tunnel's veth pair.
    pub dataplane_ifindex: u32,
    pub user_mac: Mac,
    pub dataplane_mac: Mac,
    /// Inner destination of the peer's heartbeats, but for those to a group address.
    pub heartbeat_address: [u8; 4],
    /// UDP port of the heartbeats, host order; 0 if none run in this tunnel.
    pub heartbeat_port: u16,
    pub padding: [u8; 2],
}

/// How packets of a tunnel leave by the underlay.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TunnelEgress {
    /// Index into COUNTERS.
    pub index: u32,
    pub underlay_ifindex: u32,
    pub local: [u8; 4],
    pub remote: [u8; 4],
    pub key: [u8; 4],
    /// Bits of [`egress_flag`].
    pub flags: u32,
    /// Outer TTL, unless inherited.
    pub ttl: u8,
    /// Outer type of service, unless inherited.
    pub tos: u8,
    pub padding: [u8; 2],
}

/// Bits of [`TunnelEgress::flags`].
pub mod egress_flag {
    pub const HAS_KEY: u32 = 1;
    pub const TTL_INHERIT: u32 = 1 << 1;
    pub const TOS_INHERIT: u32 = 1 << 2;
}

/// Packets and bytes of a tunnel; bytes are those of the inner packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TunnelCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Arrived for this tunnel and could not be decapsulated.
    pub rx_errors: u64,
    /// Could not be encapsulated.
    pub tx_errors: u64,
    /// Neither IPv4 nor IPv6, as far as this version carries it.
    pub rx_unsupported: u64,
    pub tx_unsupported: u64,
}

impl core::ops::AddAssign<&Self> for TunnelCounters {
    fn add_assign(&mut self, other: &Self) {
        let Self {
            rx_packets,
            rx_bytes,
            tx_packets,
            tx_bytes,
            rx_errors,
            tx_errors,
            rx_unsupported,
            tx_unsupported,
        } = other;
        self.rx_packets = self.rx_packets.wrapping_add(*rx_packets);
        self.rx_bytes = self.rx_bytes.wrapping_add(*rx_bytes);
        self.tx_packets = self.tx_packets.wrapping_add(*tx_packets);
        self.tx_bytes = self.tx_bytes.wrapping_add(*tx_bytes);
        self.rx_errors = self.rx_errors.wrapping_add(*rx_errors);
        self.tx_errors = self.tx_errors.wrapping_add(*tx_errors);
        self.rx_unsupported = self.rx_unsupported.wrapping_add(*rx_unsupported);
        self.tx_unsupported = self.tx_unsupported.wrapping_add(*tx_unsupported);
    }
}

/// Which session a heartbeat belongs to: where it arrived and what it says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SessionKey {
    pub tunnel_index: u32,
    pub session: u32,
}

/// What the kernel needs to verify and answer a session's messages. Holds secrets.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct SessionConfig {
    pub rx_key: Key,
    pub tx_key: Key,
    pub session: u32,
    pub local_node: u32,
    pub peer_node: u32,
    /// Inner source address of replies.
    pub local_address: [u8; 4],
}

impl core::fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            rx_key: _,
            tx_key: _,
            session,
            local_node,
            peer_node,
            local_address,
        } = self;
        f.debug_struct("SessionConfig")
            .field("session", session)
            .field("local_node", local_node)
            .field("peer_node", peer_node)
            .field("local_address", local_address)
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
    // From here to the round trips: of this generation.
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
    /// Messages whose MAC was wrong.
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
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LocalState {
    /// [`Claim::to_word`].
    pub claim: u64,
    /// Generation in the upper half, flags in the lower. A generation of zero closes the session.
    pub generation_flags: u64,
    /// The agent's last sign of life.
    pub agent_beat_ns: u64,
}

impl LocalState {
    pub const fn new(claim: Claim, generation: u32, flags: Flags, agent_beat: BootTime) -> Self {
        Self {
            claim: claim.to_word(),
            generation_flags: ((generation as u64) << 32) | flags.0 as u64,
            agent_beat_ns: agent_beat.as_ns(),
        }
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

/// Events that belong to no tunnel and no session; indices into REASONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// A GRE packet whose addresses and key name no tunnel of ours; left to the stack.
    NoTunnel = 0,
    /// A GRE packet that the fast path does not take: options, fragment, flags; left to the stack.
    NotFast = 1,
    /// A heartbeat-sized message for a session that we do not have; dropped.
    NoSession = 2,
    /// A packet on the heartbeat port that is no heartbeat by its length; dropped.
    NotHeartbeat = 3,
    /// The driver could not move the packet's start or take metadata; dropped.
    NoHeadroom = 4,
    /// A frame of a dataplane end without a tunnel; dropped.
    NoEgress = 5,
}

impl Reason {
    pub const ALL: [Self; 6] = [
        Self::NoTunnel,
        Self::NotFast,
        Self::NoSession,
        Self::NotHeartbeat,
        Self::NoHeadroom,
        Self::NoEgress,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NoTunnel => "no-tunnel",
            Self::NotFast => "not-fast-path",
            Self::NoSession => "no-session",
            Self::NotHeartbeat => "not-a-heartbeat",
            Self::NoHeadroom => "no-headroom",
            Self::NoEgress => "no-egress",
        }
    }
}

/// What XDP tells TC about a packet that it decapsulated, in the packet's metadata area.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Handover {
    magic: u32,
    /// Interface through which the packet is to enter the tunnel device.
    pub dataplane_ifindex: u32,
}

impl Handover {
    const MAGIC: u32 = 0x6472_7630;

    #[inline(always)]
    pub const fn to(dataplane_ifindex: u32) -> Self {
        Self {
            magic: Self::MAGIC,
            dataplane_ifindex,
        }
    }

    #[inline(always)]
    pub const fn is_ours(&self) -> bool {
        self.magic == Self::MAGIC
    }
}

const _: () = {
    assert!(size_of::<TunnelIngress>() == 28);
    assert!(size_of::<TunnelEgress>() == 28);
    assert!(size_of::<TunnelCounters>() == 64);
    assert!(size_of::<SessionKey>() == 8);
    assert!(size_of::<SessionConfig>() == 48);
    assert!(size_of::<SessionState>() == 24 * 8);
    assert!(size_of::<LocalState>() == 24);
    assert!(size_of::<Handover>() == 8);
    assert!(size_of::<NodeId>() == 4);
};

#[cfg(feature = "user")]
mod user {
    use super::{
        SessionConfig, SessionKey, SessionState, TunnelCounters, TunnelEgress, TunnelIngress,
        TunnelKey,
    };

    macro_rules! pod {
        ($($type:ty),+ $(,)?) => {
            $(
                // SAFETY: `bytemuck::Pod` already demands what `aya::Pod` does: any bit pattern is
                // valid and there is no padding.
                unsafe impl aya::Pod for $type {}
            )+
        };
    }
    pod!(
        SessionConfig,
        SessionKey,
        SessionState,
        TunnelCounters,
        TunnelEgress,
        TunnelIngress,
        TunnelKey,
        super::LocalState,
    );
}

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

    #[test]
    fn reasons_are_numbered_as_listed() {
        for (index, reason) in (0_u32..).zip(Reason::ALL) {
            assert_eq!(reason as u32, index);
        }
    }
}
