//! Secrets that a configuration does not hold itself: a file, or a systemd credential.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::secret::Secret;

/// Bytes.
const LONGEST: u64 = 4096;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SecretPlace {
    File(PathBuf),
    /// `LoadCredential=` or `SetCredential=` of the systemd unit, by its name.
    Credential(String),
}

/// Why there is no secret, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub reason: String,
    pub remedy: String,
}

pub(super) fn read(place: &SecretPlace) -> Result<Secret, Unreadable> {
    match place {
        SecretPlace::File(path) => read_file(path, Access::OfOwner),
        SecretPlace::Credential(name) => {
            let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
                return Err(Unreadable {
                    reason: "there are no credentials: systemd has given none".to_owned(),
                    remedy: format!(
                        "add `LoadCredential={name}:FILE` to the unit of the agent, and start it by systemd"
                    ),
                });
            };
            // systemd sees to it that nobody else reads it.
            read_file(&Path::new(&directory).join(name), Access::AsItIs)
        }
    }
}

/// What a file's mode may let others do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    OfOwner,
    AsItIs,
}

fn read_file(path: &Path, access: Access) -> Result<Secret, Unreadable> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| Unreadable {
        reason: format!("{shown} cannot be read: {error}"),
        remedy: "state a file that the agent's user may read".to_owned(),
    };
    // A pipe would be waited for.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Unreadable {
            reason: format!("{shown} is not a file"),
            remedy: "state a file with the secret on its one line".to_owned(),
        });
    }
    let mode = metadata.mode() & 0o777;
    if access == Access::OfOwner && mode & 0o077 != 0 {
        return Err(Unreadable {
            reason: format!("{shown} has mode {mode:04o}, and others may read or change it"),
            remedy: format!(
                "run `chmod 600 {shown}`; choose another secret if others may have read it"
            ),
        });
    }
    let owner = metadata.uid();
    if access == Access::OfOwner && owner != 0 && owner != geteuid().as_raw() {
        return Err(Unreadable {
            reason: format!("{shown} belongs to user number {owner}, who may change it"),
            remedy: format!("run `chown root {shown}`"),
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    if line.is_empty() || line.contains('\n') || text.len() as u64 > LONGEST {
        return Err(Unreadable {
            reason: format!("{shown} does not hold one line of at most {LONGEST} bytes"),
            remedy: "write the secret on one line, and nothing else".to_owned(),
        });
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str, mode: u32) -> Self {
            let path = std::env::temp_dir().join(format!("secret-{}-{name}", std::process::id()));
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Self(path)
        }

        fn read(&self) -> Result<Secret, Unreadable> {
            read(&SecretPlace::File(self.0.clone()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn one_line_that_nobody_else_reads_is_a_secret() {
        let secret = Scratch::new("good", " two words \n", 0o600).read().unwrap();
        assert_eq!(secret.expose(), " two words ");
        assert!(Scratch::new("unended", "x", 0o400).read().is_ok());
    }

    #[test]
    fn what_others_read_or_what_is_no_line_is_refused() {
        for (name, text, mode, words) in [
            ("mode", "s3cr3t\n", 0o640, "mode 0640"),
            ("empty", "", 0o600, "one line"),
            ("lines", "s3cr3t\nmore\n", 0o600, "one line"),
            ("long", &"s3cr3t".repeat(1_000), 0o600, "one line"),
        ] {
            let refused = Scratch::new(name, text, mode).read().unwrap_err();
            assert!(refused.reason.contains(words), "{refused:?}");
            assert!(!format!("{refused:?}").contains("s3cr3t"), "{refused:?}");
        }
        let directory = read(&SecretPlace::File("/tmp".into())).unwrap_err();
        assert!(directory.reason.contains("not a file"), "{directory:?}");
        let missing = read(&SecretPlace::File("/nonexistent/secret".into())).unwrap_err();
        assert!(missing.reason.contains("cannot be read"), "{missing:?}");
    }
}
