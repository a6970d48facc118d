//! Short forms, so that the nodes read as a table.

use super::{DefaultBy, Kind, Node, Status, Type, Word};

pub(super) const fn node(name: &'static str, kind: Kind, help: &'static str) -> Node {
    Node {
        name,
        kind,
        help,
        rule: "",
        default: None,
        default_by: None,
        vyatta_default: None,
        status: Status::Supported,
        required: None,
        alone: false,
    }
}

pub(super) const fn branch(
    name: &'static str,
    help: &'static str,
    children: &'static [Node],
) -> Node {
    node(name, Kind::Branch(children), help)
}

pub(super) const fn tag(
    name: &'static str,
    of: Type,
    help: &'static str,
    children: &'static [Node],
) -> Node {
    node(name, Kind::Tag(of, children), help)
}

pub(super) const fn leaf(name: &'static str, of: Type, help: &'static str) -> Node {
    node(name, Kind::Leaf(of), help)
}

pub(super) const fn multi(name: &'static str, of: Type, help: &'static str) -> Node {
    node(name, Kind::Multi(of), help)
}

pub(super) const fn flag(name: &'static str, help: &'static str) -> Node {
    node(name, Kind::Flag, help)
}

/// A node of ours that is still to come, with all below it.
pub(super) const fn later(name: &'static str, help: &'static str) -> Node {
    Node {
        status: Status::Later,
        ..node(name, Kind::Branch(&[]), help)
    }
}

/// A node of Vyatta's that is not ours, with all below it.
pub(super) const fn foreign(name: &'static str) -> Node {
    Node {
        status: Status::Foreign,
        ..node(name, Kind::Branch(&[]), "")
    }
}

impl Node {
    pub(super) const fn default(self, value: &'static str) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }

    /// Its default goes by the value of a sibling.
    pub(super) const fn default_by(self, by: DefaultBy) -> Self {
        Self {
            default_by: Some(by),
            ..self
        }
    }

    pub(super) const fn vyatta_default(self, value: &'static str) -> Self {
        Self {
            vyatta_default: Some(value),
            ..self
        }
    }

    /// Completes the help in the reference.
    pub(super) const fn rule(self, rule: &'static str) -> Self {
        Self { rule, ..self }
    }

    /// Its parent must have it; `example` is a value to show.
    pub(super) const fn required(self, example: &'static str) -> Self {
        Self {
            required: Some(example),
            ..self
        }
    }

    /// It may be stated without a child.
    pub(super) const fn alone(self) -> Self {
        Self {
            alone: true,
            ..self
        }
    }
}

pub(super) const fn word(word: &'static str) -> Word {
    Word {
        word,
        status: Status::Supported,
    }
}

pub(super) const fn foreign_word(word: &'static str) -> Word {
    Word {
        word,
        status: Status::Foreign,
    }
}

pub(super) const fn milliseconds(min: u32, max: u32) -> Type {
    Type::Number {
        min,
        max,
        unit: "milliseconds",
    }
}

pub(super) const fn seconds(min: u32, max: u32) -> Type {
    Type::Number {
        min,
        max,
        unit: "seconds",
    }
}

pub(super) const SWITCH: Type = Type::Choice(&[word("enable"), word("disable")]);
