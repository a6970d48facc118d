//! Words and their places, and the quoting of a shell.

use std::fmt;

use super::source::{HIDDEN, Masks, Place, name_part, printable};

/// A word after quoting is undone.
pub(super) struct Token {
    pub text: String,
    pub place: Place,
    /// Bytes of `text` that may be shown; `None` if all of it.
    shown: Option<usize>,
    /// Bytes of `text` that are plainly a name, and where they end in the source.
    name: usize,
    name_end: usize,
}

/// Longest word that a message repeats, in characters.
const LONGEST_SHOWN: usize = 64;

impl Token {
    /// `raw` is the word as the source has it.
    pub fn new(word: Word, raw: &str, place: Place) -> Self {
        let name = name_part(raw);
        Self {
            name: name.len(),
            name_end: if name.len() == word.text.len() {
                place.end
            } else {
                place.start + name.end
            },
            text: word.text,
            place,
            shown: word.shown,
        }
    }

    /// The word for use in a message: in quotation marks, shortened, secrets hidden.
    pub fn shown(&self) -> String {
        self.shown_until(self.shown)
    }

    /// Whether a secret may be in it.
    pub fn is_masked(&self) -> bool {
        self.shown.is_some()
    }

    /// As [`Token::shown`], for a word that should be a name but is not a known one.
    pub fn shown_name(&self) -> String {
        let name = (self.name < self.text.len()).then_some(self.name);
        self.shown_until(match (self.shown, name) {
            (Some(shown), Some(name)) => Some(shown.min(name)),
            (shown, name) => shown.or(name),
        })
    }

    /// Where in the source the part ends that [`Token::shown_name`] shows.
    pub fn shown_name_end(&self) -> usize {
        self.name_end
    }

    fn shown_until(&self, end: Option<usize>) -> String {
        let (text, mark) = match end {
            None if self.text.is_empty() => return "an empty word".to_owned(),
            None => (self.text.as_str(), ""),
            Some(0) => return format!("`{HIDDEN}`"),
            Some(end) => (self.text.get(..end).unwrap_or_default(), HIDDEN),
        };
        let mut short: String = text.chars().take(LONGEST_SHOWN).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        format!("`{}{mark}`", printable(&short))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}:{}",
            self.shown(),
            self.place.line,
            self.place.column
        )
    }
}

/// A line that has no end where it should have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// The quotation mark that is not closed.
    Quote(char),
    /// A backslash with nothing behind it.
    Backslash,
}

/// What a line holds.
pub(super) struct Line<'a> {
    pub words: Vec<Token>,
    pub unfinished: Option<(Unfinished, Place)>,
    /// What stands behind `#`.
    pub comment: &'a str,
    /// Whether a secret may be in that.
    pub is_comment_masked: bool,
}

/// Splits one line, given without its end.
pub(super) fn split<'a>(
    line: &'a str,
    number: usize,
    line_start: usize,
    masks: &Masks,
) -> Line<'a> {
    let hidden_from = masks.from(line_start);
    let place = |column: usize, start: usize, end: usize| Place {
        line: number,
        column,
        start: line_start + start,
        end: line_start + end,
        line_start,
    };
    let mut words = Vec::new();
    let mut unfinished = None;
    let mut comment = "";
    let mut is_comment_masked = false;
    // The column is the index of a character plus one; the offset is that character's byte.
    let mut chars = line.char_indices().zip(1..).peekable();

    while let Some(&((start, first), column)) = chars.peek() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        if first == '#' {
            comment = line.get(start + 1..).unwrap_or_default();
            is_comment_masked = hidden_from.is_some_and(|at| at <= line_start + start);
            break;
        }
        let mut word = Word::new(hidden_from.map(|at| at - line_start));
        let mut quote: Option<(char, Place)> = None;
        let mut end = line.len();
        while let Some(&((at, c), here)) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                end = at;
                break;
            }
            chars.next();
            match (quote.as_ref().map(|(mark, _)| *mark), c) {
                (Some(mark), c) if c == mark => quote = None,
                (None, '\'' | '"') => quote = Some((c, place(here, at, at + 1))),
                (None, '\\') => match chars.next() {
                    Some(((next, c), _)) => word.push(next, c),
                    None => unfinished = Some((Unfinished::Backslash, place(here, at, at + 1))),
                },
                (Some('"'), '\\') => match chars.peek() {
                    // As in a shell, other characters keep their backslash.
                    Some(&((next, c @ ('"' | '\\' | '$' | '`')), _)) => {
                        chars.next();
                        word.push(next, c);
                    }
                    _ => word.push(at, '\\'),
                },
                (_, c) => word.push(at, c),
            }
        }
        if let Some((mark, opened)) = quote {
            unfinished = Some((Unfinished::Quote(mark), opened));
        }
        words.push(Token::new(
            word,
            &line[start..end],
            place(column, start, end),
        ));
    }
    Line {
        words,
        unfinished,
        comment,
        is_comment_masked,
    }
}

