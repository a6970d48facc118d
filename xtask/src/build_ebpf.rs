//! `cargo xtask build-ebpf`: compiles the kernel programs into target/bpf/router.o, which
//! router-agent's build script embeds.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};

use crate::process::{heading, note, run};
use crate::toolchain::Toolchain;
use crate::workspace;

/// BPF of the host's byte order: programs and maps are native-endian.
const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// Which programs are built.
#[derive(Clone, Copy)]
pub enum Programs {
    /// Those of the router, into router.o.
    Router,
    /// With those that the benchmark measures, into router-bench.o.
    Bench,
}

impl Programs {
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Router => &[],
            Self::Bench => &["--features", "bench"],
        }
    }

    fn object(self) -> Result<PathBuf> {
        match self {
            Self::Router => workspace::ebpf_object(),
            Self::Bench => workspace::bench_object(),
        }
    }
}

/// Builds with what `cargo xtask setup` provided.
pub fn build_ebpf() -> Result<()> {
    let toolchain = Toolchain::find()
        .map_err(|shortfall| anyhow!("{shortfall}. Run `cargo xtask setup`, which mends this"))?;
    build_with(&toolchain, Programs::Router)
}

pub fn build_with(toolchain: &Toolchain, programs: Programs) -> Result<()> {
    heading(format_args!(
        "build-ebpf: router-ebpf for {TARGET} ({toolchain})"
    ));
    let start = Instant::now();
    let object = programs.object()?;
    let target_dir = workspace::target_dir()?.join("bpf");
    run(cargo_build(toolchain, &target_dir).args(programs.features()))?;

    let built = target_dir.join(TARGET).join("release/router");
    let news = if copy_if_changed(&built, &object)? {
        "written"
    } else {
        "unchanged"
    };
    note(format_args!(
        "{} {news} after {:.1} s",
        object.display(),
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn cargo_build(toolchain: &Toolchain, target_dir: &Path) -> Command {
    let mut cargo = Command::new(&toolchain.compiler.cargo);
    cargo
        .current_dir(workspace::root())
        .args(["build", "--quiet", "--release", "--package", "router-ebpf"])
        .args(["--target", TARGET, "-Zbuild-std=core", "--target-dir"])
        .arg(target_dir)
        .env("RUSTC", &toolchain.compiler.rustc)
        // A distribution's rustc is a stable one; `core` and the target want unstable features.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain).join("\x1f"));
    // What is set for the host's crates, or by the cargo that runs this program, is not for BPF.
    for variable in [
        "CARGO_BUILD_TARGET",
        "LD_LIBRARY_PATH",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        cargo.env_remove(variable);
    }
    cargo
}

fn rustflags(toolchain: &Toolchain) -> Vec<String> {
    vec![
        format!("--cfg=bpf_target_arch=\"{ARCH}\""),
        format!("-Clinker={}", toolchain.linker.path.display()),
        // BTF, which maps, timers and spin locks need, is made from debugging information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // 32-bit arithmetic and jumps, in all kernels since 5.1. rustc tells the linker; telling
        // the linker alone is refused, as rustc names its default as well.
        "-Ctarget-cpu=v3".into(),
    ]
}

/// Leaves an equal file alone, so that cargo does not rebuild the agent; says whether it wrote.
fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}
