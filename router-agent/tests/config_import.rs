//! What `import` makes of old configurations, compared with `fixtures/import/NAME.conf` and
//! `NAME.account` to the letter. `UPDATE_FIXTURES=1` writes those files anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use router_agent::config::{Facts, Form, Imported, Secrets, import, parse};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/import")
        .join(name)
}

fn imported(name: &str, secrets: Secrets) -> Imported {
    let file = fixture(name).with_extension("boot");
    import(&file, &Facts::of_host("vyatta-a"), secrets).unwrap()
}

fn is_as_kept(name: &str, form: Form) {
    let Imported {
        statements,
        account,
    } = imported(name, Secrets::Masked);
    for (extension, text) in [
        ("conf", form.print(&statements)),
        ("account", account.to_string()),
    ] {
        let path = fixture(name).with_extension(extension);
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap();
        assert_eq!(text, kept, "{}", path.display());
        for secret in ["cloud pack", "cloudpack"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn an_old_configuration_is_carried_over_with_an_account_of_it() {
    is_as_kept("old", Form::Brace);
}

#[test]
fn a_comment_stays_with_its_node_or_is_in_the_account() {
    is_as_kept("comments", Form::Brace);
    is_as_kept("commands", Form::Set);
}

/// What stands under "to be completed" is all that keeps it from running.
#[test]
fn what_is_carried_over_runs_when_it_is_completed() {
    let Imported {
        statements,
        account,
    } = imported("old", Secrets::Shown);
    assert_eq!(
        account.incomplete,
        [
            "`interfaces tunnel tun01` lacks `encapsulation`; add `set interfaces tunnel tun01 encapsulation gre`"
        ]
    );
    for form in [Form::Brace, Form::Set] {
        let text = form.print(&statements);
        let completed = match form {
            Form::Brace => text.replace("tun01 {", "tun01 {\n encapsulation gre"),
            Form::Set => text + "set interfaces tunnel tun01 encapsulation gre\n",
        };
        let loaded = parse("old", &completed, &Facts::of_host("vyatta-a"), false).unwrap();
        let cluster = loaded.config.cluster.unwrap();
        assert_eq!(cluster.secret.expose(), "cloud pack");
        assert_eq!(loaded.config.tunnels.len(), 2);
    }
}

#[test]
fn the_exit_code_says_whether_something_is_left_to_do() {
    let host = Command::new("uname").arg("-n").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let article = fs::read_to_string(fixture("../article-a.conf")).unwrap();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whole.boot");
    fs::write(&file, article.replace("vyatta-a", host.trim())).unwrap();
    for (options, code, left) in [
        (&["--secrets"][..], 0, false),
        (&[], 2, true),
        (&["--form", "set"], 2, true),
    ] {
        let import = Command::new(env!("CARGO_BIN_EXE_router-agent"))
            .arg("import")
            .arg(&file)
            .args(options)
            .output()
            .unwrap();
        let account = String::from_utf8(import.stderr).unwrap();
        assert_eq!(import.status.code(), Some(code), "{account}");
        assert_eq!(account.contains("to be completed"), left, "{account}");
    }
}
