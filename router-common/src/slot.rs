//! The tables in front of the tunnels' hashes. A tunnel has one slot in which it may be, told by
//! its key in a few multiplications; the slot holds the whole key, so that a packet finds its tunnel
//! by one comparison, in one or mostly in two cache lines. Who finds another tunnel there asks the hash,
//! which holds all.
//!
//! The agent alone fills slots, from the configuration; packets have no influence on who is in one.
//!
//! A program that reads a slot while it is written never takes parts of two tunnels for one:
//!
//! - `taken` is written last, after key and value; what a reader compares with when it sees `taken`
//!   stays as it is. So do index and format. Before a slot is given to another tunnel, or to the same with
//!   another index or format, `taken` is taken back, and all programs that may have seen it have ended.
//! - What may change of a tunnel lies in aligned 64-bit words, each written whole, as in the
//!   memory-mapped arrays of [`crate::map`]. A packet that passes meanwhile may see one of them as it
//!   was and one as it is: both were meant for this tunnel, and none needs another to be true.
//!
//! Both rest on loads that stay in order, which x86-64 promises; the agent leaves the slots of
//! another machine empty.

use bytemuck::{Pod, Zeroable};

use crate::{
    gre::{TunnelKey, TunnelKey6},
    map::TunnelIngress,
};

/// Slots of each table: all that 16 bits of a hash tell apart.
pub const SLOTS: u32 = 1 << 16;

/// Odd, and with no pattern: those of xxHash64 (Y. Collet, xxHash specification 0.1.1).
const PRIMES: [u64; 5] = [
    0x9e37_79b1_85eb_ca87,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x85eb_ca77_c2b2_ae63,
    0x27d4_eb2f_1656_67c5,
];

/// Between the slots of numbers that follow each other, in each word.
const STEPS: [u64; 5] = [1, 3, 5, 7, 9];

/// The last two bytes of a word in network order, of an address or a key, count as a number: what
/// is numbered in turn lies side by side, takes no slot from its like, and few pages. The rest goes
/// through multiplicative hashing.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a slot has 16 bits")]
fn slot_of<const N: usize>(words: [u64; N]) -> u32 {
    const REST: u64 = (1 << 48) - 1;
    const { assert!(N <= PRIMES.len()) };
    let mut near = 0_u64;
    let mut far = 0_u64;
    let mut at = 0;
    while at < N {
        let word = u64::from_le(words[at]);
        near += u64::from(((word >> 48) as u16).swap_bytes()) * STEPS[at];
        far = far.wrapping_add((word & REST).wrapping_mul(PRIMES[at]));
        at += 1;
    }
    (near.wrapping_add(far >> 48) % u64::from(SLOTS)) as u32
}

/// A place for one tunnel.
pub trait Slot: Pod {
    type Key: Pod + Eq;

    /// The one slot for a tunnel.
    fn number(key: &Self::Key) -> u32;

    /// A slot that holds a tunnel.
    fn holding(key: Self::Key, ingress: TunnelIngress) -> Self;

    /// The tunnel of `key`, if it is the one in this slot.
    fn get(&self, key: &Self::Key) -> Option<&TunnelIngress>;

    /// Whether it may be given to the tunnel of `key`: it is its own, or nobody's.
    fn is_for(&self, key: &Self::Key) -> bool;

    /// The tunnel in it.
    fn held(&self) -> Option<(&Self::Key, &TunnelIngress)>;

    /// The same, as nobody's.
    #[must_use]
    fn emptied(self) -> Self;
}

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident of $key:ty, $size:literal bytes, $padding:literal words unused) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        pub struct $name {
            pub key: $key,
            pub ingress: TunnelIngress,
            pub padding: [u64; $padding],
            /// 1 once the slot is a tunnel's.
            pub taken: u64,
        }

        const _: () = assert!(size_of::<$name>() == $size);

        impl Slot for $name {
            type Key = $key;

            #[inline(always)]
            fn number(key: &$key) -> u32 {
                slot_of(bytemuck::must_cast::<_, [u64; size_of::<$key>() / 8]>(*key))
            }

            fn holding(key: $key, ingress: TunnelIngress) -> Self {
                Self {
                    key,
                    ingress,
                    padding: [0; $padding],
                    taken: 1,
                }
            }

            #[inline(always)]
            fn get(&self, key: &$key) -> Option<&TunnelIngress> {
                // Word by word, as LLVM would call a function that compares byte by byte.
                let words = bytemuck::must_cast::<_, [u64; size_of::<$key>() / 8]>;
                let (ours, theirs) = (words(self.key), words(*key));
                let mut different = self.taken ^ 1;
                let mut at = 0;
                while at < ours.len() {
                    different |= ours[at] ^ theirs[at];
                    at += 1;
                }
                (different == 0).then_some(&self.ingress)
            }

            fn is_for(&self, key: &$key) -> bool {
                self.taken == 0 || self.key == *key
            }

            fn held(&self) -> Option<(&$key, &TunnelIngress)> {
                (self.taken != 0).then_some((&self.key, &self.ingress))
            }

            fn emptied(self) -> Self {
                Self { taken: 0, ..self }
            }
        }

        #[cfg(feature = "user")]
        // SAFETY: `bytemuck::Pod` already demands what `aya::Pod` does.
        unsafe impl aya::Pod for $name {}
    };
}

