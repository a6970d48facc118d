//! Aligned columns.

use std::iter;

/// A table that is as wide as its widest cells; two blanks between the columns.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header, underlined.
    pub fn new(header: &[&str]) -> Self {
        let underline = header.iter().map(|name| "-".repeat(name.len())).collect();
        let header = header.iter().map(|name| (*name).to_owned()).collect();
        Self {
            rows: vec![header, underline],
        }
    }

    /// A table of rows only.
    pub const fn without_header() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a row. Control characters are shown as `?`, so that no cell can move the cursor.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let cells = cells.into_iter().map(|cell| printable(&cell.into()));
        self.rows.push(cells.collect());
    }

    /// The table as text, each line after `indent` blanks and without trailing ones.
    pub fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = iter::zip(row, &widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            let line = format!("{:indent$}{}", "", cells.join("  "));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `text` with its control characters replaced.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
