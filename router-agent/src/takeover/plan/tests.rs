use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const VERIFY: Duration = Duration::from_secs(10);

fn at(ms: u64) -> BootTime {
    BootTime::from_ns((1_000 + ms) * 1_000_000)
}

fn plan(ranks: &[u32], condition: Condition, goal: Option<Goal>) -> Plan {
    let resources: Vec<_> = ranks
        .iter()
        .map(|&rank| {
            let spec = Spec {
                rank,
                verify: VERIFY,
            };
            (spec, condition)
        })
        .collect();
    Plan::new(&resources, goal, 7)
}

fn resources(attempts: &[Attempt]) -> Vec<usize> {
    attempts.iter().map(|attempt| attempt.resource).collect()
}

/// Ends what is begun, well, until nothing more is begun; in which order.
fn run(plan: &mut Plan, now: BootTime) -> Vec<Vec<usize>> {
    let mut waves = Vec::new();
    loop {
        let begun = plan.begin(now);
        if begun.is_empty() {
            return waves;
        }
        waves.push(resources(&begun));
        for attempt in begun {
            plan.end(&attempt, Outcome::Done, now).unwrap();
        }
    }
}

#[test]
fn taken_by_rank_and_released_in_reverse() {
    let mut plan = plan(&[2, 0, 1, 0, 3, 1], Condition::Absent, None);
    assert!(plan.begin(at(0)).is_empty(), "nothing was ordered yet");
    plan.order(Goal::Held, Epoch(1)).unwrap();
    let up = [vec![1, 3], vec![2, 5], vec![0], vec![4]];
    assert_eq!(run(&mut plan, at(0)), up);
    plan.order(Goal::Released, Epoch(1)).unwrap();
    let down = [vec![4], vec![0], vec![2, 5], vec![1, 3]];
    assert_eq!(run(&mut plan, at(1)), down);
    assert!(plan.is_let_go());
    assert_eq!(plan.next_deadline(), None);
}

#[test]
fn one_that_fails_delays_the_others_until_it_was_tried_and_no_longer() {
    let mut plan = plan(&[0, 1], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(1)).unwrap();
    let [first] = plan.begin(at(0))[..] else {
        panic!("the first goes alone");
    };
    assert_eq!(
        plan.end(&first, Outcome::Failed, at(1)),
        Some(Progress::Failed)
    );
    let [second] = plan.begin(at(1))[..] else {
        panic!("the second goes on");
    };
    assert_eq!(
        plan.end(&second, Outcome::Done, at(2)),
        Some(Progress::Neither)
    );
    let retry = plan.next_deadline().unwrap();
    assert!(retry >= at(1).after(FIRST_RETRY) && retry <= at(1).after(FIRST_RETRY * 2));
    let [again] = plan.begin(retry)[..] else {
        panic!("it is tried again");
    };
    assert_eq!(again.resource, 0);
    assert_eq!(
        plan.end(&again, Outcome::Done, retry),
        Some(Progress::Whole)
    );
}

#[test]
fn retries_come_ever_later_up_to_a_bound() {
    let mut plan = plan(&[0], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(1)).unwrap();
    let mut now = at(0);
    let mut least = FIRST_RETRY;
    for _ in 0..20 {
        let [attempt] = plan.begin(now)[..] else {
            panic!("due at {now:?}");
        };
        // That nobody can do it is no reason to go elsewhere.
        assert_eq!(
            plan.end(&attempt, Outcome::Unavailable, now),
            Some(Progress::Neither)
        );
        let next = plan.next_deadline().unwrap();
        let delay = next.since(now);
        assert!(
            delay >= least && delay <= least * 2,
            "{delay:?} after {least:?}"
        );
        least = (least * 2).min(LAST_RETRY);
        now = next;
    }
}

#[test]
fn an_order_for_an_old_epoch_is_refused() {
    let mut plan = plan(&[0], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(5)).unwrap();
    assert_eq!(plan.order(Goal::Released, Epoch(4)), Err(Outdated));
    assert_eq!(plan.order_announcement(Epoch(4), at(0)), Err(Outdated));
    assert_eq!(run(&mut plan, at(0)), [[0]]);
    plan.order(Goal::Released, Epoch(5)).unwrap();
}

