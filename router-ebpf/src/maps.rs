//! The maps; router-common defines their keys and values.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use router_common::{
    map::{
        EpochSlot, Fence, FenceCounters, Granted, Interface, Lease, LocalState, MAX_EPOCHS,
        MAX_GROUPS, MAX_INTERFACES, MAX_SESSIONS, MAX_TUNNELS, Reason, RoundTrips, Sequence,
        SessionConfig, SessionKey, SessionState, Settings, Traffic, TunnelDevice, TunnelEgress,
        TunnelEvents, TunnelIngress, TunnelKey, TunnelKey6,
    },
    slot::{self, TunnelSlot, TunnelSlot6},
};

#[map]
pub static TUNNELS: HashMap<TunnelKey, TunnelIngress> = HashMap::with_max_entries(MAX_TUNNELS, 0);

#[map]
pub static TUNNELS6: HashMap<TunnelKey6, TunnelIngress> = HashMap::with_max_entries(MAX_TUNNELS, 0);

/// In front of [`TUNNELS`]; memory-mapped so that slots begin where cache lines do.
#[map]
pub static SLOTS: Array<TunnelSlot> = Array::with_max_entries(slot::SLOTS, BPF_F_MMAPABLE);

/// In front of [`TUNNELS6`].
#[map]
pub static SLOTS6: Array<TunnelSlot6> = Array::with_max_entries(slot::SLOTS, BPF_F_MMAPABLE);

#[map]
pub static DEVICES: Array<TunnelDevice> = Array::with_max_entries(MAX_TUNNELS, 0);

/// Index of the tunnel, by both ends of its device.
#[map]
static ENDS: HashMap<u32, u32> = HashMap::with_max_entries(2 * MAX_TUNNELS, 0);

#[map]
static EGRESS: Array<TunnelEgress> = Array::with_max_entries(MAX_TUNNELS, BPF_F_MMAPABLE);

#[map]
static INTERFACES: HashMap<u32, Interface> = HashMap::with_max_entries(MAX_INTERFACES, 0);

#[map]
pub static SEQUENCES: Array<Sequence> = Array::with_max_entries(MAX_TUNNELS, 0);

#[map]
pub static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(MAX_TUNNELS, 0);

#[map]
pub static COUNTERS: PerCpuArray<TunnelEvents> = PerCpuArray::with_max_entries(MAX_TUNNELS, 0);

#[map]
pub static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::ALL.len() as u32, 0);

#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

#[map]
pub static SESSION_INDEX: HashMap<SessionKey, u32> = HashMap::with_max_entries(MAX_SESSIONS, 0);

#[map]
pub static SESSION_CONFIG: Array<SessionConfig> =
    Array::with_max_entries(MAX_SESSIONS, BPF_F_MMAPABLE);

#[map]
pub static SESSIONS: Array<SessionState> = Array::with_max_entries(MAX_SESSIONS, BPF_F_MMAPABLE);

#[map]
pub static ROUND_TRIPS: Array<RoundTrips> = Array::with_max_entries(MAX_SESSIONS, BPF_F_MMAPABLE);

#[map]
pub static LOCAL: Array<LocalState> = Array::with_max_entries(MAX_SESSIONS, BPF_F_MMAPABLE);

#[map]
pub static GRANTED: Array<Granted> = Array::with_max_entries(MAX_SESSIONS, BPF_F_MMAPABLE);

#[map]
pub static FENCES: Array<Fence> = Array::with_max_entries(MAX_GROUPS, BPF_F_MMAPABLE);

#[map]
pub static LEASES: Array<Lease> = Array::with_max_entries(MAX_GROUPS, BPF_F_MMAPABLE);

#[map]
pub static FENCE_COUNTERS: PerCpuArray<FenceCounters> =
    PerCpuArray::with_max_entries(MAX_GROUPS, 0);

/// Interfaces whose transit a group protects.
#[map]
pub static PROTECTED: HashMap<u32, u32> = HashMap::with_max_entries(MAX_INTERFACES, 0);

#[map]
pub static EPOCHS: Array<EpochSlot> = Array::with_max_entries(MAX_EPOCHS, BPF_F_MMAPABLE);

/// What holds for all packets; nothing is marked or recognised while it is unset.
#[inline(always)]
pub fn settings() -> Settings {
    SETTINGS.get(0).copied().unwrap_or_default()
}

/// Interface `index`, if it takes part in forwarding without the stack.
#[inline(always)]
pub fn interface(index: u32) -> Option<&'static Interface> {
    // SAFETY: the agent writes no element whose memory a running program may still read.
    unsafe { INTERFACES.get(index) }
}

/// Index of the tunnel that interface `ifindex` is an end of.
#[inline(always)]
pub fn tunnel_of(ifindex: u32) -> Option<u32> {
    // SAFETY: as above.
    unsafe { ENDS.get(ifindex) }.copied()
}

/// How packets leave that come to interface `ifindex`, an end of a tunnel's device.
#[inline(always)]
pub fn egress(ifindex: u32) -> Option<&'static TunnelEgress> {
    EGRESS.get(tunnel_of(ifindex)?)
}

/// The next sequence number of tunnel `index`; `None` if there is no such tunnel.
#[inline(always)]
pub fn next_sequence(index: u32) -> Option<u32> {
    let sequence = SEQUENCES.get_ptr_mut(index)?;
    // SAFETY: an array element, aligned and never freed while the program runs; other CPUs change
    // the word by the same instruction only.
    let before = unsafe { atomic_add(&raw mut (*sequence).sent, 1) };
    Some(before as u32)
}

