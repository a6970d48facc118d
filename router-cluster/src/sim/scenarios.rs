//! Runs that are about one thing each.

use router_common::{identity::NodeId, lease::Length, map::Fence};

use super::{
    super::{
        ArbiterFinding, ArbiterPolicy, Cause, Core, Forced, Mode, PeerReport, Refusal, State,
        node::Planted,
    },
    AGENT_DEAD, DEAD, HANDOVER, KEEPALIVE, MAX_DELAY, PER_MS, Setup, TERM,
    fault::Op,
    ms, planned,
    world::{Place, Sim, Way},
};

type Scenario = fn(Option<Planted>) -> Result<(), String>;

fn expect(what: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

pub(super) fn pair(setup: Setup, seed: u64) -> Sim {
    let mut sim = Sim::new(setup, seed, false, None);
    sim.run(1000).expect("rules hold");
    assert!(
        sim.active(0),
        "seed {seed}, {setup:?}: {:?}",
        sim.history(0)
    );
    sim
}

fn cut_off_active_yields_when_it_hears_of_the_other(
    planted: Option<Planted>,
) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 1, false, planted);
    sim.run(1000)?;
    expect("primary active", sim.active(0))?;
    sim.cut = [true; 2];
    sim.run(1000)?;
    expect("secondary took over", sim.active(1))?;
    sim.cut = [false; 2];
    sim.run(KEEPALIVE + 2 * MAX_DELAY)?;
    expect("primary yielded at once", !sim.active(0))?;
    sim.run(5000)?;
    expect("secondary stayed", sim.active(1))
}

fn stopped_active_starts_over_when_it_wakes(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 1, false, planted);
    sim.run(1000)?;
    sim.apply(Op::Stop(0))?;
    sim.run(AGENT_DEAD)?;
    expect(
        "its fence has closed by itself",
        !sim.places[0].forwards(sim.now),
    )?;
    sim.run(700)?;
    expect("secondary took over", sim.places[1].forwards(sim.now))?;
    // It wakes, and cannot hear that.
    sim.cut = [true; 2];
    sim.flights.clear();
    sim.places[0].node.report = PeerReport::default();
    sim.apply(Op::Continue(0))?;
    sim.run(1)?;
    expect("primary does not go on", !sim.active(0))
}

fn stopped_standby_blames_nobody(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 2, false, planted);
    sim.run(1000)?;
    // The standby's kernel goes on hearing the active; its agent sees nothing of it.
    sim.apply(Op::Stop(1))?;
    sim.run(1000)?;
    sim.apply(Op::Continue(1))?;
    sim.run(1000)?;
    expect("primary stayed", sim.active(0))?;
    expect(
        "secondary never moved",
        sim.history(1).iter().all(|t| t.to != State::Active),
    )
}

fn a_split_from_the_start_heals_by_rule(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 3, false, planted);
    sim.cut = [true; 2];
    sim.run(2000)?;
    expect("both active, apart", sim.active(0) && sim.active(1))?;
    sim.cut = [false; 2];
    sim.run(2000)?;
    expect("primary stayed", sim.active(0))?;
    expect("secondary yielded", !sim.active(1))
}

/// An upgrade of both nodes, one after the other, each taking less than agent-dead-interval.
fn agents_that_are_replaced_change_nothing(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Availability, 4, true, planted);
    sim.run(1000)?;
    let lengths = |sim: &Sim| [sim.history(0).len(), sim.history(1).len()];
    let before = lengths(&sim);
    for node in [0, 1] {
        sim.apply(Op::Kill(node))?;
        sim.run(250)?;
        sim.apply(Op::Resume(node))?;
        sim.run(3000)?;
    }
    expect("no transition", before == lengths(&sim))?;
    expect("primary active", sim.active(0))?;
    expect("alone", sim.dual_for == 0)
}

fn without_its_monitors_it_hands_over(planted: Option<Planted>) -> Result<(), String> {
    for seed in 0..50 {
        let mut sim = Sim::new(Setup::Availability, seed, false, planted);
        sim.run(1000)?;
        sim.apply(Op::Monitors(0, false))?;
        sim.run(6 * KEEPALIVE)?;
        let state = sim.places[0].node.state();
        expect("primary in fault", state == Some(State::Fault))?;
        expect("secondary took over", sim.active(1))?;
        expect("alone", sim.dual_for == 0)?;
    }
    Ok(())
}