#[test]
fn a_release_breaks_off_what_is_being_taken_and_undoes_it() {
    let mut plan = plan(&[0, 1], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(1)).unwrap();
    let first = plan.begin(at(0));
    assert_eq!(plan.order(Goal::Released, Epoch(2)).unwrap(), first);
    // It may have come to its end all the same: nobody hears.
    assert_eq!(plan.end(&first[0], Outcome::Done, at(2)), None);
    assert_eq!(run(&mut plan, at(2)), [[0]], "the second never began");
}

/// Else two that fail by turns, each after a long time, would have no moment in which neither runs.
#[test]
fn at_the_end_each_release_is_tried_once() {
    let mut plan = plan(&[0, 1, 1], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(1)).unwrap();
    run(&mut plan, at(0));
    plan.order(Goal::Released, Epoch(1)).unwrap();
    plan.retry_no_more();
    let [one, other] = plan.begin(at(1))[..] else {
        panic!("both of the highest rank go together");
    };
    plan.end(&one, Outcome::Failed, at(30_000)).unwrap();
    assert!(plan.begin(at(60_000)).is_empty(), "it was tried");
    assert_eq!(plan.next_deadline(), None);
    assert!(!plan.is_let_go(), "the other one is under way");
    plan.end(&other, Outcome::Failed, at(60_000)).unwrap();
    // The rest does not stay for their sake.
    assert_eq!(run(&mut plan, at(60_000)), [[0]]);
    assert!(plan.is_let_go());
}

#[test]
fn a_new_epoch_lets_what_is_being_taken_go_on_and_takes_the_rest_anew() {
    let mut plan = plan(&[0, 1], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(1)).unwrap();
    let first = plan.begin(at(0))[0];
    plan.end(&first, Outcome::Done, at(1)).unwrap();
    let second = plan.begin(at(1))[0];
    assert_eq!(plan.order(Goal::Held, Epoch(2)).unwrap(), []);
    assert_eq!(resources(&plan.begin(at(2))), [0]);
    assert_eq!(
        plan.end(&second, Outcome::Done, at(3)),
        Some(Progress::Neither)
    );
}

#[test]
fn what_is_held_is_verified_first_soon_and_then_at_its_interval() {
    let mut plan = plan(&[0], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(1)).unwrap();
    run(&mut plan, at(0));
    let first = plan.next_deadline().unwrap();
    assert_eq!(first, at(0).after(FIRST_VERIFY));
    let [look] = plan.begin(first)[..] else {
        panic!("it is due");
    };
    assert_eq!(look.deed, Deed::Verify);
    plan.end(&look, Outcome::Done, first).unwrap();
    let second = plan.next_deadline().unwrap();
    assert_eq!(second, first.after(VERIFY));
    let look = plan.begin(second)[0];
    // What cannot be seen is not lost; what is found lost is taken again.
    plan.end(&look, Outcome::Unavailable, second).unwrap();
    let third = plan.next_deadline().unwrap();
    let look = plan.begin(third)[0];
    assert_eq!(look.deed, Deed::Verify);
    assert_eq!(
        plan.end(&look, Outcome::Failed, third),
        Some(Progress::Failed)
    );
    let fourth = plan.next_deadline().unwrap();
    assert_eq!(plan.begin(fourth)[0].deed, Deed::Take);
}

#[test]
fn what_a_former_life_left_is_released_and_what_goes_on_waits_for_its_order() {
    let mut left = plan(&[0, 1], Condition::Unknown, Some(Goal::Released));
    assert_eq!(run(&mut left, at(0)), [[1], [0]]);
    let mut goes_on = plan(&[0, 1], Condition::Unknown, None);
    assert!(goes_on.begin(at(0)).is_empty());
    goes_on.order(Goal::Held, Epoch(3)).unwrap();
    assert_eq!(run(&mut goes_on, at(0)), [[0], [1]]);
}

#[test]
fn announced_again_while_held_only() {
    let mut plan = plan(&[0], Condition::Absent, None);
    plan.order(Goal::Held, Epoch(1)).unwrap();
    run(&mut plan, at(0));
    plan.schedule_announcements(at(0));
    let due = |plan: &mut Plan, ms| plan.announcement_is_due(at(ms));
    assert_eq!(
        [99, 100, 101, 1_000, 5_000, 9_000].map(|ms| due(&mut plan, ms)),
        [false, true, false, true, true, false]
    );
    plan.order_announcement(Epoch(1), at(9_000)).unwrap();
    assert!(due(&mut plan, 9_000) && due(&mut plan, 9_100));
    // Taken anew.
    plan.schedule_announcements(at(9_150));
    assert!(!due(&mut plan, 9_249) && due(&mut plan, 9_250));
    plan.order(Goal::Released, Epoch(2)).unwrap();
    assert!(!due(&mut plan, 99_000));
}

