//! What is installed, laid out as below the root of a system.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process::run;
use crate::workspace;

/// A program, and where it is installed.
pub struct Program {
    pub name: &'static str,
    folder: &'static str,
}

pub const PROGRAMS: [Program; 2] = [
    Program {
        name: "router-agent",
        folder: "usr/sbin",
    },
    Program {
        name: "routerctl",
        folder: "usr/bin",
    },
];

/// Files of the repository, and what they are installed as.
const FILES: [(&str, &str); 7] = [
    (
        "packaging/router-agent.service",
        "usr/lib/systemd/system/router-agent.service",
    ),
    (
        "packaging/sysusers.conf",
        "usr/lib/sysusers.d/router-agent.conf",
    ),
    (
        "packaging/tmpfiles.conf",
        "usr/lib/tmpfiles.d/router-agent.conf",
    ),
    ("packaging/default", "etc/default/router-agent"),
    (
        "packaging/example.conf",
        "usr/share/doc/router-agent/examples/router.conf",
    ),
    (
        "packaging/copyright",
        "usr/share/doc/router-agent/copyright",
    ),
    (
        "docs/control-schema.json",
        "usr/share/doc/router-agent/control-schema.json",
    ),
];

/// Shells for which `routerctl` writes a completion, and where each looks for it.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/routerctl"),
    ("zsh", "usr/share/zsh/vendor-completions/_routerctl"),
    ("fish", "usr/share/fish/vendor_completions.d/routerctl.fish"),
];

const MAN: &str = "usr/share/man/man1";

/// Lays all out in folder `tree`, which is not there yet; the programs come from folder `programs`.
pub fn lay_out(programs: &Path, tree: &Path) -> Result<()> {
    let man = tree.join(MAN);
    make(&man)?;
    // The configuration's place; nothing runs until there is one.
    make(&tree.join("etc/router"))?;
    for Program { name, folder } in PROGRAMS {
        let program = programs.join(name);
        copy(&program, &tree.join(folder).join(name), 0o755)?;
        run(Command::new(&program).arg("man").arg(&man))?;
    }
    // As Debian's policy has it; without a time, so that the same page is the same file.
    let mut pages = Vec::new();
    for page in fs::read_dir(&man)? {
        pages.push(page?.path());
    }
    ensure!(!pages.is_empty(), "the programs wrote no man page");
    run(Command::new("gzip").args(["-9", "--no-name"]).args(pages))?;
    for (file, place) in FILES {
        copy(&workspace::root().join(file), &tree.join(place), 0o644)?;
    }
    let routerctl = programs.join("routerctl");
    for (shell, place) in COMPLETIONS {
        // The script calls it as it was called here.
        let mut complete = Command::new(&routerctl);
        complete.arg0("routerctl").env("COMPLETE", shell);
        let script = complete
            .output()
            .with_context(|| format!("no completion for {shell}"))?;
        ensure!(
            script.status.success(),
            "no completion for {shell}: {}",
            script.status
        );
        write(&tree.join(place), &script.stdout, 0o644)?;
    }
    // Whoever packs may have an umask of their own.
    run(Command::new("chmod")
        .args(["--recursive", "go=u-w"])
        .arg(tree))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &content, mode)
}

/// Writes a file, and the folders that it is in.
pub fn write(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        make(folder)?;
    }
    fs::write(to, content)
        .and_then(|()| fs::set_permissions(to, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot write {}", to.display()))
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}
