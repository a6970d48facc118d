//! Which TC programs an interface has, by the kernel's numbers for them. aya's own query opens each
//! by its number, which takes CAP_SYS_ADMIN; the agent has given that up. Of filters aya asks nothing.

use std::{io, mem};

use anyhow::{Result, bail};
use aya::programs::TcAttachType;
use aya_obj::generated::{
    TC_H_CLSACT, TC_H_MAJ_MASK, TC_H_MIN_EGRESS, TC_H_MIN_INGRESS, bpf_attach_type, bpf_attr,
    bpf_cmd,
};

use super::attach::{FILTER_HANDLE, Hook};
use crate::net::{FilterPlace, program_at};

/// `BPF_MPROG_MAX`, include/linux/bpf_mprog.h: there can be no more at one place.
const MOST: u32 = 64;

/// The programs that the interface with index `ifindex` has by TCX.
pub(super) fn tcx_programs(ifindex: u32, direction: TcAttachType) -> Result<Vec<u32>> {
    let place = match direction {
        TcAttachType::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
        TcAttachType::Egress => bpf_attach_type::BPF_TCX_EGRESS,
        TcAttachType::Custom(other) => bail!("TCX has no place {other}"),
    };
    let mut ids = [0_u32; MOST as usize];
    // SAFETY: all of its bits may be zero, and those of no other member mean anything.
    let mut attr = unsafe { mem::zeroed::<bpf_attr>() };
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = place as u32;
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = MOST;
    // SAFETY: `attr` and the array that it points to live through the call, which is told the size
    // of both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_QUERY as libc::c_long,
            &raw mut attr,
            size_of::<bpf_attr>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the kernel has written it.
    let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt } as usize;
    Ok(ids.into_iter().take(count).collect())
}

/// The program of the filter that the interface with index `ifindex` has where `hook` belongs.
pub(super) fn filter_program(ifindex: u32, hook: Hook) -> Result<Option<u32>> {
    let place = match hook.direction {
        TcAttachType::Ingress => TC_H_MIN_INGRESS,
        TcAttachType::Egress => TC_H_MIN_EGRESS,
        TcAttachType::Custom(other) => bail!("clsact has no place {other}"),
    };
    Ok(program_at(FilterPlace {
        ifindex,
        parent: TC_H_CLSACT & TC_H_MAJ_MASK | place,
        priority: hook.priority,
        handle: FILTER_HANDLE.into(),
    })?)
}
