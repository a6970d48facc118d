//! Reads nested nodes, as `config.boot` has them: `node [value] { … }`.
//!
//! Braces and the ends of lines are what divides statements. A quotation mark that is not closed
//! costs its line, and a node that is not known costs what is in its braces, so that one run finds
//! all errors.

use super::diagnostic::{Problem, Report};
use super::lex::{Token, Unfinished, Word};
use super::schema;
use super::set_form::unfinished;
use super::source::{Masks, Place};
use super::tree::{Builder, Tree};

/// The tree of what the text states.
pub(super) fn read(text: &str, masks: &Masks, strict: bool, report: &mut Report) -> Tree {
    let mut reader = Reader {
        builder: Builder::new(strict),
        masks,
        path: Vec::new(),
        open: Vec::new(),
        deactivated: None,
        suspect: None,
        report,
    };
    let mut pieces = Pieces::new(text, masks);
    while let Some(piece) = pieces.next() {
        reader.take(piece);
    }
    reader.finish()
}

/// What a text in brace form is made of.
enum Piece<'a> {
    Word(Token),
    /// Where a comment begins, and what it holds.
    Comment(Place, &'a str),
    /// `{`
    Open(Place),
    /// `}`
    Close(Place),
    /// `!`, before a node that is to have no effect.
    Deactivate(Place),
    EndOfLine,
    /// A word without its closing quotation mark.
    OpenQuote(Token, Place, char),
    /// A comment up to the end of the text.
    OpenComment(Place),
}

struct Pieces<'a> {
    text: &'a str,
    masks: &'a Masks,
    at: usize,
    line: usize,
    /// 1-based, in characters.
    column: usize,
    line_start: usize,
    /// Nothing but blanks so far on this line.
    begins: bool,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a str, masks: &'a Masks) -> Self {
        Self {
            text,
            masks,
            at: 0,
            line: 1,
            column: 1,
            line_start: 0,
            begins: true,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        self.column += 1;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
            self.line_start = self.at;
            self.begins = true;
        }
        Some(c)
    }

    /// Of what begins here; its end is to be set when it is known.
    fn here(&self) -> Place {
        Place {
            line: self.line,
            column: self.column,
            start: self.at,
            end: self.at,
            line_start: self.line_start,
        }
    }

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let mut place = self.here();
            let c = self.peek()?;
            match c {
                '\n' => {
                    self.bump();
                    return Some(Piece::EndOfLine);
                }
                // Editors of some systems begin a file with a byte order mark.
                c if c.is_whitespace() || c == '\u{feff}' && self.at == 0 => {
                    self.bump();
                }
                '#' if self.begins => return Some(Piece::Comment(place, self.line_comment())),
                '/' if self.rest().starts_with("/*") => {
                    place.end = place.start + "/*".len();
                    return Some(self.comment().map_or(Piece::OpenComment(place), |text| {
                        Piece::Comment(place, text)
                    }));
                }
                '{' | '}' | '!' if c != '!' || self.begins => {
                    self.begins = false;
                    self.bump();
                    place.end = self.at;
                    return Some(match c {
                        '{' => Piece::Open(place),
                        '}' => Piece::Close(place),
                        _ => Piece::Deactivate(place),
                    });
                }
                _ => {
                    self.begins = false;
                    return Some(self.word(place));
                }
            }
        }
    }

    /// What stands between `#` and the end of the line.
    fn line_comment(&mut self) -> &'a str {
        self.bump();
        let start = self.at;
        while self.peek().is_some_and(|c| c != '\n') {
            self.bump();
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// What stands in a comment, if it has an end.
    fn comment(&mut self) -> Option<&'a str> {
        self.bump();
        self.bump();
        let start = self.at;
        let Some(length) = self.rest().find("*/") else {
            while self.bump().is_some() {}
            return None;
        };
        while self.at < start + length + "*/".len() {
            self.bump();
        }
        self.text.get(start..start + length)
    }

    /// Bare, or from one quotation mark to the next.
    fn word(&mut self, mut place: Place) -> Piece<'a> {
        let mut word = Word::new(self.masks.from(place.line_start));
        let quote = self.peek().filter(|c| matches!(c, '"' | '\''));
        if quote.is_some() {
            self.bump();
        }
        let mut is_closed = quote.is_none();
        while let Some(c) = self.peek().filter(|c| !matches!(c, '\n' | '\r')) {
            let at = self.at;
            match quote {
                None if c.is_whitespace() || matches!(c, '{' | '}') => break,
                None | Some(_) => {}
            }
            self.bump();
            if Some(c) == quote {
                is_closed = true;
                break;
            }
            match (quote, c, self.peek()) {
                (Some('"'), '\\', Some(escaped @ ('"' | '\\'))) => {
                    let at = self.at;
                    self.bump();
                    word.push(at, escaped);
                }
                (_, c, _) => word.push(at, c),
            }
        }
        place.end = self.at;
        let raw = self.text.get(place.start..place.end).unwrap_or_default();
        let token = Token::new(word, raw, place);
        match quote {
            Some(mark) if !is_closed => {
                place.end = place.start + mark.len_utf8();
                Piece::OpenQuote(token, place, mark)
            }
            Some(_) | None => Piece::Word(token),
        }
    }
}

/// A node whose brace is open.
struct Frame {
    brace: Place,
    /// Of the node's first word.
    column: usize,
    /// Words of the path without the node.
    path_length: usize,
    /// Whether what is in the braces is none of ours, or wrong as a whole.
    skipped: bool,
}

