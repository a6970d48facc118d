//! Debian packages: what is missing, and how it is installed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::process::{find_program, is_root, note, run_timed};

/// Whether packages can be installed here and now.
pub fn can_install() -> bool {
    is_root() && find_program("apt-get").is_some()
}

/// Installs packages without anything they merely recommend.
pub fn install(why: &str, packages: &[&str]) -> Result<()> {
    run_timed("setup: refresh the package lists", apt_get().arg("update"))?;
    run_timed(
        format_args!("setup: {why}"),
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

/// What to type where [`install`] is not possible.
pub fn install_command(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

fn apt_get() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get
        .arg("-qq")
        // A machine that has just started is often busy upgrading itself.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        // dpkg talks about each package there; what goes wrong is on standard error.
        .stdout(Stdio::null());
    apt_get
}

/// As long as this lives, installing a package starts none of its services.
pub struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";
const REFUSE_ALL: &str =
    "#!/bin/sh\n# cargo xtask setup: start no service; removed at its end\nexit 101\n";

impl NoServices {
    /// Leaves a policy that the administrator has set as it is; one of ours, left behind by an
    /// interrupted run, is adopted and so removed.
    pub fn new() -> Result<Self> {
        let ours = match fs::read_to_string(POLICY) {
            Ok(text) => text == REFUSE_ALL,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(error).with_context(|| format!("cannot read {POLICY}")),
        };
        if ours {
            fs::write(POLICY, REFUSE_ALL)
                .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("cannot write {POLICY}"))?;
        } else {
            note(format_args!(
                "{POLICY} is there already and decides which services start"
            ));
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(Path::new(POLICY))
        {
            note(format_args!("remove {POLICY} by hand: {error}"));
        }
    }
}

/// A folder with a package of PyPI and what it needs, apart from the system's own.
pub fn python_environment(what: &str, into: &Path, package: &str) -> Result<()> {
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(into);
    run_timed(format_args!("setup: a place for {what}"), &mut make)
        .with_context(|| format!("remedy: {}", install_command(&["python3-venv"])))?;
    let mut install = Command::new(into.join("bin/pip"));
    install.args(["install", "--quiet", "--disable-pip-version-check", package]);
    run_timed(format_args!("setup: {what}"), &mut install)
        .context("it comes from PyPI; is the network there?")
}