/// The lease is as long as the dead-interval, nothing on the way takes time, the owner's clock is slow and
/// the other's fast: only the arithmetic of leases keeps them apart.
fn an_owner_is_outlasted_to_the_end(planted: Option<Planted>) -> Result<(), String> {
    for seed in 0..20 {
        let mut sim = Sim::new(Setup::Arbiter, seed, false, planted);
        sim.max_delay = 0;
        sim.max_store_delay = 0;
        for (place, drift_ppm) in sim.places.iter_mut().zip([-999, 999]) {
            place.drift_ppm = drift_ppm;
            place.node.policy.lease = Length::of(ms(DEAD));
            place.node.start(place.clock(0));
        }
        sim.run(1000 + seed)?;
        expect("primary active", sim.active(0))?;
        sim.cut = [true; 2];
        sim.apply(Op::Arbiter(0, Way::Cut))?;
        sim.run(2 * DEAD)?;
        expect("secondary took over", sim.active(1))?;
    }
    Ok(())
}

/// A machine that is paused, and whose clock goes on where it was.
fn a_paused_machine_goes_on(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    sim.run(1000)?;
    sim.apply(Op::Freeze(0))?;
    sim.run(1000)?;
    expect("secondary took over", sim.active(1))?;
    sim.apply(Op::Thaw(0))
}

/// The agent is stopped after its swap, and reads the answer when another has swapped since.
fn an_answer_is_read_late(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    let claimed = |sim: &Sim| {
        let record = sim.store.record.map(|(_, record)| record.claim.owner);
        record == Some(NodeId(1))
    };
    sim.cut = [true; 2];
    sim.apply(Op::PowerOff(1))?;
    while !claimed(&sim) {
        sim.step()?;
    }
    expect("no answer yet", !sim.active(0))?;
    sim.apply(Op::Stop(0))?;
    sim.apply(Op::PowerOn(1))?;
    sim.run(2000)?;
    expect("secondary took over", sim.active(1))?;
    sim.apply(Op::Continue(0))?;
    sim.run(100)
}

/// Nodes that do not hear each other, of which one is slow to see the record of the other.
fn a_record_is_seen_late(planted: Option<Planted>) -> Result<(), String> {
    for seed in 0..200 {
        let mut sim = Sim::new(Setup::Arbiter, seed, false, planted);
        sim.run(1000)?;
        sim.cut = [true; 2];
        sim.apply(Op::Arbiter(1, Way::Slow))?;
        sim.run(500 + seed)?;
        sim.apply(Op::Arbiter(0, Way::Cut))?;
        sim.apply(Op::Arbiter(1, Way::Open))?;
        sim.run(4 * TERM)?;
    }
    Ok(())
}

/// An owner is cut off from all when it has just made its record paired.
fn an_owner_is_cut_off_as_it_pairs(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    let paired = |sim: &Sim| sim.store.record.map(|(_, record)| record.mode) == Some(Mode::Paired);
    while !paired(&sim) {
        sim.step()?;
    }
    sim.cut = [true; 2];
    sim.apply(Op::Arbiter(0, Way::Cut))?;
    sim.run(TERM)?;
    expect("secondary took over", sim.active(1))
}

/// The arbiter forgets an owner that lives on its record, and another hears nothing of that owner.
fn a_record_is_forgotten(planted: Option<Planted>) -> Result<(), String> {
    let mut sim = Sim::new(Setup::Arbiter, 1, false, planted);
    sim.run(1000)?;
    sim.cut = [true; 2];
    sim.run(1000)?;
    expect("primary active", sim.active(0))?;
    sim.apply(Op::Wipe)?;
    sim.run(2 * TERM)
}

#[test]
fn a_group_that_nobody_serves_in_calm_times_is_noticed() {
    for setup in Setup::ALL {
        let mut sim = pair(setup, 1);
        sim.run(1000).expect("rules hold");
        let noticed = (0..2 * HANDOVER * PER_MS).find_map(|_| {
            sim.places[0].node.fence = Fence::default();
            sim.now += 1;
            sim.check().err()
        });
        let words = noticed.expect("it is noticed");
        assert!(words.contains("nobody forwards"), "{setup:?}: {words}");
    }
}

