//! Priorities that rise and fall: who asks for the group, and who waits.

use router_common::identity::{Epoch, Flags, Priority};

use super::{ASKING, Bench, DRAINING, IMPAIRED, OUT, OWNER, READY, active, ms, policy};
use crate::{Event, Forced, Policy, State};

fn lowered() -> Priority {
    Priority::weighted(-20)
}

/// Without failback: what moves here, priorities move.
fn keeps(node: u32) -> Policy {
    Policy {
        auto_failback: false,
        ..policy(node)
    }
}

#[test]
fn of_two_that_are_well_the_one_of_higher_priority_asks_after_the_hold() {
    for node in [1, 2] {
        let mut b = Bench::new(keeps(node));
        b.hears(OWNER, 5);
        b.run(ms(5000));
        assert_eq!(b.core.state(), State::Standby, "equals do not move");
        b.hears(OWNER.with_priority(lowered()), 5);
        b.run(ms(1990));
        assert_eq!(
            b.core.state(),
            State::Standby,
            "not before the hold is over"
        );
        // It is counted anew.
        b.hears(OWNER, 5);
        b.hears(OWNER.with_priority(lowered()), 5);
        b.run(ms(1990));
        assert_eq!(b.core.state(), State::Standby);
        b.run(ms(10));
        assert_eq!(b.core.state(), State::Candidate);
    }
}

#[test]
fn a_lower_priority_asks_for_nothing_not_even_a_failback() {
    let mut b = Bench::new(policy(1));
    b.handle(Event::Priority(lowered()));
    b.hears(OWNER, 5);
    b.run(ms(5000));
    assert_eq!(b.core.state(), State::Standby);
    assert_eq!(b.core.advertisement().flags.priority(), Some(lowered()));
    // It is fit all the same.
    b.hears(IMPAIRED, 5);
    assert_eq!(b.core.state(), State::Candidate);
}

#[test]
fn an_active_of_lower_priority_drains_for_one_that_asks_and_for_no_other() {
    for node in [1, 2] {
        let mut b = Bench::new(keeps(node));
        b.run(ms(550));
        b.handle(Event::Priority(lowered()));
        b.hears(OUT, 1);
        b.run(ms(5000));
        b.hears(READY, 1);
        b.run(ms(5000));
        assert_eq!(b.core.state(), State::Active, "the successor asks");
        b.hears(ASKING.with_priority(lowered()), 1);
        assert_eq!(b.core.state(), State::Active, "it is no better");
        b.hears(ASKING, 1);
        assert_eq!(b.core.state(), State::Draining);
    }
}

#[test]
fn a_group_comes_back_by_failback_when_the_priority_does() {
    let mut b = active(1);
    b.handle(Event::Priority(lowered()));
    b.hears(ASKING, 1);
    b.hears(OWNER, 2);
    assert_eq!(b.core.state(), State::Standby);
    b.run(ms(5000));
    assert_eq!(b.core.state(), State::Standby);
    b.handle(Event::Priority(Priority::BASE));
    b.run(ms(1990));
    assert_eq!(b.core.state(), State::Standby);
    b.run(ms(10));
    assert_eq!(b.core.state(), State::Candidate);
}

/// Until priorities change the other way.
#[test]
fn what_the_operator_moved_away_stays_away_whatever_the_priorities_are() {
    let mut b = active(1);
    b.hears(READY.with_priority(lowered()), 1);
    b.handle(Event::Force(Forced::Standby));
    b.hears(OWNER.with_priority(lowered()), 2);
    b.run(ms(5000));
    assert_eq!(b.core.state(), State::Standby);
    b.hears(OWNER, 2);
    b.run(ms(5000));
    assert_eq!(b.core.state(), State::Standby, "nor is there a failback");
    b.hears(OWNER.with_priority(lowered()), 2);
    b.run(ms(2000));
    assert_eq!(b.core.state(), State::Candidate);
}

#[test]
fn of_two_that_ask_the_primary_goes_first_whatever_the_priorities_are() {
    for (node, state) in [(1, State::Active), (2, State::Standby)] {
        let mut b = Bench::new(policy(node));
        b.hears(READY, 5);
        if b.core.state() == State::Standby {
            b.run(ms(120));
        }
        assert_eq!(b.core.state(), State::Candidate, "{node}");
        let better = if node == 1 { Priority::BASE } else { lowered() };
        let worse = if node == 1 { lowered() } else { Priority::BASE };
        b.handle(Event::Priority(worse));
        b.hears(ASKING.with_priority(better), 5);
        b.run(ms(30));
        assert_eq!(b.core.state(), state, "{node}");
    }
}

