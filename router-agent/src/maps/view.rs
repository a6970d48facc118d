//! The maps as text.

use std::fmt::Write as _;

use super::{Dump, Maps, list::KernelFacts};
use crate::views::Table;

/// A line for each map.
pub fn list(maps: &Maps) -> String {
    let mut table = Table::new(&["Name", "Type", "Key", "Value", "Entries", "ID", "Pinned"]);
    for map in &maps.maps {
        match &map.kernel {
            Some(KernelFacts {
                kind,
                key_size_bytes,
                value_size_bytes,
                max_entries,
                id,
            }) => {
                let sizes = [key_size_bytes, value_size_bytes, max_entries, id];
                let mut cells = vec![map.name.to_owned(), kind.clone()];
                cells.extend(sizes.map(u32::to_string));
                cells.push("present".to_owned());
                table.row(cells);
            }
            None => table.row([map.name, "-", "-", "-", "-", "-", "absent"]),
        }
    }
    format!(
        "Pinned under {}; sizes in bytes.\n{}",
        maps.directory.display(),
        table.render(0)
    )
}

/// Two lines for each entry.
pub fn dump(dump: &Dump) -> String {
    let count = match dump.entries.len() {
        0 => "no entries".to_owned(),
        1 => "1 entry".to_owned(),
        more => format!("{more} entries"),
    };
    let mut text = format!("{}: {count}, at {} ns\n", dump.map, dump.now_ns);
    for entry in &dump.entries {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}\n    {}", entry.key, entry.value);
    }
    text
}
