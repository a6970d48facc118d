//! Heartbeats: what is read can be written again, and only the right key makes it authentic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router_common::{heartbeat::Heartbeat, keys::NumberedKey, packet::Packet as _};

fuzz_target!(|payload: &[u8]| {
    let key = NumberedKey {
        number: 1,
        key: [7, 8],
    };
    let Some(message) = payload.read::<Heartbeat>(0) else {
        return;
    };
    // Nobody draws 128 bits of MAC by chance.
    assert!(!message.is_authentic(&key));
    if let Some(content) = message.content() {
        let signed = Heartbeat::signed(&content, &key);
        assert!(signed.is_authentic(&key));
        assert_eq!(signed.content(), Some(content));
    }
});
