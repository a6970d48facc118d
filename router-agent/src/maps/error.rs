//! Why a map cannot be shown, with what to do about it.

use std::{io, path::PathBuf};

use aya::{
    maps::{MapError, MapType},
    sys::SyscallError,
};

use super::catalogue::Known;

/// Displayed for an operator, in one line.
#[derive(Debug, thiserror::Error)]
pub enum MapsError {
    #[error(
        "no maps are pinned under {}{others}: is router-agent running? `cargo xtask load` loads the programs without it", directory.display()
    )]
    NonePinned {
        directory: PathBuf,
        /// Empty, or which other versions of the layout are there.
        others: String,
    },
    #[error("map {name} is not pinned under {}: see `routerctl maps list`", directory.display())]
    NotPinned {
        name: &'static str,
        directory: PathBuf,
    },
    #[error("there is no map {name}; there are: {}", Known::names().join(", "))]
    NoSuchMap { name: String },
    #[error(
        "map {name} does not have the layout that this routerctl knows: {what} of {actual} bytes where {expected} are expected; use the routerctl that was installed with the agent"
    )]
    OtherLayout {
        name: &'static str,
        what: &'static str,
        actual: u32,
        expected: usize,
    },
    #[error(
        "map {name} is of type {actual:?} where {expected:?} is expected; use the routerctl that was installed with the agent"
    )]
    OtherType {
        name: &'static str,
        actual: MapType,
        expected: MapType,
    },
    #[error("permission denied at {}: run as root, or with CAP_BPF and access to the BPF file system", path.display())]
    PermissionDenied { path: PathBuf },
    #[error("cannot list {}", directory.display())]
    Directory {
        directory: PathBuf,
        source: io::Error,
    },
    #[error("cannot read map {name}")]
    Read {
        name: &'static str,
        source: MapError,
    },
}

/// The kernel's answer within aya's error, if there is one.
pub fn io_error(error: &MapError) -> Option<&io::Error> {
    match error {
        MapError::SyscallError(SyscallError { io_error, .. }) | MapError::IoError(io_error) => {
            Some(io_error)
        }
        _ => None,
    }
}
