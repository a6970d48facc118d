//! What is granted, what is owed to a peer that was granted something, and what a node may live on.

use std::time::Duration;

use router_common::{
    identity::{Claim, Epoch, Flags},
    lease::Length,
    time::BootTime,
};

use super::{ASKING, Bench, DRAINING, IMPAIRED, OUT, OWNER, READY, active, ms, policy};
use crate::{Core, Event, FormerLife, PeerFinding, Policy, Prefer, State};

fn consistent(node: u32) -> Bench {
    Bench::new(Policy {
        prefer: Prefer::Consistency,
        ..policy(node)
    })
}

#[test]
fn an_owner_is_granted_what_it_lives_on_until_it_has_let_go() {
    let mut b = consistent(1);
    assert!(b.core.mandate().grant.is_none(), "nobody owns the group");
    b.hears(OWNER, 5);
    assert_eq!(b.core.mandate().grant, policy(1).lease);
    assert_eq!(b.core.mandate().opening, None);
    b.run(ms(2000));
    for flags in [OWNER, IMPAIRED, DRAINING] {
        b.hears(flags, 5);
        assert_eq!(b.core.state(), State::Candidate, "asks for failback");
        assert_eq!(b.core.mandate().grant, policy(1).lease, "{flags:?}");
    }
    b.hears(ASKING, 5);
    assert_eq!(b.core.state(), State::Candidate);
    assert!(b.core.mandate().grant.is_none());
}

#[test]
fn a_candidate_grants_nothing_to_one_that_acts_on_a_passed_epoch_or_without_its_agent() {
    for passed in [true, false] {
        let mut b = consistent(1);
        b.hears(OWNER, 5);
        b.run(ms(2000));
        assert_eq!(b.core.state(), State::Candidate);
        b.hears(OWNER, if passed { 4 } else { 5 });
        b.peer.agent_age = if passed { ms(10) } else { ms(300) };
        b.tick();
        assert!(b.core.mandate().grant.is_none(), "passed: {passed}");
    }
}

#[test]
fn an_agent_that_is_dead_is_granted_nothing() {
    let mut b = consistent(2);
    b.hears(OWNER, 5);
    b.peer.agent_age = ms(300);
    b.tick();
    assert!(b.core.mandate().grant.is_none());
    assert_eq!(b.core.state(), State::Standby, "and nothing is claimed");
    b.peer.agent_age = ms(10);
    b.tick();
    assert!(!b.core.mandate().grant.is_none());
}

#[test]
fn a_node_out_of_service_grants_all_the_same() {
    let mut b = consistent(2);
    b.hears(OWNER, 5);
    b.handle(Event::Monitors { ok: false });
    assert_eq!(b.core.state(), State::Fault);
    assert!(!b.core.mandate().grant.is_none());
}

#[test]
fn who_prefers_consistency_claims_nothing_from_silence() {
    let mut b = consistent(2);
    b.hears(OWNER, 5);
    b.speaking = false;
    b.run(ms(5000));
    assert_eq!(b.core.state(), State::Standby);
    assert_eq!(b.core.peer_finding(), PeerFinding::KernelSilent);
}

/// Longer than all other waits here.
const LONG: Length = Length::from_us(300_000);

/// A standby whose peer acts on an epoch that has passed: the one way to become active beside a peer
/// that may still forward.
fn beside_an_outdated_peer() -> Bench {
    let mut b = Bench::new(Policy {
        prefer: Prefer::Consistency,
        lease: LONG,
        ..policy(2)
    });
    b.hears(OWNER, 5);
    assert_eq!(b.core.mandate().grant, LONG);
    // It is told of epoch 6 by another path, and no more.
    b.hears(READY, 6);
    b.hears(OWNER, 5);
    assert!(b.core.mandate().grant.is_none());
    b
}

#[test]
fn who_granted_waits_until_the_last_grant_has_ended() {
    let mut b = beside_an_outdated_peer();
    // Noted while granting was closed, so this tick brings it.
    b.now = b.now.after(ms(5));
    b.peer.granted = b.now;
    let over = LONG.promised_until(b.now);
    b.run(over.since(b.now).saturating_sub(Duration::from_nanos(1)));
    assert_eq!(b.core.state(), State::Candidate);
    b.run(Duration::from_nanos(1));
    assert_eq!((b.core.state(), b.now), (State::Active, over));
}

#[test]
fn who_starts_may_have_granted_in_the_last_moment_of_an_earlier_life() {
    let mut b = beside_an_outdated_peer();
    let over = LONG.promised_until(b.now);
    b.run(ms(1000));
    let active = b.core.transitions().find(|t| t.to == State::Active);
    assert_eq!(active.unwrap().at, over);
}

