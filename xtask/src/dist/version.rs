//! Which version a package is of.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::output;
use crate::workspace;

/// Cargo's version, and where between two versions this is: the number of commits, by which dpkg
/// knows what is newer, and the newest of them.
pub fn of_workspace() -> Result<String> {
    let git = |words: &[&str]| {
        let text = output(
            Command::new("git")
                .args(words)
                .current_dir(workspace::root()),
        );
        text.map(|text| text.trim().to_owned())
    };
    let released = env!("CARGO_PKG_VERSION");
    let tag = git(&["describe", "--exact-match", "--tags", "--dirty"]);
    if tag.is_some_and(|tag| tag.trim_start_matches('v') == released) {
        return Ok(released.to_owned());
    }
    let missing = "a package is made from a git repository, which tells its version";
    let commits = git(&["rev-list", "--count", "HEAD"]).context(missing)?;
    let commit = git(&["describe", "--always", "--exclude=*", "--dirty"]).context(missing)?;
    Ok(between(released, &commits, &commit))
}

/// `-` would begin a Debian revision.
fn between(released: &str, commits: &str, commit: &str) -> String {
    format!("{released}+{commits}.g{}", commit.replace('-', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_released_is_later_than_what_is() {
        assert_eq!(between("0.1.0", "812", "2fb0b9c"), "0.1.0+812.g2fb0b9c");
        assert_eq!(
            between("0.1.0", "812", "2fb0b9c-dirty"),
            "0.1.0+812.g2fb0b9c.dirty"
        );
    }
}
