//! Keeps a thread on time: real-time priority and locked memory, where the system lets us.

use std::io;

use tracing::warn;

/// Priorities of `SCHED_FIFO`, 1 to 99.
#[derive(Clone, Copy, Debug)]
pub enum Priority {
    /// Carrying out a failover.
    Takeover = 40,
    /// The probe clock, which also decides.
    Clock = 50,
}

/// Gives the calling thread real-time priority, and not to what it starts. Without it the agent works,
/// and is later under load.
pub fn raise(priority: Priority) {
    // The kernel's sched_param: sched_setscheduler(2).
    let parameters: libc::c_int = priority as libc::c_int;
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // The call itself, because musl's function of that name refuses.
    // SAFETY: `parameters` lives through the call; thread 0 is the calling one.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            policy,
            &raw const parameters,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        warn!(%error, ?priority, "no real-time priority: probes may be late under load");
    }
}

/// Keeps the process's pages in memory once they are touched.
pub fn lock_memory() {
    // SAFETY: a system call without memory arguments.
    let result =
        unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if result != 0 {
        let error = io::Error::last_os_error();
        warn!(%error, "memory is not locked: probes may be late when memory is short");
    }
}
