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
    start: u32,
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
        start: offset as u32,
        end: ctx.len(),
        sum: 0,
        failed: 0,
    };
    let chunks = progress.end.saturating_sub(progress.start).div_ceil(CHUNK);
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

/// Adds chunk number `index`; 1 ends the loop.
// VERIFIER: "BPF program is too large": a loop of its own takes it through each chunk of the longest
// packet; a callback it sees once, as long as no bounded number grows from call to call. The helper
// takes no variable length, so the last chunk is filled up with zeros, which add nothing.
extern "C" fn add_chunk(index: u32, progress: *mut Progress) -> i64 {
    // SAFETY: the progress that `of` passed.
    let progress = unsafe { &mut *progress };
    let mut chunk = core::mem::MaybeUninit::<[u64; CHUNK as usize / 8]>::uninit();
    let words: *mut u64 = chunk.as_mut_ptr().cast();
    for word in 0..CHUNK as usize / 8 {
        // Volatile, as LLVM would make it a call that clears byte by byte.
        // SAFETY: within `chunk`.
        unsafe { words.add(word).write_volatile(0) };
    }
    let at = progress.start + index * CHUNK;
    let length = progress.end.wrapping_sub(at).min(CHUNK);
    if length == 0 {
        return 1;
    }
    // VERIFIER: "invalid zero-sized read": Linux 6.1 does not carry the comparison over to a copy.
    let mut rest = u64::from(length - 1);
    // SAFETY: changes nothing; it hides from LLVM that what follows changes nothing either.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) rest, options(pure, nomem)) };
    let length = (rest as u32 & (CHUNK - 1)) + 1;
    // SAFETY: `chunk` is good for `length` bytes, and the sum takes the whole of it.
    let added = unsafe {
        if bpf_skb_load_bytes(progress.skb.cast(), at, chunk.as_mut_ptr().cast(), length) != 0 {
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
    #[expect(clippy::cast_sign_loss, reason = "the sum has 32 bits")]
    let sum = added as u32;
    progress.sum = sum;
    0
}
