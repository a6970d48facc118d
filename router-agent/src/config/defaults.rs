//! What holds where nothing is stated.

use super::schema::{self, Kind, Node};
use super::tree::Branch;
use super::value::{self, Value};

/// The value stated, else the default, of a node that `nodes` has. `branch` is none if nothing of what
/// they are below of is stated.
pub(super) fn or_default(
    branch: Option<&Branch>,
    nodes: &'static [Node],
    name: &str,
) -> Option<Value> {
    if let Some(stated) = branch.and_then(|branch| branch.value(name)) {
        return Some(stated.value.clone());
    }
    default(branch, nodes, schema::find(nodes, name)?)
}

/// The default of one of `nodes`, which may go by what holds of another.
pub(super) fn default(
    branch: Option<&Branch>,
    nodes: &'static [Node],
    node: &Node,
) -> Option<Value> {
    let (Kind::Leaf(of) | Kind::Multi(of)) = &node.kind else {
        return None;
    };
    let default = value::parse(of, node.default?).ok()?;
    let Some(by) = node.default_by else {
        return Some(default);
    };
    match (default, or_default(branch, nodes, by.sibling())?) {
        (Value::Number(default), Value::Number(sibling)) => {
            Some(Value::Number(by.apply(default, sibling)))
        }
        (default, _) => Some(default),
    }
}
