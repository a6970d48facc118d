//! What must hold of every call of a core.

use router_common::{
    identity::{Epoch, Flags},
    time::BootTime,
};

use super::super::{
    Cause, Command, Transition,
    node::{Node, Outcome, owns},
};

/// What the checks remember of a node.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// What its agent has taken in this life.
    pub(super) taken: Option<Epoch>,
    /// What a former life took, and this one takes once more.
    pub(super) inherited: Option<Epoch>,
    pub(super) highest: Epoch,
    pub(super) history: Vec<Transition>,
    /// When it last granted, in any life, by the world's clock.
    pub(super) ever_granted: Option<u64>,
    /// Until when a packet that it let pass may be on its way to the wire.
    pub(super) on_the_wire_until: u64,
}

impl Witness {
    /// Everything that must hold of one call.
    pub(super) fn judge(
        &mut self,
        node: &Node,
        outcome: &Outcome,
        now: BootTime,
        ticked: bool,
    ) -> Result<(), String> {
        let Outcome {
            commands,
            transitions,
        } = outcome;
        let Some(core) = &node.core else {
            return Ok(());
        };
        if transitions.len() > 4 {
            return Err(format!("{} transitions in one call", transitions.len()));
        }
        for transition in transitions {
            better_off(node, transition)?;
        }
        let mut moves = transitions
            .iter()
            .filter(|transition| owns(transition.from) != owns(transition.to))
            .map(|transition| (owns(transition.to), transition.epoch));
        for command in commands {
            match *command {
                Command::Take { epoch }
                    if self.inherited == Some(epoch) && self.taken == Some(epoch) =>
                {
                    self.inherited = None;
                }
                Command::Take { epoch } => {
                    if self.taken.is_some() || epoch <= self.highest {
                        return Err(format!("{command:?} beside {:?}", self.taken));
                    }
                    if moves.next() != Some((true, epoch)) {
                        return Err(format!("{command:?} without becoming active"));
                    }
                    self.taken = Some(epoch);
                }
                Command::Release { epoch } => {
                    if self.taken.take() != Some(epoch) {
                        return Err(format!("{command:?} of nothing taken"));
                    }
                    if moves.next() != Some((false, epoch)) {
                        return Err(format!("{command:?} without leaving active"));
                    }
                }
                Command::Announce { epoch } => {
                    if self.taken != Some(epoch) {
                        return Err(format!("{command:?} of nothing held"));
                    }
                }
                Command::Ask { .. } => {
                    if node.policy.arbiter.is_none() {
                        return Err(format!("{command:?} without an arbiter"));
                    }
                }
            }
        }
        if moves.next().is_some() {
            return Err("became or ceased to be active without a command".into());
        }
        drop(moves);
        self.history.extend(transitions);
        let advertisement = core.advertisement();
        if advertisement.claim.epoch < self.highest {
            return Err(format!("epoch went back from {:?}", self.highest));
        }
        self.highest = advertisement.claim.epoch;
        let active = owns(core.state());
        if active != advertisement.flags.contains(Flags::FORWARDING)
            || active != (advertisement.claim.owner == node.policy.node)
            || active != self.taken.is_some()
        {
            return Err(format!("{:?} says {advertisement:?}", core.state()));
        }
        let mandate = core.mandate();
        if active && !mandate.grant.is_none() {
            return Err("grants what it holds itself".into());
        }
        // Other events leave the deadline to the tick that it asks for.
        if ticked && core.next_deadline().is_some_and(|at| at <= now) {
            return Err("a deadline that has passed".into());
        }
        Ok(())
    }
}

/// A group moves only to a node that is well, and leaves one that is not only for one that asks for it.
fn better_off(node: &Node, transition: &Transition) -> Result<(), String> {
    let Transition {
        from, to, cause, ..
    } = transition;
    if !owns(*from) && owns(*to) && !node.monitors_ok {
        return Err(format!("active although not well: {cause}"));
    }
    let unwell = matches!(
        cause,
        Cause::MonitorsUnreachable | Cause::TakeoverFailed { .. }
    );
    if owns(*from) && unwell && !node.report.flags.contains(Flags::CANDIDATE) {
        return Err(format!("left to nobody: {cause}"));
    }
    Ok(())
}
