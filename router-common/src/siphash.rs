//! SipHash-2-4 with 128 bits of output (Aumasson, Bernstein: "SipHash: a fast short-input PRF",
//! and its 128-bit variant), over whole 64-bit words, without loops that the verifier must unroll
//! by trust.

/// A key: two little-endian 64-bit words.
pub type Key = [u64; 2];
/// A tag: two little-endian 64-bit words.
pub type Tag = [u64; 2];

struct State([u64; 4]);

impl State {
    #[inline(always)]
    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }

    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    #[inline(always)]
    fn squeeze(&mut self, domain: usize, value: u64) -> u64 {
        self.0[domain] ^= value;
        self.round();
        self.round();
        self.round();
        self.round();
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }
}

/// The tag of `8 × N` bytes given as `N` little-endian words.
#[inline(always)]
pub fn siphash_2_4_128<const N: usize>(key: &Key, words: &[u64; N]) -> Tag {
    let mut state = State([
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ]);
    for word in words {
        state.absorb(*word);
    }
    // The last block holds the message's length in bytes, modulo 256, in its top byte.
    state.absorb(((N as u64 * 8) & 0xff) << 56);
    [state.squeeze(2, 0xee), state.squeeze(1, 0xdd)]
}

/// Compares without a branch that depends on where the tags differ.
#[inline(always)]
pub fn tags_equal(a: &Tag, b: &Tag) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) == 0
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128 as _, SipHasher24};

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_an_independent_implementation(key: [u64; 2], words: [u64; 8]) {
            let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
            for word in words {
                hasher.write(&word.to_le_bytes());
            }
            let expected = hasher.finish128();
            prop_assert_eq!(siphash_2_4_128(&key, &words), [expected.h1, expected.h2]);
        }

        #[test]
        fn every_bit_counts(key: [u64; 2], words: [u64; 8], word in 0_usize..8, bit in 0_u32..64) {
            let tag = siphash_2_4_128(&key, &words);
            let mut changed = words;
            changed[word] ^= 1 << bit;
            prop_assert!(!tags_equal(&tag, &siphash_2_4_128(&key, &changed)));
        }
    }

    #[test]
    fn published_vectors() {
        // Key 00..0f; messages of 0 and 8 bytes (00, 01, …), from the authors' reference vectors.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let empty = [
            u64::from_le_bytes([0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6]),
            u64::from_le_bytes([0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93]),
        ];
        assert_eq!(siphash_2_4_128(&key, &[]), empty);
    }
}