slot! {
    /// For a tunnel over IPv4; it fills a cache line.
    TunnelSlot of TunnelKey, 64 bytes, 1 words unused
}

slot! {
    /// For a tunnel over IPv6; mostly in two cache lines.
    TunnelSlot6 of TunnelKey6, 80 bytes, 0 words unused
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, vec::Vec};

    use bytemuck::Zeroable as _;
    use proptest::prelude::*;

    use super::*;
    use crate::gre::{Addresses6, Label};

    fn key(remote: [u8; 4], label: Label) -> TunnelKey {
        TunnelKey {
            local: [10, 0, 1, 10],
            remote,
            label,
        }
    }

    fn ingress(index: u32) -> TunnelIngress {
        TunnelIngress {
            index,
            ..TunnelIngress::zeroed()
        }
    }

    #[test]
    fn an_empty_slot_holds_no_tunnel() {
        // What would be equal to it but for `taken`.
        let slot = TunnelSlot::zeroed();
        assert_eq!(slot.get(&slot.key), None);
        assert!(slot.is_for(&slot.key));
    }

    #[test]
    fn a_slot_holds_its_tunnel_alone() {
        let plain = key([10, 0, 2, 10], Label::new(None, false));
        let slot = TunnelSlot::holding(plain, ingress(7));
        assert_eq!(slot.get(&plain), Some(&ingress(7)));
        assert!(slot.is_for(&plain));
        let others = [
            key([10, 0, 2, 11], plain.label),
            key(plain.remote, Label::new(Some(0), false)),
            key(plain.remote, Label::new(None, true)),
            TunnelKey {
                local: plain.remote,
                remote: plain.local,
                ..plain
            },
        ];
        for other in others {
            assert_eq!(slot.get(&other), None, "{other:?}");
            assert!(!slot.is_for(&other), "{other:?}");
        }
    }

    /// How many of these have a slot that none before them has.
    fn placed<K: Pod>(keys: impl IntoIterator<Item = K>, number: impl Fn(&K) -> u32) -> usize {
        let numbers: Vec<u32> = keys.into_iter().map(|key| number(&key)).collect();
        assert!(numbers.iter().all(|number| *number < SLOTS));
        numbers.into_iter().collect::<HashSet<_>>().len()
    }

    #[test]
    fn what_is_numbered_in_turn_has_all_slots_it_needs() {
        let numbers = 0..10_000_u32;
        let plain = Label::new(None, false);
        let remotes = numbers.clone().map(|number| {
            let [_, _, c, d] = number.to_be_bytes();
            key([10, 7, c, d], plain)
        });
        assert_eq!(placed(remotes, TunnelSlot::number), 10_000);
        let keyed = numbers
            .clone()
            .map(|number| key([10, 0, 2, 10], Label::new(Some(number), false)));
        assert_eq!(placed(keyed, TunnelSlot::number), 10_000);
        let both = numbers.clone().map(|number| {
            let [_, _, c, d] = number.to_be_bytes();
            key([10, 7, c, d], Label::new(Some(number), true))
        });
        assert_eq!(placed(both, TunnelSlot::number), 10_000);
        let remotes6 = numbers.map(|number| {
            let mut remote = [0x20; 16];
            remote[12..].copy_from_slice(&number.to_be_bytes());
            TunnelKey6 {
                addresses: Addresses6 {
                    remote,
                    local: [0x21; 16],
                },
                label: plain,
            }
        });
        assert_eq!(placed(remotes6, TunnelSlot6::number), 10_000);
    }

    proptest! {
        /// Without any order they meet as balls in bins do: of 10,000 some 7 % find their slot taken.
        #[test]
        fn most_of_any_tunnels_have_a_slot(
            keys in prop::collection::hash_set(any::<([u8; 4], u32)>(), 10_000)
        ) {
            let keys = keys
                .into_iter()
                .map(|(remote, number)| key(remote, Label::new(Some(number), false)));
            prop_assert!(placed(keys, TunnelSlot::number) > 9_000);
        }
    }
}
