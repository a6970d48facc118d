use proptest::prelude::*;

use super::*;

const OLD: u64 = 1;
const NEW: u64 = 2;
const THIRD: u64 = 3;

fn slot(number: u64) -> Slot {
    Slot {
        rx: [number; 2],
        tx: [number; 2],
        number,
    }
}

fn named(used: u64, wanted: u64) -> Named {
    Named {
        used: u16::try_from(used).unwrap(),
        wanted: u16::try_from(wanted).unwrap(),
    }
}

#[test]
fn the_table() {
    use Progress::{BothUseIt, None, PeerHasIt, PeerLacksIt};

    let one = Keys::of(slot(OLD));
    let two = begin(&one, &slot(NEW)).unwrap();
    assert_eq!(two.wanted, NEW);
    // Keys, what the peer named, what that is, what we sign with, whether the old may go.
    for (keys, peer, is, signs, finishes) in [
        (one, named(0, 0), None, OLD, Err(Refusal::NotUnderWay)),
        (one, named(OLD, OLD), None, OLD, Err(Refusal::NotUnderWay)),
        (one, named(OLD, NEW), None, OLD, Err(Refusal::NotUnderWay)),
        (
            two,
            named(0, 0),
            PeerLacksIt,
            NEW,
            Err(Refusal::StillNeeded),
        ),
        (
            two,
            named(OLD, OLD),
            PeerLacksIt,
            OLD,
            Err(Refusal::StillNeeded),
        ),
        (
            two,
            named(OLD, THIRD),
            PeerLacksIt,
            OLD,
            Err(Refusal::StillNeeded),
        ),
        // It restarted with the old one alone.
        (
            two,
            named(NEW, OLD),
            PeerLacksIt,
            OLD,
            Err(Refusal::StillNeeded),
        ),
        (
            two,
            named(OLD, NEW),
            PeerHasIt,
            NEW,
            Err(Refusal::StillNeeded),
        ),
        (two, named(NEW, NEW), BothUseIt, NEW, Ok(())),
    ] {
        assert_eq!(progress(&keys, peer), is, "{peer:?}");
        assert_eq!(keys.sign_for(peer).unwrap().number, signs, "{peer:?}");
        assert_eq!(finish(&keys, peer, false).map(drop), finishes, "{peer:?}");
    }
    let forced = finish(&two, named(OLD, OLD), true).unwrap();
    assert_eq!(progress(&forced, named(OLD, OLD)), None);
    assert_eq!(forced.find(1), Option::None);
}

#[test]
fn what_cannot_begin() {
    let two = starting(slot(NEW), Some(slot(OLD)));
    let refusal = |slot: Slot| begin(&two, &slot).err();
    assert_eq!(refusal(slot(NEW)), Some(Refusal::InUse));
    assert_eq!(refusal(slot(THIRD)), Some(Refusal::UnderWay));
    let alike = Slot {
        number: OLD,
        ..slot(THIRD)
    };
    assert_eq!(refusal(alike), Some(Refusal::SameNumber));
    let back = begin(&two, &slot(OLD)).unwrap();
    assert_eq!(back.wanted, OLD);
    assert_eq!(back.slots, two.slots, "the new one is accepted still");
    let done = finish(&back, named(OLD, OLD), false).unwrap();
    assert_eq!(begin(&done, &slot(THIRD)).unwrap().wanted, THIRD);
}

/// A node as far as its secrets go.
#[derive(Clone, Copy, Debug)]
struct Node {
    keys: Keys,
    peer: Named,
}

impl Node {
    fn new(keys: Keys) -> Self {
        Self {
            keys,
            peer: Named::default(),
        }
    }

    fn probe(&self) -> Named {
        self.message(self.peer)
    }

    fn message(&self, to: Named) -> Named {
        let keys = self.keys;
        named(keys.sign_for(to).unwrap().number, keys.wanted)
    }

    /// Whether it can be verified; the reply, which is made out of the probe alone.
    fn reply(&self, probe: Named) -> Option<Named> {
        self.keys.find(probe.used)?;
        Some(self.message(probe))
    }
}

/// A probe of `from` and its reply; whether both were understood.
fn exchange(nodes: &mut [Node; 2], from: usize) -> bool {
    let to = 1 - from;
    let probe = nodes[from].probe();
    let Some(reply) = nodes[to].reply(probe) else {
        return false;
    };
    nodes[to].peer = probe;
    let understood = nodes[from].keys.find(reply.used).is_some();
    if understood {
        nodes[from].peer = reply;
    }
    understood
}

