//! The GRE checksum (RFC 2784 §2.1) of a packet that is about to leave.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_csum_diff, bpf_loop, bpf_skb_load_bytes},
    programs::TcContext,
};
use router_common::checksum::fold;

/// Bytes that are summed at a time; a program has 512 of stack.
const CHUNK: u32 = 128;

/// How far the sum has come.
#[repr(C)]
struct Progress {
    skb: *mut __sk_buff,
    /// Bytes from the start of the frame.
    at: u32,
    end: u32,
    sum: u32,
    /// 1 once reading failed.
    failed: u32,
}

/// The checksum of all from `offset` to the packet's end, as it is written.
#[inline(always)]
pub fn of(ctx: &TcContext, offset: usize) -> Option<[u8; 2]> {
    let mut progress = Progress {
        skb: ctx.skb.skb,
        at: offset as u32,
        end: ctx.len(),
        sum: 0,
        failed: 0,
    };
    let chunks = progress.end.saturating_sub(progress.at).div_ceil(CHUNK);
    // SAFETY: the callback has the signature that the helper asks for, and `progress` outlives it.
    unsafe {
        bpf_loop(
            chunks,
            add_chunk as *mut c_void,
            (&raw mut progress).cast(),
            0,
        );
    };
    // The kernel sums in the host's byte order, which for this sum is the packet's.
    (progress.failed == 0).then(|| (!fold(progress.sum)).to_ne_bytes())
}

/// Adds the next chunk; 1 ends the loop.
// VERIFIER: a loop of its own takes it through each chunk of the longest packet, for seconds; a
// callback it sees once. The helper takes no variable length either: "R4 min value is negative";
// so the last chunk is filled up with zeros, which add nothing.
extern "C" fn add_chunk(_index: u32, progress: *mut Progress) -> i64 {
    // SAFETY: the progress that `of` passed.
    let progress = unsafe { &mut *progress };
    // Words, which LLVM clears by word and not byte by byte in a loop.
    let mut chunk = [0_u64; CHUNK as usize / 8];
    let length = progress.end.wrapping_sub(progress.at).min(CHUNK);
    if length == 0 {
        return 1;
    }
    // SAFETY: `chunk` is good for `length` bytes, and the sum takes the whole of it.
    let added = unsafe {
        if bpf_skb_load_bytes(
            progress.skb.cast(),
            progress.at,
            chunk.as_mut_ptr().cast(),
            length,
        ) != 0
        {
            progress.failed = 1;
            return 1;
        }
        bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            chunk.as_mut_ptr().cast(),
            CHUNK,
            progress.sum,
        )
    };
    progress.sum = added as u32;
    progress.at += length;
    0
}
