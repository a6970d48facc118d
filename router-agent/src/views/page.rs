//! Text on a terminal: lines that are too long for it go on below where their last column begins.

use textwrap::{Options, WordSplitter, core::display_width};

/// `text` in lines of at most `width` columns, as far as there are blanks or no room for a word.
pub fn fold(text: &str, width: usize) -> String {
    text.split_inclusive('\n')
        .map(|line| fold_line(line, width))
        .collect()
}

fn fold_line(line: &str, width: usize) -> String {
    if display_width(line.trim_end()) <= width {
        return line.to_owned();
    }
    let (line, end) = match line.strip_suffix('\n') {
        Some(line) => (line, "\n"),
        None => (line, ""),
    };
    let text = line.trim_start();
    let first = (line.len() - text.len()).min(width / 2);
    let text = " ".repeat(first) + text;
    let hanging = " ".repeat(hanging(&text, first, width));
    let options = Options::new(width)
        .subsequent_indent(&hanging)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::fill(&text, options) + end
}

/// Where the last column begins; two columns in, where that would leave little room.
fn hanging(line: &str, first: usize, width: usize) -> usize {
    const ROOM: usize = 16;
    let column = line
        .rfind("  ")
        .map(|blanks| display_width(&line[..blanks + 2]));
    column
        .filter(|column| *column > first && column + ROOM <= width)
        .unwrap_or_else(|| (first + 2).min(width / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{Table, paint::Tone};

    #[test]
    fn what_fits_stays_as_it_is() {
        let text = "\n  Name    Value\n\n\tx\n";
        assert_eq!(fold(text, 15), text);
        assert_eq!(fold("no end", 80), "no end");
    }

    #[test]
    fn what_does_not_fit_goes_on_in_its_column() {
        let mut table = Table::without_header();
        table.row(["State:", "active"]);
        table.row([
            "Note:".into(),
            Tone::Attention.paint("the peer's agent does not run"),
        ]);
        assert_eq!(
            fold(&table.render(2), 26),
            "  State:  active\n  \
               Note:   \x1b[33mthe peer's agent\n          \
               does not run\x1b[0m\n"
        );
    }

    #[test]
    fn without_columns_or_room_it_goes_on_two_columns_in() {
        assert_eq!(fold("one two three\n", 8), "one two\n  three\n");
        assert_eq!(
            fold("a-very-long-name:  and its value\n", 20),
            "a-very-long-name:\n  and its value\n"
        );
        assert_eq!(fold("abcdefghij\n", 4), "abcd\n  ef\n  gh\n  ij\n");
    }
}
