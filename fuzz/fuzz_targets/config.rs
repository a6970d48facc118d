//! Configurations: whatever is accepted is printed and read again as it was, in both forms.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router_agent::config::{Facts, Form, Secrets, parse};

fuzz_target!(|text: &str| {
    // Nothing of this system is to be read.
    if text.contains("secret-file") || text.contains("secret-credential") {
        return;
    }
    let facts = Facts::of_host("vyatta-a");
    let Ok(loaded) = parse("fuzz", text, &facts, false) else {
        return;
    };
    let statements = loaded.stated(Secrets::Shown);
    for form in [Form::Set, Form::Brace] {
        let printed = form.print(&statements);
        let again = parse("fuzz", &printed, &facts, false)
            .unwrap_or_else(|refused| panic!("{printed}\n{refused}"));
        assert_eq!(again.config, loaded.config, "{printed}");
        assert_eq!(again.stated(Secrets::Shown), statements, "{printed}");
    }
});
