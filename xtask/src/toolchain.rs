//! The compiler and the linker for BPF programs.
//!
//! Two ways lead there: a nightly of rustup with the component `rust-src`, or a distribution's
//! rustc with its package of sources. `core` is compiled from source for the BPF target either
//! way. Compiler, LLVM and bpf-linker are coupled: bpf-linker reads the compiler's LLVM bitcode,
//! so both must be of one LLVM release. The pins are here and nowhere else.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{find_program, output};
use crate::workspace;

/// bpf-linker's release.
const LINKER_VERSION: &str = "0.13.0";
/// LLVM's major release, of compiler and linker alike. Older ones cannot be told that unaligned
/// access is fine.
const LLVM: u32 = 22;
/// Where Debian's packages put that LLVM.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Debian's compiler and its sources.
pub const DEBIAN_COMPILER: [&str; 2] = ["rustc-web", "rust-web-src"];
/// Debian's LLVM, to build bpf-linker with.
pub const DEBIAN_LLVM: &str = "llvm-22-dev";
/// The nightly that is installed when rustup has none that fits.
const NIGHTLY: &str = "nightly-2026-05-20";

/// Compiler and linker that fit together.
#[derive(Debug)]
pub struct Toolchain {
    pub compiler: Compiler,
    pub linker: Linker,
}

/// A rustc that can compile `core` from source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiler {
    /// "Debian rustc" or the like.
    name: &'static str,
    release: String,
    pub rustc: PathBuf,
    /// A cargo of the same age where there is one: it must understand the sources' manifests.
    pub cargo: PathBuf,
}

/// A bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    pub path: PathBuf,
    version: String,
    /// Unknown when LLVM is linked statically.
    llvm: Option<u32>,
}

/// Why there is no [`Toolchain`].
#[derive(Debug)]
pub enum Shortfall {
    NoCompiler,
    NoLinker,
    Misfit(Linker),
}

impl Toolchain {
    /// The distribution's compiler before rustup's, and the linker.
    pub fn find() -> Result<Self, Shortfall> {
        let compiler = compilers().next().ok_or(Shortfall::NoCompiler)?;
        match Linker::find() {
            Some(linker) if linker.fits() => Ok(Self { compiler, linker }),
            Some(linker) => Err(Shortfall::Misfit(linker)),
            None => Err(Shortfall::NoLinker),
        }
    }
}

/// All usable compilers, in order of preference; each is looked for only when asked for.
fn compilers() -> impl Iterator<Item = Compiler> {
    let system = || Compiler::find("system rustc", Path::new("/usr/bin/rustc"));
    let rustup = |name| {
        let rustc = rustup_which(name)?;
        Compiler::find("rustup nightly rustc", &rustc)
    };
    std::iter::once_with(system)
        .chain([NIGHTLY, "nightly"].into_iter().map(rustup))
        .flatten()
}

/// Where rustup keeps a toolchain's rustc; never installs the toolchain.
fn rustup_which(toolchain: &str) -> Option<PathBuf> {
    let mut rustup = Command::new("rustup");
    rustup
        .args(["which", "--toolchain", toolchain, "rustc"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    output(&mut rustup).map(|path| PathBuf::from(path.trim()))
}

impl Compiler {
    /// `None` unless the rustc is there, is of the pinned LLVM, and has the sources of `core`.
    fn find(name: &'static str, rustc: &Path) -> Option<Self> {
        let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))?;
        let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
        if !core.is_file() {
            return None;
        }
        let (release, llvm) = parse_rustc_version(&output(Command::new(rustc).arg("-vV"))?)?;
        let beside = rustc.with_file_name("cargo");
        let cargo = if beside.is_file() {
            beside
        } else {
            workspace::cargo_program().into()
        };
        (llvm == LLVM).then(|| Self {
            name,
            release,
            rustc: rustc.into(),
            cargo,
        })
    }
}

impl Linker {
    pub fn find() -> Option<Self> {
        let path = find_program("bpf-linker").or_else(|| {
            let installed = cargo_home()?.join("bin/bpf-linker");
            installed.is_file().then_some(installed)
        })?;
        let version = output(Command::new(&path).arg("--version"))?;
        let llvm = output(Command::new("ldd").arg(&path)).and_then(|text| parse_ldd(&text));
        Some(Self {
            version: version.trim().trim_start_matches("bpf-linker ").into(),
            path,
            llvm,
        })
    }

