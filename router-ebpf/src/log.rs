//! What the programs say of packets that they refuse, and of what is rare. Of what the agent decides, and
//! how often each matter has a limit for: see [`Gate`].

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MMAPABLE, xdp_md},
    helpers::generated::{
        bpf_ktime_get_boot_ns, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    macros::map,
    maps::{Array, PerCpuArray, RingBuf, ring_buf::RingBufEntry},
};
use router_common::{
    log::{Gate, Matter, Record},
    net::Ethernet,
};

use crate::maps;

/// Bytes, whole pages of them and a power of two: some 600 records.
const RING: u32 = 1 << 16;

#[map]
static LOG: RingBuf = RingBuf::with_byte_size(RING, 0);

#[map]
static LOG_GATES: Array<Gate> = Array::with_max_entries(Matter::COUNT, BPF_F_MMAPABLE);

#[map]
static LOG_SUPPRESSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(Matter::COUNT, 0);

/// Says `matter` of the packet of an XDP program; `subject` is as in [`Record`].
// Not inlined, as well as its twin: the verifier would go through it, and each program would have it, as
// often as there is something to say.
#[inline(never)]
pub fn of_frame(ctx: *mut xdp_md, matter: Matter, subject: u32) {
    let Some(record) = begin(matter) else {
        return;
    };
    // SAFETY: the context of this very call.
    let (ifindex, length) = unsafe { ((*ctx).ingress_ifindex, bpf_xdp_get_buff_len(ctx)) };
    finish(record, matter, subject, ifindex, length, |head, length| {
        // SAFETY: as above, and `head` has room for `length` bytes.
        unsafe { bpf_xdp_load_bytes(ctx, 0, head.cast(), length) }
    });
}

/// As [`of_frame`], of the packet of a TC program.
#[inline(never)]
pub fn of_skb(ctx: *mut __sk_buff, matter: Matter, subject: u32) {
    let Some(record) = begin(matter) else {
        return;
    };
    // SAFETY: the context of this very call.
    let (ifindex, length) = unsafe { ((*ctx).ifindex, u64::from((*ctx).len)) };
    finish(record, matter, subject, ifindex, length, |head, length| {
        // SAFETY: as above, and `head` has room for `length` bytes.
        unsafe { bpf_skb_load_bytes(ctx.cast(), 0, head.cast(), length) }
    });
}

/// Room for a record of `matter`, if it is one to speak of and has not been too often. What is held back
/// is counted, whether by its limit or because nobody reads.
#[inline(always)]
fn begin(matter: Matter) -> Option<RingBufEntry<Record>> {
    let gate = LOG_GATES.get_ptr_mut(matter as u32)?;
    // SAFETY: an array element, aligned and never freed while the program runs; others change its words
    // whole.
    let passes = unsafe {
        if (&raw const (*gate).is_open).read_volatile() == 0 {
            return None;
        }
        let now_ns = bpf_ktime_get_boot_ns();
        maps::change(&raw mut (*gate).due_ns, |due_ns| {
            Gate::after(due_ns, now_ns)
        })
    };
    let record = if passes { LOG.reserve(0) } else { None };
    if record.is_none()
        && let Some(suppressed) = LOG_SUPPRESSED.get_ptr_mut(matter as u32)
    {
        // SAFETY: a per-CPU value; this program is the only one to write it on this CPU.
        unsafe { *suppressed += 1 };
    }
    record
}

/// Fills the record in; `load` copies the packet's first bytes, which are `length` in all.
#[inline(always)]
fn finish(
    mut record: RingBufEntry<Record>,
    matter: Matter,
    subject: u32,
    ifindex: u32,
    length: u64,
    load: impl FnOnce(*mut u8, u32) -> i64,
) {
    const LONGEST: u64 = Record::HEAD as u64;
    const SHORTEST: u64 = Ethernet::LEN as u64;
    // VERIFIER: it wants both bounds of what it hands to the helper, by comparisons that LLVM would
    // leave out, or make one of. Before Linux 6.8 "R3 min value is outside of the allowed memory range"
    // after one with zero.
    let length = opaque(length.min(LONGEST));
    if length > LONGEST {
        record.discard(0);
        return;
    }
    let length = opaque(length);
    if length < SHORTEST {
        record.discard(0);
        return;
    }
    let to = record.as_mut_ptr();
    // SAFETY: the ring has this memory for this program until it is submitted.
    let loaded = unsafe {
        (&raw mut (*to).matter).write(matter as u32);
        (&raw mut (*to).subject).write(subject);
        (&raw mut (*to).ifindex).write(ifindex);
        (&raw mut (*to).head_length).write(length as u32);
        load((&raw mut (*to).head).cast(), length as u32)
    };
    if loaded == 0 {
        record.submit(0);
    } else {
        record.discard(0);
    }
}

/// The same value, of which LLVM knows nothing.
#[inline(always)]
fn opaque(mut value: u64) -> u64 {
    // SAFETY: changes nothing.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem)) };
    value
}
