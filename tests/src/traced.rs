//! Threads of other processes, held and led by ptrace(2), as debuggers do.

use std::{fs, io, mem::size_of, ptr};

use anyhow::{Context as _, Result};

/// The ids of a process's threads, as seen from outside, with their names.
pub fn threads(process: u32) -> Vec<(i32, String)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let named = |task: io::Result<fs::DirEntry>| {
        let task = task.ok()?;
        let id = task.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        Some((id, name.trim().to_owned()))
    };
    tasks.filter_map(named).collect()
}

/// A thread that is stopped, and no other of its process.
///
/// Only the thread that made it may use it, and must live for as long.
pub struct Halted(i32);

impl Halted {
    pub fn new(thread: i32) -> Result<Self> {
        let context = || format!("cannot halt thread {thread}");
        request(libc::PTRACE_SEIZE, thread, libc::PTRACE_O_TRACESYSGOOD).with_context(context)?;
        let halted = Self(thread);
        request(libc::PTRACE_INTERRUPT, thread, 0).with_context(context)?;
        halted.wait().with_context(context)?;
        Ok(halted)
    }

    /// Lets it go on to the beginning of a system call that is `wanted` by its number. Whether it comes to
    /// one before it ends.
    pub fn runs_to_call(&self, mut wanted: impl FnMut(i64) -> bool) -> Result<bool> {
        let mut signal = 0;
        loop {
            request(libc::PTRACE_SYSCALL, self.0, signal)?;
            signal = 0;
            let status = self.wait()?;
            if !libc::WIFSTOPPED(status) {
                return Ok(false);
            }
            match libc::WSTOPSIG(status) {
                AT_A_CALL => {
                    if let Some(call) = self.beginning_call()?
                        && wanted(call)
                    {
                        return Ok(true);
                    }
                }
                // The rest of what the status says is that it was no signal but a stop of ours.
                _ if status >> 16 != 0 => {}
                other => signal = other,
            }
        }
    }

    /// Waits until a thread whose process was killed is gone.
    pub fn await_end(self) -> Result<()> {
        while libc::WIFSTOPPED(self.wait()?) {}
        Ok(())
    }

    /// Its change of state, as waitpid(2) tells it.
    fn wait(&self) -> io::Result<i32> {
        let mut status = 0;
        // SAFETY: the status is written to a place that lives for long enough.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        if waited == self.0 {
            Ok(status)
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The number of the system call that it is about to make; none as it comes back from one.
    fn beginning_call(&self) -> io::Result<Option<i64>> {
        // SAFETY: all of it are numbers.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let length = size_of::<libc::ptrace_syscall_info>();
        // SAFETY: the kernel writes no more than `length` bytes to what has them.
        let told =
            unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, self.0, length, &raw mut info) };
        if told < 0 {
            return Err(io::Error::last_os_error());
        }
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(None);
        }
        // SAFETY: at an entry this part of the union is the one that is filled in.
        let number = unsafe { info.u.entry.nr };
        Ok(Some(number.cast_signed()))
    }
}

/// What PTRACE_O_TRACESYSGOOD has a stop at a system call look like.
const AT_A_CALL: i32 = libc::SIGTRAP | 0x80;

impl Drop for Halted {
    fn drop(&mut self) {
        // It is gone, then.
        let _ = request(libc::PTRACE_DETACH, self.0, 0);
    }
}

fn request(what: libc::c_uint, thread: i32, data: i32) -> io::Result<()> {
    let data = libc::c_long::from(data);
    // SAFETY: none of these requests takes an address, and their data is a number.
    match unsafe { libc::ptrace(what, thread, ptr::null_mut::<libc::c_void>(), data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
