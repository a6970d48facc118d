//! A note of the units and scripts that may have been started, so that an agent that dies leaves none
//! running behind unknown. Addresses and routes carry their mark in the kernel.

use std::{collections::BTreeSet, fs, io, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// Something that was started, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    pub group: String,
    pub started: Started,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Started {
    Unit(String),
    Script {
        name: String,
        arguments: Vec<String>,
    },
}

/// The note, in a file that does not outlive the system's run, as what it tells of does not.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: BTreeSet<Entry>,
}

impl Journal {
    /// Reads what an agent before this one left.
    pub fn open(path: PathBuf) -> Result<Self> {
        let entries = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{} is damaged: see that nothing runs that only the active node should run, and \
                     delete it",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Ok(Self { path, entries })
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub fn contains(&self, entry: &Entry) -> bool {
        self.entries.contains(entry)
    }

    /// Before it is started. What could not be written is not noted, so that the next try writes it.
    pub fn note(&mut self, entry: &Entry) -> Result<()> {
        if !self.entries.insert(entry.clone()) {
            return Ok(());
        }
        let written = self.write();
        if written.is_err() {
            self.entries.remove(entry);
        }
        written
    }

    /// After it has been stopped.
    pub fn strike(&mut self, entry: &Entry) -> Result<()> {
        if self.entries.remove(entry) {
            return self.write();
        }
        Ok(())
    }

    /// At every moment the file is the old one or the new one, whole.
    fn write(&self) -> Result<()> {
        let new = self.path.with_extension("new");
        let write = || -> io::Result<()> {
            let file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            serde_json::to_writer(file, &self.entries)?;
            fs::rename(&new, &self.path)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::Scratch;

    #[test]
    fn what_could_not_be_written_is_not_noted_until_it_is() {
        let scratch = Scratch::new();
        let directory = scratch.path().join("run");
        let path = directory.join("started.json");
        let entry = Entry {
            group: "g".into(),
            started: Started::Unit("x.service".into()),
        };
        let mut journal = Journal::open(path.clone()).unwrap();
        for _ in 0..2 {
            journal.note(&entry).unwrap_err();
        }
        fs::create_dir(&directory).unwrap();
        journal.note(&entry).unwrap();
        assert!(Journal::open(path).unwrap().contains(&entry));
    }

    #[test]
    fn the_next_life_reads_what_this_one_wrote() {
        let path = std::env::temp_dir().join(format!("router-journal-{}", std::process::id()));
        let entries = [
            Started::Script {
                name: "x".into(),
                arguments: vec!["a b".into()],
            },
            Started::Unit("y.service".into()),
        ]
        .map(|started| Entry {
            group: "g".into(),
            started,
        });
        let mut journal = Journal::open(path.clone()).unwrap();
        for entry in &entries {
            journal.note(entry).unwrap();
        }
        let mut journal = Journal::open(path.clone()).unwrap();
        assert!(entries.iter().all(|entry| journal.contains(entry)));
        journal.strike(&entries[0]).unwrap();
        let journal = Journal::open(path.clone()).unwrap();
        assert!(!journal.contains(&entries[0]) && journal.contains(&entries[1]));
        fs::write(&path, "{").unwrap();
        assert!(
            Journal::open(path.clone())
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
        fs::remove_file(path).unwrap();
    }
}
