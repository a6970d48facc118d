//! What tests tell although they pass: libtest shows what `println!` prints only of those that fail.

use std::{
    fmt::Display,
    io::{Write as _, stdout},
};

pub fn tell(line: impl Display) {
    // Nobody listens: nothing is lost that decides anything.
    let _ = writeln!(stdout().lock(), "{line}");
}
