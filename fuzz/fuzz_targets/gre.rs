//! Frames from the underlay, and the TCP options inside.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router_common::{
    gre, mss,
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet},
    packet::Packet as _,
};

fuzz_target!(|frame: &[u8]| {
    if let Ok((_, gre)) = gre::parse(frame) {
        // The checksum, four bytes, is skipped and not read.
        assert!(gre.inner_offset <= frame.len() + 4);
        mss_lies_within(frame, gre.inner_offset, gre.header.protocol);
    }
    for protocol in [ETH_P_IPV4, ETH_P_IPV6] {
        mss_lies_within(frame, Ethernet::LEN, protocol);
    }
});

fn mss_lies_within(frame: &[u8], l3_offset: usize, protocol: u16) {
    if let Some(option) = mss::find(frame, l3_offset, protocol) {
        let value = frame.read(option.value_offset).map(u16::from_be_bytes);
        assert_eq!(value, Some(option.value));
        assert!(frame.read::<[u8; 2]>(option.checksum_offset).is_some());
        let _ = option.updated_checksum([0; 2], 1400);
    }
}