#[test]
fn a_peer_that_says_it_does_not_forward_is_owed_nothing() {
    let mut b = consistent(1);
    b.hears(OWNER, 5);
    b.peer.granted = b.now;
    b.hears(OUT, 5);
    assert_eq!(b.core.state(), State::Active, "in the same call");
}

/// It may have said so before we granted: by a path that lags behind.
#[test]
fn what_a_peer_says_of_an_earlier_epoch_releases_from_no_promise() {
    let mut b = consistent(1);
    b.hears(OWNER, 5);
    b.peer.granted = b.now;
    let over = policy(1).lease.promised_until(b.now);
    b.hears(OUT, 4);
    b.run(over.since(b.now).saturating_sub(Duration::from_nanos(1)));
    assert_eq!(b.core.state(), State::Candidate);
    b.run(Duration::from_nanos(1));
    assert_eq!((b.core.state(), b.now), (State::Active, over));
}

#[test]
fn an_active_forwards_by_its_last_tick_or_by_grants_alone() {
    let b = active(1);
    let opening = b.core.mandate().opening.unwrap();
    let until = b.now.after(ms(300));
    assert_eq!((opening.own_until, opening.lease), (until, Length::NONE));
    // Another event tells nothing of what was not heard.
    let mut later = active(1);
    later.now = later.now.after(ms(5000));
    later.handle(Event::Monitors { ok: true });
    assert_eq!(later.core.mandate().opening.unwrap().own_until, until);

    let mut b = consistent(1);
    b.hears(OWNER, 5);
    b.hears(OUT, 5);
    let opening = b.core.mandate().opening.unwrap();
    assert_eq!(opening.own_until, BootTime::NEVER);
    assert_eq!(opening.lease, policy(1).lease);
    assert_eq!(opening.since, b.now);
    let fence = b.core.mandate().fence(&b.core.advertisement());
    assert_eq!(fence.authority_end_ns, 0);
}

#[test]
fn an_active_that_did_not_run_for_so_long_that_its_word_ended_starts_over() {
    for (stopped, state) in [(ms(299), State::Active), (ms(300), State::Standby)] {
        let mut b = active(1);
        b.now = b.now.after(stopped);
        b.tick();
        assert_eq!(b.core.state(), state, "{stopped:?}");
    }
    // By grants it is its peer that ends it.
    let mut b = consistent(1);
    b.hears(OWNER, 5);
    b.hears(OUT, 5);
    b.now = b.now.after(ms(5000));
    b.hears(READY, 6);
    assert_eq!(b.core.state(), State::Active);
}

const SHORT: Length = Length::from_us(30_000);

/// A new agent with other grants in its policy, in the place of one that was active, or granted.
fn reconfigured(node: u32, lease: Length, former: FormerLife) -> Bench {
    let mut b = Bench::new(Policy {
        prefer: Prefer::Consistency,
        lease,
        ..policy(node)
    });
    b.now = b.now.after(ms(100));
    let owner = if former.flags.contains(Flags::FORWARDING) {
        b.policy.node
    } else {
        b.policy.peer
    };
    let former = FormerLife {
        claim: Claim {
            epoch: Epoch(5),
            owner,
        },
        beat: b.now,
        ..former
    };
    b.now = b.now.after(ms(10));
    b.core = Core::resumed(b.policy.clone(), &former, Epoch(5), b.now);
    b
}

fn owner_counted_on(lease: Length, now_on: Length) -> Bench {
    let former = FormerLife {
        flags: OWNER,
        lease,
        ..FormerLife::default()
    };
    let mut b = reconfigured(1, now_on, former);
    b.hears(READY, 5);
    assert_eq!(b.core.state(), State::Active);
    b
}

fn standby_granted(grant: Length, now_on: Length) -> Bench {
    let former = FormerLife {
        flags: READY,
        grant,
        ..FormerLife::default()
    };
    let mut b = reconfigured(2, now_on, former);
    b.hears(OWNER, 5);
    assert_eq!(b.core.state(), State::Standby);
    b
}

