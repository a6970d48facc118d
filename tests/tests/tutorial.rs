//! docs/tutorial.md, word by word: its commands run, and print what it shows.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use router_tests::{
    agent, article,
    lab::{Lab, NodeSpec, Topology},
};

/// A block of commands, and what of their output the page shows.
#[derive(Debug, Default)]
struct Section {
    commands: String,
    shown: Vec<String>,
}

/// The blocks that are marked `sh`, each with the one marked `text` behind it.
fn sections(page: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut block: Option<&str> = None;
    for line in page.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                block = Some(kind);
                if kind == "sh" {
                    sections.push(Section::default());
                }
            }
            (Some(_), Some(_)) => block = None,
            (Some("sh"), None) => {
                let section = sections.last_mut().unwrap();
                section.commands += line;
                section.commands.push('\n');
            }
            (Some("text"), None) if !line.is_empty() => {
                sections.last_mut().unwrap().shown.push(line.to_owned());
            }
            (_, None) => {}
        }
    }
    sections
}

/// A line without what is another in each run: numbers with a fraction, instants, blanks.
fn essence(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_measured = bare.parse::<f64>().is_ok() && bare.contains('.');
        if is_measured || bare.ends_with('Z') && bare.contains('T') {
            "#".to_owned()
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether the lines come in this order, with others between them; the first that does not.
fn missing<'a>(shown: &'a [String], output: &str) -> Option<&'a String> {
    let mut lines = output.lines().map(essence);
    shown.iter().find(|line| {
        let wanted = essence(line);
        !lines.any(|line| line.starts_with(&wanted))
    })
}

#[test]
fn its_commands_run_and_print_what_it_shows() {
    const MARK: &str = "--- end of section ";
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md");
    let sections = sections(&fs::read_to_string(page).unwrap());
    assert!(sections.len() > 10, "{sections:?}");
    let binaries = agent::binary("routerctl").unwrap();
    let binaries = binaries.parent().unwrap();
    // A machine that goes away with all that the commands leave.
    let lab = Lab::new(Topology::default().node(NodeSpec::new(article::PRIMARY))).unwrap();
    let node = lab.node(article::PRIMARY);
    let mut script = format!("set -e\nexec 2>&1\nPATH={}:$PATH\n", binaries.display());
    for (number, Section { commands, .. }) in sections.iter().enumerate() {
        script.push_str(commands);
        writeln!(script, "echo '{MARK}{number}'").unwrap();
    }
    // However slow this machine is, an agent begins anew before its peer takes it for dead.
    let first = "set cluster interface tun00\n";
    let patient = format!("{first}set cluster agent-dead-interval 60000\n");
    assert!(script.contains(first));
    let script = script.replace(first, &patient);
    let script_file = node.directory().join("tutorial.sh");
    fs::write(&script_file, script).unwrap();
    // A file, because what a script leaves running would hold a pipe open.
    let log = node.directory().join("tutorial.log");
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=1", "300", "bash"])
        .arg(&script_file)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&log).unwrap());
    let status = node.run(|| command.status()).unwrap().unwrap();
    let text = fs::read_to_string(log).unwrap();
    let mut outputs = text.split_inclusive(MARK);
    for (number, section) in sections.iter().enumerate() {
        let output = outputs.next().unwrap_or_default();
        assert!(
            output.ends_with(MARK),
            "section {number} failed: {section:?}\n{output}"
        );
        if let Some(line) = missing(&section.shown, output) {
            panic!("section {number} does not print {line:?}:\n{output}");
        }
    }
    assert!(status.success(), "{text}");
}

#[test]
fn what_differs_is_noticed() {
    let shown = ["a 1.5 ms", "b"].map(ToOwned::to_owned);
    assert_eq!(missing(&shown, "a 2.25 ms\nmore\n  b\n"), None);
    assert_eq!(missing(&shown, "b\na 2.25 ms\n"), Some(&shown[1]));
    assert_eq!(missing(&shown, "a 2.25 s\nb\n"), Some(&shown[0]));
}
