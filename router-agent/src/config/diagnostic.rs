//! Errors and warnings, and how they are shown.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::source::{HIDDEN, Masks, Place, printable};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    Error,
    Warning,
}

/// Where in the file, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One thing to say about a configuration. Holds all it needs to be shown, and nothing secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: Arc<str>,
    /// None if it concerns the file as a whole.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    excerpts: Vec<Excerpt>,
    always_shown: bool,
}

/// A source line, made safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    position: Position,
    text: String,
    /// Bytes of `text` to underline.
    mark: Range<usize>,
    label: Option<String>,
}

impl Excerpt {
    /// Whether the mark stands at the column that it has in the file, which it does not in a line
    /// that is cut or hidden before it.
    fn shows_column(&self) -> bool {
        let before = self.text.get(..self.mark.start).unwrap_or_default();
        before.chars().count() + 1 == self.position.column
    }
}

impl Diagnostic {
    /// As text that ends in a newline, with the source line and a mark under the place.
    /// `color` adds terminal colours.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let file = printable(&self.file);
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        if self.excerpts.is_empty() {
            group = group.element(Origin::path(file.as_str()));
        }
        for (index, excerpt) in self.excerpts.iter().enumerate() {
            let kind = if index == 0 {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            let annotation = kind
                .span(excerpt.mark.clone())
                .label(excerpt.label.as_deref());
            let snippet = Snippet::source(excerpt.text.as_str())
                .line_start(excerpt.position.line)
                .annotation(annotation);
            group = if excerpt.shows_column() {
                group.element(snippet.path(file.as_str()))
            } else {
                let origin = Origin::path(file.as_str())
                    .line(excerpt.position.line)
                    .char_column(excerpt.position.column);
                group.element(Element::Origin(origin)).element(snippet)
            };
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let mut text = renderer.decor_style(DecorStyle::Ascii).render(&[group]);
        text.push('\n');
        text
    }
}

/// In one line, for a log.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.file))?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// A problem as the parser finds it, before it is tied to the text.
#[derive(Debug)]
pub(super) struct Problem {
    severity: Severity,
    place: Option<Place>,
    message: String,
    help: Option<String>,
    also: Option<(Place, String)>,
    hide_rest: bool,
    /// Byte of the text from which on nothing is shown.
    hide_from: Option<usize>,
    always_shown: bool,
}

impl Problem {
    pub fn error(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: Some(place),
            message: message.into(),
            help: None,
            also: None,
            hide_rest: false,
            hide_from: None,
            always_shown: false,
        }
    }

    pub fn warning(place: Place, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, message)
        }
    }

    /// About the file as a whole.
    pub fn of_file(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            place: None,
            message: message.into(),
            help: None,
            also: None,
            hide_rest: false,
            hide_from: None,
            always_shown: false,
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Shows it however many others there are: of its kind there are not many.
    pub fn always_shown(mut self) -> Self {
        self.always_shown = true;
        self
    }

    /// A second place that belongs to the problem.
    pub fn also(mut self, place: Place, label: impl Into<String>) -> Self {
        self.also = Some((place, label.into()));
        self
    }

    /// Shows nothing of the line behind the place: what follows a name that is not known may be
    /// a secret under a misspelt name.
    pub fn hide_rest(mut self) -> Self {
        self.hide_rest = true;
        self
    }

    /// As [`Problem::hide_rest`], for a place of which only the part before `at` may be shown.
    pub fn hide_from(mut self, at: usize) -> Self {
        self.hide_from = Some(at);
        self.hide_rest()
    }
}

/// Problems kept, of each severity; those beyond are only counted. More than are shown, so that the first by place
/// are among them also when the checks between values add theirs at the end.
const KEPT: usize = 1_000;
/// Problems shown, of each severity.
const SHOWN: usize = 50;