/// Each passes with the sound core and fails with the defect it is about.
pub const SCENARIOS: [(Planted, Scenario); 13] = [
    (Planted::StaleRead, planned::a_move_waits_for_the_arbiter),
    (Planted::DeafToMonitors, without_its_monitors_it_hands_over),
    (Planted::NoMargin, an_owner_is_outlasted_to_the_end),
    (Planted::ClockStandsStill, a_paused_machine_goes_on),
    (Planted::LateAnswerAccepted, an_answer_is_read_late),
    (Planted::UnchangedFromSend, a_record_is_seen_late),
    (Planted::PairedBeforeDrop, an_owner_is_cut_off_as_it_pairs),
    (Planted::MissingIsFresh, a_record_is_forgotten),
    (Planted::NoEnd, stopped_active_starts_over_when_it_wakes),
    (
        Planted::EpochNotCompared,
        cut_off_active_yields_when_it_hears_of_the_other,
    ),
    (Planted::NoSelfSuspicion, stopped_standby_blames_nobody),
    (Planted::NoTieRule, a_split_from_the_start_heals_by_rule),
    (Planted::Amnesia, agents_that_are_replaced_change_nothing),
];

#[test]
fn scenarios_hold_with_the_sound_core() {
    for (planted, scenario) in SCENARIOS {
        assert_eq!(scenario(None), Ok(()), "the scenario about {planted:?}");
    }
}

/// The primary's first message as Standby is lost, so that to the secondary it looks like one who
/// will not take its turn.
#[test]
fn a_starting_primary_goes_first_although_messages_are_lost() {
    for seed in 0..50 {
        let mut sim = Sim::new(Setup::Availability, seed, true, None);
        sim.lossy = true;
        sim.apply(Op::PowerOff(1)).expect("rules hold");
        sim.run(100 + 2 * seed).expect("rules hold");
        sim.apply(Op::PowerOn(1)).expect("rules hold");
        sim.settled().expect("settles");
        assert!(
            sim.history(1).iter().all(|t| t.to != State::Active),
            "seed {seed}"
        );
    }
}

#[test]
fn a_life_that_was_succeeded_is_not_resumed() {
    let mut sim = pair(Setup::Availability, 5);
    sim.apply(Op::Kill(0)).expect("rules hold");
    sim.run(1000).expect("rules hold");
    assert!(sim.active(1));
    sim.apply(Op::Resume(0)).expect("rules hold");
    assert_eq!(sim.places[0].node.state(), Some(State::Initializing));
    sim.run(3000).expect("rules hold");
    assert!(sim.active(1));
    assert_eq!(sim.dual_for, 0);
}

#[test]
fn a_cold_start_takes_a_few_keepalives() {
    for seed in 0..50 {
        let mut sim = Sim::new(Setup::Availability, seed, false, None);
        sim.run(5 * KEEPALIVE).expect("rules hold");
        assert!(sim.active(0), "seed {seed}: {:?}", sim.history(0));
        assert_eq!(sim.places[1].node.state(), Some(State::Standby));
    }
}

#[test]
fn a_dead_node_is_replaced_as_soon_as_its_silence_is_long_enough() {
    for (setup, arbitration) in [(Setup::Availability, 0), (Setup::Arbiter, 5)] {
        for seed in 0..50 {
            let mut sim = pair(setup, seed);
            sim.apply(Op::PowerOff(0)).expect("rules hold");
            sim.run(DEAD + MAX_DELAY + arbitration).expect("rules hold");
            assert!(
                sim.active(1),
                "seed {seed}, {setup:?}: {:?}",
                sim.history(1)
            );
        }
    }
}

#[test]
fn when_both_lose_their_monitors_the_group_stays_owned() {
    for gap in 0..60 {
        let mut sim = pair(Setup::Availability, gap);
        sim.apply(Op::Monitors(0, false)).expect("rules hold");
        sim.run(gap).expect("rules hold");
        sim.apply(Op::Monitors(1, false)).expect("rules hold");
        sim.run(3000).expect("rules hold");
        let owned = sim.places.iter().any(Place::owns);
        // Between the owner's consent and the successor's claim there is one message.
        let failed = sim.history(1).last().map(|t| t.cause);
        assert!(
            owned || failed == Some(Cause::MonitorsUnreachable),
            "gap {gap} ms"
        );
    }
}

