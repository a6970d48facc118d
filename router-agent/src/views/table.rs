//! Aligned columns.

use super::paint::Painted;

/// A table that is as wide as its widest cells; two blanks between the columns.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<Painted>>,
}

impl Table {
    /// A table with a header, underlined.
    pub fn new(header: &[&str]) -> Self {
        let underline = header.iter().map(|name| "-".repeat(name.len()).into());
        let underline = underline.collect();
        let header = header.iter().map(|name| (*name).into()).collect();
        Self {
            rows: vec![header, underline],
        }
    }

    /// A table of rows only.
    pub const fn without_header() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row. Control characters are shown as `?`, so that no cell can move the cursor.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Painted>>) {
        let cells = cells.into_iter().map(|cell| {
            let Painted { text, tone } = cell.into();
            tone.paint(printable(&text))
        });
        self.rows.push(cells.collect());
    }

    /// The table as text, each line after `indent` blanks and without trailing ones.
    pub fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(width).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            // Blanks that are owed before the next text.
            let mut blanks = indent;
            for (cell, widest) in row.iter().zip(&widths) {
                let width = width(cell);
                if width > 0 {
                    text.extend([" ".repeat(blanks), cell.to_string()]);
                    blanks = 0;
                }
                blanks += widest - width + 2;
            }
            text.push('\n');
        }
        text
    }
}

fn width(cell: &Painted) -> usize {
    cell.text.chars().count()
}

/// `text` with its control characters replaced.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::paint::Tone;

    #[test]
    fn columns_align_and_lines_end_with_text() {
        let mut table = Table::new(&["Name", "S"]);
        table.row(["東京", "a"]);
        table.row(["longer than the header", ""]);
        table.row(["\x1b[2J", "b"]);
        assert_eq!(
            table.render(1),
            " Name                    S\n \
             ----                    -\n \
             東京                      a\n \
             longer than the header\n \
             ?[2J                    b\n"
        );
    }

    #[test]
    fn colours_take_no_room() {
        let mut table = Table::without_header();
        table.row([Tone::Bad.paint("down"), "a".into()]);
        table.row(["further", "b"]);
        assert_eq!(
            table.render(0),
            "\x1b[1m\x1b[31mdown\x1b[0m     a\nfurther  b\n"
        );
    }
}
