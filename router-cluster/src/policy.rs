//! What the operator set, and the waits that follow from it.

use std::time::Duration;

use router_common::{identity::NodeId, lease::Length};

/// What counts more while the nodes cannot hear each other, without a third party to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prefer {
    /// That one forwards: a node vouches for itself. Two may, while the path between them is cut.
    #[default]
    Availability,
    /// That never two do: a node forwards by its peer's grants alone, and takes nothing from a peer
    /// that it does not hear. None may.
    Consistency,
}

impl Prefer {
    /// As it is written in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Consistency => "consistency",
        }
    }
}

/// The settings of one group on one node. All nodes of a group must agree on everything but
/// `node` and `peer`; the configuration check refuses what cannot work (equal nodes, a
/// `dead` of less than two `keepalive`s), the core merely stays safe with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    pub node: NodeId,
    pub peer: NodeId,
    /// Between two probes; also the pace of [`Tick`](super::Event::Tick)s.
    pub keepalive: Duration,
    /// A peer whose kernel was silent for this long is dead.
    pub dead: Duration,
    /// Says nothing if there is an arbiter.
    pub prefer: Prefer,
    pub arbiter: Option<ArbiterPolicy>,
    /// How long a grant lasts, ours and the peer's; of use where grants count.
    pub lease: Length,
    /// A peer's agent of this age is dead, although its kernel answers.
    pub agent_dead: Duration,
    /// How long a starting node waits for a silent peer.
    pub initial_wait: Duration,
    /// The primary takes the group back from a healthy secondary.
    pub auto_failback: bool,
    /// Both nodes must have been well for this long before a failback.
    pub failback_hold: Duration,
    /// How long a node whose takeover failed leaves the group to its peer.
    pub fault_hold: Duration,
}

/// About a round trip to an arbiter that is near.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// How the nodes of a group use their arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArbiterPolicy {
    /// How long the owner of a record may be active by it, from when it sent what wrote it.
    pub term: Duration,
    /// After which an answer is not waited for any more.
    pub timeout: Duration,
    /// How many nodes may own the group. A node's grants bind only itself: where there are more than two,
    /// nobody lives on them.
    pub contenders: usize,
}

impl ArbiterPolicy {
    /// The age at which the owner renews its record: two tries are left.
    pub(super) fn renewal(&self) -> Duration {
        self.term / 3
    }

    /// Between tries that fail, at most.
    pub(super) fn pause(&self) -> Duration {
        self.term / 12
    }

    /// Between a try that failed and the next, after tries in vain for so long.
    pub(super) fn pause_after(&self, vain: Duration) -> Duration {
        vain.max(SHORTEST_PAUSE).min(self.pause())
    }

    /// For how long at least an owner lives on its record once it does, so that with a peer that is
    /// heard now and then the record is not written at each of its messages. No longer than that takes:
    /// an owner that dies meanwhile is succeeded only when its term is over.
    pub(super) fn solitude(&self, dead: Duration) -> Duration {
        let several = dead.saturating_mul(5);
        self.pause().min(several).max(dead).min(self.renewal())
    }

    /// Between two looks at a record.
    pub(super) fn watch(&self, paired: bool) -> Duration {
        if paired {
            self.term.saturating_mul(3)
        } else {
            self.renewal()
        }
    }
}

/// By what a node of the group is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// By its own agent's word.
    OwnWord,
    /// By its peer's grants alone.
    Grants,
    /// By its peer's grants, or else by the arbiter's record.
    Arbiter(ArbiterPolicy),
}

/// Within what time an arbiter must answer the active so that the death of its peer stops nothing.
pub fn wanted_answer(keepalive: Duration, lease: Length) -> Duration {
    lease.duration().saturating_sub(suspicion(keepalive, lease))
}

fn suspicion(keepalive: Duration, lease: Length) -> Duration {
    (keepalive.saturating_mul(5) / 2).min(lease.duration().saturating_mul(5) / 6)
}

impl Policy {
    pub(super) fn rule(&self) -> Rule {
        match (self.arbiter, self.prefer) {
            (Some(arbiter), Prefer::Availability | Prefer::Consistency) => Rule::Arbiter(arbiter),
            (None, Prefer::Availability) => Rule::OwnWord,
            (None, Prefer::Consistency) => Rule::Grants,
        }
    }

    /// Whether the peer's grants let a node forward, and so bind who makes them.
    pub(super) fn grants_count(&self) -> bool {
        match self.rule() {
            Rule::OwnWord => false,
            Rule::Grants => true,
            Rule::Arbiter(arbiter) => arbiter.contenders <= 2,
        }
    }

    /// The age of a lease at which its holder no longer counts on the next grant: more than one was
    /// lost, or the peer is slow, or dead. A sixth of the lease is left to the arbiter, by default.
    pub(super) fn suspicion(&self, lease: Length) -> Duration {
        suspicion(self.keepalive, lease)
    }

    /// Of two nodes with equal right, the one with the lower place goes first: the primary.
    pub(super) fn goes_first(&self) -> bool {
        self.node < self.peer
    }

    /// A gap between two ticks beyond this is a time in which we were stopped and have no evidence
    /// about anyone. Two intervals, so that one late wake-up is no stop; half of `dead`, so that
    /// with coarse timing too at least half of a silence was listened to on time.
    pub(super) fn lateness(&self) -> Duration {
        self.keepalive.saturating_mul(2).max(self.dead / 2)
    }

    /// The age of an agent's last sign of life below which its successor may go on in its place. The
    /// peer takes over at `agent_dead`; two intervals until it hears of the successor, with one
    /// message lost.
    pub(super) fn resumable(&self) -> Duration {
        self.agent_dead
            .saturating_sub(self.keepalive.saturating_mul(2))
    }

    /// Time for two nodes to hear each other, with one message lost.
    pub(super) fn exchange(&self) -> Duration {
        self.keepalive.saturating_mul(2)
    }

    /// How long a claim is announced to a peer that could claim as well.
    pub(super) fn announcing(&self) -> Duration {
        self.exchange()
    }

    /// How long the one who goes second leaves an unowned group to a peer that could own it: until
    /// that peer has had time to miss an old active, to announce itself and to be heard.
    pub(super) fn patience(&self) -> Duration {
        self.dead
            .saturating_mul(2)
            .saturating_add(self.keepalive.saturating_mul(4))
    }

    /// How long an active peer may take to yield to our request. One second at least: with
    /// millisecond timing a busy peer that answers late is no reason to start over.
    pub(super) fn yielding(&self) -> Duration {
        self.dead.saturating_mul(4).max(Duration::from_secs(1))
    }

    /// How long a node whose takeover failed, after so many others that did, asks for nothing that the peer holds:
    /// where neither can take the group it moves less and less often, 32 times as long apart at most.
    pub(super) fn relief_hold(&self, failures: u32) -> Duration {
        self.fault_hold.saturating_mul(1 << failures.min(5))
    }

    /// After a request that was not granted, the next one waits this long.
    pub(super) fn ask_again(&self) -> Duration {
        self.yielding().max(self.failback_hold)
    }
}
