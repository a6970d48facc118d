//! A configuration of an old system carried over, with an account of it: nothing is lost without a
//! word.

use std::fmt::{self, Write as _};

use super::schema::{self, Kind, Node};
use super::secret::Secrets;
use super::source::{Form, printable};
use super::statement::{Statement, stated};
use super::tree::{Branch, Why};
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
    /// What `check` says against what is kept.
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
        let path = printable(&aside.path);
        let line = aside.line;
        match aside.why {
            Why::Foreign => left_out.push((
                line,
                format!("`{path}` and all below it: none of this router's business"),
            )),
            Why::Deactivated => left_out.push((line, format!("`{path}`: it was deactivated"))),
            Why::Overridden => account.changed.push(format!(
                "line {line}: `{path}`: it is stated again further down, and the last one counts"
            )),
        }
    }
    for error in errors {
        let line = error.position.map_or(usize::MAX, |position| position.line);
        left_out.push((line, error.message));
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

    let statements = stated(&tree, Secrets::Shown);
    account.kept = statements.len();
    if let Err(refused) = parse("imported", &Form::Set.print(&statements), facts, false) {
        let errors = refused.errors();
        account.incomplete = errors.map(|error| error.message.clone()).collect();
    }
    let shown = stated(&tree, secrets);
    if shown != statements {
        account
            .changed
            .push("secrets: they are masked here; --secrets prints them".to_owned());
    }
    Imported {
        statements: shown,
        account,
    }
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
