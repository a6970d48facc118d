use super::*;
use crate::net::sample;

/// As [`sample`] has it.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
const THIRD: [u8; 6] = [2, 0, 0, 0, 0, 3];
const LINK: u32 = 7;

fn held(group: usize, resource: usize) -> Held {
    Held {
        group,
        resource,
        service: "10.0.0.254/24".to_owned(),
        link: sample(LINK, "eth1"),
        address: "10.0.0.254".parse().unwrap(),
    }
}

fn claim(mac: [u8; 6]) -> Claim {
    Claim {
        address: "10.0.0.254".parse().unwrap(),
        mac,
    }
}

/// Milliseconds after the address was taken.
fn at(ms: u64) -> BootTime {
    BootTime::from_ns(1_000_000_000_000 + ms * 1_000_000)
}

fn holding() -> Rivals {
    let mut rivals = Rivals::default();
    rivals.hold(held(0, 0), at(0));
    rivals
}

/// Who, how many claims, and whether that is new.
type Told = ([u8; 6], u64, bool);
const NOTHING: [Told; 0] = [];

/// What is told at a time.
fn told(rivals: &mut Rivals, ms: u64) -> Vec<Told> {
    let reports = rivals.reports(at(ms)).into_iter();
    reports
        .map(|(_, Duplicate { mac, claims, .. }, is_new)| (mac, claims, is_new))
        .collect()
}

#[test]
fn who_speaks_on_is_told_of_once_and_counted() {
    let mut rivals = holding();
    rivals.note(LINK, claim(OTHER), at(200));
    rivals.note(LINK, claim(OTHER), at(300));
    assert_eq!(told(&mut rivals, 1_199), NOTHING);
    assert_eq!(rivals.next_deadline(), Some(at(200)), "a probe");
    assert_eq!(told(&mut rivals, 1_200), [(OTHER, 2, true)]);
    assert_eq!(told(&mut rivals, 9_000), NOTHING, "nothing new");
    rivals.note(LINK, claim(OTHER), at(9_000));
    rivals.note(LINK, claim(OTHER), at(9_500));
    assert_eq!(told(&mut rivals, 9_999), NOTHING);
    assert_eq!(told(&mut rivals, 10_000), [(OTHER, 4, false)]);
}

#[test]
fn who_was_silent_for_long_is_told_of_again() {
    let mut rivals = holding();
    rivals.note(LINK, claim(OTHER), at(200));
    assert_eq!(told(&mut rivals, 1_200), [(OTHER, 1, true)]);
    let later = 200 + u64::try_from(FORGOTTEN_AFTER.as_millis()).unwrap();
    rivals.note(LINK, claim(OTHER), at(later));
    assert_eq!(told(&mut rivals, later + 1_000), [(OTHER, 1, true)]);
}

#[test]
fn a_former_owners_last_word_is_none() {
    let mut rivals = holding();
    rivals.note(LINK, claim(OTHER), at(99));
    assert_eq!(told(&mut rivals, 60_000), NOTHING);
}

#[test]
fn who_lets_go_is_not_told_of_its_successor() {
    let mut rivals = holding();
    rivals.note(LINK, claim(OTHER), at(5_000));
    rivals.let_go(0);
    assert_eq!(told(&mut rivals, 60_000), NOTHING);
    assert_eq!(rivals.next_deadline(), None);
}

#[test]
fn other_addresses_interfaces_and_own_words_do_not_concern_it() {
    let mut rivals = holding();
    let elsewhere = Claim {
        address: "10.0.0.253".parse().unwrap(),
        mac: OTHER,
    };
    rivals.note(LINK, elsewhere, at(200));
    rivals.note(LINK + 1, claim(OTHER), at(200));
    rivals.note(LINK, claim(OWN), at(200));
    assert_eq!(told(&mut rivals, 60_000), NOTHING);
}

#[test]
fn another_interface_of_this_node_is_told_of_no_more() {
    let mut rivals = holding();
    rivals.note(LINK, claim(OTHER), at(200));
    assert_eq!(told(&mut rivals, 1_200), [(OTHER, 1, true)]);
    rivals.dismiss(0, 0, OTHER);
    rivals.note(LINK, claim(OTHER), at(2_000));
    assert_eq!(told(&mut rivals, 60_000), NOTHING);
    rivals.note(LINK, claim(THIRD), at(60_000));
    assert_eq!(told(&mut rivals, 61_000), [(THIRD, 1, true)]);
}

#[test]
fn a_flood_of_makers_of_claims_is_bounded() {
    let mut rivals = holding();
    for last in 10..100 {
        rivals.note(LINK, claim([2, 0, 0, 0, 0, last]), at(200));
    }
    assert_eq!(told(&mut rivals, 1_200).len(), MOST_RIVALS);
}

#[test]
fn others_are_asked_soon_and_then_from_time_to_time() {
    let mut rivals = holding();
    let mut asked = Vec::new();
    for ms in (0..30_000).step_by(100) {
        asked.extend(rivals.probes(at(ms)).iter().map(|_| ms));
    }
    assert_eq!(asked, [200, 1_000, 5_000, 15_000, 25_000]);
}

#[test]
fn taken_once_more_all_begins_anew() {
    let mut rivals = holding();
    rivals.hold(held(0, 1), at(0));
    rivals.note(LINK, claim(OTHER), at(200));
    rivals.hold(held(0, 0), at(500));
    assert_eq!(told(&mut rivals, 60_000).len(), 1, "the other resource's");
    rivals.note(LINK, claim(OTHER), at(60_000));
    assert_eq!(
        told(&mut rivals, 61_000),
        [(OTHER, 2, false), (OTHER, 1, true)]
    );
}
