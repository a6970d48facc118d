//! One run of a guest.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio, id};
use std::{io, thread};

use anyhow::{Context as _, Result, bail};

use super::image::Image;

/// Without udev nobody names the ports that lead out of the guest, and virtme-ng's init runs the
/// script on the console, which goes nowhere: then what init would have done is done here.
///
/// `/var/tmp` is a file system of the guest's own, and no lab of the host is in it.
const PROLOGUE: &str = r#"
status=
port() {
    for port in /sys/class/virtio-ports/*; do
        if test "$(cat "$port/name")" = "virtme.$1"; then
            echo "/dev/${port##*/}"
        fi
    done
}
if ! test -e /dev/virtio-ports/virtme.ret; then
    exec >"$(port dev_stdout)" 2>"$(port dev_stderr)"
    status=$(port ret)
fi
mount -t bpf bpf /sys/fs/bpf
export TMPDIR=/var/tmp
"#;

const EPILOGUE: &str = r#"
code=$?
test -z "$status" || echo "$code" >"$status"
exit "$code"
"#;

/// Variables of this process that its command in the guest gets too. `RUST_BACKTRACE` is none of
/// them: there, reading debugging information for one backtrace takes a minute.
const PASSED_ON: [&str; 3] = ["PATH", "RUST_LOG", "ROUTER_BIN_DIR"];

/// virtme-ng's exit code when the guest ended without one, for example by a panic.
const NO_STATUS: u8 = 255;
/// timeout's, after it has killed.
const TIMED_OUT: u8 = 137;

/// Boots, runs `command` in the current directory, and gives back its exit code. What it writes
/// below `writable` stays.
pub fn run(
    image: &Image,
    command: &[OsString],
    minutes: u32,
    writable: Option<&Path>,
) -> Result<ExitCode> {
    let script = Script::write(image, command)?;
    let mut path = image.programs.clone().into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    // The guest ends with this process: `unshare` is killed by its timeout or with the terminal's
    // process group, and its death ends the process namespace with virtme-ng and QEMU in it.
    let mut vng = Command::new("timeout");
    vng.args(["--foreground", "--signal=KILL"])
        .arg(format!("{minutes}m"))
        .args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["vng", "--disable-kvm", "--force-9p", "--user=root"])
        .args(["--cpus=2", "--memory=3G"])
        .arg("--busybox")
        .arg(&image.busybox)
        .arg("--run")
        .arg(&image.kernel)
        .arg("--exec")
        .arg(format!("sh {}", quoted(&script.0.to_string_lossy())))
        .env("PATH", path)
        .stdin(Stdio::null());
    if let Some(folder) = writable {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        vng.arg("--rwdir").arg(folder);
    }
    verdict(run_through_pipes(&mut vng)?, minutes)
}

/// QEMU opens its standard output and error anew and truncates them, were they files.
fn run_through_pipes(command: &mut Command) -> Result<ExitStatus> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `timeout`; it is in the package coreutils")?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| stdout.map(|mut pipe| io::copy(&mut pipe, &mut io::stdout())));
        scope.spawn(|| stderr.map(|mut pipe| io::copy(&mut pipe, &mut io::stderr())));
    });
    child.wait().context("cannot wait for the guest")
}

fn verdict(status: ExitStatus, minutes: u32) -> Result<ExitCode> {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok());
    match code {
        Some(TIMED_OUT) => bail!("the guest was killed after {minutes} minutes"),
        Some(NO_STATUS) => {
            bail!("the guest did not say how its command ended: it panicked, or did not boot")
        }
        Some(code) => Ok(ExitCode::from(code)),
        None => bail!("the guest ended with {status}"),
    }
}

/// A file, because the kernel's command line is too short for a command. Removed when dropped.
struct Script(PathBuf);

impl Script {
    fn write(image: &Image, command: &[OsString]) -> Result<Self> {
        let path = image.directory.join(format!("run-{}.sh", id()));
        fs::write(&path, text(command)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It would only lie about.
        let _ = fs::remove_file(&self.0);
    }
}

fn text(command: &[OsString]) -> Result<String> {
    let mut text = PROLOGUE.to_owned();
    for name in PASSED_ON {
        if let Ok(value) = env::var(name) {
            writeln!(text, "export {name}={}", quoted(&value))?;
        }
    }
    let words = command
        .iter()
        .map(|word| word.to_str().map(quoted))
        .collect::<Option<Vec<_>>>()
        .context("the command is not in UTF-8")?;
    text.push_str(&words.join(" "));
    text.push_str(EPILOGUE);
    Ok(text)
}

/// As one word of a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_words_back_as_they_were() {
        for word in ["plain", "two words", "it's", "$HOME `id` \\ \"", ""] {
            let output = Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_guest_without_a_verdict_is_an_error() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        assert!(verdict(exited(0), 1).is_ok());
        assert!(verdict(exited(101), 1).is_ok());
        for code in [137, 255] {
            assert!(verdict(exited(code), 1).is_err(), "{code}");
        }
        assert!(verdict(ExitStatus::from_raw(9), 1).is_err());
    }
}
