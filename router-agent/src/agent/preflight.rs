//! What must be so before anything is changed. All that is wrong is told at once.

use std::{fmt, path::Path};

use aya::util::KernelVersion;
use rustix::{fs::statfs, process::geteuid};

use super::privileges;

/// The programs need `bpf_xdp_load_bytes` (Linux 5.18) and `bpf_redirect_neigh` (5.10); this is the
/// first long-term kernel with both.
const OLDEST_KERNEL: (u8, u8, u16) = (6, 1, 0);
/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Something about the system that keeps the agent from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: String,
    pub remedy: String,
}

impl Problem {
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

/// The system is not fit; nothing was changed.
#[derive(Clone, Debug)]
pub struct Unfit(pub Vec<Problem>);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Problem { reason, remedy } in &self.0 {
            writeln!(f, "error: {reason}\n  remedy: {remedy}")?;
        }
        let problems = self.0.len();
        let s = if problems == 1 { "" } else { "s" };
        write!(f, "not started: {problems} error{s}; nothing was changed")
    }
}

impl std::error::Error for Unfit {}

/// What is wrong with the process's rights, the kernel and the BPF file system.
pub fn system_problems(bpffs: &Path) -> Vec<Problem> {
    [
        root_problem().or_else(capability_problem),
        kernel_problem(),
        bpffs_problem(bpffs),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn root_problem() -> Option<Problem> {
    (!geteuid().is_root()).then(|| {
        Problem::new(
            "loading kernel programs and changing interfaces needs root",
            "start router-agent as root, for example with sudo",
        )
    })
}

/// Root's power may be less than it was: in a container, or by the limits of a unit.
fn capability_problem() -> Option<Problem> {
    let reason = match privileges::missing() {
        Ok(missing) if missing.is_empty() => return None,
        Ok(missing) => format!("this process does not have {}", missing.join(", ")),
        Err(error) => format!("{error:#}"),
    };
    let remedy = "let the unit or container that it runs in have these capabilities";
    Some(Problem::new(reason, remedy))
}

fn kernel_problem() -> Option<Problem> {
    let (major, minor, patch) = OLDEST_KERNEL;
    match KernelVersion::current() {
        Ok(version) if version >= KernelVersion::new(major, minor, patch) => None,
        Ok(version) => Some(Problem::new(
            format!("this kernel is too old ({version:?})"),
            format!("run Linux {major}.{minor} or newer"),
        )),
        Err(error) => Some(Problem::new(
            format!("cannot read the kernel's version: {error}"),
            "mount /proc",
        )),
    }
}

fn bpffs_problem(bpffs: &Path) -> Option<Problem> {
    let path = bpffs.display();
    let is_bpffs = statfs(bpffs).is_ok_and(|stat| stat.f_type == BPF_FS_MAGIC);
    (!is_bpffs).then(|| {
        Problem::new(
            format!("{path} is no BPF file system; programs and maps are pinned there"),
            format!("mount -t bpf bpf {path}"),
        )
    })
}
