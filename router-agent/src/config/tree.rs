//! What a file states, node by node, each with the place where it is stated.
//!
//! Whatever form the file has, its reader hands paths of words to a [`Builder`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::comments::{Comments, Remark};
use super::diagnostic::{Problem, Report};
use super::lex::Token;
use super::schema::{self, Kind, Node, Status, Type};
use super::source::Place;
use super::value::{self, Value};

/// All that a text states.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub root: Branch,
    pub comments: Comments,
    pub aside: Vec<Aside>,
    /// Lines that open a block of which nothing is held.
    pub skipped: BTreeSet<usize>,
}

/// What the text states and the tree does not hold, though it is no error.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    pub line: usize,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A node of Vyatta's that is none of this router's business.
    Foreign(String),
    /// A node, by its path, that is not to have an effect.
    Deactivated(String),
    /// A node, by its path, that is stated again further down.
    Overridden(String),
    /// A comment that belongs to nothing that the tree holds, without secrets.
    Comment(String),
}

/// A branch that the file states, or one instance of a tag.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// Of the word that first states it.
    pub place: Place,
    children: BTreeMap<&'static str, Child>,
    /// Children that the file means to state but states wrongly. That they are missing is then
    /// not worth a second error.
    broken: BTreeSet<&'static str>,
}

#[derive(Clone, Debug)]
enum Child {
    Branch(Branch),
    Tag(Instances),
    Values(Values),
}

/// What is deleted has no index any more, and goes when the file is read.
#[derive(Clone, Debug, Default)]
struct Instances {
    all: Vec<Instance>,
    indices: HashMap<String, usize>,
}

/// An instance of a tag node, such as one tunnel.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub name: String,
    pub branch: Branch,
}

/// As [`Instances`].
#[derive(Clone, Debug, Default)]
struct Values {
    all: Vec<Stated<Value>>,
    indices: HashMap<Value, usize>,
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

    /// Whether nothing is stated below it.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
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
        let Child::Tag(Instances { all, indices }) = child else {
            return None;
        };
        let index = *indices.entry(token.text.clone()).or_insert_with(|| {
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

impl Branch {
    /// Takes away what was deleted.
    fn settle(&mut self) {
        self.children.retain(|_, child| match child {
            Child::Branch(branch) => {
                branch.settle();
                true
            }
            Child::Tag(Instances { all, indices }) => {
                let mut index = 0..;
                all.retain(|one| indices.get(&one.name).copied() == index.next());
                for one in all.iter_mut() {
                    one.branch.settle();
                }
                !all.is_empty()
            }
            Child::Values(Values { all, indices }) => {
                let mut index = 0..;
                all.retain(|one| indices.get(&one.value).copied() == index.next());
                !all.is_empty()
            }
        });
    }

    /// Deletes a child, or one of its instances or values. Whether there was such a thing.
    fn delete(&mut self, node: &Node, which: Option<&Token>) -> Result<bool, value::Bad> {
        let Some(which) = which else {
            return Ok(self.children.remove(node.name).is_some());
        };
        let (was_there, is_last) = match (self.children.get_mut(node.name), &node.kind) {
            (Some(Child::Tag(instances)), _) => {
                let was_there = instances.indices.remove(&which.text).is_some();
                (was_there, instances.indices.is_empty())
            }
            (Some(Child::Values(values)), Kind::Leaf(of) | Kind::Multi(of)) => {
                let value = value::parse(of, &which.text)?;
                let was_there = values.indices.remove(&value).is_some();
                (was_there, values.indices.is_empty())
            }
            _ => (false, false),
        };
        if is_last {
            self.children.remove(node.name);
        }
        Ok(was_there)
    }

    /// Whether it has the node, and the instance or the value where a node has several.
    fn states(&self, node: &Node, which: Option<&Token>) -> bool {
        match (self.children.get(node.name), &node.kind, which) {
            (Some(_), _, None) => true,
            (Some(Child::Tag(instances)), _, Some(name)) => {
                instances.indices.contains_key(&name.text)
            }
            (Some(Child::Values(values)), Kind::Multi(of), Some(value)) => {
                value::parse(of, &value.text).is_ok_and(|value| values.indices.contains_key(&value))
            }
            _ => false,
        }
    }

    fn below(&mut self, node: &Node, name: Option<&Token>) -> Option<&mut Branch> {
        match (self.children.get_mut(node.name)?, name) {
            (Child::Branch(branch), None) => Some(branch),
            (Child::Tag(Instances { all, indices }), Some(name)) => {
                let index = *indices.get(&name.text)?;
                all.get_mut(index).map(|instance| &mut instance.branch)
            }
            _ => None,
        }
    }
}

/// What comes after the words of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Line,
    Brace,
}

/// Builds the tree, reporting each path that does not fit the schema.
pub(super) struct Builder {
    root: Branch,
    comments: Comments,
    /// What stands in comments since the last node.
    remark: Option<Remark>,
    strict: bool,
    /// Nodes about which one report is enough, by identity.
    reported: HashSet<*const Node>,
    aside: Vec<Aside>,
    /// The paths that are aside as foreign, once each.
    foreign: HashSet<String>,
    skipped: BTreeSet<usize>,
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
            comments: Comments::default(),
            remark: None,
            strict,
            reported: HashSet::new(),
            aside: Vec::new(),
            foreign: HashSet::new(),
            skipped: BTreeSet::new(),
        }
    }

