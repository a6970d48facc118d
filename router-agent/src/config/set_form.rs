//! Reads lines of `set`, `delete` and `comment`.

use super::diagnostic::{Problem, Report};
use super::lex::{self, Token, Unfinished};
use super::schema;
use super::source::{COMMANDS, Masks, Place};
use super::tree::{Builder, Tree};

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

/// The tree of what the lines state, one after the other.
pub(super) fn read(text: &str, masks: &Masks, strict: bool, report: &mut Report) -> Tree {
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
        // Here a comment belongs to a node by the command of that name, not by where it stands.
        if !line.words.is_empty() || line.comment.is_empty() {
            builder.leave_remark();
        }
        builder.remark(number, line.comment, line.is_comment_masked);
        let Some(command) = line.words.first() else {
            continue;
        };
        let is_command = COMMANDS.contains(&command.text.as_str());
        if continued && !is_command {
            continue;
        }
        continued = line.unfinished.is_some();
        if let Some((what, place)) = line.unfinished {
            let strange = if is_command {
                builder.set_broken(line.words.get(1..).unwrap_or_default())
            } else {
                Some(command)
            };
            let problem = unfinished(what, place);
            report.add(match strange {
                // A secret may have run together with a word that is not known.
                Some(word) => problem.hide_from(word.place.start),
                None => problem,
            });
            continue;
        }
        let words = line.words.get(1..).unwrap_or_default();
        match command.text.as_str() {
            "set" => {
                builder.set(command.place, words, report);
            }
            "delete" => builder.delete(command.place, words, report),
            "comment" => builder.comment(command.place, words, report),
            _ => report.add(not_a_command(command)),
        }
    }
    builder.finish()
}

pub(super) fn unfinished(what: Unfinished, place: Place) -> Problem {
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

fn not_a_command(command: &Token) -> Problem {
    let problem =
        |message: &str| Problem::error(command.place, message).hide_from(command.shown_name_end());
    match command.text.as_str() {
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
