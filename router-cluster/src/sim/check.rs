//! What must hold at every step, and in the end.

use std::cmp::Ordering;

use router_common::lease::{self, Gate, MARGIN};

use super::{
    super::{ArbiterFinding, Cause, Core, Forced, State},
    AFTERMATH, AGENT_DEAD, DEAD, HANDOVER, MAX_DELAY, PER_MS, QUIET, SETTLED, STEP_NS, Setup,
    fault::Op,
    ms,
    world::{Place, Sim, Way},
};

impl Sim {
    pub(super) fn check(&mut self) -> Result<(), String> {
        let now = self.now;
        let calm = self.places.iter().all(Place::healthy)
            && self.cut == [false; 2]
            && now >= self.burst_until
            && self.max_delay <= MAX_DELAY * PER_MS;
        if !calm {
            self.disturbed_until = now + AFTERMATH * PER_MS;
        }
        if self.setup.excludes() {
            self.check_exclusion()
        } else {
            self.check_pair(calm)
        }
        .map_err(|error| format!("at {now}: {error}"))?;
        self.check_monitors(calm)
            .and_then(|()| self.check_service(calm))
            .map_err(|error| format!("at {now}: {error}"))
    }

    /// Once a group has been served in calm times it goes on to be, but for handovers, until something happens.
    fn check_service(&mut self, calm: bool) -> Result<(), String> {
        let now = self.now;
        let leaving = |place: &Place| {
            let trouble = place.node.core.as_ref().and_then(Core::trouble);
            trouble == Some(Cause::Stopping)
        };
        let quiet = calm
            && !self.lossy
            && !self.store_down
            && !self.wiped
            && self.places.iter().all(|place| place.arbiter == Way::Open)
            && !self.places.iter().any(leaving);
        if !quiet {
            self.happened = now;
        }
        if now < self.happened + QUIET * PER_MS {
            self.served_at = None;
        } else if self.places.iter().any(|place| place.forwards(now)) {
            self.served_at = Some(now);
        } else if self
            .served_at
            .is_some_and(|at| now > at + HANDOVER * PER_MS)
        {
            let states: Vec<_> = self.places.iter().map(|place| place.node.state()).collect();
            return Err(format!("nobody forwards, being {states:?}"));
        }
        Ok(())
    }

    /// Never two forward, nor does who holds a lower epoch after one who holds a higher.
    fn check_exclusion(&mut self) -> Result<(), String> {
        let now = self.now;
        let mut forwarding = 0;
        for place in &mut self.places {
            let gate = place.node.gate(place.clock(now));
            let runs = place.frozen_since.is_none() && place.node.powered;
            if runs && gate == Gate::Open {
                let margin = u64::try_from(MARGIN.as_nanos() / u128::from(STEP_NS)).expect("small");
                place.witness.on_the_wire_until = now + margin;
                let epoch = router_common::identity::Claim::from_word(place.node.fence.claim).epoch;
                if epoch < self.highest_forwarded && !self.wiped {
                    return Err(format!("forwards under {epoch:?}"));
                }
                self.highest_forwarded = self.highest_forwarded.max(epoch);
            } else if gate == Gate::Closed {
                // What a closing fence let pass before is under way: R5 does not wait for it.
                place.witness.on_the_wire_until = now;
            }
            forwarding += u32::from(now < place.witness.on_the_wire_until);
        }
        if forwarding > 1 {
            let states: Vec<_> = self.places.iter().map(|place| place.node.state()).collect();
            return Err(format!("two forward, being {states:?}"));
        }
        for holder in 0..2 {
            let [holder, granter] = [holder, 1 - holder].map(|index| &self.places[index]);
            let holds = holder.node.powered
                && lease::lease_end(&holder.node.fence, &holder.node.lease) > holder.clock(now);
            if holds && granter.owns() {
                return Err("active while what it granted holds".into());
            }
        }
        if self.setup == Setup::Consistency {
            for (index, place) in self.places.iter().enumerate() {
                let granted = self.places[1 - index].witness.ever_granted;
                let covers = DEAD * 3 / 4 * PER_MS * 1_001 / 1_000;
                if place.forwards(now) && granted.is_none_or(|at| now > at + covers) {
                    return Err("forwards, and nobody grants".into());
                }
            }
        }
        Ok(())
    }

