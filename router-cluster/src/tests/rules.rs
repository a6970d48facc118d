//! The rules that a table of states cannot show.

use std::{num::NonZeroU64, time::Duration};

use router_common::{
    identity::{Claim, Epoch, NodeId},
    time::BootTime,
};

use super::{ASKING, Bench, IMPAIRED, OUT, OWNER, READY, active, ms, policy};
use crate::{
    Answer, ArbiterPolicy, Cause, Command, Core, Event, Finding, Mode, PeerFinding, PeerReport,
    Policy, Record, Request, Revision, State,
};

#[test]
fn silence_is_acted_on_at_the_very_deadline_and_in_one_call() {
    let mut b = Bench::new(policy(2));
    b.hears(OWNER, 5);
    b.run(ms(100));
    let heard = b.now;
    b.speaking = false;
    assert_eq!(b.core.next_deadline(), Some(heard.after(ms(40))));
    for at in [ms(20), Duration::from_nanos(39_999_999)] {
        b.now = heard.after(at);
        b.tick();
        assert_eq!(b.core.state(), State::Standby);
    }
    b.now = heard.after(ms(40));
    b.tick();
    assert_eq!(b.core.state(), State::Active);
    assert_eq!(b.core.peer_finding(), PeerFinding::KernelSilent);
    let silent = Finding::Peer {
        at: b.now,
        from: PeerFinding::Alive,
        to: PeerFinding::KernelSilent,
    };
    assert_eq!(b.core.findings().last(), Some(silent));
    assert_eq!(b.commands, [Command::Take { epoch: Epoch(6) }]);
    assert_eq!(b.core.next_deadline(), None);
}

#[test]
fn a_stop_of_our_own_is_no_silence_of_the_peer() {
    let mut b = Bench::new(policy(2));
    b.hears(OWNER, 5);
    b.speaking = false;
    b.now = b.now.after(ms(5000));
    b.tick();
    assert_eq!(b.core.state(), State::Standby);
    let resumed = b.now;
    assert!(b.core.findings().any(|f| f
        == Finding::Stopped {
            at: resumed,
            length: ms(5000)
        }));
    assert_eq!(b.core.peer_finding(), PeerFinding::Alive);
    assert_eq!(b.core.next_deadline(), Some(resumed.after(ms(40))));
    b.run(ms(40));
    assert_eq!(b.core.state(), State::Active);
}

#[test]
fn an_event_after_a_stop_does_not_count_the_stop_as_silence() {
    let mut b = Bench::new(policy(2));
    b.hears(OWNER, 5);
    b.now = b.now.after(ms(5000));
    b.handle(Event::Monitors { ok: true });
    assert_eq!(b.core.state(), State::Standby);
}

#[test]
fn resumed_as_active_it_yields_to_a_higher_epoch_in_the_same_call() {
    for node in [1, 2] {
        let mut b = active(node);
        b.now = b.now.after(ms(5000));
        b.hears(OWNER, 2);
        assert_eq!(b.core.state(), State::Standby);
        assert_eq!(b.commands, [Command::Release { epoch: Epoch(1) }]);
    }
}

#[test]
fn a_claim_of_the_past_still_ends_our_own() {
    let mut b = active(1);
    // Stopped; meanwhile the peer claimed and died as well.
    let stopped = b.now;
    b.now = stopped.after(ms(5000));
    b.says(
        OWNER,
        Claim {
            epoch: Epoch(2),
            owner: NodeId(2),
        },
    );
    b.speaking = false;
    b.peer.last_heard = stopped.after(ms(1000));
    b.tick();
    assert_eq!(b.core.state(), State::Standby);
    b.run(ms(40));
    assert_eq!(
        b.commands,
        [
            Command::Release { epoch: Epoch(1) },
            Command::Take { epoch: Epoch(3) }
        ]
    );
}

#[test]
fn after_dual_activity_the_one_who_stays_announces() {
    let mut b = active(1);
    b.run(ms(1000));
    b.hears(OWNER, 1);
    b.run(ms(20));
    assert_eq!(b.core.state(), State::Active);
    assert!(b.core.dual_activity_since().is_some());
    assert_eq!(b.commands, []);
    b.run(ms(0));
    b.now = b.now.after(ms(10));
    b.hears(READY, 1);
    assert_eq!(b.commands, [Command::Announce { epoch: Epoch(1) }]);
    let finding = b.core.findings().last();
    let Some(Finding::DualActivity {
        epoch,
        proven,
        at_most,
        ..
    }) = finding
    else {
        panic!("{finding:?}");
    };
    assert_eq!((epoch, proven), (Epoch(1), ms(20)));
    // Both bounds: at worst the peer was active since we were.
    assert!(at_most >= ms(1030), "{at_most:?}");
    assert_eq!(b.core.dual_activity_since(), None);
}