#[test]
fn an_orderly_stop_is_followed_within_a_few_keepalives() {
    for setup in Setup::ALL {
        for seed in 0..50 {
            let mut sim = pair(setup, seed);
            sim.apply(Op::Leave(0)).expect("rules hold");
            sim.run(6 * KEEPALIVE + 2 * TERM * u64::from(setup.nodes() > 2))
                .expect("rules hold");
            let successors = (1..setup.nodes())
                .filter(|&index| sim.active(index))
                .count();
            assert_eq!(successors, 1, "seed {seed}, {setup:?}");
        }
    }
}

#[test]
fn an_agent_that_dies_is_replaced_although_its_kernel_answers() {
    let mut sim = pair(Setup::Availability, 7);
    sim.apply(Op::Kill(0)).expect("rules hold");
    sim.run(280).expect("rules hold");
    assert!(!sim.active(1), "not before agent-dead-interval");
    sim.run(60).expect("rules hold");
    assert!(sim.active(1));
}

// ---- With an arbiter -------------------------------------------------------------------------------

fn gap(sim: &mut Sim, ms: u64) -> u64 {
    sim.gap(ms).expect("rules hold")
}

#[test]
fn the_death_of_a_standby_costs_nothing() {
    for seed in 0..50 {
        let mut sim = pair(Setup::Arbiter, seed);
        sim.apply(Op::PowerOff(1)).expect("rules hold");
        assert_eq!(gap(&mut sim, 1000), 0, "seed {seed}");
        assert!(sim.active(0));
        sim.apply(Op::PowerOn(1)).expect("rules hold");
        assert_eq!(gap(&mut sim, 3000), 0, "seed {seed}: {:?}", sim.history(0));
    }
}

#[test]
fn a_cut_between_the_nodes_moves_nothing() {
    for seed in 0..50 {
        let mut sim = pair(Setup::Arbiter, seed);
        for cut in [[true, true], [false, true], [true, false], [false, false]] {
            sim.cut = cut;
            assert_eq!(
                gap(&mut sim, 1000),
                0,
                "seed {seed}, {cut:?}: {:?}",
                sim.history(0)
            );
        }
        assert!(sim.active(0));
    }
}

#[test]
fn in_normal_operation_the_arbiter_is_not_needed() {
    let mut sim = pair(Setup::Arbiter, 1);
    sim.apply(Op::StoreDown(true)).expect("rules hold");
    assert_eq!(gap(&mut sim, 5000), 0);
}

#[test]
fn who_has_neither_grants_nor_the_arbiter_stops_and_comes_back_under_a_new_epoch() {
    let mut sim = pair(Setup::Arbiter, 1);
    sim.apply(Op::StoreDown(true)).expect("rules hold");
    sim.apply(Op::PowerOff(1)).expect("rules hold");
    sim.run(TERM).expect("rules hold");
    assert!(!sim.places[0].owns());
    let causes: Vec<_> = sim.history(0).iter().map(|t| t.cause).collect();
    assert!(causes.contains(&Cause::NoAuthority), "{causes:?}");
    let before = sim.places[0].witness.highest;
    sim.apply(Op::StoreDown(false)).expect("rules hold");
    sim.run(2 * TERM).expect("rules hold");
    assert!(sim.active(0));
    assert!(sim.places[0].witness.taken > Some(before));
}

#[test]
fn who_learns_from_the_record_that_it_was_succeeded_says_so() {
    let mut learned = 0;
    for seed in 0..50 {
        let mut sim = pair(Setup::Arbiter, seed);
        sim.cut = [true; 2];
        sim.run(500 + seed).expect("rules hold");
        let [owner, other] = if sim.active(0) { [0, 1] } else { [1, 0] };
        sim.apply(Op::Arbiter(owner, Way::Cut)).expect("rules hold");
        while !sim.active(other) {
            sim.step().expect("rules hold");
        }
        sim.apply(Op::Arbiter(owner, Way::Open))
            .expect("rules hold");
        sim.run(TERM).expect("rules hold");
        for transition in sim.history(owner) {
            match transition.cause {
                Cause::HigherEpoch { .. } => panic!("seed {seed}: it heard nobody"),
                Cause::HigherRecord { epoch } => {
                    assert_eq!(epoch, sim.places[other].witness.highest, "seed {seed}");
                    learned += 1;
                }
                _ => {}
            }
        }
    }
    assert!(learned > 0);
}

