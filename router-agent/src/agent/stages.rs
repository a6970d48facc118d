//! The stages on a group's way to its next transition, and what is known meanwhile: kept by the clock
//! thread, for the flight recorder.

use std::time::Duration;

use router_common::{identity::Epoch, time::BootTime};

use super::fitness::Fitness;
use crate::cluster::{Finding, PeerFinding, PeerReport, Record, State, Transition};

/// When each stage was reached; never, if it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    pub suspected: BootTime,
    pub grants_closed: BootTime,
    pub arbiter_asked: BootTime,
    pub arbiter_answered: BootTime,
    pub fence_open: BootTime,
}

/// What this node knew at a transition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub peer: PeerFinding,
    /// None: nothing has come, or been heard, yet.
    pub silence: Option<Duration>,
    pub echo_age: Option<Duration>,
    pub agent_age: Duration,
    pub peer_epoch: Epoch,
    pub monitors: Fitness,
    pub record: Option<Record>,
}

/// Of one group.
#[derive(Clone, Debug)]
pub struct Watch {
    stages: Stages,
    /// The number of the question that was asked last, on this way.
    question: Option<u64>,
    report: PeerReport,
    monitors: Fitness,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            stages: Stages::default(),
            question: None,
            report: PeerReport::default(),
            monitors: Fitness::unmonitored(),
        }
    }
}

impl Watch {
    pub fn heard(&mut self, report: PeerReport) {
        self.report = report;
    }

    pub fn monitors(&mut self, fitness: Fitness) {
        self.monitors = fitness;
    }

    /// The first finding against the peer counts, until it is alive again.
    pub fn found(&mut self, finding: &Finding) {
        if let Finding::Peer { at, from: _, to } = *finding {
            match to {
                PeerFinding::Alive => self.stages.suspected = BootTime::NEVER,
                PeerFinding::NeverHeard
                | PeerFinding::AliveAndDeaf
                | PeerFinding::KernelSilent
                | PeerFinding::AgentDead => {
                    if self.stages.suspected.is_never() {
                        self.stages.suspected = at;
                    }
                }
            }
        }
    }

    pub fn grants_closed(&mut self, now: BootTime) {
        self.stages.grants_closed = now;
    }

    pub fn fence_opened(&mut self, now: BootTime) {
        self.stages.fence_open = now;
    }

    pub fn asked(&mut self, number: u64, now: BootTime) {
        self.question = Some(number);
        self.stages.arbiter_asked = now;
        self.stages.arbiter_answered = BootTime::NEVER;
    }

    /// The answer to a question before the last is no answer to that.
    pub fn answered(&mut self, number: u64, now: BootTime) {
        if self.question == Some(number) {
            self.stages.arbiter_answered = now;
        }
    }

    pub fn known(&self, peer: PeerFinding, record: Option<Record>, now: BootTime) -> Known {
        let PeerReport {
            last_heard,
            newest_echo,
            agent_age,
            claim,
            ..
        } = self.report;
        let age = |at: BootTime| (!at.is_never()).then(|| now.since(at));
        Known {
            peer,
            silence: age(last_heard),
            echo_age: age(newest_echo),
            agent_age,
            peer_epoch: claim.epoch,
            monitors: self.monitors.clone(),
            record,
        }
    }

    /// The stages that led to `transition`. A candidate is still on its way; from any other state a new
    /// way begins.
    pub fn reached(&mut self, transition: &Transition) -> Stages {
        let stages = self.stages;
        match transition.to {
            // If it became more at once, its fence is open by now.
            State::Candidate => {
                return Stages {
                    fence_open: BootTime::NEVER,
                    ..stages
                };
            }
            State::Initializing
            | State::Standby
            | State::Active
            | State::Draining
            | State::Fault => {
                self.stages = Stages {
                    suspected: stages.suspected,
                    ..Stages::default()
                };
                self.question = None;
            }
        }
        stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cause;

    const fn at(ns: u64) -> BootTime {
        BootTime::from_ns(ns)
    }

    fn transition(to: State) -> Transition {
        Transition {
            at: at(9),
            from: State::Standby,
            to,
            epoch: Epoch(1),
            cause: Cause::PeerHeard,
            last_heard: at(1),
        }
    }

    #[test]
    fn a_candidates_stages_are_those_of_the_activation_too() {
        let mut watch = Watch::default();
        watch.found(&Finding::Peer {
            at: at(2),
            from: PeerFinding::Alive,
            to: PeerFinding::KernelSilent,
        });
        watch.found(&Finding::Peer {
            at: at(3),
            from: PeerFinding::KernelSilent,
            to: PeerFinding::AgentDead,
        });
        watch.reached(&transition(State::Candidate));
        watch.grants_closed(at(4));
        watch.asked(1, at(5));
        watch.answered(1, at(6));
        watch.fence_opened(at(7));
        let stages = watch.reached(&transition(State::Active));
        assert_eq!(
            stages,
            Stages {
                suspected: at(2),
                grants_closed: at(4),
                arbiter_asked: at(5),
                arbiter_answered: at(6),
                fence_open: at(7),
            }
        );
        let next = watch.reached(&transition(State::Standby));
        assert_eq!(next.fence_open, BootTime::NEVER);
        assert_eq!(next.suspected, at(2), "the peer is still silent");
    }

    #[test]
    fn an_answer_is_that_to_the_last_question_or_none() {
        let mut watch = Watch::default();
        watch.asked(1, at(2));
        watch.asked(2, at(3));
        watch.answered(1, at(4));
        let mut stages = watch.clone().reached(&transition(State::Candidate));
        assert_eq!(stages.arbiter_answered, BootTime::NEVER);
        watch.answered(2, at(5));
        stages = watch.reached(&transition(State::Active));
        assert_eq!(
            (stages.arbiter_asked, stages.arbiter_answered),
            (at(3), at(5))
        );
        // It was asked on the way before.
        watch.answered(2, at(6));
        stages = watch.reached(&transition(State::Standby));
        assert_eq!(stages.arbiter_answered, BootTime::NEVER);
    }

    #[test]
    fn what_was_never_heard_has_no_age() {
        let mut watch = Watch::default();
        let known = watch.known(PeerFinding::NeverHeard, None, at(9));
        assert_eq!((known.silence, known.echo_age), (None, None));
        watch.heard(PeerReport {
            last_heard: at(4),
            newest_echo: at(2),
            ..PeerReport::default()
        });
        let known = watch.known(PeerFinding::Alive, None, at(9));
        let ns = |ns| Some(Duration::from_nanos(ns));
        assert_eq!((known.silence, known.echo_age), (ns(5), ns(7)));
    }
}