    /// Of a pair that prefers availability: both are active only while or just after they could not
    /// know of each other.
    fn check_pair(&mut self, calm: bool) -> Result<(), String> {
        let now = self.now;
        if self.places.iter().all(|place| place.node.active()) {
            self.dual_for += 1;
            if now > self.disturbed_until {
                return Err("both active without a reason".into());
            }
        }
        for (index, place) in self.places.iter().enumerate() {
            // Its agent's last sign of life, and what that vouches for.
            let vouched = place.clock(now) < place.node.agent_seen.after(ms(AGENT_DEAD));
            if place.forwards(now) && !vouched {
                return Err(format!("node {} forwards without an agent", index + 1));
            }
        }
        let [a, b] = &self.places[..] else {
            return Ok(());
        };
        // Nothing acts on an epoch lower than the highest that a living node knows, but for one that
        // waits to hear so.
        let outdated = |x: &Place, y: &Place| {
            x.node.state() != Some(State::Draining)
                && x.witness
                    .taken
                    .is_some_and(|epoch| epoch < y.witness.highest)
        };
        if calm && now > self.disturbed_until && (outdated(a, b) || outdated(b, a)) {
            return Err("active under an epoch that has passed".into());
        }
        Ok(())
    }

    fn check_monitors(&mut self, calm: bool) -> Result<(), String> {
        let [a, b, ..] = &self.places[..] else {
            return Ok(());
        };
        let calm = calm
            && !self.store_down
            && !self.wiped
            && self.places.iter().all(|place| place.arbiter == Way::Open);
        let worse = |x: &Place, y: &Place| {
            calm && x.node.active()
                && !x.node.monitors_ok
                && y.node.monitors_ok
                && matches!(y.node.state(), Some(State::Standby | State::Candidate))
        };
        if worse(a, b) || worse(b, a) {
            let since = *self.worse_since.get_or_insert(self.now);
            // An ungranted request, and the wait before the next.
            if self.now - since > 3500 * PER_MS {
                return Err("active without monitors beside a better node".into());
            }
        } else {
            self.worse_since = None;
        }
        Ok(())
    }

    /// An arbiter that has forgotten waits for the operator.
    fn command_an_owner(&mut self) -> Result<(), String> {
        let behind = |place: &Place| {
            let finding = place.node.core.as_ref().map(Core::arbiter_finding);
            matches!(finding, Some(ArbiterFinding::Behind { .. }))
        };
        if !self.places.iter().any(behind) {
            return Ok(());
        }
        let owner = self.places.iter().position(Place::owns);
        let known = |place: &Place| place.witness.highest;
        let newest = (0..self.places.len()).max_by_key(|&index| known(&self.places[index]));
        let Some(index) = owner.or(newest) else {
            return Ok(());
        };
        self.apply(Op::Force(index, Forced::Active { anyway: true }))?;
        self.run(SETTLED)
    }

    /// Exactly one node is active, and nothing changes any more.
    pub(super) fn settled(&mut self) -> Result<(), String> {
        self.run(SETTLED)?;
        self.command_an_owner()?;
        let changes = |sim: &Self| -> usize {
            sim.places
                .iter()
                .map(|place| place.witness.history.len())
                .sum()
        };
        let before = changes(self);
        self.run(1000)?;
        let now = self.now;
        let states: Vec<_> = self.places.iter().map(|place| place.node.state()).collect();
        let active: Vec<_> = self
            .places
            .iter()
            .map(|place| place.node.active())
            .collect();
        if active.iter().filter(|&&active| active).count() != 1 {
            return Err(format!("settled as {states:?}"));
        }
        let forwards: Vec<_> = self
            .places
            .iter()
            .map(|place| place.forwards(now))
            .collect();
        if forwards != active {
            return Err("the active does not forward, or another does".into());
        }
        if let ([a, b], false) = (&self.places[..], self.moved) {
            let rank = a.node.priority.cmp(&b.node.priority);
            if rank == Ordering::Equal && a.node.policy.auto_failback && !active[0] {
                return Err("failback did not happen".into());
            }
            let better = usize::from(rank == Ordering::Less);
            if rank != Ordering::Equal && !self.handed_back && !active[better] {
                return Err("the node of higher priority is not active".into());
            }
        }
        if changes(self) != before {
            return Err("still changing".into());
        }
        Ok(())
    }
}
