//! Where links and maps are pinned: below the BPF file system, in a directory of the layout's
//! version, so that an agent never takes maps of another layout for its own.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use router_common::map::LAYOUT_VERSION;
use rustix::fs::{FlockOperation, flock};

/// The default mount point of the BPF file system.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// Environment variable that names another mount point.
pub const BPFFS_VARIABLE: &str = "ROUTER_BPFFS";

/// The directory of the fences' links.
const FENCES: &str = "fences";

/// The pin directory of this version.
#[derive(Clone, Debug)]
pub struct Pins {
    /// `<bpffs>/router`, which holds the directories of all versions.
    top: PathBuf,
    directory: PathBuf,
}

impl Pins {
    pub fn below(bpffs: &Path) -> Self {
        let top = bpffs.join("router");
        Self {
            directory: top.join(format!("v{LAYOUT_VERSION}")),
            top,
        }
    }

    /// The directory that holds those of all versions.
    pub fn top(&self) -> &Path {
        &self.top
    }

    pub fn maps(&self) -> PathBuf {
        self.directory.join("maps")
    }

    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Where the link of `program` on the interface of index `ifindex` is pinned. Names of
    /// interfaces change, and have dots, which those of pins cannot have.
    pub fn link(&self, program: &str, ifindex: u32) -> PathBuf {
        self.directory
            .join("links")
            .join(format!("{program}-{ifindex}"))
    }

    /// Where the links of the fences are pinned, of every layout: they outlive agents.
    pub(super) fn fences(&self) -> PathBuf {
        self.top.join(FENCES)
    }

    /// Where the link of the fence's `program` on the interface of index `ifindex` is pinned.
    pub(super) fn fence(&self, program: &str, ifindex: u32) -> PathBuf {
        self.fences().join(format!("{program}-{ifindex}"))
    }

    pub(super) fn create(&self) -> Result<()> {
        let own = ["maps", "links"].map(|name| self.directory.join(name));
        for path in own.into_iter().chain([self.fences()]) {
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(())
    }

    /// Keeps others off these pins for as long as the returned descriptor is open. A process that
    /// dies leaves no lock behind. Only root can reach what is locked.
    pub fn lock(&self) -> Result<OwnedFd> {
        let cannot = || format!("cannot lock {}", self.top.display());
        match DirBuilder::new().mode(0o700).create(&self.top) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(cannot);
            }
            Ok(()) | Err(_) => {}
        }
        let directory = File::open(&self.top).with_context(cannot)?;
        flock(&directory, FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!(
                "another router-agent uses {}; stop it first, or give this one a BPF file system \
                 of its own (--bpffs)",
                self.top.display()
            )
        })?;
        Ok(directory.into())
    }

    /// Removes the pins of every version, but not those of the fences; with its pin a link ends, and
    /// the program is detached. What is locked stays.
    pub fn clear(&self) -> Result<()> {
        let cannot = || format!("cannot remove the pins in {}", self.top.display());
        for entry in fs::read_dir(&self.top).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if path != self.fences() {
                fs::remove_dir_all(path).with_context(cannot)?;
            }
        }
        Ok(())
    }

    /// As [`Pins::clear`], and leaves nothing but the fences, if there are any.
    pub fn remove(&self) -> Result<()> {
        self.clear()?;
        match fs::remove_dir(self.fences()) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("cannot remove {}", self.fences().display()));
            }
            Ok(()) | Err(_) => {}
        }
        fs::remove_dir(&self.top).with_context(|| format!("cannot remove {}", self.top.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_versioned() {
        let pins = Pins::below(Path::new("/b"));
        let version = format!("/b/router/v{LAYOUT_VERSION}");
        assert_eq!(
            pins.map("TUNNELS"),
            Path::new(&version).join("maps/TUNNELS")
        );
        assert_eq!(
            pins.link("underlay", 7),
            Path::new(&version).join("links/underlay-7")
        );
    }
}
