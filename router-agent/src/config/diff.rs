//! What one configuration states otherwise than another.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::print;
use super::secret::Secrets;
use super::statement::{Statement, stated};
use super::tree::Tree;

/// A statement that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Change {
    pub sign: Sign,
    /// The names that lead to the node, those of instances among them.
    pub path: Vec<String>,
    /// None if the node has none; a secret is masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Whether a statement comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    Removed,
    Added,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.sign {
            Sign::Removed => '-',
            Sign::Added => '+',
        };
        let words = print::words(&self.path, self.value.as_deref());
        write!(f, "{sign} {words}")
    }
}

/// By path, in the order of the language; what `old` stated comes before what `new` states. A node
/// with several values whose order alone is another changes as a whole.
pub(super) fn difference(old: &Tree, new: &Tree) -> Vec<Change> {
    let old = Listed::of(old);
    let new = Listed::of(new);
    let mut changes = Vec::new();
    let mut done = BTreeSet::new();
    for path in old.order.iter().chain(&new.order) {
        if !done.insert(path) {
            continue;
        }
        let before = old.values.get(path).map_or(&[][..], Vec::as_slice);
        let after = new.values.get(path).map_or(&[][..], Vec::as_slice);
        let set = |values: &[Value]| values.iter().map(|v| v.real.clone()).collect();
        let (had, has): (BTreeSet<_>, BTreeSet<_>) = (set(before), set(after));
        let is_reordered = before != after && had == has;
        let mut add = |sign, from: &[Value], other: &BTreeSet<Option<String>>| {
            for value in from {
                if is_reordered || !other.contains(&value.real) {
                    changes.push(Change {
                        sign,
                        path: path.clone(),
                        value: value.shown.clone(),
                    });
                }
            }
        };
        add(Sign::Removed, before, &has);
        add(Sign::Added, after, &had);
    }
    changes
}

/// A value, and how it may be shown.
#[derive(Clone, Debug)]
struct Value {
    real: Option<String>,
    shown: Option<String>,
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.real == other.real
    }
}

/// The values stated at each path.
struct Listed {
    order: Vec<Vec<String>>,
    values: HashMap<Vec<String>, Vec<Value>>,
}

impl Listed {
    fn of(tree: &Tree) -> Self {
        let mut listed = Self {
            order: Vec::new(),
            values: HashMap::new(),
        };
        let real = stated(tree, Secrets::Shown);
        let shown = stated(tree, Secrets::Masked);
        for (real, shown) in real.into_iter().zip(shown) {
            let Statement { path, value, .. } = real;
            let values = listed.values.entry(path.clone()).or_default();
            if values.is_empty() {
                listed.order.push(path);
            }
            values.push(Value {
                real: value,
                shown: shown.value,
            });
        }
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Facts, parse};

    fn changes(old: &str, new: &str) -> Vec<String> {
        const BASE: &str = "set interfaces tunnel tun00 encapsulation gre
set interfaces tunnel tun00 local-ip 10.0.1.10
set interfaces tunnel tun00 remote-ip 10.0.2.10
";
        let facts = Facts::of_host("vyatta-a");
        let read = |text: &str| {
            let text = BASE.to_owned() + &text.replace('|', "\nset interfaces tunnel tun00 ");
            parse("test", &text, &facts, false).unwrap()
        };
        let changes = read(old).difference(&read(new)).into_iter();
        changes
            .map(|change| change.to_string().replace("interfaces tunnel tun00 ", ""))
            .collect()
    }

    #[test]
    fn equal_statements_are_no_change() {
        let none: [&str; 0] = [];
        assert_eq!(changes("|mtu 1400", "|mtu 1400"), none);
        // Neither order nor form nor comments say anything.
        assert_eq!(
            changes("|mtu 1400|disable", "|disable # now|mtu '1400'"),
            none
        );
    }

    #[test]
    fn what_comes_and_goes_is_told() {
        assert_eq!(
            changes("|mtu 1400", "|mtu 1300"),
            ["- mtu 1400", "+ mtu 1300"]
        );
        assert_eq!(changes("|disable", ""), ["- disable"]);
        assert_eq!(
            changes(
                "|address 10.0.0.1/24",
                "|address 10.0.0.1/24|address 10.1.0.1/24"
            ),
            ["+ address 10.1.0.1/24"]
        );
        assert_eq!(changes("", "|description 'a b'"), ["+ description 'a b'"]);
    }

    #[test]
    fn the_order_of_several_values_counts() {
        assert_eq!(
            changes(
                "|address 10.0.0.1/24|address 10.1.0.1/24",
                "|address 10.1.0.1/24|address 10.0.0.1/24"
            ),
            [
                "- address 10.0.0.1/24",
                "- address 10.1.0.1/24",
                "+ address 10.1.0.1/24",
                "+ address 10.0.0.1/24"
            ]
        );
    }
}