    /// Of the pinned release and, as far as can be told, of the pinned LLVM.
    fn fits(&self) -> bool {
        self.version == LINKER_VERSION && self.llvm.is_none_or(|llvm| llvm == LLVM)
    }
}

/// Where `cargo install` puts programs.
fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}

/// Whether the linker can be built: an LLVM of another release does not count.
pub fn has_llvm() -> bool {
    let release = || output(Command::new("llvm-config").arg("--version"));
    Path::new(LLVM_PREFIX).is_dir()
        || release().and_then(|release| leading_number(&release)) == Some(LLVM)
}

/// The command that fetches the pinned nightly with the sources of `core`.
pub fn install_nightly() -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", NIGHTLY]).args([
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]);
    rustup
}

/// The command that builds the linker and puts it into cargo's folder of programs.
pub fn install_linker() -> Command {
    let feature = format!("llvm-{LLVM}");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["install", "--force", "--locked"])
        .args(["bpf-linker", "--version", LINKER_VERSION])
        .args(["--no-default-features", "--features", &feature]);
    if Path::new(LLVM_PREFIX).is_dir() {
        cargo.env("LLVM_PREFIX", LLVM_PREFIX);
    }
    cargo
}

/// Release and LLVM major from `rustc -vV`.
fn parse_rustc_version(text: &str) -> Option<(String, u32)> {
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
    let release = field("release: ")?.trim().to_owned();
    let llvm = leading_number(field("LLVM version: ")?)?;
    Some((release, llvm))
}

/// LLVM's major from the list of libraries that a program is linked with. bpf-linker has no option
/// that tells it.
fn parse_ldd(text: &str) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-"].iter().find_map(|name| {
        let (_, rest) = text.split_once(name)?;
        leading_number(rest)
    })
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compiler, linker } = self;
        write!(f, "{compiler}, {linker}")
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} with LLVM {LLVM}", self.name, self.release)
    }
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bpf-linker {}", self.version)?;
        match self.llvm {
            Some(llvm) => write!(f, " with LLVM {llvm}"),
            None => write!(f, " with an LLVM that it does not name"),
        }
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCompiler => write!(f, "no rustc with LLVM {LLVM} and the sources of `core`"),
            Self::NoLinker => write!(f, "no bpf-linker {LINKER_VERSION}"),
            Self::Misfit(linker) => write!(
                f,
                "{linker} ({}) does not fit the compilers in use here, which want bpf-linker \
                 {LINKER_VERSION} with LLVM {LLVM}",
                linker.path.display(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\n\
                         host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn rustc_version_gives_release_and_llvm() {
        assert_eq!(parse_rustc_version(RUSTC), Some(("1.96.0".into(), 22)));
    }

    #[test]
    fn rustc_without_llvm_is_no_compiler_for_bpf() {
        assert_eq!(parse_rustc_version("release: 1.96.0\n"), None);
        assert_eq!(
            parse_rustc_version("release: 1.96.0\nLLVM version: unknown\n"),
            None
        );
    }

    #[test]
    fn llvm_is_read_from_the_librarys_name() {
        let ldd = "\tlibc.so.6 => /lib/libc.so.6\n\tlibLLVM.so.22.1 => /usr/lib/libLLVM.so.22.1\n";
        assert_eq!(parse_ldd(ldd), Some(22));
        assert_eq!(parse_ldd("\tlibLLVM-21.so.1 => not found\n"), Some(21));
        assert_eq!(parse_ldd("\tstatically linked\n"), None);
        assert_eq!(parse_ldd("libLLVM.so."), None);
    }

    #[test]
    fn linker_fits_the_same_llvm_and_the_pinned_release() {
        let linker = |version: &str, llvm| Linker {
            path: "bpf-linker".into(),
            version: version.into(),
            llvm,
        };
        assert!(linker(LINKER_VERSION, Some(22)).fits());
        assert!(linker(LINKER_VERSION, None).fits());
        assert!(!linker(LINKER_VERSION, Some(21)).fits());
        assert!(!linker("0.1.0", Some(22)).fits());
    }

    #[test]
    fn debian_packages_are_of_the_pinned_llvm() {
        assert_eq!(DEBIAN_LLVM, format!("llvm-{LLVM}-dev"));
        assert_eq!(LLVM_PREFIX, format!("/usr/lib/llvm-{LLVM}"));
    }
}
