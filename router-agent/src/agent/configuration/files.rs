//! Files that hold a configuration, with the secrets in it.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Has the file say `text`, whole or not at all. Its owner, group and mode stay.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    if holds(path, text) {
        return Ok(());
    }
    let new = Beside::write(path, text)?;
    fs::rename(&new.0, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether [`replace`] would do it; changes nothing.
pub fn could_replace(path: &Path, text: &str) -> Result<()> {
    if holds(path, text) {
        return Ok(());
    }
    Beside::write(path, text).map(drop)
}

/// Has the file say `text`, for nobody else to read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Whether there is nothing to write, also where nothing can be written.
fn holds(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|present| present == text)
}

/// A file in the directory of one whose place it is to take. What did not take it is removed: secrets may be
/// in it.
struct Beside(PathBuf);

impl Beside {
    fn write(path: &Path, text: &str) -> Result<Self> {
        let number = getrandom::u64().context("cannot draw a random number")?;
        // A name of its own: others beside the file are not ours.
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number:016x}"));
        let new = PathBuf::from(name);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .with_context(|| format!("cannot make {}", new.display()))?;
        let new = Self(new);
        take_after(&file, path)
            .and_then(|()| (&file).write_all(text.as_bytes()))
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write {}", new.0.display()))?;
        Ok(new)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It has gone if it took the other's place.
        let _ = fs::remove_file(&self.0);
    }
}

/// Gives `file` the owner, the group and the mode of the one at `path`, as far as the agent may, and nobody
/// the right to read it who has none. Without one there it stays the agent's alone.
fn take_after(file: &File, path: &Path) -> io::Result<()> {
    let model = match fs::metadata(path) {
        Ok(model) => model,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let own = file.metadata()?;
    let mut mode = model.mode() & 0o777;
    if own.gid() != model.gid() && fchown(file, None, Some(model.gid())).is_err() {
        // Of another group.
        mode &= !0o070;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    if own.uid() != model.uid() {
        // Last, for who does not own it may not do the others; the agent's own it stays otherwise.
        let _ = fchown(file, Some(model.uid()), None);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use rustix::process::geteuid;

    use super::*;
    use crate::control::testing::Scratch;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_replaced_file_keeps_its_owner_and_its_neighbours() {
        let scratch = Scratch::new();
        let path = scratch.path().join("router.conf");
        let neighbour = scratch.path().join("router.conf.new");
        fs::write(&path, "old").unwrap();
        fs::write(&neighbour, "the operator's").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        if geteuid().is_root() {
            chown(&path, Some(1234), Some(4321)).unwrap();
        }
        let before = fs::metadata(&path).unwrap();

        could_replace(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        replace(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        let after = fs::metadata(&path).unwrap();
        let of = |file: &fs::Metadata| (file.uid(), file.gid(), file.mode());
        assert_eq!(of(&after), of(&before));
        assert_eq!(fs::read_to_string(&neighbour).unwrap(), "the operator's");
        assert_eq!(names(scratch.path()), ["router.conf", "router.conf.new"]);
    }

    #[test]
    fn what_there_was_none_of_is_the_agents_alone() {
        let scratch = Scratch::new();
        let path = scratch.path().join("router.conf");
        replace(&path, "new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(scratch.path()), ["router.conf"]);
    }

    #[test]
    fn what_cannot_be_replaced_leaves_nothing_behind() {
        let scratch = Scratch::new();
        let path = scratch.path().join("router.conf");
        // In whose place no file can come.
        fs::create_dir(&path).unwrap();
        replace(&path, "new").unwrap_err();
        assert_eq!(names(scratch.path()), ["router.conf"]);
    }
}
