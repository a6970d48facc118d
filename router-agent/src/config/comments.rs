//! What the operator wrote beside the nodes.

use std::collections::BTreeMap;

use super::source::{HIDDEN, printable, without_secrets};

/// Comments that stand one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// Of the first of them.
    pub line: usize,
    pub text: String,
    /// Whether it stands where a secret, or the rest of one, may be.
    is_masked: bool,
}

impl Remark {
    /// None if the text says nothing.
    pub fn new(line: usize, text: &str, is_masked: bool) -> Option<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        (!words.is_empty()).then(|| Self {
            line,
            // What ends a comment in brace form cannot stand in one.
            text: printable(&words.join(" ")).replace("*/", "* /"),
            is_masked,
        })
    }

    /// Without what may be a secret.
    pub fn masked(&self) -> String {
        if self.is_masked {
            HIDDEN.to_owned()
        } else {
            without_secrets(&self.text)
        }
    }

    fn extend(&mut self, more: &Self) {
        self.text.push(' ');
        self.text.push_str(&more.text);
        self.is_masked |= more.is_masked;
    }

    /// What both say.
    pub fn joined(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        match (first, second) {
            (Some(mut first), Some(second)) => {
                first.extend(&second);
                Some(first)
            }
            (first, second) => first.or(second),
        }
    }
}

/// By the names that lead to a node, instances among them, and the value where a node takes several.
#[derive(Clone, Debug, Default)]
pub(super) struct Comments(BTreeMap<Vec<String>, Remark>);

impl Comments {
    /// Behind what is said there already.
    pub fn add(&mut self, path: Vec<String>, remark: Remark) {
        let before = self.0.remove(&path);
        self.set(path, Remark::joined(before, Some(remark)));
    }

    /// Instead of what is said there.
    pub fn set(&mut self, path: Vec<String>, remark: Option<Remark>) {
        match remark {
            Some(remark) => self.0.insert(path, remark),
            None => self.0.remove(&path),
        };
    }

    pub fn get(&self, path: &[String]) -> Option<&Remark> {
        self.0.get(path)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[String], &Remark)> {
        self.0
            .iter()
            .map(|(path, remark)| (path.as_slice(), remark))
    }

    /// Forgets what is said of a node and of all below it.
    pub fn forget(&mut self, path: &[String]) {
        let below: Vec<_> = self
            .0
            .range(path.to_vec()..)
            .map(|(below, _)| below)
            .take_while(|below| below.starts_with(path))
            .cloned()
            .collect();
        for path in below {
            self.0.remove(&path);
        }
    }
}