#[derive(Clone, Debug)]
enum Happening {
    Order {
        held: bool,
        epoch: u32,
    },
    /// The attempt under way at this place, if there are so many, ends.
    End {
        which: usize,
        outcome: Outcome,
    },
    Wait {
        ms: u64,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Done),
        1 => Just(Outcome::Failed),
        1 => Just(Outcome::Unavailable),
    ];
    prop_oneof![
        1 => (any::<bool>(), 0..6_u32).prop_map(|(held, epoch)| Happening::Order { held, epoch }),
        5 => (0..4_usize, outcome).prop_map(|(which, outcome)| Happening::End { which, outcome }),
        3 => (0..6_000_u64).prop_map(|ms| Happening::Wait { ms }),
    ]
}

proptest! {
    /// Against a world that does what it is told: `there` is what has been taken and not released.
    #[test]
    fn whatever_happens(
        ranks in prop::collection::vec(0..4_u32, 1..6),
        happenings in prop::collection::vec(happening(), 1..80),
    ) {
        let mut plan = plan(&ranks, Condition::Absent, None);
        let mut now = at(0);
        let (mut goal, mut newest) = (None, Epoch(0));
        let mut running: Vec<Attempt> = Vec::new();
        let mut there = BTreeSet::new();
        let mut tried = BTreeSet::new();
        // What remains is quiet, so that all comes to its end.
        let quiet = std::iter::repeat_n(Happening::Wait { ms: 12_000 }, 2)
            .chain((0..40).map(|_| Happening::End { which: 0, outcome: Outcome::Done }));
        for happening in happenings.into_iter().chain(quiet) {
            match happening {
                Happening::Wait { ms } => now = now.after(MS * u32::try_from(ms).unwrap()),
                Happening::Order { held, epoch } => {
                    let order = if held { Goal::Held } else { Goal::Released };
                    let answer = plan.order(order, Epoch(epoch));
                    prop_assert_eq!(answer.is_err(), Epoch(epoch) < newest);
                    if let Ok(broken_off) = answer {
                        newest = Epoch(epoch);
                        goal = Some(order);
                        tried.clear();
                        running.retain(|attempt| !broken_off.contains(attempt));
                        prop_assert!(running.iter().all(|attempt| attempt.deed.serves(order)));
                    }
                }
                Happening::End { which, outcome } => {
                    if which < running.len() {
                        let attempt = running.remove(which);
                        if outcome == Outcome::Done && attempt.deed == Deed::Release {
                            there.remove(&attempt.resource);
                        }
                        tried.insert(attempt.resource);
                        let progress = plan.end(&attempt, outcome, now);
                        prop_assert!(progress.is_some());
                        if progress == Some(Progress::Whole) {
                            prop_assert_eq!(there.len(), ranks.len());
                        }
                    }
                }
            }
            for attempt in plan.begin(now) {
                let Attempt { resource, deed, epoch, .. } = attempt;
                prop_assert_eq!(epoch, newest);
                prop_assert!(deed.serves(goal.unwrap()));
                prop_assert!(running.iter().all(|other| other.resource != resource));
                let others = 0..ranks.len();
                match deed {
                    // It may be half there from now on.
                    Deed::Take => {
                        there.insert(resource);
                        for other in others.filter(|&other| ranks[other] < ranks[resource]) {
                            prop_assert!(tried.contains(&other));
                        }
                    }
                    Deed::Release => {
                        for other in others.filter(|&other| ranks[other] > ranks[resource]) {
                            prop_assert!(tried.contains(&other) || !there.contains(&other));
                        }
                    }
                    Deed::Verify => prop_assert!(there.contains(&resource)),
                }
                running.push(attempt);
            }
        }
        match goal {
            Some(Goal::Held) => prop_assert!((0..ranks.len()).all(|place| plan.is_held(place))),
            Some(Goal::Released) => prop_assert!(there.is_empty() && plan.is_let_go()),
            None => prop_assert!(there.is_empty()),
        }
    }
}
