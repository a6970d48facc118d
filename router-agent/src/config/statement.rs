//! A configuration as a list of statements, in the order of the language: what is shown, compared
//! and sent.

use serde::{Deserialize, Serialize};

use super::comments::{Comments, Remark};
use super::defaults::default;
use super::schema::{self, Kind, Node, Status};
use super::secret::Secrets;
use super::tree::{Branch, Tree};

/// One value, or a node that is stated without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Statement {
    /// The names that lead to the node, those of instances among them.
    pub path: Vec<String>,
    /// None if the node has none, or is a branch that holds nothing; a secret may be masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    pub origin: Origin,
    /// What stands before the node in a comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    File,
    Default,
}

/// What a tree states, and nothing else.
pub(super) fn stated(tree: &Tree, secrets: Secrets) -> Vec<Statement> {
    List::of(tree, secrets, false)
}

/// What a tree states, and the defaults of what it does not.
pub(super) fn in_effect(tree: &Tree, secrets: Secrets) -> Vec<Statement> {
    List::of(tree, secrets, true)
}

struct List<'a> {
    comments: &'a Comments,
    secrets: Secrets,
    with_defaults: bool,
    path: Vec<String>,
    statements: Vec<Statement>,
}

impl<'a> List<'a> {
    fn of(tree: &'a Tree, secrets: Secrets, with_defaults: bool) -> Vec<Statement> {
        let mut list = Self {
            comments: &tree.comments,
            secrets,
            with_defaults,
            path: Vec::new(),
            statements: Vec::new(),
        };
        list.below(Some(&tree.root), schema::ROOT);
        list.statements
    }

    /// `branch` is none if nothing of it is stated.
    fn below(&mut self, branch: Option<&Branch>, nodes: &'static [Node]) {
        for node in nodes {
            if node.status != Status::Supported {
                continue;
            }
            self.path.push(node.name.to_owned());
            match node.kind {
                Kind::Branch(children) => {
                    let stated = branch.and_then(|branch| branch.branch(node.name));
                    // Most that hold nothing say nothing, and the set form cannot say them.
                    let says_something = |stated: &&Branch| node.alone || !stated.is_empty();
                    if let Some(stated) = stated.filter(says_something) {
                        self.branch(stated, children);
                    } else if self.with_defaults && is_in_effect(node) {
                        self.below(None, children);
                    }
                }
                Kind::Tag(_, children) => {
                    for instance in branch.map_or(&[][..], |branch| branch.instances(node.name)) {
                        self.path.push(instance.name.clone());
                        self.branch(&instance.branch, children);
                        self.path.pop();
                    }
                }
                Kind::Leaf(_) | Kind::Multi(_) | Kind::Flag => self.last(branch, nodes, node),
            }
            self.path.pop();
        }
    }

    /// A branch speaks for itself if nothing below it does, and if something is said of it.
    fn branch(&mut self, branch: &Branch, children: &'static [Node]) {
        let comment = self.shown(self.comments.get(&self.path).cloned());
        if branch.is_empty() || comment.is_some() {
            self.add(None, Origin::File, comment);
        }
        self.below(Some(branch), children);
    }

    fn last(&mut self, branch: Option<&Branch>, nodes: &'static [Node], node: &Node) {
        let values = branch.map_or(&[][..], |branch| branch.values(node.name));
        let mut of_node = self.comments.get(&self.path).cloned();
        for stated in values {
            let mut remark = of_node.take();
            let value = match node.kind {
                Kind::Flag => None,
                Kind::Multi(_) => {
                    let value = stated.value.written(self.secrets);
                    self.path.push(value.clone());
                    remark = Remark::joined(remark, self.comments.get(&self.path).cloned());
                    self.path.pop();
                    Some(value)
                }
                Kind::Leaf(_) | Kind::Branch(_) | Kind::Tag(..) => {
                    Some(stated.value.written(self.secrets))
                }
            };
            self.add(value, Origin::File, self.shown(remark));
        }
        if values.is_empty()
            && self.with_defaults
            && let Some(default) = default(branch, nodes, node)
        {
            let value = default.written(self.secrets);
            self.add(Some(value), Origin::Default, None);
        }
    }

    fn shown(&self, remark: Option<Remark>) -> Option<String> {
        let remark = remark?;
        Some(match self.secrets {
            Secrets::Masked => remark.masked(),
            Secrets::Shown => remark.text,
        })
    }

    fn add(&mut self, value: Option<String>, origin: Origin, comment: Option<String>) {
        self.statements.push(Statement {
            path: self.path.clone(),
            value,
            origin,
            comment,
        });
    }
}

/// Whether a branch of which nothing is stated has its defaults all the same.
fn is_in_effect(node: &Node) -> bool {
    !node.alone && node.children().iter().all(|child| child.required.is_none())
}