/// Both stand still for longer than an active waits for a grant, as on one machine that does. Who then
/// dies while it lives on the record would be succeeded a term later.
#[test]
fn a_stop_of_both_leaves_the_record_as_it_was() {
    for seed in 0..50 {
        let mut sim = pair(Setup::Arbiter, seed);
        sim.max_delay = PER_MS;
        sim.run(100).expect("rules hold");
        let before = sim.store.record;
        for index in 0..2 {
            sim.apply(Op::Freeze(index)).expect("rules hold");
        }
        sim.run(27).expect("rules hold");
        for index in 0..2 {
            sim.apply(Op::Thaw(index)).expect("rules hold");
        }
        sim.run(200).expect("rules hold");
        assert!(sim.active(0), "seed {seed}");
        assert_eq!(sim.store.record, before, "seed {seed}");
    }
}

/// Nobody is there whose grants could replace the record, however long this node was stopped.
#[test]
fn a_stop_of_a_lone_owner_costs_nothing() {
    for seed in 0..50 {
        for (before, after) in [(Op::Freeze(0), Op::Thaw(0)), (Op::Kill(0), Op::Resume(0))] {
            let mut sim = pair(Setup::Arbiter, seed);
            sim.apply(Op::PowerOff(1)).expect("rules hold");
            sim.run(TERM).expect("rules hold");
            let epoch = sim.store.record.map(|(_, record)| record.claim);
            sim.apply(before).expect("rules hold");
            sim.run(27).expect("rules hold");
            sim.apply(after).expect("rules hold");
            let gap = gap(&mut sim, 3 * TERM);
            assert_eq!(gap, 0, "seed {seed}, {before:?}: {:?}", sim.history(0));
            let record = sim.store.record.map(|(_, record)| record.claim);
            assert_eq!(record, epoch, "seed {seed}, {before:?}");
        }
    }
}

/// So long that what is measured by it is much longer, too, than it takes to find a node dead.
const LONG_TERM: u64 = 40 * TERM;

fn pair_with_long_terms(seed: u64) -> Sim {
    let mut sim = Sim::new(Setup::Arbiter, seed, false, None);
    for place in &mut sim.places {
        let policy = &mut place.node.policy;
        policy.arbiter = policy.arbiter.map(|arbiter| ArbiterPolicy {
            term: ms(LONG_TERM),
            timeout: ms(LONG_TERM / 12),
            ..arbiter
        });
        place.node.start(place.clock(0));
    }
    sim.run(2 * LONG_TERM).expect("rules hold");
    assert!(sim.active(0), "seed {seed}");
    sim
}

/// The owner has lived on the record, which the other has seen, and lives on grants again, which it has not:
/// it does not wait for a term that nobody lives by.
#[test]
fn who_finds_the_owner_dead_looks_by_what_it_lived() {
    for seed in 0..50 {
        let mut sim = pair_with_long_terms(seed);
        let mode = |sim: &Sim| sim.store.record.map(|(_, record)| record.mode);
        sim.apply(Op::Cut(1, true)).expect("rules hold");
        sim.run(4 * LONG_TERM).expect("rules hold");
        assert_ne!(mode(&sim), Some(Mode::Paired), "seed {seed}");
        sim.apply(Op::Cut(1, false)).expect("rules hold");
        while mode(&sim) != Some(Mode::Paired) {
            sim.step().expect("rules hold");
        }
        sim.apply(Op::PowerOff(0)).expect("rules hold");
        sim.run(DEAD + 2 * KEEPALIVE).expect("rules hold");
        assert!(sim.active(1), "seed {seed}");
    }
}

