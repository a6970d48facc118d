//! The directory of a lab, whose name says who owns it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

const PREFIX: &str = "router-lab-";
/// Lists the holders of a lab that was kept for a person.
const KEPT: &str = "kept";

/// Removed when dropped.
pub struct Directory(PathBuf);

/// A process, told from others that had its id before or will have it later.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    pid: u32,
    start: u64,
}

impl Directory {
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let pid = process::id();
        let start = start_time(pid).context("cannot read this process's start time")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("{PREFIX}{pid}-{start}-{number}"));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What the nodes' programs said, for whoever looks into a failure.
    fn print_logs(&self) {
        for node in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            for file in fs::read_dir(node.path()).into_iter().flatten().flatten() {
                let path = file.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    eprintln!("--- {} ---\n{text}", path.display());
                }
            }
        }
    }

    /// Leaves it, with a note of the processes that hold the lab.
    pub fn keep(self, holders: &[u32]) -> Result<PathBuf> {
        let lines: Vec<String> = holders
            .iter()
            .filter_map(|&pid| Some(format!("{pid} {}", start_time(pid)?)))
            .collect();
        fs::write(self.0.join(KEPT), lines.join("\n"))?;
        let path = self.0.clone();
        std::mem::forget(self);
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_logs();
        }
        // A directory that stays behind is swept by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what labs left whose owner is gone, but not the labs that were kept.
pub fn sweep() -> Result<()> {
    for path in all()? {
        let owned = owner(&path).is_some_and(Owner::is_alive);
        if !owned && !path.join(KEPT).exists() {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Ends and removes the labs that were kept; how many there were.
pub fn remove_kept() -> Result<usize> {
    let mut count = 0;
    for path in all()? {
        let Ok(kept) = fs::read_to_string(path.join(KEPT)) else {
            continue;
        };
        for holder in kept.lines().filter_map(Owner::from_line) {
            if let Some(pid) = i32::try_from(holder.pid).ok().and_then(Pid::from_raw)
                && holder.is_alive()
            {
                kill_process(pid, Signal::KILL).context("cannot kill a kept node")?;
            }
        }
        remove(&path)?;
        count += 1;
    }
    Ok(count)
}

fn all() -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(env::temp_dir())? {
        let path = entry?.path();
        if owner(&path).is_some() {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        // Another run sweeps as well.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot remove {}", path.display())),
    }
}

/// The owner that a lab's directory names; `None` if the path is not of a lab.
fn owner(path: &Path) -> Option<Owner> {
    let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let mut parts = name.split('-');
    Some(Owner {
        pid: parts.next()?.parse().ok()?,
        start: parts.next()?.parse().ok()?,
    })
}

impl Owner {
    fn from_line(line: &str) -> Option<Self> {
        let (pid, start) = line.split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        })
    }

    fn is_alive(self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// When the process started, in ticks since boot: field 22 of `/proc/PID/stat`, see proc(5). A
/// zombie, which nobody has waited for yet, does not live.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may itself hold spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_not_its_successor_with_the_same_id() {
        let pid = process::id();
        let start = start_time(pid).unwrap();
        assert!(Owner { pid, start }.is_alive());
        let predecessor = Owner {
            pid,
            start: start - 1,
        };
        assert!(!predecessor.is_alive());
    }

    #[test]
    fn a_zombie_owns_nothing() {
        let mut child = process::Command::new("true").spawn().unwrap();
        let start = crate::poll::until(std::time::Duration::from_secs(5), || {
            anyhow::ensure!(start_time(child.id()).is_none(), "still alive");
            Ok(())
        });
        assert!(Path::new(&format!("/proc/{}/stat", child.id())).exists());
        child.wait().unwrap();
        start.unwrap();
    }

    #[test]
    fn other_directories_are_not_labs() {
        for name in ["router-lab-", "router-lab-x-1", "tmp", "router-lab-5"] {
            assert!(owner(&env::temp_dir().join(name)).is_none(), "{name}");
        }
    }
}
