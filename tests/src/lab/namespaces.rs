//! Namespaces of a node, and the one process that holds them.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    panic,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use router_agent::dataplane::DEFAULT_BPFFS;
use rustix::{
    process::{Pid, PidfdFlags, pidfd_open},
    thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe},
};

use crate::poll;

/// Network, mount, UTS, IPC and PID namespaces.
///
/// Their PID 1 waits on a pipe whose other end is here. When this process ends, in whatever way,
/// the pipe closes, PID 1 ends, and the kernel kills all processes in the namespaces and takes
/// their interfaces, mounts and pins away.
pub struct Namespaces {
    holder: Child,
    pidfd: OwnedFd,
    /// Keeps network and mounts, and with them pins and programs, while the processes are dead
    /// already: the end of a network namespace holds the whole kernel's configuration lock for
    /// tens of milliseconds, and the survivor of a real power failure has a kernel of its own.
    _lasting: [File; 2],
}

const REAP_TIMEOUT: Duration = Duration::from_secs(1);

/// What PID 1 does; `$0` is the host name.
const HOLDER: &str = r#"
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
hostname "$0"
ip link set lo up
echo ready
# A lab that is kept must not hold its maker's terminal or pipe.
exec 2>/dev/null
read -r word
test "$word" = keep && exec sleep infinity
"#;

impl Namespaces {
    pub fn new(host_name: &str) -> Result<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", HOLDER, host_name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut holder = on_a_thread(|| {
            let flags = UnshareFlags::NEWNET
                | UnshareFlags::NEWNS
                | UnshareFlags::NEWUTS
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWPID;
            unshare(flags).context("cannot make namespaces")?;
            command.spawn().context("cannot start sh")
        })?;
        let mut answer = String::new();
        BufReader::new(holder.stdout.take().context("standard output is a pipe")?)
            .read_line(&mut answer)?;
        ensure!(
            answer == "ready\n",
            "the set-up of namespaces failed; its messages are above"
        );
        let pid = i32::try_from(holder.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process has a positive id")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("cannot open a pidfd")?;
        let lasting = ["net", "mnt"].map(|kind| {
            let path = format!("/proc/{}/ns/{kind}", holder.id());
            File::open(&path).with_context(|| format!("cannot open {path}"))
        });
        let [net, mnt] = lasting;
        Ok(Self {
            holder,
            pidfd,
            _lasting: [net?, mnt?],
        })
    }

    /// Process id of PID 1 as seen from outside.
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// Does `work` on a thread that is in the namespaces; processes it starts are too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            // setns(2) to a mount namespace is refused while the thread shares its root with
            // others; `unshare` of these two is what it asks for.
            unshare(UnshareFlags::FS)?;
            move_into_thread_name_spaces(
                self.pidfd.as_fd(),
                ThreadNameSpaceType::NETWORK
                    | ThreadNameSpaceType::MOUNT
                    | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
                    | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
                    | ThreadNameSpaceType::PROCESS_ID,
            )?;
            Ok(work())
        })
    }

    /// As [`Self::run`], but only in the network namespace: paths stay those of the outside.
    pub fn run_in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| {
            move_into_thread_name_spaces(self.pidfd.as_fd(), ThreadNameSpaceType::NETWORK)?;
            Ok(work())
        })
    }

    /// The network namespace as a path of the outside.
    pub fn network_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    /// The root directory as seen from outside.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.holder.id()))
    }

    /// Kills all processes in the namespaces. Does not wait: PID 1 is gone only when all others
    /// are (pid_namespaces(7)), and those which this process started it must reap itself.
    pub fn kill(&mut self) -> Result<()> {
        self.holder.kill().context("cannot kill a node")
    }

    /// Lets the namespaces outlive this process; the holder's process id.
    pub fn keep(mut self) -> Result<u32> {
        let mut pipe = self
            .holder
            .stdin
            .take()
            .context("standard input is a pipe")?;
        pipe.write_all(b"keep\n").context("cannot keep a node")?;
        let pid = self.holder.id();
        std::mem::forget(self);
        Ok(pid)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Both fail only if it is dead already, or if somebody still holds a process of it.
        let _ = self.kill();
        let _ = poll::until(REAP_TIMEOUT, || {
            self.holder.try_wait()?.context("it is not gone yet")
        });
    }
}

/// What the calling thread pins nobody else sees, and is gone with it.
///
/// # Panics
///
/// Without root.
pub fn with_a_bpffs_of_its_own() {
    unshare(UnshareFlags::NEWNS).expect("this needs root");
    for words in [
        ["--make-rprivate", "/"].as_slice(),
        &["-t", "bpf", "bpf", DEFAULT_BPFFS],
    ] {
        let status = Command::new("mount").args(words).status().unwrap();
        assert!(status.success(), "mount {words:?}");
    }
}

/// Namespaces are a thread's, so whatever changes them gets a thread that ends afterwards.
fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panicked) => panic::resume_unwind(panicked),
    })
}

fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: `CLONE_FILES`, which would take descriptors away from under their owners, is not
    // among the flags used in this file.
    unsafe { unshare_unsafe(flags) }.context("unshare")
}