/// Whether the number that arrived in tunnel `index` is in order. Packets that arrive by several
/// CPUs at once are taken in some order, and none of them twice.
#[inline(always)]
pub fn accept_sequence(index: u32, number: u32) -> bool {
    let Some(sequence) = SEQUENCES.get_ptr_mut(index) else {
        return false;
    };
    // SAFETY: an array element, aligned and never freed while the program runs.
    let word = unsafe { &raw mut (*sequence).received };
    // SAFETY: as above.
    unsafe { change(word, |before| Sequence::after(before, number)) }
}

/// To change a word that other CPUs change too. More in a row would be as many of them, each of
/// which has just done the same.
const TRIES: u32 = 4;

/// Makes of `word` what `after` says of it; whether it says so, and it was done.
///
/// # Safety
///
/// `word` must be valid for reads and writes; others may change it by one instruction.
#[inline(always)]
pub unsafe fn change(word: *mut u64, after: impl Fn(u64) -> Option<u64>) -> bool {
    for _ in 0..TRIES {
        // SAFETY: the caller vouches for the memory.
        let before = unsafe { word.read_volatile() };
        let Some(wanted) = after(before) else {
            return false;
        };
        // SAFETY: the same memory.
        if unsafe { compare_exchange(word, before, wanted) } == before {
            return true;
        }
    }
    false
}

/// The value before. `core`'s atomics are not offered for this target.
///
/// # Safety
///
/// `word` must be valid for reads and writes.
#[inline(always)]
pub unsafe fn atomic_add(word: *mut u64, by: u64) -> u64 {
    let mut value = by;
    // SAFETY: one instruction on memory that the caller vouches for (RFC 9669 §5.3).
    unsafe {
        core::arch::asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
        );
    };
    value
}

/// Raises `word` to `value`, if it is lower; whether it is as high now. Whatever this program reads
/// afterwards it reads after that, and so does everybody who sees it: the instruction is a full
/// barrier (Documentation/atomic_t.txt, "RMW operations that have a return value").
///
/// # Safety
///
/// `word` must be valid for reads and writes.
#[inline(always)]
pub unsafe fn raise(word: *mut u64, value: u64) -> bool {
    for _ in 0..TRIES {
        // SAFETY: the caller vouches for the memory.
        let before = unsafe { word.read_volatile() };
        let wanted = if before < value { value } else { before };
        // SAFETY: the same memory.
        let found = unsafe { compare_exchange(word, before, wanted) };
        if found == before {
            return true;
        }
    }
    false
}

/// The value before; if that is `before`, the value is `wanted` now.
///
/// # Safety
///
/// `word` must be valid for reads and writes.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn compare_exchange(word: *mut u64, before: u64, wanted: u64) -> u64 {
    let mut found = before;
    // SAFETY: one instruction on memory that the caller vouches for (RFC 9669 §5.3).
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {wanted})",
            word = in(reg) word,
            wanted = in(reg) wanted,
            inout("r0") found,
        );
    };
    found
}

/// For the lint, which is run for the host: its registers have other names.
#[cfg(not(target_arch = "bpf"))]
unsafe fn compare_exchange(word: *mut u64, before: u64, wanted: u64) -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
    // SAFETY: the caller vouches for the memory.
    let word = unsafe { AtomicU64::from_ptr(word) };
    word.compare_exchange(before, wanted, SeqCst, SeqCst)
        .unwrap_or_else(|found| found)
}

#[map]
static OFFSETS: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

/// The same offsets, about which the verifier has forgotten all it knew.
// VERIFIER: "processed 227171 insns": it went through all that follows once for each way through
// the parser, as each left other constants.
#[inline(always)]
pub fn forgotten(offsets: [usize; 2]) -> Option<[usize; 2]> {
    /// No header chain that is taken is longer.
    const MAX: usize = 0xff;
    let slot = OFFSETS.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value that nobody else uses while this program runs.
    let [first, second] = unsafe {
        slot.write_volatile([offsets[0] as u32, offsets[1] as u32]);
        slot.read_volatile()
    };
    Some([first as usize & MAX, second as usize & MAX])
}

/// Counts one packet for `reason`.
#[inline(always)]
pub fn count_reason(reason: Reason) {
    if let Some(counter) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU value; this program is the only one to write it on this CPU.
        unsafe { *counter += 1 };
    }
}

/// Changes what few packets of tunnel `index` change.
#[inline(always)]
pub fn count(index: u32, change: impl FnOnce(&mut TunnelEvents)) {
    if let Some(events) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a per-CPU value; this program is the only one to write it on this CPU.
        change(unsafe { &mut *events });
    }
}

/// Counts a packet that came out of tunnel `index`, of `bytes` without outer headers.
#[inline(always)]
pub fn count_received(index: u32, bytes: u64) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(index) {
        // SAFETY: as above.
        unsafe {
            (*traffic).rx_packets += 1;
            (*traffic).rx_bytes += bytes;
        }
    }
}

/// Counts a packet that was sent into tunnel `index`, of `bytes` without outer headers.
#[inline(always)]
pub fn count_sent(index: u32, bytes: u64) {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(index) {
        // SAFETY: as above.
        unsafe {
            (*traffic).tx_packets += 1;
            (*traffic).tx_bytes += bytes;
        }
    }
}
