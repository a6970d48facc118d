//! The record on disk: JSON lines in two files, of which the older one goes when the newer one is
//! full. Whoever writes to it never waits for the disk; a thread of its own does.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
};

use tracing::{info, warn};

use super::Entry;

/// Where it is kept unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/router/history";

const NEWER: &str = "newer.jsonl";
const OLDER: &str = "older.jsonl";
/// Bytes of one file; both together are at most twice that.
const LARGEST_FILE: u64 = 512 * 1024;

/// What was recorded before, the oldest first. A line that does not read, such as one that was being
/// written when the power went, is left out.
pub fn read(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in [OLDER, NEWER] {
        match File::open(directory.join(name)) {
            // A longer file is not of ours.
            Ok(file) => entries.extend(lines(file.take(2 * LARGEST_FILE))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

fn lines(file: impl io::Read) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(entry) = serde_json::from_slice(&line?) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Writes what it is told.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    file: File,
    length: u64,
}

impl Recorder {
    /// Makes the directory if it is missing.
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(directory)?;
        let (file, length) = open_newer(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            file,
            length,
        })
    }

    /// Writes until nobody tells any more. A disk that fails costs the record, and nothing else.
    pub fn run(mut self, entries: &Receiver<Entry>) {
        let mut fails = false;
        while let Ok(entry) = entries.recv() {
            let written = self.write(&entry);
            let failed = std::mem::replace(&mut fails, written.is_err());
            match written {
                Err(error) if !failed => {
                    let directory = self.directory.display();
                    warn!(%error, "the history cannot be written to {directory}");
                }
                Ok(()) if failed => info!("the history is written again"),
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if self.length > 0 && self.length + length > LARGEST_FILE {
            self.turn()?;
        }
        let written = self.file.write_all(&line);
        // Also what was written in part takes place.
        self.length = self.file.stream_position()?;
        written?;
        self.file.sync_data()
    }

    /// Begins a new file. The old one takes the place of the one before it in one step, unless somebody
    /// has removed it.
    fn turn(&mut self) -> io::Result<()> {
        match fs::rename(self.directory.join(NEWER), self.directory.join(OLDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        (self.file, self.length) = open_newer(&self.directory)?;
        File::open(&self.directory)?.sync_all()
    }
}

/// The newer file, ready for a line, and its length.
fn open_newer(directory: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(directory.join(NEWER))?;
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok((file, 0));
    }
    // A line that was broken off must not take the next one with it.
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok((file, length));
    }
    file.write_all(b"\n")?;
    Ok((file, length + 1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::control::{protocol::Finding, testing::Scratch};

    fn entry(text: &str) -> Entry {
        Entry::Finding(Finding {
            text: text.to_owned(),
            ..Finding::default()
        })
    }

    fn write(directory: &Path, texts: &[&str]) {
        let mut recorder = Recorder::open(directory).unwrap();
        for text in texts {
            recorder.write(&entry(text)).unwrap();
        }
    }

    fn texts(directory: &Path) -> Vec<String> {
        let text = |entry| match entry {
            Entry::Finding(finding) => finding.text,
            other => panic!("{other:?}"),
        };
        read(directory).unwrap().into_iter().map(text).collect()
    }

    #[test]
    fn what_was_written_is_read_after_a_restart() {
        let scratch = Scratch::new();
        let directory = scratch.path().join("deep/history");
        assert!(read(&directory).unwrap().is_empty(), "nothing yet");
        write(&directory, &["one", "two"]);
        write(&directory, &["three"]);
        assert_eq!(texts(&directory), ["one", "two", "three"]);
        let mode = fs::metadata(directory.join(NEWER)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_line_that_was_broken_off_costs_only_itself() {
        let scratch = Scratch::new();
        let directory = scratch.path();
        write(directory, &["one", "two"]);
        let path = directory.join(NEWER);
        let whole = fs::read(&path).unwrap();
        let second = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for length in second..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            write(directory, &["three"]);
            let texts = texts(directory);
            // All of it but the newline is whole.
            if length + 1 == whole.len() {
                assert_eq!(texts, ["one", "two", "three"]);
            } else {
                assert_eq!(texts, ["one", "three"], "broken off at {length}");
            }
        }
    }

    #[test]
    fn the_size_is_bounded_and_the_newest_stay() {
        let scratch = Scratch::new();
        let directory = scratch.path();
        let long = "x".repeat(10_000);
        let mut recorder = Recorder::open(directory).unwrap();
        for number in 0..200 {
            recorder.write(&entry(&format!("{number} {long}"))).unwrap();
        }
        let size: u64 = [OLDER, NEWER]
            .map(|name| fs::metadata(directory.join(name)).unwrap().len())
            .iter()
            .sum();
        assert!(size <= 2 * LARGEST_FILE, "{size}");
        let texts = texts(directory);
        assert!(texts.len() > 50, "{}", texts.len());
        assert!(texts.last().unwrap().starts_with("199 "));
        let first: usize = texts[0].split(' ').next().unwrap().parse().unwrap();
        assert_eq!(first + texts.len(), 200, "in one piece");
    }

    #[test]
    fn a_file_that_somebody_removed_is_made_anew_when_it_is_full() {
        let scratch = Scratch::new();
        let directory = scratch.path();
        let long = "x".repeat(usize::try_from(LARGEST_FILE / 2).unwrap());
        let mut recorder = Recorder::open(directory).unwrap();
        recorder.write(&entry(&long)).unwrap();
        fs::remove_file(directory.join(NEWER)).unwrap();
        for text in [long.as_str(), "one", "two"] {
            recorder.write(&entry(text)).unwrap();
        }
        assert_eq!(texts(directory), [long.as_str(), "one", "two"]);
    }
}
