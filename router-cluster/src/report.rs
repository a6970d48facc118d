//! What is known of the peer: as the kernel reports it, and as the core judges it.

use std::{fmt, time::Duration};

use router_common::{
    identity::{Claim, Flags},
    map::{Fence, LocalState},
    time::BootTime,
};

use super::policy::Policy;

/// What the kernel still says of this node's group in the name of an agent that is gone. The
/// default: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FormerLife {
    pub claim: Claim,
    pub flags: Flags,
    /// Its last sign of life.
    pub beat: BootTime,
    /// Since when its fence was open.
    pub opened: BootTime,
    /// Until when it needed nobody's grants for that.
    pub own_until: BootTime,
}

impl FormerLife {
    /// Nothing if the session is closed.
    pub fn of(local: &LocalState, fence: &Fence) -> Self {
        if local.generation() == 0 {
            return Self::default();
        }
        Self {
            claim: local.claim(),
            flags: local.flags(),
            beat: local.agent_beat(),
            opened: BootTime::from_ns(fence.opened_ns),
            own_until: BootTime::from_ns(fence.authority_end_ns),
        }
    }

    /// Whether it took part, and the peer cannot have missed it yet.
    pub fn can_be_resumed(&self, policy: &Policy, now: BootTime) -> bool {
        let took_part = self.flags.contains(Flags::ELIGIBLE) || self.is_active(policy);
        took_part
            && !self.beat.is_never()
            && self.beat <= now
            && now.since(self.beat) < policy.resumable()
    }

    pub fn is_active(&self, policy: &Policy) -> bool {
        self.flags.contains(Flags::FORWARDING) && self.claim.owner == policy.node
    }

    /// Whether its monitors were reachable and its services held.
    pub fn was_well(&self) -> bool {
        self.flags.contains(Flags::ELIGIBLE)
    }
}

/// What the kernel last heard of the peer, the newest over all heartbeat paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerReport {
    /// When the newest message arrived; [`BootTime::NEVER`] if none has.
    pub last_heard: BootTime,
    pub claim: Claim,
    pub flags: Flags,
    /// Age of the peer's agent as its newest message told. It is compared as told: a peer that has
    /// fallen silent is judged by its silence, not by an age that we extrapolate.
    pub agent_age: Duration,
    /// The newest of our messages that the peer is known to have heard, by when we sent it.
    pub newest_echo: BootTime,
    /// When we last granted the peer a lease, as known after all that we closed before was closed.
    pub granted: BootTime,
    /// The newest of our messages that a grant of the peer echoed, by when we sent it: our lease runs
    /// from there.
    pub leased: BootTime,
}

/// What this node can say of its peer's health, for status and telemetry. That we ourselves were
/// stopped is a [`Finding`](super::Finding).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerFinding {
    /// No message since this agent started.
    NeverHeard,
    /// Kernel and agent are alive.
    Alive,
    /// Kernel and agent are alive, and hear nothing of us: the path is cut on our way to it.
    AliveAndDeaf,
    /// Nothing heard for the dead-interval: node dead or path cut, which look alike from here.
    KernelSilent,
    /// The kernel answers, the agent does not run.
    AgentDead,
}

impl fmt::Display for PeerFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverHeard => "never heard",
            Self::Alive => "alive",
            Self::AliveAndDeaf => "alive and does not hear us (the path to it is cut)",
            Self::KernelSilent => "silent (its node is dead, or the path from it is cut)",
            Self::AgentDead => "alive without its agent",
        })
    }
}

/// The columns of the transition table: all that the rules distinguish in a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Standing {
    /// No fresh message, and we have not listened long enough to call that silence.
    Unknown,
    /// Nothing heard for the dead-interval, while we listened.
    Silent,
    /// The kernel answers for an agent that does not run.
    Headless,
    /// Can not own the group now: starting, in fault or leaving.
    Out,
    /// Could own the group and does not ask for it.
    Ready,
    /// Could own the group and asks for it.
    Asking,
    /// Owns the group under the newest epoch.
    Owner,
    /// Owns the group under the newest epoch, is not well, and would rather not.
    Impaired,
    /// Owns the group under the newest epoch, and waits for us to take it over.
    Draining,
    /// Forwards under an epoch that has passed; it has not heard so yet.
    Outdated,
}
