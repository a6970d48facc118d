//! What becomes of an operator's order that cannot be carried out.

use std::num::NonZeroU64;

use router_common::identity::{Claim, Epoch, NodeId};

use super::{Bench, OUT, OWNER, ms, policy};
use crate::{
    Answer, ArbiterFinding, ArbiterPolicy, Cause, Command, Event, Fault, Finding, Forced, Mode,
    PeerFinding, Policy, Prefer, Record, Refusal, Revision, State,
};

const HERE: Event = Event::Force(Forced::Active { anyway: false });

/// Without failback: only an order moves the group.
fn keeps(node: u32) -> Policy {
    Policy {
        auto_failback: false,
        ..policy(node)
    }
}

/// A secondary beside an owner, which has read the owner's record.
fn under_an_arbiter() -> Bench {
    let mut b = Bench::new(Policy {
        arbiter: Some(ArbiterPolicy {
            term: ms(120),
            timeout: ms(40),
            contenders: 2,
        }),
        ..keeps(2)
    });
    b.hears(OWNER, 5);
    answer(&mut b);
    b.run(ms(50));
    b
}

/// The arbiter answers what was asked last.
fn answer(b: &mut Bench) {
    let record = Record {
        claim: Claim {
            epoch: Epoch(5),
            owner: NodeId(1),
        },
        mode: Mode::Paired,
    };
    let found = Some((Revision(NonZeroU64::MIN), record));
    says(b, Answer::Found(found));
}

fn says(b: &mut Bench, answer: Answer) {
    let asked = b.commands.drain(..).next_back();
    let Some(Command::Ask { number, .. }) = asked else {
        panic!("asked {asked:?}");
    };
    b.handle(Event::Arbiter {
        number,
        sent: b.now,
        answer,
    });
}

/// What it becomes from now on, while nothing changes.
fn becomes(b: &mut Bench) -> Vec<State> {
    let _ = b.core.transitions().count();
    b.run(ms(5000));
    b.core.transitions().map(|t| t.to).collect()
}

/// Monitors are lost, and come back hours later.
fn loses_its_monitors_for_a_while(b: &mut Bench) {
    b.handle(Event::Monitors { ok: false });
    assert_eq!(b.core.state(), State::Fault);
    b.run(ms(5000));
    b.handle(Event::Monitors { ok: true });
    assert_eq!(b.core.state(), State::Standby);
}

/// What is told of the order.
fn dropped(b: &mut Bench) -> Vec<Refusal> {
    let findings = b.core.findings();
    let dropped = findings.filter_map(|finding| match finding {
        Finding::Dropped { at: _, why } => Some(why),
        _ => None,
    });
    dropped.collect()
}

#[test]
fn an_order_that_the_arbiter_does_not_allow_is_dropped_and_told_of() {
    let behind = ArbiterFinding::Behind {
        found: None,
        known: Epoch(5),
    };
    for (answer, finding) in [
        (
            Answer::Failed(Fault::Unreachable),
            ArbiterFinding::Failing(Fault::Unreachable),
        ),
        (Answer::Found(None), behind),
    ] {
        for anyway in [false, true] {
            let mut b = under_an_arbiter();
            b.handle(Event::Force(Forced::Active { anyway }));
            says(&mut b, answer);
            assert_eq!(dropped(&mut b), [Refusal::Arbiter(finding)]);
            assert_eq!(becomes(&mut b), []);
        }
    }
}

#[test]
fn an_order_ends_with_the_candidate_that_is_not_well() {
    let mut b = Bench::new(keeps(2));
    b.hears(OWNER, 5);
    b.handle(HERE);
    assert_eq!(b.core.state(), State::Candidate);
    loses_its_monitors_for_a_while(&mut b);
    let why = Refusal::NotWell(Cause::MonitorsUnreachable);
    assert_eq!(dropped(&mut b), [why]);
    assert_eq!(becomes(&mut b), []);
}

#[test]
fn an_order_that_waits_for_the_arbiter_ends_when_the_node_is_not_well() {
    let mut b = under_an_arbiter();
    b.handle(HERE);
    assert_eq!(b.core.state(), State::Standby, "it looks first");
    loses_its_monitors_for_a_while(&mut b);
    answer(&mut b);
    assert_eq!(b.core.state(), State::Standby);
    assert_eq!(becomes(&mut b), []);
}

/// Who prefers consistency, and does not hear the peer, is refused such an order.
#[test]
fn an_order_ends_when_the_peer_is_not_heard_any_more() {
    let mut b = Bench::new(Policy {
        prefer: Prefer::Consistency,
        ..keeps(2)
    });
    b.hears(OWNER, 5);
    b.hears(OUT, 6);
    b.hears(OWNER, 5);
    b.handle(HERE);
    assert_eq!(b.core.state(), State::Standby, "the peer is outdated");
    b.speaking = false;
    b.run(ms(5000));
    let why = Refusal::NoGrants(PeerFinding::KernelSilent);
    assert_eq!(dropped(&mut b), [why]);
    b.hears(OWNER, 7);
    assert_eq!(b.core.state(), State::Standby);
    assert_eq!(becomes(&mut b), []);
}