/// The peer may still grant what it did; and it is asked as often as that needs.
#[test]
fn an_owner_counts_on_the_same_grants_until_the_next_claim() {
    let mut b = owner_counted_on(SHORT, LONG);
    assert_eq!(b.core.mandate().opening.unwrap().lease, SHORT);
    let slow = Policy {
        keepalive: ms(100),
        ..b.policy.clone()
    };
    let former = FormerLife {
        claim: Claim {
            epoch: Epoch(5),
            owner: slow.node,
        },
        flags: OWNER,
        beat: b.now,
        lease: SHORT,
        ..FormerLife::default()
    };
    let resumed = Core::resumed(slow.clone(), &former, Epoch(5), b.now);
    assert_eq!(resumed.pace(), ms(10));
    assert_eq!(Core::new(slow, b.now).pace(), ms(100));
    // The peer has it, and with it the group comes back.
    b.hears(OWNER, 6);
    assert_eq!(b.core.state(), State::Standby);
    assert_eq!(b.core.mandate().grant, LONG);
    b.hears(OUT, 6);
    b.run(ms(1000));
    assert_eq!(b.core.state(), State::Active);
    assert_eq!(b.core.mandate().opening.unwrap().lease, LONG);
    assert_eq!(b.core.pace(), b.policy.keepalive);
}

/// Grants come no more often at once than they did; and those of a peer that began anew may be shorter by now.
#[test]
fn an_owner_counts_on_less_when_that_suffices_and_in_time_anyway() {
    let mut b = owner_counted_on(LONG, SHORT);
    assert_eq!(b.core.mandate().opening.unwrap().lease, LONG);
    assert_eq!(b.core.pace(), b.policy.keepalive);
    b.peer.leased = b.now;
    b.tick();
    assert_eq!(b.core.mandate().opening.unwrap().lease, SHORT);

    let mut b = owner_counted_on(LONG, SHORT);
    b.run(b.policy.dead.saturating_sub(ms(20)));
    assert_eq!(b.core.mandate().opening.unwrap().lease, LONG);
    b.run(ms(20));
    assert_eq!(b.core.mandate().opening.unwrap().lease, SHORT);

    let b = owner_counted_on(Length::NONE, SHORT);
    assert_eq!(
        b.core.mandate().opening.unwrap().lease,
        SHORT,
        "nothing lasts"
    );
}

/// The owner may still count on more, or on less.
#[test]
fn a_standby_grants_no_less_than_it_did_until_the_group_moves() {
    let mut b = standby_granted(LONG, SHORT);
    assert_eq!(b.core.mandate().grant, LONG);
    b.hears(OWNER, 6);
    assert_eq!(b.core.mandate().grant, LONG, "bound by what it granted");
    b.hears(OUT, 6);
    b.run(ms(1000));
    assert_eq!(b.core.state(), State::Active);
    b.hears(OWNER, 8);
    assert_eq!(b.core.state(), State::Standby);
    assert_eq!(b.core.mandate().grant, SHORT);
    let b = standby_granted(SHORT, LONG);
    assert_eq!(b.core.mandate().grant, LONG);
    assert_eq!(b.core.pace(), SHORT.duration() / 3);
}

/// Granting is closed, and what it was is told by the closed fence.
#[test]
fn what_was_granted_is_not_forgotten_while_granting_is_closed() {
    let former = FormerLife {
        flags: READY,
        lease: LONG,
        ..FormerLife::default()
    };
    let mut b = reconfigured(2, SHORT, former);
    assert_eq!(b.core.mandate().bound, LONG);
    let heard = b.now;
    b.hears(OWNER, 5);
    b.now = heard.after(LONG.duration());
    b.tick();
    assert_ne!(b.core.state(), State::Active);
    let fence = b.core.mandate().fence(&b.core.advertisement());
    assert_eq!(fence.opened_ns, 0);
    assert_eq!(fence.lease_ns, LONG.as_ns());
}

#[test]
fn what_was_granted_before_a_change_binds_as_long_as_it_did() {
    let mut b = standby_granted(LONG, SHORT);
    // As in `beside_an_outdated_peer`.
    b.hears(READY, 6);
    b.hears(OWNER, 5);
    b.now = b.now.after(ms(5));
    b.peer.granted = b.now;
    let over = LONG.promised_until(b.now);
    b.run(over.since(b.now).saturating_sub(Duration::from_nanos(1)));
    assert_ne!(b.core.state(), State::Active);
}

/// Its agent was gone for too long to go on.
#[test]
fn a_start_that_does_not_go_on_is_bound_by_what_was_granted() {
    let mut b = standby_granted(SHORT, SHORT);
    let former = FormerLife {
        claim: Claim {
            epoch: Epoch(5),
            owner: b.policy.peer,
        },
        flags: READY,
        beat: b.now,
        grant: LONG,
        ..FormerLife::default()
    };
    b.now = b.now.after(ms(1000));
    b.core = Core::resumed(b.policy.clone(), &former, Epoch(0), b.now);
    assert_eq!(b.core.state(), State::Initializing);
    b.hears(OWNER, 5);
    assert_eq!(b.core.mandate().grant, LONG);
}
