//! A process in a node.

use std::{
    process::{Child, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::poll;

/// A process that is killed when this is dropped.
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    pub(super) fn new(name: &str, child: Child) -> Self {
        Self {
            name: name.into(),
            child,
        }
    }

    /// Its process id as seen from outside.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a process has a positive id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it live on when this process ends.
    pub fn keep(self) {
        std::mem::forget(self);
    }

    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub fn wait_within(&mut self, within: Duration) -> Result<ExitStatus> {
        poll::until(within, || match self.child.try_wait()? {
            Some(status) => Ok(status),
            None => bail!("{} is still running", self.name),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it is dead already.
        let _ = self.kill();
    }
}
