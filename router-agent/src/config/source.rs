//! Places in the source text, and what of that text may be shown.

use std::collections::BTreeMap;
use std::ops::Range;

use super::schema;

/// A stretch of one line. Byte offsets are into the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    pub start: usize,
    pub end: usize,
    /// Where the line begins.
    pub line_start: usize,
}

/// Words after which the rest of a line is never shown: our own secret node, and the names under
/// which other parts of a Vyatta configuration keep theirs.
const SENSITIVE: [&str; 8] = [
    "pre-shared-secret",
    "secret",
    // Its end may be missing where characters were lost, and the secret have run into it.
    "pre-sha",
    "password",
    "passphrase",
    "psk",
    "community",
    "private-key",
];

/// How a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A line for each value, with its whole path: `set cluster group aws`.
    Set,
    /// Nested, as `config.boot` is: `cluster { … }`.
    Brace,
}

/// Words that begin a line in set form.
pub(super) const COMMANDS: [&str; 3] = ["set", "delete", "comment"];

impl Form {
    /// By the first line that can be of one form only. What is of neither is set form, and wrong.
    pub(super) fn of(text: &str) -> Self {
        let form = text.lines().find_map(|line| {
            let line = line.trim_start_matches('\u{feff}').trim();
            let first = line.split_whitespace().next()?;
            if COMMANDS.contains(&first) {
                Some(Self::Set)
            } else if line.ends_with('{') || line.starts_with(['{', '}']) || line.starts_with("/*")
            {
                Some(Self::Brace)
            } else {
                None
            }
        });
        form.unwrap_or(Self::Set)
    }

    /// Whether a line, which comes after that of a secret, is not the rest of it.
    fn starts_statement(self, line: &str) -> bool {
        let Some(first) = line.split_whitespace().next() else {
            return false;
        };
        match self {
            Self::Set => COMMANDS.contains(&first),
            Self::Brace => first.starts_with('}') || schema::is_name(first),
        }
    }
}

/// What stands for hidden text.
pub const HIDDEN: &str = "***";

/// The parts of a text that must not be shown, by looking at the raw lines only: it has to hold
/// also for lines that no parser understands.
#[derive(Debug, Default)]
pub(super) struct Masks {
    /// Start of a line → start of its hidden part, which reaches to the end of the line.
    hidden: BTreeMap<usize, usize>,
}

impl Masks {
    pub fn of(text: &str, form: Form) -> Self {
        let mut hidden = BTreeMap::new();
        let mut start = 0;
        let mut before = Before::Other;
        for line in text.split_inclusive('\n') {
            if let Some(end) = sensitive_until(line) {
                let value = value_from(line, end);
                hidden.insert(start, start + value);
                before = if line[value..].trim().is_empty() {
                    Before::NameOfSecret
                } else {
                    Before::Secret
                };
            } else if before == Before::NameOfSecret
                || before == Before::Secret && !form.starts_statement(line)
            {
                // A secret that was broken over two lines goes on here.
                hidden.insert(start, start);
                if before == Before::NameOfSecret && !line.trim().is_empty() {
                    before = Before::Secret;
                }
            } else {
                before = Before::Other;
            }
            start += line.len();
        }
        Self { hidden }
    }

    /// Where the hidden part of the line that starts at `line_start` begins.
    pub fn from(&self, line_start: usize) -> Option<usize> {
        self.hidden.get(&line_start).copied()
    }
}

/// What the lines before a line were.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A secret, or what may be the rest of one.
    Secret,
    /// The name of a secret, without its value.
    NameOfSecret,
    Other,
}

/// The end of the first sensitive word in the line.
fn sensitive_until(line: &str) -> Option<usize> {
    // ASCII lower case keeps byte offsets.
    let line = line.to_ascii_lowercase();
    let mut start = 0;
    for piece in line.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        if !is_harmless(word)
            && let Some(end) = sensitive_part_end(word)
        {
            return Some(start + end);
        }
        start += piece.len();
    }
    None
}

