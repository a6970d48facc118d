//! A configuration of an old system carried over, with an account of it: nothing is lost without a
//! word.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use super::comments::{Comments, Remark};
use super::diagnostic::Diagnostic;
use super::schema::{self, Kind, Node};
use super::secret::Secrets;
use super::source::{Form, printable};
use super::statement::{Statement, stated};
use super::tree::{Branch, What};
use super::{Facts, Read, parse};

/// A configuration as this router has it, and what became of the rest.
#[derive(Clone, Debug)]
pub struct Imported {
    pub statements: Vec<Statement>,
    pub account: Account,
}

/// What became of an old configuration. Displays as text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Statements kept as they are.
    pub kept: usize,
    /// What means something else now, and why.
    pub changed: Vec<String>,
    /// What is left out, and why.
    pub left_out: Vec<String>,
    /// What `check` says against what is kept, and the secrets that are masked.
    pub incomplete: Vec<String>,
}

/// Carries over what can be.
pub(super) fn import(read: Read, facts: &Facts, secrets: Secrets) -> Imported {
    let Read { tree, errors } = read;
    let mut account = Account {
        kept: 0,
        changed: Vec::new(),
        left_out: Vec::new(),
        incomplete: Vec::new(),
    };
    let mut left_out = Vec::new();
    for aside in &tree.aside {
        let line = aside.line;
        match &aside.what {
            What::Foreign(path) => left_out.push((
                line,
                format!(
                    "`{}` and all below it: none of this router's business",
                    printable(path)
                ),
            )),
            What::Deactivated(path) => {
                left_out.push((line, format!("`{}`: it was deactivated", printable(path))));
            }
            What::Overridden(path) => account.changed.push(format!(
                "line {line}: `{}`: it is stated again further down, and the last one counts",
                printable(path)
            )),
            What::Comment(text) => left_out.push((line, comment_left_out(text))),
        }
    }
    let statements = stated(&tree, Secrets::Shown);
    for remark in homeless(&tree.comments, &statements) {
        left_out.push((remark.line, comment_left_out(&remark.masked())));
    }
    for error in errors {
        let line = error.position.map_or(usize::MAX, |position| position.line);
        let extent = if tree.skipped.contains(&line) {
            ", so all below it is left out"
        } else {
            ""
        };
        left_out.push((line, with_remedy(error, extent)));
    }
    left_out.sort();
    account.left_out = left_out
        .into_iter()
        .map(|(line, what)| match line {
            usize::MAX => what,
            line => format!("line {line}: {what}"),
        })
        .collect();
    other_defaults(&tree.root, schema::ROOT, "", &mut account.changed);

    account.kept = statements.len();
    if let Err(refused) = parse("imported", &Form::Set.print(&statements), facts, false) {
        account.incomplete = refused
            .errors()
            .cloned()
            .map(|error| with_remedy(error, ""))
            .collect();
    }
    let shown = stated(&tree, secrets);
    let both = || statements.iter().zip(&shown);
    let masked = both().filter(|(real, shown)| real.value != shown.value);
    account.incomplete.extend(masked.map(|(_, masked)| {
        let path = masked.path.join(" ");
        format!("`{path}`: it is masked; write it, or print it with --secrets")
    }));
    if both().any(|(real, shown)| real.comment != shown.comment) {
        let masked = "comments: what may be a secret in them is masked; --secrets prints it";
        account.changed.push(masked.to_owned());
    }
    Imported {
        statements: shown,
        account,
    }
}

fn with_remedy(error: Diagnostic, extent: &str) -> String {
    let remedy = error
        .help
        .map_or_else(String::new, |help| format!("; {help}"));
    error.message + extent + &remedy
}

fn comment_left_out(text: &str) -> String {
    format!("the comment `{text}`: it belongs to nothing that is carried over")
}

/// The comments of nodes that no statement has, such as a branch below which nothing is left.
fn homeless<'a>(
    comments: &'a Comments,
    statements: &[Statement],
) -> impl Iterator<Item = &'a Remark> {
    let with_comment = statements.iter().filter(|one| one.comment.is_some());
    let homes: HashSet<_> = with_comment
        .flat_map(|one| {
            let value = one.value.clone();
            let value = value.filter(|_| schema::takes_several(&one.path));
            let path = one.path.iter().cloned();
            [one.path.clone(), path.chain(value).collect()]
        })
        .collect();
    comments
        .iter()
        .filter(move |(path, _)| !homes.contains(*path))
        .map(|(_, remark)| remark)
}

/// What the old system took a value for that is not stated.
fn other_defaults(branch: &Branch, nodes: &'static [Node], path: &str, changed: &mut Vec<String>) {
    for node in schema::ours(nodes) {
        let path = format!("{path} {}", node.name);
        if let (Some(old), Some(new), None) =
            (node.vyatta_default, node.default, branch.value(node.name))
        {
            let unit = match &node.kind {
                Kind::Leaf(of) => of.unit(),
                Kind::Branch(_) | Kind::Tag(..) | Kind::Multi(_) | Kind::Flag => "",
            };
            changed.push(format!(
                "`{}`: it is not stated; Vyatta took {old} {unit}, this router takes {new}",
                path.trim_start()
            ));
        }
        if let Some(below) = branch.branch(node.name) {
            other_defaults(below, node.children(), &path, changed);
        }
        for instance in branch.instances(node.name) {
            let path = format!("{path} {}", instance.name);
            other_defaults(&instance.branch, node.children(), &path, changed);
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kept,
            changed,
            left_out,
            incomplete,
        } = self;
        writeln!(f, "kept: {kept} statements")?;
        for (title, lines) in [
            ("changed", changed),
            ("not carried over", left_out),
            ("to be completed before it can run", incomplete),
        ] {
            if lines.is_empty() {
                continue;
            }
            writeln!(f, "{title}:")?;
            for line in lines {
                f.write_str("  ")?;
                f.write_str(line)?;
                f.write_char('\n')?;
            }
        }
        Ok(())
    }
}
