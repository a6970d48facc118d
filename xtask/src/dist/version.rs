//! Which version a package is of.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::output;
use crate::workspace;

/// Cargo's version, and where beside its release this is: the number of commits, by which dpkg
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
    let tags = git(&["tag", "--merged", "HEAD"]).context(missing)?;
    let side = if tags
        .lines()
        .any(|tag| tag.trim_start_matches('v') == released)
    {
        Side::After
    } else {
        Side::Before
    };
    let commits = git(&["rev-list", "--count", "HEAD"]).context(missing)?;
    let commit = git(&["describe", "--always", "--exclude=*", "--dirty"]).context(missing)?;
    Ok(beside(released, side, &commits, &commit))
}

/// On which side of the release of its version something is.
#[derive(Clone, Copy)]
enum Side {
    Before,
    After,
}

/// dpkg sorts `~` before the end of a version, and `+` behind it. `-` would begin a Debian revision.
fn beside(released: &str, side: Side, commits: &str, commit: &str) -> String {
    let sign = match side {
        Side::Before => '~',
        Side::After => '+',
    };
    format!("{released}{sign}{commits}.g{}", commit.replace('-', "."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_released_has_its_place_between_two_releases() {
        let before = beside("0.2.0", Side::Before, "812", "2fb0b9c");
        assert_eq!(before, "0.2.0~812.g2fb0b9c");
        let after = beside("0.2.0", Side::After, "900", "2fb0b9c-dirty");
        assert_eq!(after, "0.2.0+900.g2fb0b9c.dirty");
        let order = [
            "0.1.0",
            "0.1.0+700.gff",
            &before,
            "0.2.0~813.g00",
            "0.2.0",
            &after,
            "0.2.1~901.gaa",
            "0.2.1",
        ];
        if crate::process::find_program("dpkg").is_none() {
            println!("SKIPPED: there is no dpkg to tell the order of versions");
            return;
        }
        for pair in order.windows(2) {
            let is_earlier = Command::new("dpkg")
                .args(["--compare-versions", pair[0], "lt", pair[1]])
                .status()
                .unwrap();
            assert!(is_earlier.success(), "{pair:?}");
        }
    }
}
