//! What is known of the peer: as the kernel reports it, and as the core judges it.

use std::{fmt, time::Duration};

use router_common::{
    identity::{Claim, Flags},
    lease::Length,
    map::{Fence, LocalState, SessionState},
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
    /// How long it counted on each grant of the peer; none if it did not.
    pub lease: Length,
    /// What it granted the peer with each message.
    pub grant: Length,
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
            lease: Length::of(Duration::from_nanos(fence.lease_ns)),
            grant: local.grant(),
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

impl PeerReport {
    /// Of what was heard by the paths of a group, and of when we granted and were granted a lease.
    pub fn of_paths(paths: &[SessionState], granted: BootTime, leased: BootTime) -> Self {
        let said = said_last(paths);
        let newest = |of: fn(&SessionState) -> u64| {
            BootTime::from_ns(paths.iter().map(of).max().unwrap_or_default())
        };
        Self {
            last_heard: newest(|path| path.last_heard_ns),
            claim: said.claim(),
            flags: said.flags(),
            agent_age: said.agent_age(),
            newest_echo: newest(|path| path.newest_echo_ns),
            granted,
            leased,
        }
    }
}

/// The path by which came what the peer said last: of the life that was heard last what was *sent* last, for
/// paths are not equally long. Transmit times of two lives cannot be compared.
pub fn said_last(paths: &[SessionState]) -> SessionState {
    let newest = paths.iter().max_by_key(|path| path.last_heard_ns);
    let life = newest.map(|path| path.peer_generation);
    paths
        .iter()
        .filter(|path| Some(path.peer_generation) == life)
        .max_by_key(|path| path.peer_tx_ns)
        .copied()
        .unwrap_or_default()
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

impl PeerFinding {
    pub const ALL: [Self; 5] = [
        Self::NeverHeard,
        Self::Alive,
        Self::AliveAndDeaf,
        Self::KernelSilent,
        Self::AgentDead,
    ];
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

impl Standing {
    /// Whether it owns the group under the newest epoch.
    pub(super) fn owns(self) -> bool {
        match self {
            Self::Owner | Self::Impaired | Self::Draining => true,
            Self::Unknown
            | Self::Silent
            | Self::Headless
            | Self::Out
            | Self::Ready
            | Self::Asking
            | Self::Outdated => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use router_common::identity::{Epoch, NodeId};

    use super::*;

    fn path(heard_ns: u64, generation: u64, sent_ns: u64, flags: Flags) -> SessionState {
        let claim = Claim {
            epoch: Epoch(5),
            owner: NodeId(2),
        };
        SessionState {
            last_heard_ns: heard_ns,
            peer_generation: generation,
            peer_tx_ns: sent_ns,
            peer_claim: claim.to_word(),
            peer_status: SessionState::status_word(flags, 7),
            ..SessionState::default()
        }
    }

    fn flags(paths: &[SessionState]) -> Flags {
        PeerReport::of_paths(paths, BootTime::NEVER, BootTime::NEVER).flags
    }

    #[test]
    fn what_was_sent_last_counts_and_not_what_came_last() {
        let (ready, owner) = (Flags::ELIGIBLE, Flags::FORWARDING);
        let short = path(100, 1, 90, owner);
        let long = path(110, 1, 60, ready);
        for paths in [[short, long], [long, short]] {
            assert_eq!(flags(&paths), owner);
            let report = PeerReport::of_paths(&paths, BootTime::NEVER, BootTime::NEVER);
            assert_eq!(report.last_heard, BootTime::from_ns(110));
        }
        // A new life, whose clock may have begun anew with its machine.
        let anew = path(120, 2, 5, ready);
        assert_eq!(flags(&[short, anew]), ready);
        assert_eq!(flags(&[]), Flags::default());
    }

    #[test]
    fn who_hears_us_by_one_path_hears_us() {
        let cut = SessionState {
            newest_echo_ns: 10,
            ..path(110, 1, 100, Flags::ELIGIBLE)
        };
        let whole = SessionState {
            newest_echo_ns: 95,
            ..path(105, 1, 99, Flags::ELIGIBLE)
        };
        let report = PeerReport::of_paths(&[cut, whole], BootTime::NEVER, BootTime::NEVER);
        assert_eq!(report.newest_echo, BootTime::from_ns(95));
    }
}