/// Its takeover, or its monitors while it is active, may fail each time.
#[test]
fn what_the_better_node_could_not_keep_it_leaves_to_the_peer() {
    type Failure = fn(Epoch) -> Event;
    let fails: [(&str, Failure, Option<Event>); 2] = [
        ("takeover", |epoch| Event::TakeoverFailed { epoch }, None),
        (
            "monitors",
            |_| Event::Monitors { ok: false },
            Some(Event::Monitors { ok: true }),
        ),
    ];
    for (what, fail, recovery) in fails {
        for auto_failback in [false, true] {
            let mut b = Bench::new(Policy {
                auto_failback,
                ..policy(2)
            });
            let worse = |flags: Flags| flags.with_priority(lowered());
            b.hears(worse(OWNER), 5);
            b.run(ms(2000));
            b.hears(worse(DRAINING), 5);
            assert_eq!(b.core.state(), State::Active, "{what}");
            b.handle(fail(Epoch(6)));
            b.hears(worse(ASKING), 6);
            assert_eq!(b.core.state(), State::Fault, "{what}");
            b.hears(worse(OWNER), 7);
            if let Some(event) = recovery {
                b.handle(event);
            }
            b.run(ms(20_000));
            assert_eq!(b.core.state(), State::Standby, "{what}");
            // Until it is the better one anew.
            b.hears(OWNER, 7);
            b.hears(worse(OWNER), 7);
            b.run(ms(2000));
            assert_eq!(b.core.state(), State::Candidate, "{what}");
        }
    }
}

#[test]
fn a_failback_comes_after_lost_monitors_and_not_after_a_takeover_that_failed() {
    for (event, state) in [
        (Event::Monitors { ok: false }, State::Candidate),
        (Event::TakeoverFailed { epoch: Epoch(1) }, State::Standby),
    ] {
        let mut b = active(1);
        b.handle(event);
        b.hears(ASKING, 1);
        b.hears(OWNER, 2);
        b.handle(Event::Monitors { ok: true });
        b.run(ms(2700));
        assert_eq!(b.core.state(), state, "{event:?}");
    }
}

#[test]
fn a_peer_that_knows_no_priorities_is_asked_for_nothing_because_of_one() {
    for own in [Priority::weighted(20), lowered()] {
        let mut b = Bench::new(keeps(2));
        b.handle(Event::Priority(own));
        b.hears(OWNER, 5);
        b.peer.flags = OWNER;
        b.tick();
        b.run(ms(5000));
        assert_eq!(b.core.state(), State::Standby, "{own:?}");
    }
    // Nor does it lose its failback by one.
    let mut b = Bench::new(policy(1));
    b.handle(Event::Priority(lowered()));
    b.hears(OWNER, 5);
    b.peer.flags = OWNER;
    b.tick();
    b.run(ms(2000));
    assert_eq!(b.core.state(), State::Candidate);
}

#[test]
fn a_request_ends_when_its_reason_has_gone_unless_the_operator_has_another() {
    for (forced, state) in [(false, State::Standby), (true, State::Candidate)] {
        let mut b = Bench::new(keeps(1));
        b.hears(OWNER.with_priority(lowered()), 5);
        b.run(ms(2000));
        assert_eq!(b.core.state(), State::Candidate);
        if forced {
            b.handle(Event::Force(Forced::Active { anyway: false }));
        }
        b.hears(OWNER, 5);
        assert_eq!(b.core.state(), state);
    }
}

#[test]
fn a_new_agent_stands_back_as_the_one_before_it_did() {
    let mut b = active(1);
    b.hears(READY.with_priority(lowered()), 1);
    b.handle(Event::Force(Forced::Standby));
    b.hears(OWNER.with_priority(lowered()), 2);
    let said = b.core.advertisement().flags;
    assert!(said.contains(Flags::STANDS_BACK));
    for (said, state) in [(said, State::Standby), (READY, State::Candidate)] {
        let mut b = Bench::new(policy(1));
        b.resume(said, ms(100));
        b.handle(Event::Priority(Priority::BASE));
        b.hears(OWNER.with_priority(lowered()), 5);
        b.run(ms(5000));
        assert_eq!(b.core.state(), state);
    }
}

/// It may have ceased to be, and have heard of other priorities.
#[test]
fn a_secondary_that_is_preferred_does_not_take_from_a_peer_that_is_out_at_once() {
    let mut b = Bench::new(keeps(2));
    b.hears(OWNER.with_priority(lowered()), 5);
    b.hears(OUT.with_priority(lowered()), 5);
    b.run(ms(19));
    assert_eq!(b.core.state(), State::Standby);
    b.run(ms(1));
    assert_eq!(b.core.state(), State::Active);
}
