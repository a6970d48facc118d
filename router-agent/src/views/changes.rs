//! `configure apply`: what changes.

use super::paint::Tone;
use crate::config::{Change, Sign};

/// A line for each statement that goes or comes.
pub fn changes(changes: &[Change]) -> String {
    changes.iter().map(line).collect()
}

fn line(change: &Change) -> String {
    let tone = match change.sign {
        Sign::Removed => Tone::Bad,
        Sign::Added => Tone::Good,
    };
    format!("{}\n", tone.paint(change.to_string()))
}
