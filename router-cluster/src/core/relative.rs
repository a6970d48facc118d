//! A core whose times are counted from now, for the model checker: so that what has no effect any
//! more, such as how long ago something was, makes no new state.

use std::time::Duration;

use router_common::time::BootTime;

use super::{
    super::{Answer, PeerReport, Request, Revision},
    Core,
    arbitration::{Arbitration, Pending, Seen, Vain},
    evidence::DualActivity,
};

/// A time has passed, while the clock is taken to stand where it was.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    pub by: Duration,
    /// What was before this, was then.
    pub oldest: BootTime,
}

impl Passed {
    pub fn over(self, at: &mut BootTime) {
        let by = u64::try_from(self.by.as_nanos()).expect("short");
        if !at.is_never() && *at != BootTime::from_ns(u64::MAX) {
            *at = BootTime::from_ns(at.as_ns().saturating_sub(by)).max(self.oldest);
        }
    }

    pub fn over_report(self, report: &mut PeerReport) {
        let PeerReport {
            last_heard,
            claim: _,
            flags: _,
            agent_age: _,
            newest_echo,
            granted,
            leased,
        } = report;
        for at in [last_heard, newest_echo, granted, leased] {
            self.over(at);
        }
    }
}

impl Core {
    pub fn pass(&mut self, passed: Passed) {
        let Self {
            policy: _,
            stage: _,
            entered,
            newest: _,
            own_epoch: _,
            report,
            standing: _,
            standing_since,
            priority: _,
            rank: _,
            ranked_since,
            peer_finding: _,
            ticked,
            listening_since,
            arbitration,
            forced: _,
            stands_back: _,
            monitors_ok: _,
            stopping: _,
            failed_takeover: _,
            hold_until,
            failures: _,
            ask_not_before,
            granted,
            granted_is_all: _,
            lease: _,
            shortest: _,
            lapsed: _,
            active_since,
            vouched,
            alone_at,
            dual,
            reasserts: _,
            transitions: _,
            findings: _,
        } = self;
        passed.over_report(report);
        arbitration.pass(passed);
        if let Some(DualActivity { first, last }) = dual {
            passed.over(first);
            passed.over(last);
        }
        for at in [
            entered,
            standing_since,
            ranked_since,
            ticked,
            listening_since,
            hold_until,
            ask_not_before,
            granted,
            active_since,
            vouched,
            alone_at,
        ] {
            passed.over(at);
        }
    }

    /// The revisions that the core knows.
    pub fn revisions(&mut self) -> Vec<&mut Revision> {
        let Arbitration { seen, pending, .. } = &mut self.arbitration;
        let seen = seen.as_mut().and_then(|seen| seen.found.as_mut());
        let seen = seen.map(|(revision, _)| revision);
        let asked = pending
            .as_mut()
            .and_then(|pending| match &mut pending.request {
                Request::Read => None,
                Request::Swap {
                    expected,
                    record: _,
                } => expected.as_mut(),
            });
        seen.into_iter().chain(asked).collect()
    }

    /// Calls its open request the first; what it was called.
    pub fn renumber(&mut self) -> Option<u64> {
        self.arbitration.asked = 1;
        let pending = self.arbitration.pending.as_mut()?;
        Some(std::mem::replace(&mut pending.number, 1))
    }
}

impl Arbitration {
    fn pass(&mut self, passed: Passed) {
        let Self {
            seen,
            asked: _,
            pending,
            vain,
            held_from,
            held_until,
            won: _,
            finding: _,
            overruled: _,
            just_looked: _,
        } = self;
        if let Some(Seen {
            found: _,
            since,
            checked,
            sound: _,
        }) = seen
        {
            passed.over(since);
            passed.over(checked);
        }
        if let Some(Pending { since, .. }) = pending {
            passed.over(since);
        }
        for Vain {
            purpose: _,
            since,
            until,
        } in vain.iter_mut().flatten()
        {
            passed.over(since);
            passed.over(until);
        }
        passed.over(held_from);
        passed.over(held_until);
    }
}

/// The revisions in an answer.
pub fn revisions_of(answer: &mut Answer) -> Option<&mut Revision> {
    match answer {
        Answer::Found(found) => found.as_mut().map(|(revision, _)| revision),
        Answer::Swapped(revision) => Some(revision),
        Answer::Failed(_) => None,
    }
}
