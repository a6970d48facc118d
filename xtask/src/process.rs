//! Running commands, and telling the person who waits what runs, why, and how long it took.
//!
//! Progress goes to standard error, so that `cargo xtask run -- … | jq` gets clean output.

use std::convert::Infallible;
use std::env;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Announces a step.
pub fn heading(text: impl Display) {
    eprintln!("==> {text}");
}

/// A remark that belongs to the step above it.
pub fn note(text: impl Display) {
    eprintln!("    {text}");
}

/// Runs a command to its end; anything but success is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// As [`run`], between a line that says what and why and one that says how long it took.
pub fn run_timed(why: impl Display, command: &mut Command) -> Result<()> {
    heading(format_args!("{why}: {}", shown(command)));
    let start = Instant::now();
    run(command)?;
    note(format_args!(
        "done in {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// What a command prints on standard output; `None` if it cannot be started or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Becomes the command: signals and the exit code are then its own.
pub fn exec(command: &mut Command) -> Result<Infallible> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", shown(command)))
}

/// The command as one would type it, as far as variables can be typed.
pub fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let assignment = format!("{}={}", name.to_string_lossy(), value?.to_string_lossy());
        (!assignment.contains(char::is_control)).then_some(assignment)
    });
    let program = Path::new(command.get_program());
    let words = program
        .file_name()
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// Looks a program up in PATH, and in the administrator's directories, which an ordinary user's
/// PATH lacks on Debian.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Whether this process acts as root: the owner of its own /proc entry is its effective user.
pub fn is_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .is_ok_and(|entry| entry.uid() == 0)
}