/// A standby that has just started asks in vain, be it that it only watches or that its peer is not well and should
/// let go: it does not wait for what that comes to, nor until it would ask again, when its peer dies.
#[test]
fn a_candidate_does_not_wait_because_a_standby_asked_in_vain() {
    for seed in 0..25 {
        for way in [Way::Open, Way::NoAnswers] {
            for well in [true, false] {
                let case = format!("seed {seed}, {way:?}, the owner well: {well}");
                let mut sim = pair_with_long_terms(seed);
                sim.apply(Op::Kill(1)).expect("rules hold");
                sim.apply(Op::Monitors(0, well)).expect("rules hold");
                sim.store_down = way == Way::Open;
                sim.apply(Op::Arbiter(1, way)).expect("rules hold");
                sim.apply(Op::Restart(1)).expect("rules hold");
                sim.run(5 * KEEPALIVE).expect("rules hold");
                let standby = sim.places[1].node.core.as_ref();
                let finding = standby.map(Core::arbiter_finding);
                assert_ne!(finding, Some(ArbiterFinding::Well), "{case}");
                sim.store_down = false;
                sim.apply(Op::Arbiter(1, Way::Open)).expect("rules hold");
                sim.apply(Op::PowerOff(0)).expect("rules hold");
                sim.run(DEAD + 2 * KEEPALIVE).expect("rules hold");
                assert!(sim.active(1), "{case}: {:?}", sim.history(1));
            }
        }
    }
}

/// Runs until what node `at` asks of the arbiter fails, and has the arbiter answer from then on.
fn fail_once(sim: &mut Sim, at: usize) {
    let finding = |sim: &Sim| sim.places[at].node.core.as_ref().map(Core::arbiter_finding);
    sim.apply(Op::StoreDown(true)).expect("rules hold");
    while finding(sim) == Some(ArbiterFinding::Well) {
        sim.step().expect("rules hold");
    }
    sim.apply(Op::StoreDown(false)).expect("rules hold");
}

#[test]
fn a_candidate_whose_request_failed_soon_asks_again() {
    for seed in 0..50 {
        let mut sim = pair_with_long_terms(seed);
        sim.apply(Op::PowerOff(0)).expect("rules hold");
        fail_once(&mut sim, 1);
        assert!(!sim.active(1), "seed {seed}");
        sim.run(2 * KEEPALIVE).expect("rules hold");
        assert!(sim.active(1), "seed {seed}: {:?}", sim.history(1));
    }
}

#[test]
fn an_active_whose_request_failed_soon_asks_again() {
    for seed in 0..50 {
        let mut sim = pair_with_long_terms(seed);
        let claim = sim.places[0].node.published.claim;
        sim.apply(Op::PowerOff(1)).expect("rules hold");
        fail_once(&mut sim, 0);
        let gap = gap(&mut sim, LONG_TERM);
        assert!(gap <= KEEPALIVE * PER_MS, "seed {seed}: {gap} steps");
        let now = sim.places[0].node.published.claim;
        assert_eq!(now, claim, "seed {seed}");
    }
}

/// From each request that is seen on its way to the next, in steps.
fn intervals(sim: &mut Sim, at: usize, ms: u64) -> Vec<u64> {
    let mut intervals = Vec::new();
    let mut newest = sim.asks(at);
    let mut since = 0;
    for step in 0..ms * PER_MS {
        // Grants that come so late that the owner suspects its peer again and again, and still come.
        let cycle = step % (4 * KEEPALIVE * PER_MS);
        sim.cut[1] = cycle < 3 * KEEPALIVE * PER_MS;
        sim.step().expect("rules hold");
        since += 1;
        let asks = sim.asks(at);
        if asks.is_some() && asks > newest {
            newest = asks;
            intervals.push(since);
            since = 0;
        }
    }
    intervals
}

#[test]
fn an_arbiter_that_stays_away_is_asked_ever_less_often() {
    let pause = LONG_TERM / 12 * PER_MS;
    for seed in 0..20 {
        for owner_dies in [false, true] {
            let mut sim = pair_with_long_terms(seed);
            sim.apply(Op::StoreDown(true)).expect("rules hold");
            let owner = sim.places[0].node.published.claim;
            if owner_dies {
                sim.apply(Op::PowerOff(0)).expect("rules hold");
            }
            let intervals = intervals(&mut sim, usize::from(owner_dies), 4 * LONG_TERM);
            let case = format!("seed {seed}, the owner dies: {owner_dies}: {intervals:?}");
            let (first, last) = intervals.split_at(intervals.len().saturating_sub(16));
            assert!(first.len() > 5, "{case}");
            // What nobody waits for, and what somebody does, are asked each at its own pace.
            let mut paces = last.windows(2).map(|two| two[0] + two[1]);
            assert!(paces.all(|it| it >= pause), "{case}");
            assert!(last.iter().all(|&it| it <= 3 * pause), "{case}");
            assert_eq!(sim.places[0].node.published.claim, owner, "{case}");
        }
    }
}