#[test]
fn a_failed_takeover_moves_the_group_only_to_a_peer_that_asks() {
    let mut b = active(2);
    b.handle(Event::TakeoverFailed { epoch: Epoch(7) });
    assert_eq!(
        b.core.trouble(),
        None,
        "another epoch's takeover is not ours"
    );
    b.handle(Event::TakeoverFailed { epoch: Epoch(1) });
    assert_eq!(b.says_itself(), IMPAIRED);
    b.run(ms(1000));
    assert_eq!(b.core.state(), State::Active, "alone, it keeps trying");
    b.hears(ASKING, 1);
    assert_eq!(b.core.state(), State::Fault);
    assert_eq!(b.commands, [Command::Release { epoch: Epoch(1) }]);
    b.hears(OWNER, 2);
    b.run(ms(699));
    assert_eq!(b.core.state(), State::Fault);
    b.run(ms(10));
    assert_eq!(b.core.state(), State::Standby);
}

#[test]
fn a_takeover_that_succeeds_later_makes_it_well_again() {
    let mut b = active(1);
    b.handle(Event::TakeoverFailed { epoch: Epoch(1) });
    b.handle(Event::TakeoverDone { epoch: Epoch(1) });
    assert_eq!(b.says_itself(), OWNER);
}

#[test]
fn the_last_epoch_is_not_passed() {
    let mut b = Bench::new(policy(2));
    b.hears(OWNER, u32::MAX);
    b.speaking = false;
    b.run(ms(1000));
    assert_eq!(b.core.state(), State::Fault);
    assert_eq!(b.commands, []);
    assert_eq!(
        b.core.transitions().last().map(|t| t.cause),
        Some(Cause::EpochsUsedUp)
    );

    let mut b = Bench::new(policy(2));
    b.hears(OWNER, u32::MAX - 1);
    b.speaking = false;
    b.run(ms(1000));
    assert_eq!(
        b.core.state(),
        State::Active,
        "the last epoch can still be held"
    );
    assert_eq!(b.newest(), u32::MAX);
}

#[test]
fn an_epoch_of_an_earlier_life_is_a_floor() {
    let now = BootTime::from_ns(1);
    let mut core = Core::with_floor(policy(1), Epoch(41), now);
    let mut commands = Vec::new();
    for i in 0..100 {
        commands.extend(core.handle(Event::Tick(PeerReport::default()), now.after(ms(i * 10))));
    }
    assert_eq!(commands, [Command::Take { epoch: Epoch(42) }]);
}

#[test]
fn a_resumed_active_takes_its_services_once_more_and_nothing_else() {
    for flags in [OWNER, IMPAIRED] {
        let mut b = Bench::new(policy(1));
        b.resume(flags, ms(100));
        assert_eq!(b.core.state(), State::Active);
        assert_eq!(b.commands, []);
        b.hears(READY, 5);
        assert_eq!(b.commands, [Command::Take { epoch: Epoch(5) }]);
        b.run(ms(3000));
        assert_eq!(b.commands.len(), 1);
        assert_eq!(b.core.transitions().count(), 0);
        assert_eq!(b.newest(), 5);
    }
}

#[test]
fn a_resumed_active_yields_to_what_was_claimed_meanwhile() {
    for node in [1, 2] {
        let mut b = Bench::new(policy(node));
        b.resume(OWNER, ms(100));
        b.hears(OWNER, 6);
        assert_eq!(b.core.state(), State::Standby);
        // It still has what the former life took.
        assert_eq!(b.commands, [Command::Release { epoch: Epoch(5) }]);
    }
}

#[test]
fn a_resumed_standby_claims_nothing_of_an_active_peer() {
    let mut b = Bench::new(policy(2));
    b.resume(READY, ms(100));
    b.hears(OWNER, 5);
    b.run(ms(3000));
    assert_eq!(b.core.state(), State::Standby);
    assert_eq!(b.core.transitions().count(), 0);
    // And it finds the peer's silence as before.
    b.speaking = false;
    b.run(ms(50));
    assert_eq!(b.commands, [Command::Take { epoch: Epoch(6) }]);
}