/// Collects problems.
pub(super) struct Report<'a> {
    file: Arc<str>,
    text: &'a str,
    masks: &'a Masks,
    /// Like `masks`, but found by parsing: what follows a name that is not known. A later problem
    /// may show the same line for another word.
    hidden: HashMap<usize, usize>,
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl<'a> Report<'a> {
    pub fn new(file: &str, text: &'a str, masks: &'a Masks) -> Self {
        Self {
            file: file.into(),
            text,
            masks,
            hidden: HashMap::new(),
            kept: Vec::new(),
            errors: 0,
            warnings: 0,
        }
    }

    pub fn add(&mut self, problem: Problem) {
        if let (Some(place), true) = (problem.place, problem.hide_rest) {
            let from = problem.hide_from.unwrap_or(place.end);
            let hidden = self.hidden.entry(place.line_start).or_insert(from);
            *hidden = from.min(*hidden);
        }
        let count = match problem.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= KEPT || problem.always_shown {
            let diagnostic = self.tie(problem);
            self.kept.push(diagnostic);
        }
    }

    /// Whether a further error would only be counted.
    pub fn is_full(&self) -> bool {
        self.errors >= KEPT
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    fn tie(&self, problem: Problem) -> Diagnostic {
        let Problem {
            severity,
            place,
            message,
            help,
            also,
            hide_rest: _,
            hide_from: _,
            always_shown,
        } = problem;
        let mut excerpts = Vec::new();
        if let Some(place) = place {
            let label = also.as_ref().map(|_| "here".to_owned());
            excerpts.push(self.excerpt(place, label));
        }
        if let Some((place, label)) = also {
            excerpts.push(self.excerpt(place, Some(label)));
        }
        Diagnostic {
            severity,
            file: Arc::clone(&self.file),
            position: place.map(position),
            message,
            help,
            excerpts,
            always_shown,
        }
    }

    /// The line around `place`, cut to a width that a terminal can take.
    fn excerpt(&self, place: Place, label: Option<String>) -> Excerpt {
        const BEFORE: usize = 100;
        const MARKED: usize = 80;
        const AFTER: usize = 60;

        let text = self.text;
        let floor = |at: usize| text.floor_char_boundary(at);
        let masked = self.masks.from(place.line_start);
        let unknown = self.hidden.get(&place.line_start).copied();
        let visible_end = masked
            .into_iter()
            .chain(unknown)
            .min()
            .unwrap_or(usize::MAX);
        // Behind a whole word that is not known, an ellipsis says enough.
        let hide_rest = unknown == Some(place.end);

        let left = floor(place.line_start.max(place.start.saturating_sub(BEFORE)));
        let marked_end = floor(place.end.min(place.start + MARKED));
        let after = &text[marked_end..floor(text.len().min(marked_end + AFTER))];
        let line_end = marked_end + after.find(['\n', '\r']).unwrap_or(after.len());
        let cut_right = line_end < text.len() && !text[line_end..].starts_with(['\n', '\r']);

        let show = |from: usize, to: usize| printable(&text[from..to.min(visible_end).max(from)]);
        let mut shown = String::new();
        if left > place.line_start {
            shown.push('…');
        }
        shown.push_str(&show(left, place.start));
        if place.start > visible_end {
            // The place itself lies behind the start of what is hidden.
            shown.push_str(HIDDEN);
            let mark = shown.len() - HIDDEN.len()..shown.len();
            return Excerpt {
                position: position(place),
                text: shown,
                mark,
                label,
            };
        }
        let start = shown.len();
        shown.push_str(&show(place.start, marked_end));
        if visible_end < marked_end {
            shown.push_str(HIDDEN);
        }
        let mark = start..shown.len().max(start);
        if visible_end >= marked_end {
            if marked_end < place.end {
                shown.push('…');
            } else if hide_rest {
                if !text[marked_end..line_end].trim().is_empty() {
                    shown.push_str(" …");
                }
            } else {
                shown.push_str(&show(marked_end, line_end));
                if visible_end < line_end {
                    shown.push_str(HIDDEN);
                } else if cut_right {
                    shown.push('…');
                }
            }
        }
        Excerpt {
            position: position(place),
            text: shown,
            mark,
            label,
        }
    }

    /// All warnings, also those that are not kept.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// The warnings, at most [`SHOWN`] besides those that always are, and one that counts the rest.
    pub fn into_warnings(mut self) -> Vec<Diagnostic> {
        self.limit();
        self.kept
    }

    /// The errors, by place.
    pub fn into_errors(mut self) -> Vec<Diagnostic> {
        self.count_rest(Severity::Error);
        self.kept
            .retain(|diagnostic| diagnostic.severity == Severity::Error);
        self.kept
            .sort_by_key(|d| (d.position.is_none(), d.position));
        self.kept
    }

    /// Everything, to refuse the configuration with.
    pub fn into_refused(mut self) -> Refused {
        self.limit();
        Refused {
            diagnostics: self.kept,
            errors: self.errors,
            warnings: self.warnings,
        }
    }

    fn limit(&mut self) {
        self.kept
            .sort_by_key(|d| (d.position.is_none(), d.position));
        for severity in [Severity::Warning, Severity::Error] {
            let mut count = 0;
            self.kept.retain(|d| {
                let counts = d.severity == severity && !d.always_shown;
                count += usize::from(counts);
                !counts || count <= SHOWN
            });
            self.count_rest(severity);
        }
    }

    /// Says how many are left out.
    fn count_rest(&mut self, severity: Severity) {
        let all = match severity {
            Severity::Error => self.errors,
            Severity::Warning => self.warnings,
        };
        let kept = self.kept.iter().filter(|d| d.severity == severity).count();
        let rest = match all.saturating_sub(kept) {
            0 => return,
            1 => format!("1 more {severity} is not shown"),
            rest => format!("{rest} more {severity}s are not shown"),
        };
        let rest = self.tie(Problem::of_file(severity, rest));
        self.kept.push(rest);
    }
}

fn position(place: Place) -> Position {
    Position {
        line: place.line,
        column: place.column,
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// A configuration that is not accepted, with all that is wrong with it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.render(false))]
pub struct Refused {
    /// In the order of the file. At most 50 errors and 50 warnings besides those of nodes that are known
    /// and ignored, each followed by one without a position that counts those left out.
    pub diagnostics: Vec<Diagnostic>,
    /// All of them, also those left out.
    pub errors: usize,
    pub warnings: usize,
}

impl Refused {
    /// The errors among the diagnostics.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        let all = self.diagnostics.iter();
        all.filter(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// As text that ends with a summary line and a newline. `color` adds terminal colours.
    pub fn render(&self, color: bool) -> String {
        let mut text = render_all(&self.diagnostics, color);
        text.push_str("configuration refused: ");
        text.push_str(&counted(self.errors, "error"));
        if self.warnings > 0 {
            text.push_str(", ");
            text.push_str(&counted(self.warnings, "warning"));
        }
        text.push('\n');
        text
    }

    /// For a file that cannot even be looked into.
    pub(super) fn whole_file(file: &str, message: impl Into<String>, help: &str) -> Self {
        let masks = Masks::default();
        let mut report = Report::new(file, "", &masks);
        report.add(Problem::of_file(Severity::Error, message).help(help));
        report.into_refused()
    }
}

/// Diagnostics one after the other, with a blank line after each.
pub fn render_all(diagnostics: &[Diagnostic], color: bool) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&diagnostic.render(color));
        text.push('\n');
    }
    text
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}