/// Where the first sensitive part of a word ends.
fn sensitive_part_end(word: &str) -> Option<usize> {
    SENSITIVE
        .iter()
        .filter_map(|part| word.find(part).map(|at| (at, at + part.len())))
        // Of two that begin at the same place, the whole word.
        .min_by_key(|(start, end)| (*start, std::cmp::Reverse(*end)))
        .map(|(_, end)| end)
}

/// Whether a word says where a secret is, and not what.
fn is_harmless(word: &str) -> bool {
    is_path(word)
        || [
            "pre-shared-secret-file",
            "pre-shared-secret-credential",
            "previous-pre-shared-secret-file",
            "previous-pre-shared-secret-credential",
        ]
        .contains(&word)
}

/// Whether a word is a whole path and nothing else. In a comment `//password:` begins like one, and `/secret`
/// may be said of what comes next.
fn is_path(word: &str) -> bool {
    let is_part = |part: &str| {
        let is_of_name = |c: char| c.is_alphanumeric() || "._-+@~".contains(c);
        !part.is_empty() && part.chars().all(is_of_name)
    };
    word.strip_prefix('/')
        .is_some_and(|rest| rest.contains('/') && rest.split('/').all(is_part))
}

/// A text of the operator's without what may be a secret.
pub(super) fn without_secrets(text: &str) -> String {
    match sensitive_until(text).and_then(|end| text.get(..end)) {
        Some(head) => format!("{head} {HIDDEN}"),
        None => text.to_owned(),
    }
}

/// Leaves the blanks and the opening quote before the value visible.
fn value_from(line: &str, from: usize) -> usize {
    let rest = &line[from..];
    let trimmed = rest.trim_start();
    let lead = rest.len() - trimmed.len();
    // A line without a value has nothing to hide, and the trimmed rest has lost its newline.
    let quote = usize::from(trimmed.starts_with(['\'', '"']));
    from + lead + quote
}

/// The part of a word that can be shown as a name that is not known. The rest may be a secret that
/// has run together with a misspelt name, so all of a word that begins like one is left out. What is in
/// quotes is nobody's name, and may be a value that has got away from its own.
pub(super) fn name_part(raw: &str) -> Range<usize> {
    const SECRET: &str = "pre-shared-secret";
    const LIKE: usize = 6;

    if raw.starts_with(['\'', '"']) {
        return 1..1;
    }
    let length = raw
        .find(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'))
        .unwrap_or(raw.len());
    let head: String = raw[..length].chars().take(SECRET.len()).collect();
    if strsim::levenshtein(&head.to_lowercase(), SECRET) <= LIKE {
        return 0..0;
    }
    0..length
}

/// `text` without control characters and without those that reorder what is shown, so that a
/// configuration cannot rewrite the terminal it is reported on.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_words_that_begin_like_a_path_only_paths_are_shown() {
        for path in ["/etc/router/secret", "/run/psk.d/a-password_1"] {
            let text = format!("it is in {path} since May");
            assert_eq!(without_secrets(&text), text);
            let line = format!("set cluster pre-shared-secret-file {path}\n");
            assert_eq!(Masks::of(&line, Form::Set).from(0), None, "{line}");
        }
        for word in [
            "//password:",
            "/password:",
            "/secret",
            "/*psk",
            "/a//psk",
            "/etc/psk=",
        ] {
            let text = format!("{word} hunter9");
            let shown = without_secrets(&text);
            assert!(!shown.contains("hunter9"), "{shown}");
            let line = format!("set cluster dead-interval 200 # {text}\n");
            let hidden = Masks::of(&line, Form::Set).from(0).unwrap();
            assert!(!line[..hidden].contains("hunter9"), "{line}");
        }
        let joined = "/etc/password=hunter9";
        assert!(!without_secrets(joined).contains("hunter9"));
    }
}
