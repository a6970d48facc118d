//! What the kernel tells of TC programs and their links by its numbers for them. aya's own query opens each
//! program by its number, which takes CAP_SYS_ADMIN, and the agent has given that up; of a link it does
//! not tell the interface; and of filters it asks nothing.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use aya::programs::TcAttachType;
use aya_obj::generated::{
    TC_H_CLSACT, TC_H_MAJ_MASK, TC_H_MIN_EGRESS, TC_H_MIN_INGRESS, bpf_attach_type, bpf_attr,
    bpf_cmd, bpf_link_info,
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
    let Attached { programs, .. } = attached(ifindex, place as u32)?;
    Ok(programs)
}

/// Where the interface of a TCX link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// In this network namespace.
    Here,
    /// In another one.
    Elsewhere,
    /// It has gone, or somebody has detached the link.
    Nowhere,
}

/// Where the interface of the TCX link is that is pinned at `pin`.
pub(super) fn whereabouts(pin: &Path) -> Result<Whereabouts> {
    let cannot = || format!("cannot look at the link at {}", pin.display());
    let info = link_info(pin).with_context(cannot)?;
    // SAFETY: links of every kind are numbers there.
    let tcx = unsafe { info.__bindgen_anon_1.tcx };
    if tcx.ifindex == 0 {
        return Ok(Whereabouts::Nowhere);
    }
    match attached(tcx.ifindex, tcx.attach_type) {
        Ok(Attached { links, .. }) if links.contains(&info.id) => Ok(Whereabouts::Here),
        Ok(_) => Ok(Whereabouts::Elsewhere),
        // The index is none of this namespace.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            Ok(Whereabouts::Elsewhere)
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

/// At one place of an interface, in the same order.
struct Attached {
    programs: Vec<u32>,
    /// Zero for a program without a link.
    links: Vec<u32>,
}

fn attached(ifindex: u32, attach_type: u32) -> io::Result<Attached> {
    let mut programs = [0_u32; MOST as usize];
    let mut links = [0_u32; MOST as usize];
    let mut attr = blank();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = attach_type;
    attr.query.prog_ids = programs.as_mut_ptr() as u64;
    attr.query.link_ids = links.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.prog_cnt = MOST;
    // SAFETY: the arrays live through the call, which is told how long they are.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr) }?;
    // SAFETY: the kernel has written it.
    let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt } as usize;
    let first = |ids: [u32; MOST as usize]| ids.into_iter().take(count).collect();
    Ok(Attached {
        programs: first(programs),
        links: first(links),
    })
}

fn link_info(pin: &Path) -> io::Result<bpf_link_info> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attr = blank();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    // SAFETY: the path ends with a zero byte and lives through the call.
    let fd = unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for us alone.
    let link = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: it consists of numbers.
    let mut info = unsafe { mem::zeroed::<bpf_link_info>() };
    let mut attr = blank();
    attr.info.bpf_fd = link.as_raw_fd().cast_unsigned();
    attr.info.info = (&raw mut info) as u64;
    attr.info.info_len = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    // SAFETY: `info` lives through the call, which is told its size.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

fn blank() -> bpf_attr {
    // SAFETY: all of its bits may be zero, and those of no other member mean anything.
    unsafe { mem::zeroed() }
}

/// # Safety
///
/// What `attr` points to must live through the call and be as long as `attr` says.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the caller vouches for what `attr` points to; the call is told its own size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            &raw mut *attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
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
