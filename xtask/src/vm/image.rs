//! What a guest is made of, under target/vm: nothing of it is installed on this machine except
//! the emulator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Kernel;
use crate::packages;
use crate::process::{output, run_timed};
use crate::setup;
use crate::workspace::target_dir;

/// The version is part of the folder's name, so that another one is another folder.
const VIRTME: &str = "virtme-ng==1.42";

/// Programs that virtme-ng runs, and the Debian packages they come in.
const TOOLS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("file", "file"),
    ("unshare", "util-linux"),
    ("python3", "python3-venv"),
];

/// Paths of the parts.
pub struct Image {
    /// The folder with virtme-ng's programs.
    pub programs: PathBuf,
    /// A kernel with its modules beside it, where virtme-ng looks for them.
    pub kernel: PathBuf,
    /// Statically linked: it runs before there is a file system.
    pub busybox: PathBuf,
    /// The folder of all images, for what a run leaves behind.
    pub directory: PathBuf,
}

/// Finds or fetches the parts. Quick when they are there.
pub fn provide(kernel: Kernel) -> Result<Image> {
    if !cfg!(target_arch = "x86_64") {
        bail!(
            "guests are made for x86_64 only: on another processor, run the tests on a machine with the kernel in question"
        );
    }
    setup::programs("tools for virtual machines", &TOOLS)?;
    let directory = target_dir()?.join("vm");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let virtme = directory.join(VIRTME);
    let programs = virtme.join("bin");
    if !programs.join("vng").is_file() {
        packages::python_environment("virtme-ng, which boots guests", &virtme, VIRTME)?;
    }
    let debian = Debian {
        directory: directory.join("apt"),
    };
    let busybox = debian.unpacked(&directory.join("busybox"), || {
        Ok("busybox-static".to_owned())
    })?;
    let version = kernel.version();
    let unpacked = debian.unpacked(&directory.join(version), || debian.kernel_package(version))?;
    Ok(Image {
        programs,
        kernel: only_kernel(&unpacked.join("boot"))?,
        busybox: busybox.join("bin/busybox"),
        directory,
    })
}

/// Debian 12's archive, whatever this system's own package sources are, and without touching them.
struct Debian {
    /// Lists and configuration.
    directory: PathBuf,
}

const SOURCES: &str = "Types: deb
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-backports
Components: main
Architectures: amd64
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

impl Debian {
    /// The files of a package in folder `into`. Which package is asked only if they are not there.
    fn unpacked(&self, into: &Path, package: impl FnOnce() -> Result<String>) -> Result<PathBuf> {
        if into.is_dir() {
            return Ok(into.to_owned());
        }
        self.refresh()?;
        let package = package()?;
        let partial = into.with_added_extension("partial");
        // Of a run that was interrupted.
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        let mut download = self.apt("apt-get");
        download
            .args(["-qq", "download", &package])
            .current_dir(&partial);
        run_timed(format_args!("setup: {package}"), &mut download)?;
        let archive = only_file(&partial, |name| name.starts_with(&package))?;
        let mut unpack = Command::new("dpkg");
        unpack.arg("-x").args([&archive, &partial]);
        run_timed("setup: unpack it", &mut unpack)?;
        fs::remove_file(&archive)?;
        fs::rename(&partial, into)
            .with_context(|| format!("cannot rename {} to its final name", partial.display()))?;
        Ok(into.to_owned())
    }

    /// The package with the newest kernel of `version`.
    fn kernel_package(&self, version: &str) -> Result<String> {
        let start = format!("linux-image-{version}.");
        // The package that depends on the newest kernel, in all suites.
        let text = output(self.apt("apt-cache").args(["show", "linux-image-amd64"]));
        text.unwrap_or_default()
            .split_whitespace()
            .find(|word| word.starts_with(&start))
            .map(str::to_owned)
            .with_context(|| format!("no linux-image-amd64 of Debian 12 depends on {start}…"))
    }

    /// Fetches the package lists, into our own folder.
    fn refresh(&self) -> Result<()> {
        let directory = self.directory.display();
        fs::create_dir_all(self.directory.join("lists/partial"))?;
        fs::create_dir_all(self.directory.join("cache/archives/partial"))?;
        fs::write(self.directory.join("debian.sources"), SOURCES)?;
        // Comes before the system's configuration, of which proxies and the like remain.
        let conf = format!(
            "Dir::Etc::sourcelist \"{directory}/debian.sources\";
Dir::Etc::sourceparts \"-\";
Dir::State::lists \"{directory}/lists\";
Dir::Cache \"{directory}/cache\";
APT::Sandbox::User \"root\";
"
        );
        fs::write(self.configuration(), conf)?;
        let mut update = self.apt("apt-get");
        update.args(["-qq", "update"]);
        run_timed("setup: package lists of Debian 12, kept apart", &mut update).context(
            "a guest's kernel comes from Debian; on another system, install apt and \
             debian-archive-keyring",
        )
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.env("APT_CONFIG", self.configuration());
        apt
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }
}

fn only_kernel(boot: &Path) -> Result<PathBuf> {
    only_file(boot, |name| name.starts_with("vmlinuz-"))
}

/// The file of a folder whose name is as wanted.
fn only_file(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| wanted(&name.to_string_lossy()))
        })
        .with_context(|| {
            format!(
                "{} lacks what it should hold; remove its parent folder, and run this again",
                folder.display()
            )
        })
}
