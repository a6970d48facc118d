//! A clean Debian with a systemd of its own in a node of a lab, and the package to be installed there.
//! What `cargo xtask test --peers` makes is found above the executable, as moto is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    lab::{Node, Process},
    other_build, poll,
};

const BOOT: &str = include_str!("machine.sh");
/// Installing, starting or stopping something on a busy machine.
const COMMAND_LIMIT: &str = "100";
const BOOT_LIMIT: Duration = Duration::from_mins(1);

/// Ends when this is dropped.
pub struct Machine {
    /// The parent of its process 1, which dies with it.
    process: Process,
    /// No other has it.
    name: String,
    /// Of this machine; at /mnt there.
    share: PathBuf,
}

impl Machine {
    /// Boots one in `node`, until its systemd has started all that it starts.
    pub fn boot(node: &Node) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("router-machine-{}-{number}", std::process::id());
        let share = node.directory().join("share");
        fs::create_dir_all(&share)?;
        let process = start(node, &name, &share)?;
        let machine = Self {
            process,
            name,
            share,
        };
        machine.await_up()?;
        Ok(machine)
    }

    /// Has it shut down in order and boot again, with the files that it has.
    pub fn reboot(&mut self, node: &Node) -> Result<()> {
        // It may be gone before it has answered.
        let _ = self.output(&["systemctl", "reboot"]);
        self.process.wait_within(BOOT_LIMIT)?;
        self.process = start(node, &self.name, &self.share)?;
        self.await_up()
    }

    fn await_up(&self) -> Result<()> {
        poll::until(BOOT_LIMIT, || {
            let (_, state) = self.output(&["systemctl", "is-system-running"])?;
            // Degraded: a unit that has no use in here failed.
            let is_up = ["running", "degraded"].contains(&state.trim());
            ensure!(is_up, "it is {state}");
            Ok(())
        })
    }

    /// Runs a command that must succeed; what it prints.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        let (success, text) = self.output(words)?;
        ensure!(success, "{words:?} failed: {text}");
        Ok(text)
    }

    /// Whether a command succeeds, and what it prints, its errors as well.
    pub fn output(&self, words: &[&str]) -> Result<(bool, String)> {
        let first = self.first_process()?.to_string();
        let output = Command::new("timeout")
            .args([COMMAND_LIMIT, "nsenter", "--target", &first])
            .args([
                "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wdns=/",
            ])
            .args(words)
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .with_context(|| format!("cannot run {words:?}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }

    /// A property of a unit, as `systemctl show` has it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let words = ["systemctl", "show", "--value", "--property", name, unit];
        Ok(self.exec(&words)?.trim().to_owned())
    }

    /// Whether there is something at a path.
    pub fn has(&self, path: &str) -> Result<bool> {
        Ok(self.output(&["test", "-e", path])?.0)
    }

    /// Writes a file of root's there.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        fs::write(self.share.join("file"), content)?;
        let words = ["install", "-D", "--mode=0600", "/mnt/file", path];
        self.exec(&words).map(drop)
    }

    /// Hands over a file of this machine; its path there.
    pub fn hand_over(&self, file: &Path) -> Result<String> {
        let name = file.file_name().context("a file has a name")?;
        fs::copy(file, self.share.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
        Ok(format!("/mnt/{}", name.to_string_lossy()))
    }

    /// Its process 1, as seen from here.
    fn first_process(&self) -> Result<u32> {
        let parent = self.process.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let first = children.split_whitespace().next();
        Ok(first.context("it has not booted, or is down")?.parse()?)
    }
}

fn start(node: &Node, name: &str, share: &Path) -> Result<Process> {
    let work = node.directory().join("machine");
    fs::create_dir_all(&work)?;
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(node.directory().join("machine.log"))?;
    let mut command = Command::new("sh");
    command
        .args(["-c", BOOT])
        .env("work", &work)
        .env("share", share)
        .env("clean", made("clean-root")?)
        .env("name", name)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    node.spawn("machine", &mut command)
}

/// The package that was made last.
pub fn package() -> Result<PathBuf> {
    distributed("deb")
}

/// The tarball that was made last.
pub fn tarball() -> Result<PathBuf> {
    distributed("gz")
}

fn distributed(extension: &str) -> Result<PathBuf> {
    let made = made("dist")?;
    let mut files = fs::read_dir(&made)?.filter_map(|entry| Some(entry.ok()?.path()));
    let found = files.find(|file| file.extension().is_some_and(|found| found == extension));
    found.with_context(|| {
        format!(
            "no .{extension} in {}: `cargo xtask dist` makes it",
            made.display()
        )
    })
}

/// The same as a later version; in `directory`.
pub fn later_version(package: &Path, directory: &Path) -> Result<PathBuf> {
    repacked(package, "9", directory, |_| Ok(()))
}

/// A version later than that, whose agent has kernel programs of another build; in `directory`.
pub fn later_build(package: &Path, directory: &Path) -> Result<PathBuf> {
    repacked(package, "10", directory, |unpacked| {
        other_build::change(&unpacked.join("usr/sbin/router-agent"))
    })
}

/// With `major` before its version.
fn repacked(
    package: &Path,
    major: &str,
    directory: &Path,
    change: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let unpacked = directory.join(format!("unpacked-{major}"));
    let dpkg = |words: &[&str], from: &Path, to: &Path| {
        let status = Command::new("dpkg-deb")
            .args(words)
            .arg(from)
            .arg(to)
            .status()?;
        ensure!(status.success(), "dpkg-deb {words:?} failed");
        Ok(())
    };
    dpkg(&["--raw-extract"], package, &unpacked)?;
    let control = unpacked.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let (before, version) = text
        .split_once("Version: ")
        .context("a package has a version")?;
    fs::write(&control, format!("{before}Version: {major}.{version}"))?;
    change(&unpacked)?;
    let later = directory.join(format!("later-{major}.deb"));
    let build = ["--build", "--root-owner-group", "-Znone"];
    dpkg(&build, &unpacked, &later)?;
    Ok(later)
}

/// What a command of xtask's left in the target directory.
fn made(name: &str) -> Result<PathBuf> {
    let executable = env::current_exe().context("cannot find this executable")?;
    let above = executable.ancestors().skip(1);
    let found = above
        .map(|directory| directory.join(name))
        .find(|path| path.is_dir());
    found.with_context(|| format!("there is no {name}: `cargo xtask test --peers` makes it"))
}