/// A word while it is read.
pub(super) struct Word {
    text: String,
    shown: Option<usize>,
    /// Byte from which on nothing is shown, counted as those given to [`Word::push`] are.
    hidden_from: Option<usize>,
}

impl Word {
    pub fn new(hidden_from: Option<usize>) -> Self {
        Self {
            text: String::new(),
            shown: None,
            hidden_from,
        }
    }

    /// Adds a character that the source has `at` this byte.
    pub fn push(&mut self, at: usize, c: char) {
        if self.shown.is_none() && self.hidden_from.is_some_and(|from| at >= from) {
            self.shown = Some(self.text.len());
        }
        self.text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Form;
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line, 1, 0, &Masks::default())
            .words
            .into_iter()
            .map(|token| token.text)
            .collect()
    }

    #[test]
    fn quotes_join_and_keep_blanks() {
        assert_eq!(words("set  a 'b c' \"d e\""), ["set", "a", "b c", "d e"]);
        assert_eq!(words("a'b'\"c\"d"), ["abcd"]);
        assert_eq!(words("''"), [""]);
    }

    #[test]
    fn backslash_follows_the_shell() {
        assert_eq!(words(r#""a\"b\\c\n""#), [r#"a"b\c\n"#]);
        assert_eq!(words(r"a\ b"), ["a b"]);
        assert_eq!(words(r"'a\b'"), [r"a\b"]);
    }

    #[test]
    fn hash_is_a_comment_only_where_a_word_may_begin() {
        assert_eq!(words("a b#c # d"), ["a", "b#c"]);
        assert_eq!(words("a '# d'"), ["a", "# d"]);
    }

    #[test]
    fn columns_count_characters() {
        let line = split("é 'ü' x", 7, 100, &Masks::default());
        let places: Vec<_> = line
            .words
            .iter()
            .map(|t| (t.place.line, t.place.column, t.place.start, t.place.end))
            .collect();
        assert_eq!(
            places,
            [(7, 1, 100, 102), (7, 3, 103, 107), (7, 7, 108, 109)]
        );
    }

    #[test]
    fn unfinished_lines_say_where() {
        let (what, place) = split("a 'b c", 1, 0, &Masks::default()).unfinished.unwrap();
        assert_eq!((what, place.column), (Unfinished::Quote('\''), 3));
        let (what, place) = split("a b\\", 1, 0, &Masks::default()).unfinished.unwrap();
        assert_eq!((what, place.column), (Unfinished::Backslash, 4));
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = "set cluster pre-shared-secret 'cloud pack'";
        let line = split(text, 1, 0, &Masks::of(text, Form::Set));
        assert_eq!(line.words[3].text, "cloud pack");
        assert_eq!(line.words[3].shown(), "`***`");
        assert_eq!(line.words[2].shown(), "`pre-shared-secret`");
    }
}
