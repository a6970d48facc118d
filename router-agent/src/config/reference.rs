//! The language described for people, out of the schema.

use super::schema::{self, DefaultBy, Kind, Node, Type};

/// What a node means, what it may be, and what holds without it.
pub(super) fn help(node: &Node) -> String {
    let mut help = node.help.to_owned();
    if let Some(of) = value(node) {
        help.push_str(": ");
        help.push_str(&of.legal());
    }
    if let Some(default) = default(node) {
        help.push_str("; default ");
        help.push_str(&default);
    }
    help
}

const fn value(node: &Node) -> Option<&Type> {
    match &node.kind {
        Kind::Leaf(of) | Kind::Multi(of) => Some(of),
        Kind::Branch(_) | Kind::Tag(..) | Kind::Flag => None,
    }
}

fn default(node: &Node) -> Option<String> {
    let default = node.default?;
    Some(match node.default_by {
        Some(DefaultBy::AtLeast(sibling)) => format!("{default}, or {sibling} if that is longer"),
        Some(DefaultBy::QuarterOf(sibling)) => format!("a quarter of {sibling}"),
        None => default.to_owned(),
    })
}

const INTRODUCTION: &str = include_str!("reference.md");

/// docs/configuration.md.
pub fn reference() -> String {
    let mut lines = vec![INTRODUCTION.trim_end().to_owned()];
    tables(&mut lines, schema::ROOT, "");
    lines.push("\n## Known and ignored\n".to_owned());
    lines.push(IGNORED.to_owned());
    foreign(&mut lines, schema::ROOT, "");
    lines.join("\n") + "\n"
}

const IGNORED: &str = "These nodes of Vyatta's are read and have no effect, with all below them. Each \
                       is a warning; with `--strict` it is an error.";

/// A table for each branch that has values, then those of the branches below it.
fn tables(lines: &mut Vec<String>, nodes: &'static [Node], path: &str) {
    let values: Vec<_> = schema::ours(nodes)
        .filter(|node| node.children().is_empty())
        .collect();
    if !values.is_empty() {
        lines.push(format!("\n## {path}\n"));
        lines.push("| node | value | default | |".to_owned());
        lines.push("|---|---|---|---|".to_owned());
    }
    lines.extend(values.into_iter().map(row));
    for node in schema::ours(nodes).filter(|node| !node.children().is_empty()) {
        let name = match &node.kind {
            Kind::Tag(of, _) => format!("{} {}", node.name, of.form()),
            Kind::Branch(_) | Kind::Leaf(_) | Kind::Multi(_) | Kind::Flag => node.name.to_owned(),
        };
        tables(
            lines,
            node.children(),
            format!("{path} {name}").trim_start(),
        );
    }
}

fn row(node: &Node) -> String {
    let value = value(node).map_or_else(|| "no value".to_owned(), Type::legal);
    let several = match node.kind {
        Kind::Multi(_) => "; several",
        Kind::Branch(_) | Kind::Tag(..) | Kind::Leaf(_) | Kind::Flag => "",
    };
    let default = match (default(node), node.required) {
        (Some(default), _) => default,
        (None, Some(_)) => "required".to_owned(),
        (None, None) => String::new(),
    };
    let rule = if node.rule.is_empty() {
        String::new()
    } else {
        format!(". {}", node.rule)
    };
    let vyatta = node
        .vyatta_default
        .map_or_else(String::new, |old| format!(". Vyatta's default was {old}"));
    format!(
        "| `{}` | {}{several} | {default} | {}{rule}{vyatta} |",
        node.name,
        value.replace('|', "\\|"),
        node.help
    )
}

/// A line for each branch that has nodes which are not ours.
fn foreign(lines: &mut Vec<String>, nodes: &'static [Node], path: &str) {
    let names: Vec<_> = nodes
        .iter()
        .filter(|node| node.status == schema::Status::Foreign)
        .map(|node| format!("`{}`", node.name))
        .collect();
    if !names.is_empty() {
        let below = if path.is_empty() {
            "At the top".to_owned()
        } else {
            format!("Below `{path}`")
        };
        lines.push(format!("\n{below}: {}.", names.join(", ")));
    }
    for node in schema::ours(nodes) {
        foreign(
            lines,
            node.children(),
            format!("{path} {}", node.name).trim_start(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_document_is_not_stale() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        if env::var_os("UPDATE_REFERENCE").is_some() {
            fs::write(&path, reference()).unwrap();
        }
        assert!(
            fs::read_to_string(path).unwrap() == reference(),
            "docs/configuration.md is stale: run `router-agent reference > docs/configuration.md`"
        );
    }
}
