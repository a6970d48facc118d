//! The transition table as the machine acts it out, compared with `table.txt`, and the rules that
//! a table of states cannot show.

use std::{fmt::Write as _, num::NonZeroU64, time::Duration};

use router_common::{
    identity::{Claim, Epoch, Flags, NodeId, Priority},
    lease::Length,
    time::BootTime,
};

use super::{
    Answer, ArbiterPolicy, Cause, Command, Core, Event, Finding, Forced, FormerLife, Mode,
    PeerFinding, PeerReport, Policy, Prefer, Record, Request, Revision, State,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn policy(node: u32) -> Policy {
    Policy {
        node: NodeId(node),
        peer: NodeId(3 - node),
        keepalive: ms(10),
        dead: ms(40),
        prefer: Prefer::Availability,
        arbiter: None,
        lease: Length::from_us(30_000),
        agent_dead: ms(300),
        initial_wait: ms(500),
        auto_failback: true,
        failback_hold: ms(2000),
        fault_hold: ms(700),
    }
}

/// A core with a clock and a peer that says the same until told otherwise.
struct Bench {
    policy: Policy,
    core: Core,
    now: BootTime,
    peer: PeerReport,
    speaking: bool,
    commands: Vec<Command>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self::with_floor(policy, 0)
    }

    fn with_floor(policy: Policy, newest: u32) -> Self {
        let now = BootTime::from_ns(1_000_000_000);
        Self {
            core: Core::with_floor(policy.clone(), Epoch(newest), now),
            policy,
            now,
            peer: PeerReport::default(),
            speaking: false,
            commands: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) {
        let commands = self.core.handle(event, self.now);
        self.commands.extend(commands);
    }

    fn tick(&mut self) {
        if self.speaking {
            self.peer.last_heard = self.now;
            self.peer.newest_echo = self.now;
        }
        self.handle(Event::Tick(self.peer));
    }

    /// Ticks at every keepalive and at every deadline in between.
    fn run(&mut self, length: Duration) {
        let end = self.now.after(length);
        while self.now < end {
            let probe = self.now.after(ms(10)).min(end);
            self.now = self.core.next_deadline().map_or(probe, |at| probe.min(at));
            self.tick();
        }
    }

    /// With the base for its priority unless it tells another.
    fn says(&mut self, flags: Flags, claim: Claim) {
        self.speaking = true;
        self.peer.flags = flags.with_priority(flags.priority().unwrap_or_default());
        self.peer.claim = claim;
        self.peer.agent_age = ms(10);
    }

    fn hears(&mut self, flags: Flags, epoch: u32) {
        let owner = self.core.advertisement().claim.owner;
        self.says(
            flags,
            Claim {
                epoch: Epoch(epoch),
                owner,
            },
        );
        self.tick();
    }

    /// But for its priority.
    fn says_itself(&self) -> Flags {
        Flags(self.core.advertisement().flags.0 & 0xff)
    }

    fn newest(&self) -> u32 {
        self.core.advertisement().claim.epoch.0
    }

    /// A new agent goes on `after` the one that said `flags` under epoch 5 was broken off.
    fn resume(&mut self, flags: Flags, after: Duration) {
        let owner = if flags.contains(Flags::FORWARDING) {
            self.policy.node
        } else {
            self.policy.peer
        };
        let former = FormerLife {
            claim: Claim {
                epoch: Epoch(5),
                owner,
            },
            flags,
            opened: BootTime::NEVER,
            own_until: BootTime::NEVER,
            beat: self.now,
        };
        self.now = self.now.after(after);
        self.core = Core::resumed(self.policy.clone(), &former, Epoch(5), self.now);
    }
}

const READY: Flags = Flags::ELIGIBLE;
const OUT: Flags = Flags(0);
const ASKING: Flags = Flags(Flags::ELIGIBLE.0 | Flags::CANDIDATE.0);
const OWNER: Flags = Flags(Flags::ELIGIBLE.0 | Flags::FORWARDING.0);
const IMPAIRED: Flags = Flags::FORWARDING;
const DRAINING: Flags = Flags(Flags::FORWARDING.0 | Flags::DRAINING.0);
const FORCED: Flags = Flags(Flags::ELIGIBLE.0 | Flags::CANDIDATE.0 | Flags::FORCED.0);

type Step = fn(&mut Bench);

/// The rows' starting points, each reached by the events that lead there in life.
const STARTS: [(&str, State, Step); 12] = [
    ("Initializing", State::Initializing, Bench::tick),
    ("Standby", State::Standby, |b| b.hears(OWNER, 5)),
    ("Candidate (vacancy)", State::Candidate, |b| {
        b.hears(READY, 5);
        // The primary asks at once, the secondary after patience.
        if b.core.state() == State::Standby {
            b.run(ms(120));
        }
    }),
    ("Candidate (relief)", State::Candidate, |b| {
        b.hears(IMPAIRED, 5);
    }),
    ("Candidate (failback)", State::Candidate, |b| {
        b.hears(OWNER, 5);
        b.run(ms(2000));
    }),
    ("Active", State::Active, |b| {
        b.hears(OWNER, 5);
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
    }),
    ("Active, not well", State::Active, |b| {
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
        b.handle(Event::Monitors { ok: false });
    }),
    ("Draining", State::Draining, |b| {
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
        b.hears(READY, 6);
        b.handle(Event::Force(Forced::Standby));
    }),
    ("Draining, leaving", State::Draining, |b| {
        b.hears(IMPAIRED, 5);
        b.hears(OUT, 5);
        b.hears(READY, 6);
        b.handle(Event::Stop);
    }),
    ("Fault", State::Fault, |b| {
        b.hears(OWNER, 5);
        b.handle(Event::Monitors { ok: false });
    }),
    ("Active, resumed", State::Active, |b| {
        b.resume(OWNER, ms(100));
    }),
    ("Standby, resumed", State::Standby, |b| {
        b.resume(READY, ms(100));
    }),
];

/// The columns: what the peer becomes, and stays.
const PEERS: [(&str, Step); 13] = [
    ("Unknown (we were stopped)", |b| {
        b.speaking = false;
        b.now = b.now.after(ms(1000));
        b.tick();
    }),
    ("Silent", |b| {
        b.speaking = false;
        b.run(ms(40));
    }),
    ("Headless", |b| {
        b.says(b.peer.flags, b.peer.claim);
        b.peer.agent_age = ms(300);
        b.tick();
    }),
    ("Out", |b| b.hears(OUT, b.newest())),
    ("Ready", |b| b.hears(READY, b.newest())),
    ("Asking", |b| b.hears(ASKING, b.newest())),
    ("Asking, unaware of us", |b| {
        b.hears(ASKING, b.newest().saturating_sub(1));
    }),
    ("Owner", |b| b.hears(OWNER, b.newest())),
    ("Owner, higher epoch", |b| b.hears(OWNER, b.newest() + 1)),
    ("Impaired", |b| b.hears(IMPAIRED, b.newest())),
    ("Draining", |b| b.hears(DRAINING, b.newest())),
    ("Asking, forced", |b| b.hears(FORCED, b.newest())),
    ("Outdated", |b| b.hears(OWNER, b.newest().saturating_sub(1))),
];

/// One line: every transition of the next 2.5 s, with the milliseconds after which it came and its
/// cause, the peer staying what it is.
fn acted_out(node: u32, start: Step, peer: Step) -> String {
    let mut bench = Bench::with_floor(policy(node), 5);
    start(&mut bench);
    let _ = bench.core.transitions().count();
    let before = bench.now;
    peer(&mut bench);
    bench.run(ms(2500));
    let line = bench.core.transitions().fold(String::new(), |mut line, t| {
        let cause = format!("{:?}", t.cause);
        let cause = cause.split(' ').next().unwrap_or_default();
        let _ = write!(
            line,
            "  {} {} ({cause})",
            t.at.since(before).as_millis(),
            t.to
        );
        line
    });
    if line.is_empty() { "  ·".into() } else { line }
}

#[test]
fn the_machine_acts_out_the_table() {
    let mut table = String::new();
    for (node, role) in [(1, "primary"), (2, "secondary")] {
        for (start_name, state, start) in STARTS {
            // Only the primary asks for failback.
            if node == 2 && start_name == "Candidate (failback)" {
                continue;
            }
            let mut bench = Bench::new(policy(node));
            start(&mut bench);
            assert_eq!(bench.core.state(), state, "{role} {start_name}");
            let _ = writeln!(table, "{role}, {start_name}");
            for (peer_name, peer) in PEERS {
                let line = acted_out(node, start, peer);
                let _ = writeln!(table, "    {peer_name:<26}{line}");
            }
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/table.txt");
    if std::env::var_os("UPDATE_TABLE").is_some() {
        std::fs::write(path, &table).expect("table.txt is writable");
    }
    let expected = std::fs::read_to_string(path).expect("table.txt is there");
    for (line, (got, want)) in table.lines().zip(expected.lines()).enumerate() {
        assert_eq!(got, want, "table.txt:{}", line + 1);
    }
    assert_eq!(table.lines().count(), expected.lines().count());
}

fn active(node: u32) -> Bench {
    let mut bench = Bench::new(policy(node));
    bench.run(ms(550));
    assert_eq!(bench.core.state(), State::Active);
    assert_eq!(bench.commands, [Command::Take { epoch: Epoch(1) }]);
    bench.commands.clear();
    bench
}

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
    let mut b = Bench::new(policy(1));
    b.run(ms(400));
    b.now = b.now.after(ms(300));
    b.tick();
    b.run(ms(90));
    assert_eq!(b.core.state(), State::Initializing);
    b.run(ms(20));
    assert_eq!(b.core.state(), State::Active);
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

// ---- Leases ------------------------------------------------------------------------------------

fn consistent(node: u32) -> Bench {
    Bench::new(Policy {
        prefer: Prefer::Consistency,
        ..policy(node)
    })
}

#[test]
fn the_standby_grants_and_the_candidate_does_not() {
    let mut b = consistent(1);
    assert!(b.core.mandate().grant.is_none(), "nobody owns the group");
    b.hears(OWNER, 5);
    assert_eq!(b.core.mandate().grant, policy(1).lease);
    assert_eq!(b.core.mandate().opening, None);
    b.run(ms(2000));
    assert_eq!(b.core.state(), State::Candidate, "asks for failback");
    assert!(b.core.mandate().grant.is_none());
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

// ---- Arbiter -----------------------------------------------------------------------------------

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
