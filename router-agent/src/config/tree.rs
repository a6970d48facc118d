//! What a file states, node by node, each with the place where it is stated.
//!
//! Whatever form the file has, its reader hands paths of words to [`Builder::set`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::diagnostic::{Problem, Report};
use super::lex::Token;
use super::schema::{self, Kind, Node, Status, Type};
use super::source::Place;
use super::value::{self, Value};

/// A branch that the file states, or one instance of a tag.
#[derive(Debug)]
pub(super) struct Branch {
    /// Of the word that first states it.
    pub place: Place,
    children: BTreeMap<&'static str, Child>,
    /// Children that the file means to state but states wrongly. That they are missing is then
    /// not worth a second error.
    broken: BTreeSet<&'static str>,
}

#[derive(Debug)]
enum Child {
    Branch(Branch),
    Tag(Instances),
    Values(Values),
}

#[derive(Debug, Default)]
struct Instances {
    all: Vec<Instance>,
    by_name: HashMap<String, usize>,
}

/// An instance of a tag node, such as one tunnel.
#[derive(Debug)]
pub(super) struct Instance {
    pub name: String,
    pub branch: Branch,
}

#[derive(Debug, Default)]
struct Values {
    all: Vec<Stated<Value>>,
    seen: HashSet<Value>,
}

/// A value and where it is stated.
#[derive(Clone, Debug)]
pub(super) struct Stated<T> {
    pub value: T,
    pub place: Place,
}

impl Branch {
    pub fn new(place: Place) -> Self {
        Self {
            place,
            children: BTreeMap::new(),
            broken: BTreeSet::new(),
        }
    }

    pub fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.children.contains_key(name)
    }

    pub fn branch(&self, name: &str) -> Option<&Branch> {
        match self.children.get(name)? {
            Child::Branch(branch) => Some(branch),
            Child::Tag(_) | Child::Values(_) => None,
        }
    }

    pub fn instances(&self, name: &str) -> &[Instance] {
        match self.children.get(name) {
            Some(Child::Tag(instances)) => &instances.all,
            Some(Child::Branch(_) | Child::Values(_)) | None => &[],
        }
    }

    /// All values of a node, in the order of the file; one at most unless it is a multi node.
    pub fn values(&self, name: &str) -> &[Stated<Value>] {
        match self.children.get(name) {
            Some(Child::Values(values)) => &values.all,
            Some(Child::Branch(_) | Child::Tag(_)) | None => &[],
        }
    }

    pub fn value(&self, name: &str) -> Option<&Stated<Value>> {
        self.values(name).last()
    }

    fn sub_branch(&mut self, name: &'static str, place: Place) -> Option<&mut Branch> {
        let child = self
            .children
            .entry(name)
            .or_insert_with(|| Child::Branch(Branch::new(place)));
        match child {
            Child::Branch(branch) => Some(branch),
            Child::Tag(_) | Child::Values(_) => None,
        }
    }

    fn instance(&mut self, name: &'static str, token: &Token) -> Option<&mut Branch> {
        let child = self
            .children
            .entry(name)
            .or_insert_with(|| Child::Tag(Instances::default()));
        let Child::Tag(Instances { all, by_name }) = child else {
            return None;
        };
        let index = *by_name.entry(token.text.clone()).or_insert_with(|| {
            all.push(Instance {
                name: token.text.clone(),
                branch: Branch::new(token.place),
            });
            all.len() - 1
        });
        all.get_mut(index).map(|instance| &mut instance.branch)
    }

    fn values_mut(&mut self, name: &'static str) -> Option<&mut Values> {
        let child = self
            .children
            .entry(name)
            .or_insert_with(|| Child::Values(Values::default()));
        match child {
            Child::Values(values) => Some(values),
            Child::Branch(_) | Child::Tag(_) => None,
        }
    }
}

/// Builds the tree, reporting each path that does not fit the schema.
pub(super) struct Builder {
    root: Branch,
    strict: bool,
    /// Nodes about which one report is enough, by identity.
    reported: HashSet<*const Node>,
}

impl Builder {
    pub fn new(strict: bool) -> Self {
        let nowhere = Place {
            line: 1,
            column: 1,
            start: 0,
            end: 0,
            line_start: 0,
        };
        Self {
            root: Branch::new(nowhere),
            strict,
            reported: HashSet::new(),
        }
    }

    pub fn finish(self) -> Branch {
        self.root
    }

