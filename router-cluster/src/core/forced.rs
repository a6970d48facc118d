//! Moves that the operator asks for.

use router_common::time::BootTime;

use super::{
    super::{
        cause::Cause,
        history::{ArbiterFinding, Finding},
        policy::Rule,
        report::{PeerFinding, Standing},
    },
    Core,
    table::Stage,
};

/// A move that the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forced {
    /// To this node. `anyway`: although the arbiter cannot be relied on.
    Active { anyway: bool },
    /// Away from this node.
    Standby,
}

/// Why an operator's move is refused, or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("this node has only just started, try again in a moment")]
    Starting,
    #[error("this node is not well: {0}")]
    NotWell(Cause),
    #[error("this node is active already")]
    AlreadyActive,
    #[error("this node is not active")]
    NotActive,
    #[error("the peer is {0}, and could not forward by grants: both nodes must be heard")]
    NoGrants(PeerFinding),
    #[error(
        "the peer is {0}, and could not take over; to leave without a successor, stop the agent"
    )]
    NoSuccessor(PeerFinding),
    #[error("the arbiter {0}")]
    Arbiter(ArbiterFinding),
    #[error(
        "the peer is active, and what the arbiter holds would have the group wait for a term: run `routerctl force \
         cluster active --i-know` on the peer, which has its record written anew, and move the group then"
    )]
    PeerActive,
}

impl Core {
    /// Whether the group may be moved as the operator asks.
    pub fn may_force(&self, forced: Forced) -> Result<(), Refusal> {
        match forced {
            Forced::Active { anyway } => self.may_take(anyway),
            Forced::Standby => self.may_hand_over(),
        }
    }

    fn may_take(&self, anyway: bool) -> Result<(), Refusal> {
        if let Some(trouble) = self.trouble() {
            return Err(Refusal::NotWell(trouble));
        }
        match self.stage {
            Stage::Initializing | Stage::Fault => return Err(Refusal::Starting),
            // It may have its record written anew.
            Stage::Active | Stage::Draining if anyway && self.is_record_unsound() => {}
            Stage::Active | Stage::Draining => return Err(Refusal::AlreadyActive),
            Stage::Standby | Stage::Candidate(_) => {}
        }
        match self.policy.rule() {
            Rule::Grants if self.lacks_a_granter() => Err(Refusal::NoGrants(self.peer_finding)),
            Rule::Arbiter(_) if !anyway => self.relies_on_arbiter(),
            Rule::Arbiter(_) if self.standing.owns() && self.is_record_unsound() => {
                Err(Refusal::PeerActive)
            }
            Rule::Grants | Rule::OwnWord | Rule::Arbiter(_) => Ok(()),
        }
    }

    /// Whether it would be active without the peer's grants.
    pub(super) fn lacks_a_granter(&self) -> bool {
        match self.standing {
            Standing::Unknown | Standing::Silent | Standing::Headless => true,
            Standing::Out
            | Standing::Ready
            | Standing::Asking
            | Standing::Owner
            | Standing::Impaired
            | Standing::Draining
            | Standing::Outdated => false,
        }
    }

    fn may_hand_over(&self) -> Result<(), Refusal> {
        if self.stage != Stage::Active {
            return Err(Refusal::NotActive);
        }
        if !self.has_successor() {
            return Err(Refusal::NoSuccessor(self.peer_finding));
        }
        match self.policy.rule() {
            Rule::Arbiter(_) => self.relies_on_arbiter(),
            Rule::OwnWord | Rule::Grants => Ok(()),
        }
    }

    fn relies_on_arbiter(&self) -> Result<(), Refusal> {
        match self.arbiter_finding() {
            ArbiterFinding::Well => Ok(()),
            is @ (ArbiterFinding::NeverHeard
            | ArbiterFinding::Failing(_)
            | ArbiterFinding::Behind { .. }
            | ArbiterFinding::Foreign { .. }) => Err(Refusal::Arbiter(is)),
        }
    }

    pub(super) fn force(&mut self, forced: Forced) {
        if self.may_force(forced).is_err() {
            return;
        }
        self.stands_back = false;
        self.forget_look();
        self.overrule(forced == Forced::Active { anyway: true });
        self.forced = (!self.owns() || forced == Forced::Standby).then_some(forced);
    }

    /// The move has come about, or the peer did not consent.
    pub(super) fn end_order(&mut self) {
        self.forced = None;
        self.overrule(false);
    }

    /// The move cannot come about now, and does not at some later time.
    pub(super) fn drop_order(&mut self, why: Refusal, now: BootTime) {
        if self.forced.is_some() {
            self.findings.push(Finding::Dropped { at: now, why });
        }
        self.end_order();
    }

    /// Drops an order that waits and would be refused now, since the peer is not heard.
    pub(super) fn drop_vain_order(&mut self, now: BootTime) {
        if self.stage == Stage::Standby
            && self.policy.rule() == Rule::Grants
            && self.lacks_a_granter()
        {
            self.drop_order(Refusal::NoGrants(self.peer_finding), now);
        }
    }

    /// Whether the peer could own the group, and does not.
    pub(super) fn has_successor(&self) -> bool {
        match self.standing {
            Standing::Ready | Standing::Asking => true,
            Standing::Unknown
            | Standing::Silent
            | Standing::Headless
            | Standing::Out
            | Standing::Owner
            | Standing::Impaired
            | Standing::Draining
            | Standing::Outdated => false,
        }
    }
}