#[test]
fn a_life_that_the_peer_has_missed_or_that_took_no_part_is_not_resumed() {
    let missed = policy(1).resumable();
    assert_eq!(missed, ms(280), "two keepalives before the peer takes over");
    for (flags, after) in [(OWNER, missed), (READY, missed), (OUT, ms(1))] {
        let mut b = Bench::new(policy(1));
        b.resume(flags, after);
        assert_eq!(b.core.state(), State::Initializing, "{flags:?} {after:?}");
        b.run(ms(550));
        // Its epoch is not used again.
        assert_eq!(b.commands, [Command::Take { epoch: Epoch(6) }]);
    }
    let mut b = Bench::new(policy(1));
    b.resume(OWNER, ms(279));
    assert_eq!(b.core.state(), State::Active);
}

#[test]
fn an_orderly_stop_leaves_for_good() {
    for node in [1, 2] {
        let mut b = active(node);
        b.handle(Event::Stop);
        assert_eq!(b.commands, [Command::Release { epoch: Epoch(1) }]);
        assert_eq!(b.says_itself(), OUT);
        assert_eq!(b.core.advertisement().claim.owner, NodeId::NONE);
        b.handle(Event::Monitors { ok: true });
        b.run(ms(5000));
        assert_eq!(b.core.state(), State::Fault);
    }
}

#[test]
fn a_start_excludes_its_own_stops_from_the_wait() {
    for ran in [ms(400), ms(0)] {
        let mut b = Bench::new(policy(1));
        b.run(ran);
        b.now = b.now.after(ms(300));
        b.tick();
        b.run(ms(490).saturating_sub(ran));
        assert_eq!(b.core.state(), State::Initializing, "ran {ran:?}");
        b.run(ms(60));
        assert_eq!(b.core.state(), State::Active, "ran {ran:?}");
    }
}

#[test]
fn a_message_from_before_our_start_is_neither_life_nor_claim_of_today() {
    let mut b = Bench::new(policy(1));
    b.says(
        OWNER,
        Claim {
            epoch: Epoch(9),
            owner: NodeId(2),
        },
    );
    b.speaking = false;
    b.peer.last_heard = BootTime::from_ns(5);
    b.tick();
    assert_eq!(b.core.state(), State::Initializing);
    b.run(ms(500));
    // The claim has passed, its epoch has not been forgotten.
    assert_eq!(b.commands, [Command::Take { epoch: Epoch(10) }]);
}

#[test]
fn a_path_that_lags_behind_takes_nothing_back() {
    let mut b = Bench::new(policy(2));
    b.hears(OUT, 5);
    let stale = b.peer;
    b.now = b.now.after(ms(10));
    b.hears(OWNER, 6);
    b.now = b.now.after(ms(10));
    b.handle(Event::Tick(stale));
    // Had it counted, the peer would be out, and its turn over after two keepalives.
    b.now = b.now.after(ms(20));
    b.handle(Event::Tick(stale));
    assert_eq!(b.core.state(), State::Standby);
}

#[test]
fn only_the_claimant_says_who_owns_the_group() {
    let mut b = Bench::new(policy(2));
    b.hears(OWNER, 5);
    assert_eq!(b.core.advertisement().claim.owner, NodeId(1));
    // The peer let go; that its claim still names someone is hearsay.
    b.hears(READY, 5);
    assert_eq!(
        b.core.advertisement().claim,
        Claim {
            epoch: Epoch(5),
            owner: NodeId::NONE
        }
    );
}

/// A stop of its own, shorter than it waits for an answer, has a candidate look once more.
#[test]
fn a_look_does_not_lose_what_a_claim_has_won() {
    let mut b = Bench::new(Policy {
        arbiter: Some(ArbiterPolicy {
            term: ms(120),
            timeout: ms(40),
            contenders: 2,
        }),
        ..policy(2)
    });
    let record = Record {
        claim: Claim {
            epoch: Epoch(5),
            owner: NodeId(1),
        },
        mode: Mode::Paired,
    };
    b.hears(OWNER, 5);
    b.speaking = false;
    let claim = loop {
        let asked = b.commands.pop();
        match asked {
            Some(Command::Ask {
                number,
                request: Request::Read,
            }) => b.handle(Event::Arbiter {
                number,
                sent: b.now,
                answer: Answer::Found(Some((
                    Revision(NonZeroU64::new(1).expect("not zero")),
                    record,
                ))),
            }),
            Some(Command::Ask { number, .. }) => break number,
            _ => b.run(ms(10)),
        }
    };
    let sent = b.now;
    b.now = b.now.after(ms(30));
    b.tick();
    assert_eq!(b.commands, [], "it does not look");
    b.handle(Event::Arbiter {
        number: claim,
        sent,
        answer: Answer::Swapped(Revision(NonZeroU64::new(2).expect("not zero"))),
    });
    assert_eq!(b.core.state(), State::Active);
}
