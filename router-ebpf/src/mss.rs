//! Lowers the segment size that TCP announces to what fits the tunnel.

use aya_ebpf::programs::TcContext;
use router_common::{
    mss,
    net::{ETH_P_IPV4, ETH_P_IPV6, Ethernet},
};

use crate::skb::Skb;

/// Changes nothing where the limit is zero or the packet announces none that is larger. A checksum
/// that is still to be completed stays so.
#[inline(always)]
pub fn clamp(ctx: &TcContext, limit_ipv4: u16, limit_ipv6: u16) {
    let skb = Skb(ctx);
    let protocol = skb.protocol();
    let limit = match protocol {
        ETH_P_IPV4 => limit_ipv4,
        ETH_P_IPV6 => limit_ipv6,
        _ => 0,
    };
    if limit == 0 {
        return;
    }
    let Some(option) = mss::find(&skb, Ethernet::LEN, protocol) else {
        return;
    };
    let Some(value) = mss::clamp(option.value, limit) else {
        return;
    };
    let summed = |value| u64::from(u16::from_ne_bytes(option.summed(value)));
    let (old, new) = (summed(option.value), summed(value));
    // What fails has changed nothing yet; the checksum goes first.
    let _ = ctx
        .l4_csum_replace(option.checksum_offset, old, new, 2)
        .and_then(|()| ctx.store(option.value_offset, &value.to_be_bytes(), 0));
}
