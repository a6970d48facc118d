//! Whether a process of a name runs.

use std::{fs, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{Found, Look};

/// A look at all processes takes no longer. One whose memory is locked up does not tell its command line, and
/// whoever asks for that waits.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Characters of a process's name that the kernel keeps: TASK_COMM_LEN less the terminator.
const LONGEST_NAME: usize = 15;

/// All processes are looked at only while none is known that runs.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// One that ran when it was last looked at.
    known: Option<OwnedFd>,
    /// A look at all of them that is not over.
    looking: Option<JoinHandle<Option<OwnedFd>>>,
}

impl Process {
    pub const fn new(name: String) -> Self {
        Self {
            name,
            known: None,
            looking: None,
        }
    }
}

impl Look for Process {
    async fn look(&mut self) -> Found {
        if self.known.as_ref().is_some_and(runs) {
            return Ok(());
        }
        let looking = self.looking.get_or_insert_with(|| {
            let name = self.name.clone();
            spawn_blocking(move || find(&name))
        });
        let Ok(found) = timeout(LONGEST_LOOK, looking).await else {
            return Err(
                "the processes cannot be looked at: one of them does not answer".to_owned(),
            );
        };
        self.looking = None;
        // A panic there is none found.
        self.known = found.ok().flatten();
        match self.known {
            Some(_) => Ok(()),
            None => Err("no process of this name runs".to_owned()),
        }
    }
}

fn find(name: &str) -> Option<OwnedFd> {
    let numbers = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(number)
    });
    numbers.filter(|pid| is_called(*pid, name)).find_map(|pid| {
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The number may have passed to another one before it was opened.
        (is_called(pid, name) && runs(&process)).then_some(process)
    })
}

fn is_called(pid: Pid, name: &str) -> bool {
    let of = |file| fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero()));
    let kept = of("comm").unwrap_or_default();
    if name.len() <= LONGEST_NAME && kept.trim_ascii_end() == name.as_bytes() {
        return true;
    }
    let words = of("cmdline").unwrap_or_default();
    let program = words.split(|byte| *byte == 0).next().unwrap_or_default();
    let file = program.rsplit(|byte| *byte == b'/').next();
    file == Some(name.as_bytes())
}

/// Zombies do not.
fn runs(process: &OwnedFd) -> bool {
    let now = Timespec::default();
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    // That it cannot be asked is no sign of its end.
    poll(&mut ended, Some(&now)).is_ok_and(|count| count == 0)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt as _,
        process::{Child, Command},
        time::{Duration, Instant},
    };

    use super::*;

    fn start(name: &str) -> Child {
        Command::new("/bin/sleep")
            .arg0(name)
            .arg("1000")
            .spawn()
            .unwrap()
    }

    /// One that was started last may not have its name yet.
    async fn await_well(process: &mut Process) {
        let begun = Instant::now();
        while process.look().await.is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1), "it is not found");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn one_of_several_is_enough_and_none_is_not() {
        let name = format!("tracked-{}-with-a-long-name", std::process::id());
        let mut process = Process::new(name.clone());
        process.look().await.unwrap_err();
        let mut children = [start(&format!("/usr/sbin/{name}")), start(&name)];
        await_well(&mut process).await;
        for child in &mut children {
            await_well(&mut process).await;
            child.kill().unwrap();
            // It is not waited for: a zombie does not run.
        }
        let begun = Instant::now();
        while process.look().await.is_ok() {
            assert!(begun.elapsed() < Duration::from_mins(1), "a zombie counts");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for mut child in children {
            child.wait().unwrap();
        }
    }

    #[test]
    fn names_are_whole() {
        let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        let comm = comm.trim_end();
        assert!(is_called(own, comm) || comm.len() == LONGEST_NAME);
        assert!(!is_called(own, &comm[..comm.len() - 1]));
    }
}
