//! Texts that views must keep giving, one file each in `golden/`. `UPDATE_GOLDEN=1 cargo test`
//! writes them anew; read the difference before it is committed.

use std::{env, fs, path::Path};

use anstream::adapter::strip_str;

use super::page;

/// Compares `text` without its colours with `golden/NAME.txt`.
pub fn check(name: &str, text: &str) {
    compare(name, &strip_str(text).to_string());
}

/// The same, and with its colours with `golden/NAME-colour.txt`.
pub fn check_both(name: &str, text: &str) {
    check(name, text);
    compare(&format!("{name}-colour"), text);
}

/// Compares `text` on a terminal of `width` columns, without colours, with `golden/NAME-WIDTH.txt`.
pub fn check_folded(name: &str, text: &str, width: usize) {
    let text = page::fold(text, width);
    check(&format!("{name}-{width}"), &text);
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/views/golden")
        .join(format!("{name}.txt"));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, expected, "differs from {}", path.display());
}
