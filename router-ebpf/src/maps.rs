//! The maps; router-common defines their keys and values.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use router_common::map::{
    LocalState, MAX_SESSIONS, MAX_TUNNELS, Reason, SessionConfig, SessionKey, SessionState,
    TunnelCounters, TunnelEgress, TunnelIngress, TunnelKey,
};

#[map]
pub static TUNNELS: HashMap<TunnelKey, TunnelIngress> = HashMap::with_max_entries(MAX_TUNNELS, 0);

#[map]
pub static EGRESS: HashMap<u32, TunnelEgress> = HashMap::with_max_entries(MAX_TUNNELS, 0);

#[map]
pub static COUNTERS: PerCpuArray<TunnelCounters> = PerCpuArray::with_max_entries(MAX_TUNNELS, 0);

#[map]
pub static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::ALL.len() as u32, 0);

#[map]
pub static SESSION_INDEX: HashMap<SessionKey, u32> = HashMap::with_max_entries(MAX_SESSIONS, 0);

#[map]
pub static SESSION_CONFIG: Array<SessionConfig> = Array::with_max_entries(MAX_SESSIONS, 0);

#[map]
pub static SESSIONS: Array<SessionState> = Array::with_max_entries(MAX_SESSIONS, BPF_F_MMAPABLE);

#[map]
pub static LOCAL: Array<LocalState> = Array::with_max_entries(MAX_SESSIONS, BPF_F_MMAPABLE);

/// Counts one packet for `reason`.
#[inline(always)]
pub fn count_reason(reason: Reason) {
    if let Some(counter) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU value; this program is the only one to write it on this CPU.
        unsafe { *counter += 1 };
    }
}

/// Changes the counters of tunnel `index`.
#[inline(always)]
pub fn count(index: u32, change: impl FnOnce(&mut TunnelCounters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a per-CPU value; this program is the only one to write it on this CPU.
        change(unsafe { &mut *counters });
    }
}
