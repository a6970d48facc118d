//! ICMP errors from raw sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router_common::checksum;

// The file alone: the agent around it would want the kernel programs built first.
#[path = "../../router-agent/src/path_mtu/icmp.rs"]
mod icmp;

const IPV4_LEN: usize = 20;

fuzz_target!(|packet: &[u8]| {
    if let Some(path) = icmp::from_ipv6(packet, |_| true) {
        assert!(path.mtu >= 1280 && path.local.is_ipv6() && path.remote.is_ipv6());
    }
    let mut packet = packet.to_vec();
    mend_checksum(&mut packet);
    if let Some(path) = icmp::from_ipv4(&packet, |_| true) {
        assert!(path.mtu >= 68 && path.local.is_ipv4() && path.remote.is_ipv4());
    }
});

/// Random bytes would hardly ever get past the checksum.
fn mend_checksum(packet: &mut [u8]) {
    let Some(message) = packet
        .get_mut(IPV4_LEN..)
        .filter(|message| message.len() > 4)
    else {
        return;
    };
    message[2..4].fill(0);
    let checksum = !checksum::sum(message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}
