//! One agent per network namespace: two would take each other's devices for left-overs.

use std::{
    fs::{self, OpenOptions},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

const DIRECTORY: &str = "/run/router";

/// A file of the one agent of this network namespace.
pub fn file_of_namespace(extension: &str) -> Result<PathBuf> {
    let namespace =
        fs::metadata("/proc/self/ns/net").context("cannot look at /proc/self/ns/net")?;
    Ok(Path::new(DIRECTORY).join(format!("netns-{}.{extension}", namespace.ino())))
}

/// Locks the network namespace of this process for as long as the returned descriptor is open. A
/// process that dies leaves no lock behind.
pub fn network_namespace() -> Result<OwnedFd> {
    let path = file_of_namespace("lock")?;
    let cannot = || format!("cannot lock {}", path.display());
    fs::create_dir_all(DIRECTORY).with_context(cannot)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(cannot)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .context("another router-agent runs in this network namespace; stop it first")?;
    Ok(file.into())
}
