//! Why a transition happened, in the operator's words.

use std::{fmt, time::Duration};

use router_common::identity::{Epoch, NodeId, Priority};

/// One variant per reason for a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A starting node heard its peer.
    PeerHeard,
    /// A starting node waited for its peer in vain.
    NobodyHeard {
        waited: Duration,
    },
    PeerSilent {
        silence: Duration,
        dead: Duration,
    },
    PeerAgentDead {
        age: Duration,
        agent_dead: Duration,
    },
    /// Nobody is active, and of two nodes that could be, the primary goes first.
    UnownedAndPrimary,
    /// Nobody is active, and the peer cannot be.
    UnownedAndPeerOut,
    /// Nobody is active, and the peer, whose turn it was, did not claim.
    UnownedForLong {
        waited: Duration,
    },
    PeerOutdated {
        epoch: Epoch,
        newest: Epoch,
    },
    /// The active peer says that it is not well; we ask it to yield.
    PeerImpaired,
    /// The primary asks for the group, or the secondary yields it to the primary.
    Failback,
    /// One node's priority is higher, and both are well.
    Priorities {
        ours: Priority,
        peers: Priority,
    },
    /// Our claim was announced and nobody stood against it.
    Announced {
        waited: Duration,
    },
    PeerYielded,
    PeerDidNotYield {
        waited: Duration,
    },
    /// The active peer that we asked to yield recovered.
    PeerRecovered,
    /// The peer became active before us.
    PeerActive {
        epoch: Epoch,
    },
    BothAsk,
    HigherEpoch {
        epoch: Epoch,
        node: NodeId,
    },
    /// Its owner is not heard.
    HigherRecord {
        epoch: Epoch,
    },
    SameEpoch,
    /// We were active, and did not run for so long that our authority ended.
    AuthorityLapsed {
        stopped: Duration,
    },
    /// The operator wants the group to move.
    Forced,
    /// The active peer waits for us to take the group over.
    PeerDraining,
    /// The peer takes the group over from us.
    HandedOver,
    /// The peer did not take the group over, and we keep it.
    NobodyTookOver,
    /// We were active, and neither the peer's grants nor the arbiter's record let us be so any longer.
    NoAuthority,
    MonitorsUnreachable,
    TakeoverFailed {
        epoch: Epoch,
    },
    EpochsUsedUp,
    Stopping,
    Recovered,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PeerHeard => f.write_str("peer heard"),
            Self::NobodyHeard { waited } => {
                write!(f, "no peer heard for {} since start", Measured(waited))
            }
            Self::PeerSilent { silence, dead } => write!(
                f,
                "peer silent for {} (dead-interval {})",
                Measured(silence),
                Configured(dead)
            ),
            Self::PeerAgentDead { age, agent_dead } => write!(
                f,
                "peer's agent silent for {} (agent-dead-interval {}), its kernel answers",
                Measured(age),
                Configured(agent_dead)
            ),
            Self::UnownedAndPrimary => f.write_str("no one active and we are primary"),
            Self::UnownedAndPeerOut => {
                f.write_str("no one active and the peer left, is starting or in fault")
            }
            Self::UnownedForLong { waited } => write!(
                f,
                "no one active for {} although the peer could be",
                Measured(waited)
            ),
            Self::PeerOutdated { epoch, newest } => write!(
                f,
                "peer holds on to epoch {}, which has passed (newest is {})",
                epoch.0, newest.0
            ),
            Self::PeerImpaired => f.write_str("peer is active and not well, asking it to yield"),
            Self::Failback => f.write_str("failback to primary"),
            Self::Priorities { ours, peers } => {
                write!(f, "priority {}, the peer's is {}", ours.get(), peers.get())
            }
            Self::Announced { waited } => {
                write!(f, "claim unopposed for {}", Measured(waited))
            }
            Self::PeerYielded => f.write_str("peer yielded"),
            Self::PeerDidNotYield { waited } => {
                write!(f, "peer did not yield within {}", Measured(waited))
            }
            Self::PeerRecovered => f.write_str("peer is active and well again"),
            Self::PeerActive { epoch } => write!(f, "peer is active with epoch {}", epoch.0),
            Self::BothAsk => f.write_str("both nodes ask, primary goes first"),
            Self::HigherEpoch { epoch, node } => {
                write!(f, "heard a higher epoch {} of node {}", epoch.0, node.0)
            }
            Self::HigherRecord { epoch } => {
                write!(f, "the arbiter's record is of a higher epoch {}", epoch.0)
            }
            Self::SameEpoch => f.write_str("same epoch, primary stays"),
            Self::AuthorityLapsed { stopped } => write!(
                f,
                "this node's agent was stopped for {}, and its authority ended",
                Measured(stopped)
            ),
            Self::Forced => f.write_str("the operator's command"),
            Self::PeerDraining => f.write_str("peer hands the group over"),
            Self::HandedOver => f.write_str("handed over to the peer"),
            Self::NobodyTookOver => f.write_str("peer does not take the group over"),
            Self::NoAuthority => {
                f.write_str("neither the peer's grants nor the arbiter's record are in force")
            }
            Self::MonitorsUnreachable => f.write_str("monitors unreachable"),
            Self::TakeoverFailed { epoch } => write!(f, "takeover for epoch {} failed", epoch.0),
            Self::EpochsUsedUp => f.write_str("no epoch left to claim"),
            Self::Stopping => f.write_str("orderly stop"),
            Self::Recovered => f.write_str("well again"),
        }
    }
}

/// A length that was measured: one decimal, in the unit a reader would choose.
pub(super) struct Measured(pub Duration);

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        let (unit, name) = match ns {
            0..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            1_000_000_000.. => (1_000_000_000, "s"),
        };
        // Cut, not rounded: 999.96 ms is not 1000.0 ms.
        write!(f, "{}.{} {name}", ns / unit, ns % unit * 10 / unit)
    }
}

/// A length that was set: as the operator would have written it.
struct Configured(Duration);

impl fmt::Display for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_nanos() == 0 {
            write!(f, "{} s", self.0.as_secs())
        } else if self.0.subsec_nanos().is_multiple_of(1_000_000) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{}", Measured(self.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_read_as_an_operator_would_say_them() {
        let us = Duration::from_micros;
        for (cause, words) in [
            (
                Cause::PeerSilent {
                    silence: us(4_100),
                    dead: us(4_000),
                },
                "peer silent for 4.1 ms (dead-interval 4 ms)",
            ),
            (
                Cause::PeerAgentDead {
                    age: us(3_040_000),
                    agent_dead: us(3_000_000),
                },
                "peer's agent silent for 3.0 s (agent-dead-interval 3 s), its kernel answers",
            ),
            (
                Cause::HigherEpoch {
                    epoch: Epoch(7),
                    node: NodeId(2),
                },
                "heard a higher epoch 7 of node 2",
            ),
            (
                Cause::UnownedForLong { waited: us(999) },
                "no one active for 999.0 µs although the peer could be",
            ),
        ] {
            assert_eq!(cause.to_string(), words);
        }
        assert_eq!(Measured(us(999_960)).to_string(), "999.9 ms");
        assert_eq!(Configured(us(1_500)).to_string(), "1.5 ms");
        assert_eq!(Configured(us(1_500_000)).to_string(), "1500 ms");
    }
}