    pub fn finish(mut self) -> Tree {
        self.leave_remark();
        self.root.settle();
        Tree {
            root: self.root,
            comments: self.comments,
            aside: self.aside,
            skipped: self.skipped,
        }
    }

    /// Notes a node that is read and has no effect.
    pub fn deactivated(&mut self, mark: Place, words: &[Token]) {
        self.aside.push(Aside {
            line: mark.line,
            what: What::Deactivated(node_path(words).join(" ")),
        });
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

    /// States what `words` say. `before` is the place to blame if there are none. Whether it is stated
    /// then.
    pub fn set(&mut self, before: Place, words: &[Token], report: &mut Report) -> bool {
        self.state(before, words, End::Line, report)
    }

    /// States a node that has others in braces. Whether those are to be looked at.
    pub fn open(&mut self, brace: Place, words: &[Token], report: &mut Report) -> bool {
        let is_held = self.state(brace, words, End::Brace, report);
        if !is_held {
            self.skipped.insert(brace.line);
        }
        is_held
    }

    fn state(&mut self, before: Place, words: &[Token], end: End, report: &mut Report) -> bool {
        let mut branch = &mut self.root;
        let mut nodes = schema::ROOT;
        let mut last = before;
        let mut path = String::from("set");
        let mut words = words.iter();
        let mut complete = false;

        loop {
            let Some(word) = words.next() else {
                let lacks_node = !complete && end == End::Line;
                if lacks_node {
                    report.add(no_node(last, &path, nodes));
                }
                return !lacks_node;
            };
            let Some(node) = schema::find(nodes, &word.text) else {
                if let Some(meant) = unknown(word, nodes, &path, report) {
                    branch.broken.insert(meant);
                }
                return false;
            };
            path.push(' ');
            path.push_str(node.name);
            last = word.place;
            if node.status != Status::Supported {
                branch.broken.insert(node.name);
                if self.reported.insert(std::ptr::from_ref(node)) {
                    report.add(unsupported(word, node, &path, self.strict));
                }
                let path = path.trim_start_matches("set ");
                if node.status == Status::Foreign && self.foreign.insert(path.to_owned()) {
                    self.aside.push(Aside {
                        line: word.place.line,
                        what: What::Foreign(path.to_owned()),
                    });
                }
                return false;
            }
            match &node.kind {
                Kind::Branch(children) => {
                    let Some(next) = branch.sub_branch(node.name, word.place) else {
                        return false;
                    };
                    branch = next;
                    nodes = children;
                    complete = node.alone;
                }
                Kind::Tag(of, children) => {
                    let Some(name) = words.next() else {
                        branch.broken.insert(node.name);
                        report.add(no_value(word, node, &path, "a name", of));
                        return false;
                    };
                    if let Err(bad) = value::parse(of, &name.text) {
                        branch.broken.insert(node.name);
                        report.add(bad_value(name, bad));
                        return false;
                    }
                    path.push(' ');
                    path.push_str(&name.text);
                    last = name.place;
                    let Some(next) = branch.instance(node.name, name) else {
                        return false;
                    };
                    branch = next;
                    nodes = children;
                    complete = true;
                }
                Kind::Leaf(_) | Kind::Multi(_) | Kind::Flag => {
                    let stated = match end {
                        End::Line => last_node(word, node, words.as_slice(), &path),
                        End::Brace => Err(Box::new(no_children(before, node))),
                    };
                    match stated {
                        Ok(stated) => {
                            if let Some(before) = overridden(branch, node, &stated) {
                                self.aside.push(Aside {
                                    line: before.line,
                                    what: What::Overridden(
                                        path.trim_start_matches("set ").to_owned(),
                                    ),
                                });
                            }
                            store(branch, node, stated, report);
                            return true;
                        }
                        Err(problem) => {
                            branch.broken.insert(node.name);
                            report.add(*problem);
                            return false;
                        }
                    }
                }
            }
        }
    }

    /// Takes back what lines above state: a node with all below it, or one of its values.
    pub fn delete(&mut self, before: Place, words: &[Token], report: &mut Report) {
        let Ok(Located {
            branch,
            node,
            which,
            last,
            path,
        }) = self.locate(before, words, "delete", report)
        else {
            return;
        };
        match branch.delete(node, which) {
            Ok(true) => {
                let has_others = branch.has(node.name);
                let mut path = node_path(words);
                if !has_others {
                    path.truncate(path.len() - usize::from(names_one(node, which)));
                }
                self.comments.forget(&path);
            }
            Ok(false) => report.add(nothing_stated(last.place, &path)),
            Err(bad) => report.add(bad_value(last, bad)),
        }
    }

    /// Attaches a text, the last of the words, to a node that lines above state. An empty one takes
    /// it away.
    pub fn comment(&mut self, before: Place, words: &[Token], report: &mut Report) {
        let Some((text, words)) = words.split_last().filter(|(_, path)| !path.is_empty()) else {
            let last = words.last().map_or(before, |word| word.place);
            report.add(
                Problem::error(last, "the line ends where a node and a text are wanted")
                    .help("write `comment cluster 'TEXT'`"),
            );
            return;
        };
        if text.text.contains("*/") || text.text.chars().any(char::is_control) {
            report.add(
                Problem::error(
                    text.place,
                    "a comment has no `*/` and no control characters",
                )
                .help("take them out"),
            );
            return;
        }
        let remark = Remark::new(text.place.line, &text.text, text.is_masked());
        match self.locate(before, words, "comment", report) {
            Ok(located) if located.branch.states(located.node, located.which) => {
                self.comments.set(node_path(words), remark);
            }
            Ok(located) => report.add(nothing_stated(located.last.place, &located.path)),
            Err(Nowhere::NotHeld) => self.aside.extend(remark.as_ref().map(aside)),
            Err(Nowhere::Reported) => {}
        }
    }

    /// Reads a comment that has no node in its words.
    pub fn remark(&mut self, line: usize, text: &str, is_masked: bool) {
        let before = self.remark.take();
        self.remark = Remark::joined(before, Remark::new(line, text, is_masked));
    }

    /// Attaches the comments read last to the node that `words` state.
    pub fn place_remark(&mut self, words: &[Token]) {
        if let Some(remark) = self.remark.take() {
            self.comments.add(node_path(words), remark);
        }
    }

    /// Notes that the comments read last belong to nothing that is held.
    pub fn leave_remark(&mut self) {
        self.aside.extend(self.remark.take().as_ref().map(aside));
    }

    /// Forgets the comments read last: they go with something that is left out as a whole.
    pub fn skip_remark(&mut self) {
        self.remark = None;
    }

    /// The last node that `words` name. What it is below of is stated.
    fn locate<'b, 'w>(
        &'b mut self,
        before: Place,
        words: &'w [Token],
        command: &str,
        report: &mut Report,
    ) -> Result<Located<'b, 'w>, Nowhere> {
        let mut branch = &mut self.root;
        let mut nodes = schema::ROOT;
        let mut path = command.to_owned();
        let mut words = words.iter().peekable();
        loop {
            let Some(word) = words.next() else {
                report.add(no_node(before, &path, nodes));
                return Err(Nowhere::Reported);
            };
            let Some(node) = schema::find(nodes, &word.text) else {
                unknown(word, nodes, &path, report);
                return Err(Nowhere::Reported);
            };
            path.push(' ');
            path.push_str(node.name);
            if node.status != Status::Supported {
                return Err(Nowhere::NotHeld);
            }
            let which = match &node.kind {
                Kind::Branch(_) | Kind::Flag => None,
                Kind::Tag(..) | Kind::Leaf(_) | Kind::Multi(_) => words.next(),
            };
            if let Some(which) = which {
                path.push(' ');
                path.push_str(&which.shown().replace('`', ""));
            }
            let last = which.unwrap_or(word);
            let Some(next) = words.peek() else {
                return Ok(Located {
                    branch,
                    node,
                    which,
                    last,
                    path,
                });
            };
            nodes = node.children();
            if nodes.is_empty() {
                report.add(
                    Problem::error(
                        next.place,
                        format!("{} follows the whole of `{path}`", next.shown()),
                    )
                    .help(format!("write `{path}`"))
                    .hide_rest(),
                );
                return Err(Nowhere::Reported);
            }
            let Some(below) = branch.below(node, which) else {
                report.add(nothing_stated(last.place, &path));
                return Err(Nowhere::Reported);
            };
            branch = below;
        }
    }
}

/// A node that the words of a line name.
struct Located<'b, 'w> {
    /// The branch that has it, if anything has.
    branch: &'b mut Branch,
    node: &'static Node,
    /// The instance or the value.
    which: Option<&'w Token>,
    /// The word to blame.
    last: &'w Token,
    path: String,
}

/// Why the words of a line name no node that is held.
enum Nowhere {
    /// It is wrong, and that is said.
    Reported,
    /// The node is not this router's.
    NotHeld,
}

fn aside(comment: &Remark) -> Aside {
    Aside {
        line: comment.line,
        what: What::Comment(comment.masked()),
    }
}

fn node_path(words: &[Token]) -> Vec<String> {
    schema::node_path(words.iter().map(|word| word.text.as_str()))
}

/// Whether `which` is a part of the path: one of several.
fn names_one(node: &Node, which: Option<&Token>) -> bool {
    which.is_some() && matches!(node.kind, Kind::Tag(..) | Kind::Multi(_))
}

fn no_node(last: Place, path: &str, nodes: &'static [Node]) -> Problem {
    Problem::error(last, "the line ends where a node is wanted").help(possible(nodes, path))
}

fn no_children(brace: Place, node: &Node) -> Problem {
    Problem::error(brace, format!("`{}` has no nodes below it", node.name))
        .help("take out the brace and the one that closes it, with what is between them")
}

fn nothing_stated(place: Place, path: &str) -> Problem {
    let what = path.split_once(' ').map_or(path, |(_, nodes)| nodes);
    Problem::error(place, format!("`{what}` is not stated above this line"))
        .help("remove the line, or correct the path")
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

/// Where the value was stated that `stated` takes the place of.
fn overridden(branch: &Branch, node: &Node, stated: &Stated<Value>) -> Option<Place> {
    let before = match node.kind {
        Kind::Leaf(_) => branch.value(node.name)?,
        Kind::Multi(_) | Kind::Flag | Kind::Branch(_) | Kind::Tag(..) => return None,
    };
    (before.value != stated.value).then_some(before.place)
}

fn store(branch: &mut Branch, node: &'static Node, stated: Stated<Value>, report: &mut Report) {
    let Some(values) = branch.values_mut(node.name) else {
        return;
    };
    match node.kind {
        Kind::Multi(_) => {
            let index = values.all.len();
            if values.indices.contains_key(&stated.value) {
                report.add(
                    Problem::warning(
                        stated.place,
                        format!("this `{}` is stated already", node.name),
                    )
                    .help("remove the line"),
                );
            } else {
                values.indices.insert(stated.value.clone(), index);
                values.all.push(stated);
            }
        }
        Kind::Leaf(_) | Kind::Flag | Kind::Branch(_) | Kind::Tag(..) => {
            values.indices = HashMap::from([(stated.value.clone(), 0)]);
            values.all = vec![stated];
        }
    }
}

fn no_value(word: &Token, node: &Node, path: &str, what: &str, of: &Type) -> Problem {
    Problem::error(word.place, format!("`{}` lacks {what}", node.name)).help(format!(
        "write `{path} {}` ({})",
        of.form(),
        node.help
    ))
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

/// The nodes behind the words of a command, or how to have them listed.
fn possible(nodes: &'static [Node], path: &str) -> String {
    const MANY: usize = 6;
    let names: Vec<_> = schema::ours(nodes)
        .map(|node| format!("`{}`", node.name))
        .collect();
    if names.len() > MANY {
        let path = path.split_once(' ').map_or("", |(_, nodes)| nodes);
        format!("`routerctl configure help {path}` lists the nodes possible here")
    } else {
        format!("the nodes possible here are {}", names.join(", "))
    }
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
        "set" | "delete" | "comment" => "at the top".to_owned(),
        path => format!(
            "under `{}`",
            path.split_once(' ').map_or(path, |(_, nodes)| nodes)
        ),
    };
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => possible(nodes, path),
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
        ))
        .always_shown(),
        Status::Foreign => Problem::warning(
            word.place,
            format!("`{shown}` is not carried out by this router"),
        )
        .help("it is ignored, with all below it")
        .always_shown(),
    }
    .hide_rest()
}
