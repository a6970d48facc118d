//! Texts that views must keep giving, one file each in `golden/`. `UPDATE_GOLDEN=1 cargo test`
//! writes them anew; read the difference before it is committed.

use std::{env, fs, path::Path};

/// Compares `text` with `golden/NAME.txt`.
pub fn check(name: &str, text: &str) {
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
