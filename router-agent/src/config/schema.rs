//! The language as data: what nodes there are, what they hold, and what becomes of them here.
//!
//! Parsing, checking of values, suggestions, remedies, help and printing all read this one tree.

mod build;
mod conntrack_sync;
mod interfaces;
mod legal;
mod nodes;

use super::secret::Secrets;
use super::value;

pub(super) use nodes::ROOT;

/// A node of the language.
#[derive(Debug)]
pub(super) struct Node {
    pub name: &'static str,
    pub kind: Kind,
    /// One line, for the operator.
    pub help: &'static str,
    /// What else holds of it, for the reference.
    pub rule: &'static str,
    /// The value that holds if the configuration states none, as it would be written.
    pub default: Option<&'static str>,
    /// How the default goes by a sibling.
    pub default_by: Option<DefaultBy>,
    /// The default that Vyatta has, if it is another.
    pub vyatta_default: Option<&'static str>,
    pub status: Status,
    /// For a node that its parent must have: a value to show in the remedy.
    pub required: Option<&'static str>,
    /// Whether a branch means something without a child: then its children have their defaults.
    pub alone: bool,
}

/// A default that is not the same everywhere: it goes by a sibling that is a number.
#[derive(Clone, Copy, Debug)]
pub(super) enum DefaultBy {
    /// The sibling's value where that is larger.
    AtLeast(&'static str),
    /// A quarter of the sibling's value.
    QuarterOf(&'static str),
}

impl DefaultBy {
    pub const fn sibling(self) -> &'static str {
        match self {
            Self::AtLeast(sibling) | Self::QuarterOf(sibling) => sibling,
        }
    }

    /// Instead of `default`, where the sibling is `value`.
    pub fn apply(self, default: u32, value: u32) -> u32 {
        match self {
            Self::AtLeast(_) => default.max(value),
            Self::QuarterOf(_) => value / 4,
        }
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    Branch(&'static [Node]),
    /// A branch of which there are many, each with a name.
    Tag(Type, &'static [Node]),
    /// One value; stated again, the last wins.
    Leaf(Type),
    /// Any number of values.
    Multi(Type),
    /// No value: stated or not.
    Flag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Supported,
    /// Ours, or Vyatta's and meant to be ours, but this version does not do it: an error.
    Later,
    /// Vyatta's and none of our business: a warning, and ignored with all below it.
    Foreign,
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    /// At most so many characters.
    Text(usize),
    Secret,
    /// Of a file, absolute.
    Path,
    HostName,
    /// A name for something in this configuration, such as a group.
    Name,
    TunnelName,
    InterfaceName,
    /// The name of an interface that is not a tunnel of ours.
    OtherInterface,
    /// A whole number within bounds, and its unit if it has one.
    Number {
        min: u32,
        max: u32,
        unit: &'static str,
    },
    /// A number, or one of the words.
    NumberOr {
        min: u32,
        max: u32,
        words: &'static [Word],
    },
    /// A field of so many bits, in decimal or with `0x` in hexadecimal, or one of the words.
    BitsOr {
        width: u32,
        words: &'static [Word],
    },
    /// A whole number of either sign, as far as a priority goes.
    Weight,
    Bool,
    Choice(&'static [Word]),
    /// One of the words, or several divided by commas.
    Choices(&'static [Word]),
    /// The outer address of a tunnel.
    Endpoint,
    /// An address of this host with the length of its network.
    Prefix,
    Address,
    /// An address of this host and a TCP port; a port alone is on the loopback interface.
    Listen,
    /// IPv4 in 239.0.0.0/8.
    McastGroup,
    /// Any IPv4 multicast group.
    Ipv4Group,
    /// The path of a file of this host.
    File,
    /// The same, and arguments behind it, divided by blanks.
    Command,
    /// A URL of scheme, host and port.
    Server,
    /// The beginning of keys in a store.
    KeyPrefix,
    /// `IP/len[/iface[/bcast]]`, a systemd unit, or `script::argument…`.
    Service,
    /// A network, without host bits.
    Network,
    Ipv4Address,
    /// The identifier of something at AWS, with its prefix: `rtb-`.
    AwsId(&'static str),
    /// `eni-…`, or the name of an interface.
    AwsInterface,
    /// A network, or a prefix list of AWS.
    AwsDestination,
    /// Begins with `http://` or `https://`.
    Url,
}

/// A word that a value can be.
#[derive(Debug)]
pub(super) struct Word {
    pub word: &'static str,
    pub status: Status,
}

impl Node {
    pub fn children(&self) -> &'static [Node] {
        match self.kind {
            Kind::Branch(children) | Kind::Tag(_, children) => children,
            Kind::Leaf(_) | Kind::Multi(_) | Kind::Flag => &[],
        }
    }
}

pub(super) fn find(nodes: &'static [Node], name: &str) -> Option<&'static Node> {
    nodes.iter().find(|node| node.name == name)
}

/// The nodes below a path of names, and of instances' names after those of tags.
pub(super) fn at<'a>(mut path: impl Iterator<Item = &'a str>) -> Option<&'static [Node]> {
    let mut nodes = ROOT;
    while let Some(name) = path.next() {
        let node = find(nodes, name)?;
        if let Kind::Tag(..) = node.kind {
            path.next()?;
        }
        nodes = node.children();
    }
    Some(nodes)
}

/// As much of a path as leads to a node, and of its values to one where it takes several.
pub(super) fn node_path<'a>(mut words: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut nodes = ROOT;
    let mut path = Vec::new();
    while let Some(word) = words.next() {
        let Some(node) = find(nodes, word) else {
            break;
        };
        path.push(word.to_owned());
        match &node.kind {
            Kind::Tag(..) => path.extend(words.next().map(ToOwned::to_owned)),
            Kind::Multi(of) => {
                let value = words.next().and_then(|word| value::parse(of, word).ok());
                path.extend(value.map(|value| value.written(Secrets::Shown)));
            }
            Kind::Branch(_) | Kind::Leaf(_) | Kind::Flag => {}
        }
        nodes = node.children();
    }
    path
}

/// Whether the node at the end of a path of names, and of instances' names, takes several values.
pub(super) fn takes_several(path: &[String]) -> bool {
    let Some((name, above)) = path.split_last() else {
        return false;
    };
    at(above.iter().map(String::as_str))
        .and_then(|nodes| find(nodes, name))
        .is_some_and(|node| matches!(node.kind, Kind::Multi(_)))
}

/// The nodes of this router's own among `nodes`.
pub(super) fn ours(nodes: &'static [Node]) -> impl Iterator<Item = &'static Node> {
    nodes.iter().filter(|node| node.status == Status::Supported)
}

/// Whether a node has this name, wherever.
pub(super) fn is_name(word: &str) -> bool {
    fn below(nodes: &'static [Node], word: &str) -> bool {
        nodes
            .iter()
            .any(|node| node.name == word || below(node.children(), word))
    }
    below(ROOT, word)
}

/// The name most like `word`, if one is like it enough to be meant.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // No name is longer; the comparison costs the product of both lengths.
    const LONGEST: usize = 40;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    names
        .map(|name| (strsim::damerau_levenshtein(&word, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(nodes: &'static [Node], visit: &mut impl FnMut(&'static Node)) {
        for node in nodes {
            visit(node);
            walk(node.children(), visit);
        }
    }

    #[test]
    fn names_are_unique_among_siblings() {
        let check = |nodes: &[Node]| {
            let mut names: Vec<_> = nodes.iter().map(|n| n.name).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|w| w[0] != w[1]), "{names:?}");
        };
        check(ROOT);
        walk(ROOT, &mut |node| check(node.children()));
    }

    #[test]
    fn every_node_of_ours_has_help() {
        walk(ROOT, &mut |node| {
            assert!(
                node.status == Status::Foreign || !node.help.is_empty(),
                "{}",
                node.name
            );
        });
    }

    #[test]
    fn defaults_are_valid_values() {
        walk(ROOT, &mut |node| {
            if let (Some(default), Kind::Leaf(kind)) = (node.default, &node.kind) {
                let parsed = value::parse(kind, default).ok();
                let written = parsed.map(|value| value.written(Secrets::Shown));
                assert_eq!(written.as_deref(), Some(default), "{}", node.name);
            }
        });
    }

    /// What help says holds alone is what holds where the sibling has its default too.
    #[test]
    fn defaults_that_go_by_a_sibling_fit_its_default() {
        let number = |nodes, name| find(nodes, name).and_then(|node| node.default?.parse().ok());
        let check = |nodes: &'static [Node]| {
            for node in nodes {
                if let Some(by) = node.default_by {
                    let own: u32 = number(nodes, node.name).unwrap();
                    let sibling = number(nodes, by.sibling()).unwrap();
                    assert_eq!(by.apply(own, sibling), own, "{}", node.name);
                }
            }
        };
        check(ROOT);
        walk(ROOT, &mut |node| check(node.children()));
    }

    #[test]
    fn suggestions_need_likeness() {
        let names = || ["multicast", "mtu", "address"].into_iter();
        assert_eq!(nearest("multicat", names()), Some("multicast"));
        assert_eq!(nearest("adress", names()), Some("address"));
        assert_eq!(nearest("MTU", names()), Some("mtu"));
        assert_eq!(nearest("color", names()), None);
    }
}
