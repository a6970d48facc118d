//! The GRE checksum (RFC 2784 §2.1) of a packet that is about to leave.

use aya_ebpf::{
    helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes},
    programs::TcContext,
};
use router_common::checksum::fold;

/// Bytes that are summed at a time; the stack of a program has 512.
const CHUNK: usize = 256;
/// A packet has at most 64 KiB.
const CHUNKS: usize = 65_536 / CHUNK;

/// The checksum of all from `offset` to the packet's end, as it is written.
// VERIFIER: "R2 type=scalar expected=fp" and worse come from sums of a variable length; chunks of
// one length, the last filled up with zeros, which add nothing, are the same to it each time.
#[inline(always)]
pub fn of(ctx: &TcContext, offset: usize) -> Option<[u8; 2]> {
    let end = ctx.len() as usize;
    let mut at = offset;
    let mut sum = 0_u32;
    for _ in 0..CHUNKS {
        if at >= end {
            break;
        }
        let mut chunk = [0_u8; CHUNK];
        let length = (end - at).min(CHUNK) as u32;
        // SAFETY: `chunk` is good for `length` bytes; `csum_diff` reads the whole of it.
        unsafe {
            if bpf_skb_load_bytes(
                ctx.skb.skb.cast(),
                at as u32,
                chunk.as_mut_ptr().cast(),
                length,
            ) != 0
            {
                return None;
            }
            let added = bpf_csum_diff(
                core::ptr::null_mut(),
                0,
                chunk.as_mut_ptr().cast(),
                CHUNK as u32,
                sum,
            );
            if added < 0 {
                return None;
            }
            sum = added as u32;
        }
        at += CHUNK;
    }
    // The kernel sums in the host's byte order, which for this sum is the packet's.
    Some((!fold(sum)).to_ne_bytes())
}
