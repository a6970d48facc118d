//! What may come next behind a path of the language.

use std::fmt;

use super::reference;
use super::schema::{self, Kind, Node, Type};

/// What may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possible {
    /// A node's name, or a stand-in for a value.
    pub word: String,
    /// What it means, what it may be, and what holds without it.
    pub help: String,
}

/// A path that leads nowhere, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NoSuchNode {
    /// The words before it.
    above: Vec<String>,
    word: String,
    /// The node that is probably meant.
    near: Option<&'static str>,
}

impl fmt::Display for NoSuchNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { above, word, near } = self;
        let above = above.join(" ");
        write!(f, "there is no node `{word}` ")?;
        if above.is_empty() {
            f.write_str("at the top; ")?;
        } else {
            write!(f, "under `{above}`; ")?;
        }
        if let Some(near) = near {
            return write!(f, "did you mean `{near}`?");
        }
        let path = format!("routerctl configure help {above}");
        write!(f, "`{}` lists what there is", path.trim_end())
    }
}

enum Next {
    Nodes(&'static [Node]),
    Value(&'static Type),
}

/// What may come behind the words of a path.
pub fn possible(words: &[String]) -> Result<Vec<Possible>, NoSuchNode> {
    Ok(match next(words)? {
        Next::Nodes(nodes) => schema::ours(nodes).map(of_node).collect(),
        Next::Value(of) => vec![Possible {
            word: of.form(),
            help: of.legal(),
        }],
    })
}

/// The words among what is possible that a shell can complete; none where there is no such path.
pub fn completions(words: &[String]) -> Vec<Possible> {
    match next(words) {
        Ok(Next::Nodes(nodes)) => schema::ours(nodes).map(of_node).collect(),
        Ok(Next::Value(of)) => {
            let words = of.words().into_iter();
            let word = |word: &str| Possible {
                word: word.to_owned(),
                help: String::new(),
            };
            words.map(word).collect()
        }
        Err(_) => Vec::new(),
    }
}

fn next(words: &[String]) -> Result<Next, NoSuchNode> {
    let mut nodes = schema::ROOT;
    let mut rest = words.iter().enumerate();
    while let Some((index, word)) = rest.next() {
        let node = schema::ours(nodes).find(|node| node.name == word);
        let node = node.ok_or_else(|| NoSuchNode {
            above: words.iter().take(index).cloned().collect(),
            word: word.clone(),
            near: schema::nearest(word, schema::ours(nodes).map(|node| node.name)),
        })?;
        if let Kind::Tag(of, _) | Kind::Leaf(of) | Kind::Multi(of) = &node.kind
            && rest.next().is_none()
        {
            return Ok(Next::Value(of));
        }
        nodes = node.children();
    }
    Ok(Next::Nodes(nodes))
}

fn of_node(node: &Node) -> Possible {
    Possible {
        word: node.name.to_owned(),
        help: reference::help(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Vec<String> {
        path.split_whitespace().map(ToOwned::to_owned).collect()
    }

    fn words(possible: Vec<Possible>) -> Vec<String> {
        possible.into_iter().map(|one| one.word).collect()
    }

    #[test]
    fn what_is_possible_is_known_at_each_word() {
        let at = |text: &str| words(possible(&path(text)).unwrap());
        assert_eq!(at(""), ["cluster", "interfaces", "system", "service"]);
        assert_eq!(at("interfaces tunnel"), ["tunN"]);
        assert_eq!(
            at("interfaces tunnel tun00 keepalive"),
            ["interval", "retries"]
        );
        assert_eq!(at("cluster dead-interval"), ["NUMBER"]);
        assert_eq!(at("cluster dead-interval 200"), [""; 0]);
        let cluster = possible(&path("cluster")).unwrap();
        let keepalive = cluster.iter().find(|p| p.word == "keepalive-interval");
        assert_eq!(
            keepalive.unwrap().help,
            "Time between heartbeats: 1 to 14999 milliseconds; default 50"
        );
    }

    #[test]
    fn a_path_that_leads_nowhere_says_where_and_what_is_meant() {
        let error = |text: &str| possible(&path(text)).unwrap_err().to_string();
        assert_eq!(
            error("clutser group"),
            "there is no node `clutser` at the top; did you mean `cluster`?"
        );
        assert_eq!(
            error("interfaces tunnel tun00 keepalives retries"),
            "there is no node `keepalives` under `interfaces tunnel tun00`; did you mean `keepalive`?"
        );
        assert_eq!(
            error("cluster colour"),
            "there is no node `colour` under `cluster`; `routerctl configure help cluster` lists what there is"
        );
        assert_eq!(
            error("firewall"),
            "there is no node `firewall` at the top; `routerctl configure help` lists what there is"
        );
    }

    #[test]
    fn a_shell_completes_names_and_words_and_no_stand_ins() {
        let at = |text: &str| words(completions(&path(text)));
        assert_eq!(at(""), ["cluster", "interfaces", "system", "service"]);
        assert_eq!(
            at("interfaces tunnel tun00 multicast"),
            ["enable", "disable"]
        );
        assert_eq!(at("cluster group aws auto-failback"), ["true", "false"]);
        assert_eq!(at("interfaces tunnel"), [""; 0]);
        assert_eq!(at("cluster dead-interval"), [""; 0]);
        assert_eq!(at("cluster colour"), [""; 0]);
    }
}
