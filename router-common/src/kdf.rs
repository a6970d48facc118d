//! From the pre-shared secret to its number and the keys of a session, and the session's number.

use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};

use crate::{keys::Slot, siphash::Key};

const SALT: &[u8] = b"router heartbeat v1";

/// The key of the messages that `sender` sends to `receiver` (host names) in `group`:
/// HKDF-SHA256 (RFC 5869) of the secret, with a fixed salt and the length-prefixed names as info.
/// Each direction has a key of its own, so that a message cannot be reflected.
pub fn direction_key(secret: &[u8], group: &str, sender: &str, receiver: &str) -> Key {
    let mut okm = [0; 16];
    let lengths = [group, sender, receiver].map(|name| (name.len() as u64).to_be_bytes());
    let info = [
        &lengths[0],
        group.as_bytes(),
        &lengths[1],
        sender.as_bytes(),
        &lengths[2],
        receiver.as_bytes(),
    ];
    Hkdf::<Sha256>::new(Some(SALT), secret)
        .expand_multi_info(&info, &mut okm)
        .expect("RFC 5869 §2.3 allows 255 × 32 bytes of output; this is 16");
    let [first, second]: [[u8; 8]; 2] = bytemuck::must_cast(okm);
    [u64::from_le_bytes(first), u64::from_le_bytes(second)]
}

/// The number by which messages name the secret that they are signed with: two bytes of the same
/// HKDF with an info that is shorter than any of a key, so that it tells nothing of the keys. Never
/// zero.
pub fn secret_number(secret: &[u8]) -> u16 {
    let mut okm = [0; 2];
    Hkdf::<Sha256>::new(Some(SALT), secret)
        .expand(b"number", &mut okm)
        .expect("RFC 5869 §2.3 allows 255 × 32 bytes of output; this is 2");
    u16::from_be_bytes(okm).max(1)
}

/// The keys of `secret` in `group` at `host`, whose peer is `peer`.
pub fn slot(secret: &[u8], group: &str, host: &str, peer: &str) -> Slot {
    Slot {
        rx: direction_key(secret, group, peer, host),
        tx: direction_key(secret, group, host, peer),
        number: secret_number(secret).into(),
    }
}

/// The number by which both nodes name the session of `group`: the first four bytes of the
/// SHA-256 of its name. It does not depend on the secret, so that a wrong secret shows as a wrong
/// MAC and not as an unknown session.
pub fn session_number(group: &str) -> u32 {
    let digest = Sha256::digest(group.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_group_and_secret_has_its_own_key() {
        let keys = [
            direction_key(b"cloudpack", "aws", "vyatta-a", "vyatta-c"),
            direction_key(b"cloudpack", "aws", "vyatta-c", "vyatta-a"),
            direction_key(b"cloudpack", "awsv", "yatta-a", "vyatta-c"),
            direction_key(b"cloudpack ", "aws", "vyatta-a", "vyatta-c"),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "key {i} repeats");
        }
    }

    #[test]
    fn derivation_is_fixed() {
        // Computed with an independent HKDF (Python's hmac and hashlib), so that two builds of
        // different age agree on the keys.
        assert_eq!(
            direction_key(b"cloudpack", "aws", "vyatta-a", "vyatta-c"),
            EXPECTED
        );
        assert_eq!(session_number("aws"), EXPECTED_SESSION);
        assert_eq!(secret_number(b"cloudpack"), 0x89c4);
    }

    const EXPECTED: Key = [0xb245_3096_321e_c449, 0xd3ee_2a26_18f5_64fa];
    const EXPECTED_SESSION: u32 = 0x7d15_0728;
}