    /// Notes what `words` were going to state, had their line been whole. Gives the first word that
    /// is no node, if there is one.
    pub fn set_broken<'a>(&mut self, words: &'a [Token]) -> Option<&'a Token> {
        let mut branch = &mut self.root;
        let mut nodes = schema::ROOT;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(node) = schema::find(nodes, &word.text) else {
                return Some(word);
            };
            let next = match &node.kind {
                Kind::Branch(_) => branch.sub_branch(node.name, word.place),
                Kind::Tag(of, _) => match words.next() {
                    Some(name)
                        if !words.as_slice().is_empty() && value::parse(of, &name.text).is_ok() =>
                    {
                        branch.instance(node.name, name)
                    }
                    _ => {
                        branch.broken.insert(node.name);
                        return None;
                    }
                },
                Kind::Leaf(_) | Kind::Multi(_) | Kind::Flag => {
                    branch.broken.insert(node.name);
                    return None;
                }
            };
            let next = next?;
            branch = next;
            nodes = node.children();
        }
        None
    }

    /// States what `words` say. `before` is the place to blame if there are none.
    pub fn set(&mut self, before: Place, words: &[Token], report: &mut Report) {
        let mut branch = &mut self.root;
        let mut nodes = schema::ROOT;
        let mut last = before;
        let mut path = String::from("set");
        let mut words = words.iter();
        let mut complete = false;

        loop {
            let Some(word) = words.next() else {
                if complete {
                    return;
                }
                report.add(
                    Problem::error(last, "the line ends where a node is wanted").help(format!(
                        "the nodes possible after `{path}` are {}",
                        names(nodes)
                    )),
                );
                return;
            };
            let Some(node) = schema::find(nodes, &word.text) else {
                if let Some(meant) = unknown(word, nodes, &path, report) {
                    branch.broken.insert(meant);
                }
                return;
            };
            path.push(' ');
            path.push_str(node.name);
            last = word.place;
            if node.status != Status::Supported {
                branch.broken.insert(node.name);
                if self.reported.insert(std::ptr::from_ref(node)) {
                    report.add(unsupported(word, node, &path, self.strict));
                }
                return;
            }
            match &node.kind {
                Kind::Branch(children) => {
                    let Some(next) = branch.sub_branch(node.name, word.place) else {
                        return;
                    };
                    branch = next;
                    nodes = children;
                    complete = node.alone;
                }
                Kind::Tag(of, children) => {
                    let Some(name) = words.next() else {
                        branch.broken.insert(node.name);
                        report.add(no_value(word, node, &path, "a name", of));
                        return;
                    };
                    if let Err(bad) = value::parse(of, &name.text) {
                        branch.broken.insert(node.name);
                        report.add(bad_value(name, bad));
                        return;
                    }
                    path.push(' ');
                    path.push_str(&name.text);
                    last = name.place;
                    let Some(next) = branch.instance(node.name, name) else {
                        return;
                    };
                    branch = next;
                    nodes = children;
                    complete = true;
                }
                Kind::Leaf(_) | Kind::Multi(_) | Kind::Flag => {
                    match last_node(word, node, words.as_slice(), &path) {
                        Ok(stated) => store(branch, node, stated, report),
                        Err(problem) => {
                            branch.broken.insert(node.name);
                            report.add(*problem);
                        }
                    }
                    return;
                }
            }
        }
    }
}

/// The value of a node that has no children, out of the words behind it.
fn last_node(
    word: &Token,
    node: &Node,
    words: &[Token],
    path: &str,
) -> Result<Stated<Value>, Box<Problem>> {
    let of = match &node.kind {
        Kind::Leaf(of) | Kind::Multi(of) => of,
        Kind::Flag | Kind::Branch(_) | Kind::Tag(..) => return flag(word, words, path),
    };
    let Some(value) = words.first() else {
        return Err(Box::new(no_value(word, node, path, "a value", of)));
    };
    if let Some(extra) = words.get(1) {
        let help = match of {
            Type::Text(_) | Type::Secret => {
                "put a value that has blanks into quotation marks: 'TEXT'"
            }
            _ => {
                "one line states one value; a node that takes several takes each on a line of its own"
            }
        };
        let message = format!("{} follows the value of `{}`", extra.shown(), node.name);
        return Err(Box::new(
            Problem::error(extra.place, message).help(help).hide_rest(),
        ));
    }
    match value::parse(of, &value.text) {
        Ok(parsed) => Ok(Stated {
            value: parsed,
            place: value.place,
        }),
        Err(bad) => Err(Box::new(bad_value(value, bad))),
    }
}

fn flag(word: &Token, words: &[Token], path: &str) -> Result<Stated<Value>, Box<Problem>> {
    match words.first() {
        None => Ok(Stated {
            value: Value::Bool(true),
            place: word.place,
        }),
        Some(extra) => Err(Box::new(
            Problem::error(
                extra.place,
                format!(
                    "`{}` takes no value, but {} follows it",
                    word.text,
                    extra.shown()
                ),
            )
            .help(format!("write `{path}`"))
            .hide_rest(),
        )),
    }
}

