//! Runs a program of the operator's: never by a shell, for a limited time, in a process group of its
//! own.

use std::{
    fmt, fs, io,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::future::join;
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    pin,
    process::Command,
    time::timeout,
};

/// Bytes that are kept of each of its two outputs.
const LONGEST_OUTPUT: usize = 8 * 1024;
/// For what it printed last; a daemon that it leaves behind may hold the pipes open for ever.
const LAST_WORDS: Duration = Duration::from_millis(100);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program, its arguments as they are, and its environment but for `PATH`. Ours does not reach it:
/// it may hold secrets.
#[derive(Clone, Debug)]
pub struct Call {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    pub limit: Duration,
}

#[derive(Debug, Error)]
pub enum CallError {
    #[error("cannot run {}: {error}", program.display())]
    NotRun { program: PathBuf, error: io::Error },
    #[error("{} was killed: it had not ended within {limit:?}{output}", program.display())]
    TooLong {
        program: PathBuf,
        limit: Duration,
        output: Output,
    },
}

/// Whether a program can be run, as far as its file shows.
pub fn check_executable(program: &Path) -> Result<()> {
    let shown = program.display();
    let metadata = fs::metadata(program).with_context(|| format!("cannot look at {shown}"))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        bail!("{shown} is not an executable file: `chmod +x` makes it one");
    }
    Ok(())
}

/// How a program ended, and what it had printed.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub output: Output,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, output } = self;
        match (status.code(), status.signal()) {
            (Some(code), _) => write!(f, "exit status {code}{output}"),
            (None, Some(signal)) => write!(f, "killed by signal {signal}{output}"),
            (None, None) => write!(f, "{status}{output}"),
        }
    }
}

/// The beginning of what a program printed, first its standard output.
#[derive(Debug, Default)]
pub struct Output(pub String);

impl fmt::Display for Output {
    /// Behind something else, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self
            .0
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        if let Some(first) = lines.next() {
            write!(f, ": {first}")?;
        }
        lines.try_for_each(|line| write!(f, " | {line}"))
    }
}

impl Call {
    /// Runs it to its end. If nobody waits any more, it is killed with all that it started.
    pub async fn run(&self) -> Result<Ended, CallError> {
        let Self {
            program,
            arguments,
            environment,
            limit,
        } = self;
        let not_run = |error| CallError::NotRun {
            program: program.clone(),
            error,
        };
        let mut command = Command::new(program);
        // One that outlived its agent would still change what the next agent has put right.
        let die_with_us = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec it makes one system call, and allocates nothing.
        unsafe { command.pre_exec(die_with_us) };
        let mut child = command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(not_run)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let mut group = KilledWhenDropped(id.and_then(Pid::from_raw));
        let (mut printed, mut complained) = (Vec::new(), Vec::new());
        let status = {
            let reading = join(
                keep_beginning(child.stdout.take(), &mut printed),
                keep_beginning(child.stderr.take(), &mut complained),
            );
            pin!(reading);
            let mut all_read = false;
            let ending = async {
                loop {
                    tokio::select! {
                        status = child.wait() => break status,
                        _ = &mut reading, if !all_read => all_read = true,
                    }
                }
            };
            let status = timeout(*limit, ending).await;
            if let Ok(Ok(_)) = status {
                group.spare();
                if !all_read {
                    // What is missing after this is not worth waiting for.
                    let _ = timeout(LAST_WORDS, reading).await;
                }
            }
            status
        };
        printed.append(&mut complained);
        let output = Output(String::from_utf8_lossy(&printed).into_owned());
        match status {
            Ok(Ok(status)) => Ok(Ended { status, output }),
            Ok(Err(error)) => Err(not_run(error)),
            Err(_) => Err(CallError::TooLong {
                program: program.clone(),
                limit: *limit,
                output,
            }),
        }
    }
}

/// Reads to the end, so that the writer is never held up, and keeps the beginning.
async fn keep_beginning(from: Option<impl AsyncRead + Unpin>, to: &mut Vec<u8>) {
    let Some(mut from) = from else {
        return;
    };
    let mut some = [0; 1024];
    // An error ends it as well: there is nothing more to be had.
    while let Ok(length @ 1..) = from.read(&mut some).await {
        let room = LONGEST_OUTPUT - to.len();
        to.extend_from_slice(&some[..length.min(room)]);
    }
}

/// A process group.
struct KilledWhenDropped(Option<Pid>);

impl KilledWhenDropped {
    /// What its leader leaves behind is meant to stay.
    fn spare(&mut self) {
        self.0 = None;
    }
}

impl Drop for KilledWhenDropped {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str, limit: Duration) -> Call {
        Call {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("ROUTER_GROUP", "g; x".into())],
            limit,
        }
    }

    const LONG: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn it_gets_its_environment_and_no_other() {
        let ended = shell("env; echo err >&2; exit 3", LONG)
            .run()
            .await
            .unwrap();
        assert_eq!(ended.status.code(), Some(3));
        let Output(text) = ended.output;
        let mut names: Vec<_> = text
            .lines()
            .filter_map(|l| Some(l.split_once('=')?.0))
            .collect();
        names.retain(|name| !["PWD", "_", "SHLVL", "OLDPWD"].contains(name));
        names.sort_unstable();
        assert_eq!(names, ["PATH", "ROUTER_GROUP"], "{text}");
        assert!(
            text.contains("ROUTER_GROUP=g; x\n") && text.ends_with("err\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_killed_with_what_it_started() {
        let directory = std::env::temp_dir().join(format!("router-call-{}", std::process::id()));
        let script = format!(
            "echo first; sleep 1000 & echo $! > {}; wait",
            directory.display()
        );
        let error = shell(&script, Duration::from_millis(500))
            .run()
            .await
            .unwrap_err();
        assert!(error.to_string().ends_with(": first"), "{error}");
        let grandchild = fs::read_to_string(&directory).unwrap();
        fs::remove_file(directory).unwrap();
        let state = format!("/proc/{}/stat", grandchild.trim());
        let begun = Instant::now();
        // A zombie whose parent has not looked yet is dead, too.
        while fs::read_to_string(&state).is_ok_and(|text| !text.contains(") Z ")) {
            assert!(begun.elapsed() < LONG, "it lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_it_leaves_running_is_spared_and_not_waited_for() {
        let ended = shell("sleep 1000 & echo $!", LONG).run().await.unwrap();
        let id: i32 = ended.output.0.trim().parse().unwrap();
        let left = Pid::from_raw(id).unwrap();
        rustix::process::kill_process(left, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_flood_is_cut_off_and_does_not_hold_it_up() {
        let ended = shell("yes | head -c 1000000; echo end >&2", LONG)
            .run()
            .await
            .unwrap();
        assert!(ended.status.success());
        assert_eq!(ended.output.0.len(), LONGEST_OUTPUT + "end\n".len());
    }
}
