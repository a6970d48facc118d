//! An agent in place of another, in the same process: what it is told, and how it comes to run.
//!
//! The old agent detaches, so that the kernel goes on, and executes its own program anew. A supervisor
//! sees one process all the time.

use std::{
    convert::Infallible, env, io, mem, os::unix::process::CommandExt as _, path::PathBuf,
    process::Command, ptr,
};

use anyhow::{Context as _, Result};
use router_common::time::BootTime;
use serde::{Deserialize, Serialize};

/// Environment variable that brings it.
const VARIABLE: &str = "ROUTER_AGENT_SUCCESSION";

/// What an agent is told that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// By which whoever asked for it knows it again.
    pub ticket: u32,
    /// To be run by.
    pub configuration: PathBuf,
    pub purpose: Purpose,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To try a configuration: if the agent does not come to run by it, the one before it comes back.
    Try {
        /// Instant of the boottime clock in ns; if it does not run by then, the one before it comes back.
        run_by_ns: u64,
        /// Likewise, if it is not confirmed.
        confirm_until_ns: Option<u64>,
    },
    /// To go back to a configuration that was good.
    GoBack { reason: String },
}

impl Succession {
    /// What this process was told, if it takes the place of another agent.
    pub fn from_environment() -> Result<Option<Self>> {
        let Some(text) = env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let text = text.to_string_lossy();
        let succession = serde_json::from_str(&text)
            .with_context(|| format!("{VARIABLE} is not an agent's; take it out"))?;
        Ok(Some(succession))
    }

    pub fn is_trial(&self) -> bool {
        match self.purpose {
            Purpose::Try { .. } => true,
            Purpose::GoBack { .. } => false,
        }
    }

    pub fn confirm_until(&self) -> Option<BootTime> {
        match self.purpose {
            Purpose::Try {
                confirm_until_ns, ..
            } => confirm_until_ns.map(BootTime::from_ns),
            Purpose::GoBack { .. } => None,
        }
    }

    /// Until when it is worth while to go on with a start.
    pub fn run_by(&self) -> Option<BootTime> {
        match self.purpose {
            Purpose::Try { run_by_ns, .. } => Some(BootTime::from_ns(run_by_ns)),
            Purpose::GoBack { .. } => None,
        }
    }

    /// Executes this program anew, with the same arguments. Signals wait for it meanwhile; with
    /// `terminate`, one to terminate does. Gives only a failure.
    pub fn begin(&self, terminate: bool) -> Result<Infallible> {
        let text = serde_json::to_string(self)?;
        mask_signals(libc::SIG_BLOCK)?;
        if terminate {
            leave_pending(libc::SIGTERM);
        }
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let error = Command::new("/proc/self/exe")
            .arg0(name)
            .args(arguments)
            .env(VARIABLE, text)
            .exec();
        Err(error).context("cannot execute /proc/self/exe")
    }
}

/// A signal that is blocked waits, also while a program is executed.
fn leave_pending(signal: libc::c_int) {
    // SAFETY: raises a signal in this thread, which blocks it.
    unsafe { libc::raise(signal) };
}

/// The process's name, which executing `/proc/self/exe` has changed.
pub fn restore_name() -> io::Result<()> {
    rustix::thread::set_name(c"router-agent").map_err(Into::into)
}

/// Lets in the signals that waited. All that mean something must be caught by now.
pub fn admit_signals() -> Result<()> {
    mask_signals(libc::SIG_UNBLOCK)
}

/// Those that an agent catches. What is blocked stays so when a program is executed.
fn mask_signals(how: libc::c_int) -> Result<()> {
    let mut signals = mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, and the others get one that is. No old mask is
    // asked for.
    let outcome = unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2] {
            libc::sigaddset(signals.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, signals.as_ptr(), ptr::null_mut())
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(outcome)).context("cannot mask signals")
    }
}