fn store(branch: &mut Branch, node: &'static Node, stated: Stated<Value>, report: &mut Report) {
    let Some(values) = branch.values_mut(node.name) else {
        return;
    };
    match node.kind {
        Kind::Multi(_) => {
            if values.seen.insert(stated.value.clone()) {
                values.all.push(stated);
            } else {
                report.add(
                    Problem::warning(
                        stated.place,
                        format!("this `{}` is stated already", node.name),
                    )
                    .help("remove the line"),
                );
            }
        }
        Kind::Leaf(_) | Kind::Flag | Kind::Branch(_) | Kind::Tag(..) => {
            values.all.clear();
            values.all.push(stated);
        }
    }
}

fn no_value(word: &Token, node: &Node, path: &str, what: &str, of: &Type) -> Problem {
    Problem::error(word.place, format!("`{}` lacks {what}", node.name)).help(format!(
        "write `{path} {}` ({})",
        form(of),
        node.help
    ))
}

/// A stand-in for a value in a remedy.
fn form(of: &Type) -> String {
    match of {
        Type::Text(_) | Type::Secret => "'TEXT'".to_owned(),
        Type::HostName => "HOST".to_owned(),
        Type::Name => "NAME".to_owned(),
        Type::TunnelName => "tunN".to_owned(),
        Type::InterfaceName | Type::OtherInterface => "INTERFACE".to_owned(),
        Type::Number { .. } | Type::NumberOr { .. } | Type::BitsOr { .. } => "NUMBER".to_owned(),
        Type::Bool => "true|false".to_owned(),
        Type::Choice(words) => words
            .iter()
            .filter(|w| w.status == Status::Supported)
            .map(|w| w.word)
            .collect::<Vec<_>>()
            .join("|"),
        Type::Endpoint | Type::Address | Type::McastGroup | Type::Ipv4Address => {
            "ADDRESS".to_owned()
        }
        Type::Prefix => "ADDRESS/LENGTH".to_owned(),
        Type::Service => "SERVICE".to_owned(),
        Type::Network => "NETWORK/LENGTH".to_owned(),
        Type::Path => "/PATH".to_owned(),
        Type::AwsId(prefix) => format!("{prefix}…"),
        Type::AwsInterface => "INTERFACE or eni-…".to_owned(),
        Type::AwsDestination => "NETWORK/LENGTH or pl-…".to_owned(),
        Type::Url => "URL".to_owned(),
    }
}

fn bad_value(word: &Token, bad: value::Bad) -> Problem {
    const TYPOGRAPHIC: [char; 4] = ['‘', '’', '“', '”'];
    let help = if word.text.contains(TYPOGRAPHIC) {
        "the value has typographic quotation marks in it, perhaps from a web page; write ' or \""
            .to_owned()
    } else {
        bad.help
    };
    Problem::error(word.place, format!("{} {}", word.shown(), bad.reason)).help(help)
}

fn names(nodes: &[Node]) -> String {
    let ours: Vec<_> = nodes
        .iter()
        .filter(|node| node.status == Status::Supported)
        .map(|node| format!("`{}`", node.name))
        .collect();
    ours.join(", ")
}

/// Reports a word that is no node here, and says which one is probably meant.
fn unknown(
    word: &Token,
    nodes: &'static [Node],
    path: &str,
    report: &mut Report,
) -> Option<&'static str> {
    // Looking for the nearest name is the costly part, and for errors that nobody will see.
    let near = if report.is_full() {
        None
    } else {
        schema::nearest(&word.text, nodes.iter().map(|node| node.name))
    };
    let place_in_tree = match path {
        "set" => "at the top".to_owned(),
        path => format!("under `{}`", path.trim_start_matches("set ")),
    };
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the nodes possible here are {}", names(nodes)),
    };
    report.add(
        Problem::error(
            word.place,
            format!("there is no node {} {place_in_tree}", word.shown_name()),
        )
        .help(help)
        .hide_from(word.shown_name_end()),
    );
    near
}

fn unsupported(word: &Token, node: &Node, path: &str, strict: bool) -> Problem {
    let shown = path.trim_start_matches("set ");
    match node.status {
        Status::Supported | Status::Later => Problem::error(
            word.place,
            format!("`{shown}` is not carried out by this version"),
        )
        .help(format!("remove the lines that begin with `{path}`")),
        Status::Foreign if strict => Problem::error(
            word.place,
            format!("`{shown}` is not carried out by this router"),
        )
        .help(format!(
            "remove the lines that begin with `{path}`, or check without --strict"
        )),
        Status::Foreign => Problem::warning(
            word.place,
            format!("`{shown}` is not carried out by this router"),
        )
        .help("it is ignored, with all below it"),
    }
    .hide_rest()
}
