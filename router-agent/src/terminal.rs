//! The standard output as what is behind it wants it: colours and lines that fit for a terminal, plain
//! text for all else. A reader that has gone ends nothing.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use ratatui::crossterm::terminal::size;

use crate::views::page;

/// A view's text in lines that fit the terminal, if there is one.
pub fn fitted(text: String) -> String {
    if !io::stdout().is_terminal() {
        return text;
    }
    match size() {
        Ok((columns, _)) if columns > 0 => page::fold(&text, columns.into()),
        Ok(_) | Err(_) => text,
    }
}

/// Prints what may have colours in it, which are left out where nobody wants them; whether the reader
/// wants more.
pub fn print(text: &str) -> Result<bool> {
    let mut stdout = anstream::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // It has had enough, such as `head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        outcome => outcome
            .map(|()| true)
            .context("cannot write to the standard output"),
    }
}

/// Says on the standard error what nobody has to hear.
pub fn complain(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
