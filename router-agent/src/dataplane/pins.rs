//! Where links and maps are pinned: below the BPF file system, in a directory of the layout's
//! version, so that an agent never takes maps of another layout for its own.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use router_common::map::{LAYOUT_VERSION, name};
use rustix::fs::{FlockOperation, flock};

use super::{attach, former, programs::BUILD};

/// The default mount point of the BPF file system.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// Environment variable that names another mount point.
pub const BPFFS_VARIABLE: &str = "ROUTER_BPFFS";

/// The directory of a version's links.
const LINKS: &str = "links";

/// What the name of a directory of programs begins with; their build follows.
const PROGRAMS: &str = "programs-";

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

    /// Where the programs of this build are pinned.
    fn programs(&self) -> PathBuf {
        self.directory.join(format!("{PROGRAMS}{}", *BUILD))
    }

    /// Where `program` of this build is pinned.
    pub(super) fn program(&self, program: &str) -> PathBuf {
        self.programs().join(program)
    }

    /// Where map `name` of the log of this build's programs is pinned.
    pub(super) fn log_map(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    /// Whether this build's programs have left all maps of their log.
    pub(super) fn has_log(&self) -> bool {
        name::OF_LOG.iter().all(|name| self.log_map(name).exists())
    }

    /// The directories of programs, of whatever build.
    fn builds(&self) -> impl Iterator<Item = PathBuf> {
        former::files(&self.directory).into_iter().filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with(PROGRAMS))
        })
    }

    /// Where any map is pinned, for who may be of another build than the programs: of these, an agent
    /// leaves one build's.
    pub fn find_map(&self, name: &str) -> PathBuf {
        let of_log = self.builds().map(|build| build.join(name));
        of_log
            .filter(|_| name::OF_LOG.contains(&name))
            .find(|path| path.exists())
            .unwrap_or_else(|| self.map(name))
    }

    /// Where the links are pinned.
    pub fn links(&self) -> PathBuf {
        self.directory.join(LINKS)
    }

    /// Where the TC link of `program` on the interface of index `ifindex` is pinned. Names of
    /// interfaces change, and have dots, which those of pins cannot have.
    pub fn tc_link(&self, program: &str, ifindex: u32) -> PathBuf {
        self.links().join(format!("{program}-{ifindex}"))
    }

    /// As [`Pins::tc_link`], of an XDP link; the kernel does not tell the mode of one.
    pub fn xdp_link(&self, program: &str, native: bool, ifindex: u32) -> PathBuf {
        let mode = if native { "native" } else { "generic" };
        self.links().join(format!("{program}-{mode}-{ifindex}"))
    }

    /// A directory that says in which network namespace the links are: their interface indices mean
    /// nothing elsewhere.
    pub fn namespace(&self) -> Result<PathBuf> {
        Ok(self.directory.join(format!("netns-{}", namespace()?)))
    }

    /// Where the links of the fences are pinned, of every layout and network namespace: they outlive
    /// agents.
    pub(super) fn fences(&self) -> PathBuf {
        self.top.join(FENCES)
    }

    /// Where the link of the fence's `program` on the interface of index `ifindex` of this network
    /// namespace is pinned.
    pub(super) fn fence(&self, program: &str, ifindex: u32) -> Result<PathBuf> {
        let name = format!("{program}-{}-{ifindex}", namespace()?);
        Ok(self.fences().join(name))
    }

    /// Where agents pinned that link, of whatever network namespace, which did not name it yet.
    pub(super) fn former_fence(&self, program: &str, ifindex: u32) -> PathBuf {
        self.fences().join(format!("{program}-{ifindex}"))
    }

    pub(super) fn create(&self) -> Result<()> {
        for path in [
            self.maps(),
            self.programs(),
            self.links(),
            self.namespace()?,
            self.fences(),
        ] {
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

    /// The directory of this version.
    pub fn own(&self) -> &Path {
        &self.directory
    }

    /// The directories of all versions that there are. What else somebody has put beside them is not
    /// ours.
    pub fn versions(&self) -> Result<Vec<PathBuf>> {
        let cannot = || format!("cannot list the pins in {}", self.top.display());
        let mut versions = Vec::new();
        for entry in fs::read_dir(&self.top).with_context(cannot)? {
            let entry = entry.with_context(cannot)?;
            if is_version(&entry.file_name()) && entry.file_type().with_context(cannot)?.is_dir() {
                versions.push(entry.path());
            }
        }
        Ok(versions)
    }

    /// Removes the pins of every version, but not those of the fences; with its pin a link ends, and the
    /// program is detached. What is locked stays.
    pub fn clear(&self) -> Result<()> {
        self.versions()?.iter().try_for_each(|path| remove(path))
    }

    /// As [`Pins::clear`], but for those of this version, of which programs of other builds are removed with
    /// the maps of their log.
    /// Those that are attached go on until others take their places.
    pub fn clear_others(&self) -> Result<()> {
        let others = self.versions()?.into_iter();
        others
            .filter(|path| *path != self.directory)
            .try_for_each(|path| remove(&path))?;
        let own = self.programs();
        let mut other_builds = self.builds().filter(|path| *path != own);
        other_builds.try_for_each(|path| {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))
        })
    }

    /// As [`Pins::clear`], and leaves nothing of ours but the fences, if there are any.
    pub fn remove(&self) -> Result<()> {
        self.clear()?;
        for directory in [self.fences(), self.top.clone()] {
            remove_empty(&directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        Ok(())
    }
}

/// The inode of this thread's network namespace, which no other one has at the same time.
fn namespace() -> Result<u64> {
    const NAMESPACE: &str = "/proc/thread-self/ns/net";
    let metadata =
        fs::metadata(NAMESPACE).with_context(|| format!("cannot look at {NAMESPACE}"))?;
    Ok(metadata.ino())
}

/// As [`Pins::below`] calls them.
fn is_version(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

fn remove_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(error)
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Links first, one by one: a place at an interface is free when its link has ended, and with the pin
/// alone the kernel ends it some time later.
fn remove(directory: &Path) -> Result<()> {
    for link in former::files(&directory.join(LINKS)) {
        if let Err(error) = attach::end_link(&link) {
            tracing::warn!("{error:#}; its pin is removed");
        }
    }
    fs::remove_dir_all(directory)
        .with_context(|| format!("cannot remove the pins in {}", directory.display()))
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
            pins.xdp_link("underlay", true, 7),
            Path::new(&version).join("links/underlay-native-7")
        );
        assert_eq!(
            pins.tc_link("underlay_handover", 7),
            Path::new(&version).join("links/underlay_handover-7")
        );
    }
}