struct Reader<'r, 'text> {
    builder: Builder,
    masks: &'r Masks,
    /// Words of the nodes that are open and of the statement that is being read.
    path: Vec<Token>,
    open: Vec<Frame>,
    /// The mark before the statement that is being read.
    deactivated: Option<Place>,
    /// The brace that is probably the one that is not closed, by the indentation of those that are.
    suspect: Option<Place>,
    report: &'r mut Report<'text>,
}

impl Reader<'_, '_> {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Word(word) => {
                self.restart_at_top(&word);
                self.path.push(word);
            }
            Piece::Comment(place, text) => {
                let hidden_from = self.masks.from(place.line_start);
                let is_masked = hidden_from.is_some_and(|at| at <= place.start);
                self.builder.remark(place.line, text, is_masked);
            }
            Piece::Open(brace) => self.begin(brace),
            Piece::Close(brace) => {
                self.end_statement();
                self.end(brace);
            }
            Piece::Deactivate(mark) => self.deactivated = Some(mark),
            Piece::EndOfLine => self.end_statement(),
            Piece::OpenQuote(word, place, mark) => self.open_quote(word, place, mark),
            Piece::OpenComment(place) => self.report.add(
                Problem::error(place, "the comment has no end")
                    .help("close it with `*/`; all behind it is taken for the comment"),
            ),
        }
    }

    /// Where the statement that is being read begins in the path.
    fn statement(&self) -> usize {
        // A node's own words are a part of the path of what is in its braces.
        self.open.last().map_or(0, |frame| frame.path_length)
    }

    fn is_skipped(&self) -> bool {
        self.open.last().is_some_and(|frame| frame.skipped)
    }

    fn begin(&mut self, brace: Place) {
        let words = self.path.get(self.statement()..).unwrap_or_default();
        let column = words.first().map_or(brace.column, |word| word.place.column);
        let skipped = if self.is_skipped() {
            true
        } else if words.is_empty() {
            self.report.add(
                Problem::error(brace, "a brace opens without a node before it")
                    .help("write the node and its brace on one line: `cluster {`"),
            );
            true
        } else if let Some(mark) = self.deactivated.take() {
            self.report.add(has_no_effect(mark, words));
            self.builder.deactivated(mark, &self.path);
            true
        } else {
            !self.builder.open(brace, &self.path, self.report)
        };
        self.settle_remark(!skipped);
        self.deactivated = None;
        self.open.push(Frame {
            brace,
            column,
            path_length: self.path.len(),
            skipped,
        });
    }

    fn end_statement(&mut self) {
        let start = self.statement();
        let words = self.path.get(start..).unwrap_or_default();
        let mark = self.deactivated.take();
        let Some(first) = words.first() else {
            return;
        };
        let mut is_stated = false;
        if let Some(mark) = mark {
            if !self.is_skipped() {
                self.report.add(has_no_effect(mark, words));
                self.builder.deactivated(mark, &self.path);
            }
        } else if !self.is_skipped() {
            is_stated = self.builder.set(first.place, &self.path, self.report);
        }
        self.settle_remark(is_stated);
        self.path.truncate(start);
    }

    /// The comments belong to the statement that is being read.
    fn settle_remark(&mut self, is_stated: bool) {
        if self.is_skipped() {
            self.builder.skip_remark();
        } else if is_stated {
            self.builder.place_remark(&self.path);
        } else {
            self.builder.leave_remark();
        }
    }

    fn end(&mut self, brace: Place) {
        // What stands at the end of a block is before no statement.
        self.settle_remark(false);
        let Some(frame) = self.open.pop() else {
            self.report.add(
                Problem::error(brace, "this brace closes nothing")
                    .help("remove it, or open one before it"),
            );
            return;
        };
        if brace.column != frame.column && brace.line != frame.brace.line {
            self.suspect.get_or_insert(frame.brace);
        }
        self.path.truncate(self.statement());
    }

    /// A node of the top that begins a line without indentation, and is none where it stands, shows
    /// that braces before it are not closed.
    fn restart_at_top(&mut self, word: &Token) {
        let is_first = self.path.len() == self.statement() && word.place.column == 1;
        if !is_first || self.open.is_empty() || schema::find(schema::ROOT, &word.text).is_none() {
            return;
        }
        let below = schema::at(self.path.iter().map(|word| word.text.as_str()));
        if below.is_some_and(|nodes| schema::find(nodes, &word.text).is_some()) {
            return;
        }
        self.not_closed();
        self.open.clear();
        self.path.clear();
    }

    fn open_quote(&mut self, word: Token, place: Place, mark: char) {
        let start = self.statement();
        if !self.is_skipped() {
            self.path.push(word);
            let strange = self.builder.set_broken(&self.path);
            let problem = unfinished(Unfinished::Quote(mark), place);
            self.report.add(match strange {
                // A secret may have run together with a word that is not known.
                Some(word) => problem.hide_from(word.place.start.min(place.start)),
                None => problem,
            });
        }
        self.settle_remark(false);
        self.path.truncate(start);
        self.deactivated = None;
    }

    /// Blames one brace: the others are not closed because it is not.
    fn not_closed(&mut self) {
        let outermost = self.open.first().map(|frame| frame.brace);
        if let Some(brace) = self.suspect.take().or(outermost) {
            self.report.add(
                Problem::error(brace, "this brace is not closed")
                    .help("add a line with `}` behind the last node that belongs to it"),
            );
        }
    }

    fn finish(mut self) -> Tree {
        self.end_statement();
        if !self.open.is_empty() {
            self.not_closed();
        }
        self.builder.finish()
    }
}

fn has_no_effect(mark: Place, words: &[Token]) -> Problem {
    let name = words.first().map_or_else(String::new, Token::shown_name);
    Problem::warning(mark, format!("{name} is deactivated and has no effect"))
        .help("take out the `!` to make it count, or remove it with all below it")
        .hide_rest()
}
