//! Reads a file of `set` lines.

use super::diagnostic::{Problem, Report};
use super::lex::{self, Token, Unfinished};
use super::schema;
use super::source::Masks;
use super::tree::{Branch, Builder};

/// Words of a configuration session that often come along with copied lines.
const SESSION: [&str; 10] = [
    "configure",
    "commit",
    "save",
    "exit",
    "show",
    "edit",
    "run",
    "top",
    "up",
    "load",
];

/// The tree, or none if the text is not in set form at all.
pub(super) fn read(text: &str, masks: &Masks, strict: bool, report: &mut Report) -> Option<Branch> {
    let mut builder = Builder::new(strict);
    // After a line without an end, what follows may be its continuation.
    let mut continued = false;
    let mut start = 0;
    for (number, raw) in (1..).zip(text.split_inclusive('\n')) {
        let line_start = start;
        start += raw.len();
        // Editors of some systems begin a file with a byte order mark.
        let mark = if number == 1 && raw.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        let content = raw[mark..].trim_end_matches(['\n', '\r']);
        let line = lex::split(content, number, line_start + mark, masks);
        let Some(command) = line.words.first() else {
            continue;
        };
        if continued && command.text != "set" {
            continue;
        }
        continued = line.unfinished.is_some();
        if command.text != "set" && is_brace_form(command, &line.words) {
            report.add(
                Problem::error(
                    command.place,
                    "the file is in brace form, which is not accepted in a configuration file yet",
                )
                .help("write it as `set` lines; on the old system `show configuration commands` prints them")
                .hide_rest(),
            );
            return None;
        }
        if let Some((what, place)) = line.unfinished {
            let strange = match command.text.as_str() {
                "set" => builder.set_broken(line.words.get(1..).unwrap_or_default()),
                _ => Some(command),
            };
            let problem = unfinished(what, place);
            report.add(match strange {
                // A secret may have run together with a word that is not known.
                Some(word) => problem.hide_from(word.place.start),
                None => problem,
            });
            continue;
        }
        match command.text.as_str() {
            "set" => builder.set(
                command.place,
                line.words.get(1..).unwrap_or_default(),
                report,
            ),
            _ => report.add(not_set(command)),
        }
    }
    Some(builder.finish())
}

fn is_brace_form(command: &Token, words: &[Token]) -> bool {
    command.text.starts_with("/*")
        || command.text == "}"
        || words.last().is_some_and(|word| word.text == "{")
}

fn unfinished(what: Unfinished, place: super::source::Place) -> Problem {
    match what {
        Unfinished::Quote(mark) => Problem::error(
            place,
            format!("the quotation mark {mark} is not closed on its line"),
        )
        .help(format!(
            "close it with a second {mark}; a value cannot go over the end of a line"
        )),
        Unfinished::Backslash => Problem::error(place, "the line ends with a backslash")
            .help("write the statement on one line"),
    }
}

fn not_set(command: &Token) -> Problem {
    let problem =
        |message: &str| Problem::error(command.place, message).hide_from(command.shown_name_end());
    match command.text.as_str() {
        "delete" => problem("`delete` is not accepted in a configuration file yet")
            .help("the file states the whole configuration: remove the lines that set the node"),
        "comment" => problem("`comment` is not accepted in a configuration file yet")
            .help("write the comment on a line that begins with `#`"),
        word if SESSION.contains(&word) => problem(&format!(
            "`{word}` belongs to a configuration session, not to a configuration file"
        ))
        .help("remove the line"),
        word => {
            let unknown = problem(&format!(
                "{} does not begin a statement",
                command.shown_name()
            ));
            if schema::find(schema::ROOT, word).is_some() {
                unknown.help(format!("write `set {word} …`"))
            } else if schema::nearest(word, ["set"].into_iter()).is_some() {
                unknown.help("did you mean `set`?")
            } else {
                unknown.help("begin each line with `set`, or with `#` if it is a comment")
            }
        }
    }
}
