//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Adds the carries of a sum of words back in. The sum may be of up to 65,537 words.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the carries are folded")]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The one's complement sum of big-endian words; an odd byte at the end counts as if a zero byte
/// followed it. The checksum is its complement. Of any length: for user space.
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let rest = rest.first().map(|last| [*last, 0]);
    words.iter().copied().chain(rest).fold(0, |sum, word| {
        fold(u32::from(sum) + u32::from(u16::from_be_bytes(word)))
    })
}

/// The checksum after the word `old` became `new` (RFC 1624 §3, equation 3). The word must lie at
/// an even offset from where the sum starts; at an odd one, swap the bytes of both. A checksum
/// that was wrong stays wrong.
#[inline(always)]
pub const fn update_u16(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    // HC' = ~(~HC + ~m + m')
    let sum = !u16::from_be_bytes(checksum) as u32
        + !u16::from_be_bytes(old) as u32
        + u16::from_be_bytes(new) as u32;
    (!fold(sum)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn example_of_rfc_1071() {
        // §3: the sum of 0001 f203 f4f5 f6f7 is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0xddf2);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xab]), 0xab00);
    }

    #[test]
    fn example_of_rfc_1624() {
        // §4: HC = dd2f, m = 5555, m' = 3285 gives 0000, where equation 2 would give ffff.
        assert_eq!(update_u16([0xdd, 0x2f], [0x55, 0x55], [0x32, 0x85]), [0, 0]);
    }

    proptest! {
        #[test]
        fn an_update_is_as_good_as_summing_again(
            mut words in prop::collection::vec(any::<[u8; 2]>(), 1..40),
            at: prop::sample::Index,
            new: [u8; 2],
        ) {
            // No header is all zeros, of which alone equation 3 makes another zero.
            words.push([0x45, 0]);
            let at = at.index(words.len() - 1);
            let before = (!sum(words.as_flattened())).to_be_bytes();
            let old = words[at];
            words[at] = new;
            let after = (!sum(words.as_flattened())).to_be_bytes();
            prop_assert_eq!(update_u16(before, old, new), after);
        }

        #[test]
        fn at_an_odd_offset_with_swapped_bytes(
            mut bytes in prop::collection::vec(any::<u8>(), 4..40),
            at: prop::sample::Index,
            new: [u8; 2],
        ) {
            bytes.insert(0, 0x45);
            let at = at.index(bytes.len() / 2 - 1) * 2 + 1;
            let before = (!sum(&bytes)).to_be_bytes();
            let old = [bytes[at], bytes[at + 1]];
            bytes[at..at + 2].copy_from_slice(&new);
            let after = (!sum(&bytes)).to_be_bytes();
            let swapped = |[a, b]: [u8; 2]| [b, a];
            prop_assert_eq!(update_u16(before, swapped(old), swapped(new)), after);
        }

        #[test]
        fn a_sum_with_its_checksum_is_all_ones(bytes: Vec<u8>) {
            let (words, _) = bytes.as_chunks::<2>();
            let mut whole = words.as_flattened().to_vec();
            let checksum = !sum(&whole);
            whole.extend_from_slice(&checksum.to_be_bytes());
            prop_assert_eq!(sum(&whole), 0xffff);
        }
    }
}