fn rounds(nodes: &mut [Node; 2]) -> bool {
    // Every message counts, so all are exchanged.
    (0..6).filter(|turn| !exchange(nodes, turn % 2)).count() == 0
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Begin,
    Back,
    Finish,
    /// One message may be on its way between two deeds of the operators, or many.
    Exchange,
    /// With the configuration of the change: the new secret, and the old one as previous.
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<(usize, Deed)>> {
    let deed = prop::sample::select(vec![
        Deed::Begin,
        Deed::Back,
        Deed::Finish,
        Deed::Exchange,
        Deed::Restart,
    ]);
    prop::collection::vec((0..2_usize, deed), 0..24)
}

/// A deed, if it is possible.
fn does(node: &mut Node, deed: Deed) {
    let keys = node.keys;
    let after = match deed {
        Deed::Begin => begin(&keys, &slot(NEW)),
        Deed::Back => begin(&keys, &slot(OLD)),
        Deed::Finish => finish(&keys, node.peer, false),
        Deed::Restart => {
            // Without a reply to the peer's probe there is nothing to be heard of it.
            if keys.slots.iter().all(|slot| !slot.is_empty()) {
                node.peer = Named::default();
                Ok(starting(
                    slot(keys.wanted),
                    keys.slots
                        .into_iter()
                        .find(|slot| slot.number != keys.wanted),
                ))
            } else {
                Ok(keys)
            }
        }
        Deed::Exchange => Ok(keys),
    };
    if let Ok(after) = after {
        node.keys = after;
    }
}

proptest! {
    /// Whatever the operators do on either node in any order: no message is missed, but for those of
    /// a node that has just started and not yet heard its peer; and they hear each other again.
    #[test]
    fn no_heartbeat_is_missed(deeds in deeds()) {
        let mut nodes = [Node::new(Keys::of(slot(OLD))); 2];
        prop_assert!(rounds(&mut nodes));
        for (who, deed) in deeds {
            let mut starts = false;
            does(&mut nodes[who], deed);
            if let Deed::Restart = deed {
                starts = nodes[who].peer == Named::default();
            }
            let understood = exchange(&mut nodes, who);
            prop_assert!(understood || starts, "{deed:?} of {who}: {nodes:?}");
            exchange(&mut nodes, 1 - who);
            prop_assert!(exchange(&mut nodes, who), "after {deed:?} of {who}: {nodes:?}");
        }
        prop_assert!(rounds(&mut nodes), "{nodes:?}");
    }
}

#[test]
fn either_node_may_be_first_and_both_end_with_the_new_one() {
    for order in [[0, 1], [1, 0]] {
        let mut nodes = [Node::new(Keys::of(slot(OLD))); 2];
        assert!(rounds(&mut nodes));
        for step in [Deed::Begin, Deed::Finish] {
            for who in order {
                does(&mut nodes[who], step);
                assert!(rounds(&mut nodes), "{step:?} of {who}: {nodes:?}");
            }
        }
        for node in nodes {
            assert_eq!(node.keys.find(1), None);
            assert_eq!(node.peer, named(NEW, NEW));
        }
    }
}

#[test]
fn a_restart_with_the_old_configuration_is_understood_until_the_change_is_finished() {
    let mut nodes = [Node::new(Keys::of(slot(OLD))); 2];
    for node in &mut nodes {
        does(node, Deed::Begin);
    }
    assert!(rounds(&mut nodes));
    assert_eq!(progress(&nodes[0].keys, nodes[0].peer), Progress::BothUseIt);
    nodes[1] = Node::new(Keys::of(slot(OLD)));
    // Its probes are answered in what they ask for.
    assert!(exchange(&mut nodes, 1));
    assert!(rounds(&mut nodes));
    assert_eq!(
        progress(&nodes[0].keys, nodes[0].peer),
        Progress::PeerLacksIt
    );
    assert_eq!(
        finish(&nodes[0].keys, nodes[0].peer, false).err(),
        Some(Refusal::StillNeeded)
    );
}

#[test]
fn a_configuration_must_state_what_the_peer_has() {
    let of = Keys::of;
    let both = |wanted| starting(slot(wanted), Some(slot(OLD + NEW - wanted)));
    let rotating = begin(&of(slot(OLD)), &slot(NEW)).unwrap();
    let rotated = finish(&rotating, named(NEW, NEW), false).unwrap();
    for (present, peer, new, goes) in [
        (of(slot(OLD)), named(OLD, OLD), of(slot(OLD)), true),
        (of(slot(OLD)), named(OLD, OLD), both(NEW), true),
        (of(slot(OLD)), named(OLD, OLD), of(slot(NEW)), false),
        (of(slot(OLD)), named(0, 0), of(slot(NEW)), false),
        // Both are accepted here; what matters is what the peer has.
        (rotating, named(OLD, OLD), of(slot(NEW)), false),
        (rotating, named(OLD, OLD), of(slot(OLD)), true),
        (rotating, named(OLD, NEW), of(slot(NEW)), true),
        (rotating, named(0, 0), of(slot(NEW)), true),
        (rotated, named(NEW, NEW), of(slot(OLD)), false),
        (rotated, named(NEW, NEW), of(slot(NEW)), true),
        (rotated, named(NEW, NEW), both(OLD), true),
        // It named what was given up by force.
        (rotated, named(OLD, OLD), of(slot(NEW)), true),
    ] {
        assert_eq!(
            goes_on(&present, peer, &new),
            goes,
            "{present:?} {peer:?} {new:?}"
        );
    }
    let other_key = Slot {
        tx: [THIRD; 2],
        ..slot(OLD)
    };
    assert!(!goes_on(&of(slot(OLD)), named(OLD, OLD), &of(other_key)));

    assert!(is_same(&rotated, &of(slot(NEW))), "in another place");
    assert!(is_same(&rotating, &both(NEW)));
    assert!(!is_same(&rotating, &both(OLD)), "asks for the other");
    assert!(!is_same(&rotating, &of(slot(NEW))));
    assert!(!is_same(&of(slot(NEW)), &rotating));
    assert!(!is_same(&of(slot(OLD)), &of(other_key)));
}