#[test]
fn an_arbiter_that_has_forgotten_is_not_believed_until_the_operator_says_so() {
    let mut sim = pair(Setup::Arbiter, 1);
    sim.apply(Op::Wipe).expect("rules hold");
    sim.apply(Op::PowerOff(0)).expect("rules hold");
    sim.run(3000).expect("rules hold");
    assert!(!sim.places[1].owns());
    let refusal = |sim: &Sim, anyway| {
        let core = sim.places[1].node.core.as_ref().expect("it runs");
        core.may_force(Forced::Active { anyway })
    };
    let said = refusal(&sim, false).expect_err("refused").to_string();
    assert!(
        said.contains("wiped or restored") && said.contains("--i-know"),
        "{said}"
    );
    assert_eq!(refusal(&sim, true), Ok(()));
    sim.apply(Op::Force(1, Forced::Active { anyway: true }))
        .expect("rules hold");
    sim.run(2 * TERM).expect("rules hold");
    assert!(sim.active(1));
    // And the other, which knows nothing, learns the epoch from the record.
    sim.apply(Op::PowerOn(0)).expect("rules hold");
    sim.settled().expect("settles");
    assert!(sim.active(1));
}

/// Beside an owner, which lives on grants, an order to the standby would have the group wait for a term. The owner
/// can have its record written anew.
#[test]
fn an_arbiter_that_has_forgotten_is_overruled_where_the_group_is() {
    let anyway = Forced::Active { anyway: true };
    for noticed in [false, true] {
        let mut sim = pair(Setup::Arbiter, 1);
        sim.apply(Op::Wipe).expect("rules hold");
        sim.run(4 * TERM * u64::from(noticed)).expect("rules hold");
        let standby = sim.places[1].node.core.as_ref().expect("it runs");
        let refusal = noticed.then_some(Refusal::PeerActive);
        assert_eq!(standby.may_force(anyway).err(), refusal);
        sim.apply(Op::Force(1, anyway)).expect("rules hold");
        assert_eq!(gap(&mut sim, 3000), 0, "noticed: {noticed}");
        assert!(sim.active(0), "noticed: {noticed}");
        sim.apply(Op::Force(0, anyway)).expect("rules hold");
        assert_eq!(gap(&mut sim, 3000), 0, "noticed: {noticed}");
        let record = sim.store.record.map(|(_, record)| record.claim);
        let claim = sim.places[0].node.published.claim;
        assert_eq!(record, Some(claim), "noticed: {noticed}");
        let sound = sim.places.iter().all(|place| {
            let finding = place.node.core.as_ref().map(Core::arbiter_finding);
            finding == Some(ArbiterFinding::Well)
        });
        assert!(sound && sim.active(0), "noticed: {noticed}");
    }
}

#[test]
fn an_operator_moves_the_group_there_and_back() {
    for setup in [Setup::Availability, Setup::Consistency, Setup::Arbiter] {
        for seed in 0..50 {
            let mut sim = pair(setup, seed);
            let mut moved = 0;
            for (force, at) in [
                (Op::Force(0, Forced::Standby), 1),
                (Op::Force(0, Forced::Active { anyway: false }), 0),
                (Op::Force(1, Forced::Active { anyway: false }), 1),
            ] {
                sim.apply(force).expect("rules hold");
                moved = moved.max(gap(&mut sim, 1000));
                assert!(
                    sim.active(at),
                    "seed {seed}, {setup:?}, {force:?}: {:?}",
                    sim.history(at)
                );
                assert!(!sim.active(1 - at), "seed {seed}, {setup:?}, {force:?}");
            }
            let longest = match setup {
                Setup::Availability => 0,
                _ => HANDOVER * PER_MS,
            };
            assert!(moved <= longest, "seed {seed}, {setup:?}: {moved} steps");
        }
    }
}
