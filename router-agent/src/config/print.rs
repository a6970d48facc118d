//! Statements as text, in either form. What is printed can be read again.

use super::schema::{self, Kind};
use super::source::Form;
use super::statement::{Origin, Statement};

const INDENT: usize = 4;

impl Form {
    /// Statements as text. What is not stated is marked.
    pub fn print(self, statements: &[Statement]) -> String {
        match self {
            Self::Set => set_form(statements),
            Self::Brace => brace_form(statements),
        }
    }
}

/// A line for each statement, comments at the end.
fn set_form(statements: &[Statement]) -> String {
    let mut text = String::new();
    let mut comments = String::new();
    let mut following = statements.iter().skip(1);
    for statement in statements {
        let Statement {
            path,
            value,
            origin,
            comment,
        } = statement;
        let words = shell_words(path);
        let has_more = following
            .next()
            .is_some_and(|next| next.path.len() > path.len() && next.path.starts_with(path));
        if !has_more {
            line(
                &mut text,
                &[
                    "set ",
                    &words,
                    &value_of(value.as_deref(), shell_word),
                    mark(*origin),
                ],
            );
        }
        if let Some(comment) = comment {
            let one = value.as_deref().filter(|_| schema::takes_several(path));
            line(
                &mut comments,
                &[
                    "comment ",
                    &words,
                    &value_of(one, shell_word),
                    " ",
                    &shell_word(comment),
                ],
            );
        }
    }
    text + &comments
}

fn mark(origin: Origin) -> &'static str {
    match origin {
        Origin::File => "",
        Origin::Default => "  # default",
    }
}

/// A path and a value as a command of the set form has them.
pub(super) fn words(path: &[String], value: Option<&str>) -> String {
    shell_words(path) + &value_of(value, shell_word)
}

/// Nested, as `config.boot` is.
fn brace_form(statements: &[Statement]) -> String {
    let mut text = String::new();
    // The parts of the path that have a line of their own.
    let mut open: Vec<String> = Vec::new();
    for statement in statements {
        let Statement {
            path,
            value,
            origin,
            comment,
        } = statement;
        let mut parts = parts(path);
        let last = (!is_branch(path)).then(|| parts.pop()).flatten();
        let common = open.iter().zip(&parts).take_while(|(a, b)| a == b).count();
        close(&mut text, &mut open, common);
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate().skip(common) {
            if last.is_none() && index + 1 == count {
                comment_line(&mut text, open.len(), comment.as_deref());
            }
            line(&mut text, &[&indent(open.len()), &part, " {"]);
            open.push(part);
        }
        if let Some(last) = last {
            comment_line(&mut text, open.len(), comment.as_deref());
            let value = value_of(value.as_deref(), brace_word);
            let mark = match origin {
                Origin::File => "",
                Origin::Default => " /* default */",
            };
            line(&mut text, &[&indent(open.len()), &last, &value, mark]);
        }
    }
    close(&mut text, &mut open, 0);
    text
}

fn line(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
    text.push('\n');
}

fn value_of(value: Option<&str>, quoted: impl Fn(&str) -> String) -> String {
    value.map_or_else(String::new, |value| format!(" {}", quoted(value)))
}

fn indent(depth: usize) -> String {
    " ".repeat(depth * INDENT)
}

fn comment_line(text: &mut String, depth: usize, comment: Option<&str>) {
    if let Some(comment) = comment {
        line(text, &[&indent(depth), "/* ", comment, " */"]);
    }
}

fn close(text: &mut String, open: &mut Vec<String>, depth: usize) {
    while open.len() > depth {
        open.pop();
        line(text, &[&indent(open.len()), "}"]);
    }
}

/// A path as the lines of the brace form have it: an instance's name stands with that of its node.
fn parts(path: &[String]) -> Vec<String> {
    let mut nodes = schema::ROOT;
    let mut parts = Vec::new();
    let mut words = path.iter();
    while let Some(word) = words.next() {
        let mut part = word.clone();
        if let Some(node) = schema::find(nodes, word) {
            if let Kind::Tag(..) = node.kind
                && let Some(name) = words.next()
            {
                part.push(' ');
                part.push_str(&brace_word(name));
            }
            nodes = node.children();
        }
        parts.push(part);
    }
    parts
}

fn is_branch(path: &[String]) -> bool {
    schema::at(path.iter().map(String::as_str)).is_some_and(|below| !below.is_empty())
}

/// Whether a word means itself in both forms.
fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.:/@%+=,".contains(c))
        && !word.contains("/*")
}

fn shell_words(path: &[String]) -> String {
    let words: Vec<_> = path.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

/// In single quotation marks, within which nothing has a meaning; the mark itself stands outside.
fn shell_word(word: &str) -> String {
    if is_plain(word) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn brace_word(word: &str) -> String {
    if is_plain(word) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', r"\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::super::diagnostic::Report;
    use super::super::schema::{Node, Status, Type};
    use super::super::secret::Secrets;
    use super::super::source::Masks;
    use super::super::statement::{in_effect, stated};
    use super::super::tree::Tree;
    use super::super::{brace_form as brace_reader, set_form as set_reader};
    use super::*;

    fn tree(text: &str) -> Tree {
        let form = Form::of(text);
        let masks = Masks::of(text, form);
        let mut report = Report::new("test", text, &masks);
        let tree = match form {
            Form::Set => set_reader::read(text, &masks, false, &mut report),
            Form::Brace => brace_reader::read(text, &masks, false, &mut report),
        };
        assert!(!report.has_errors(), "{}\n{text}", report.into_refused());
        tree
    }

    fn read(text: &str) -> Vec<Statement> {
        stated(&tree(text), Secrets::Shown)
    }

    const SAMPLE: &str = "set cluster group aws
set cluster pre-shared-secret 'it'\\''s \"a\" \\ b'
set cluster interface tun00
set cluster interface tun1
set interfaces tunnel tun00 description 'a { b'
set interfaces tunnel tun00 disable
set interfaces tunnel tun00 keepalive
comment cluster group aws 'two zones'
comment cluster 'the pair'
comment cluster interface 'both paths'
";

    #[test]
    fn each_form_has_its_look() {
        let statements = read(SAMPLE);
        assert_eq!(
            set_form(&statements),
            "set cluster interface tun00
set cluster interface tun1
set cluster pre-shared-secret 'it'\\''s \"a\" \\ b'
set cluster group aws
set interfaces tunnel tun00 description 'a { b'
set interfaces tunnel tun00 disable
set interfaces tunnel tun00 keepalive
comment cluster 'the pair'
comment cluster interface tun00 'both paths'
comment cluster group aws 'two zones'
"
        );
        assert_eq!(
            brace_form(&statements),
            "/* the pair */
cluster {
    /* both paths */
    interface tun00
    interface tun1
    pre-shared-secret \"it's \\\"a\\\" \\\\ b\"
    /* two zones */
    group aws {
    }
}
interfaces {
    tunnel tun00 {
        description \"a { b\"
        disable
        keepalive {
        }
    }
}
"
        );
    }

    #[test]
    fn defaults_are_shown_where_they_hold_and_secrets_are_not() {
        let text = SAMPLE.to_owned() + "set cluster dead-interval 20000\n";
        let shown = set_form(&in_effect(&tree(&text), Secrets::Masked));
        for line in [
            "set cluster pre-shared-secret '***'",
            "set cluster keepalive-interval 50  # default",
            "set cluster dead-interval 20000",
            // It cannot be less than dead-interval.
            "set cluster agent-dead-interval 20000  # default",
            "set cluster monitor-interval 250  # default",
            "set cluster group aws auto-failback false  # default",
            "set interfaces tunnel tun00 parameters ip ttl 255  # default",
            "set interfaces tunnel tun00 keepalive retries 3  # default",
        ] {
            assert!(shown.lines().any(|l| l == line), "{line} in\n{shown}");
        }
        let nothing = in_effect(&tree(""), Secrets::Masked);
        assert_eq!(nothing, []);
    }

    /// Every node that takes a value, with the path to it; instances get a name each.
    fn leaves() -> Vec<(Vec<String>, &'static Node)> {
        fn below(
            nodes: &'static [Node],
            path: &[String],
            found: &mut Vec<(Vec<String>, &'static Node)>,
        ) {
            for node in nodes.iter().filter(|node| node.status == Status::Supported) {
                let mut path = path.to_vec();
                path.push(node.name.to_owned());
                if let Kind::Tag(of, _) = &node.kind {
                    path.push(match of {
                        Type::TunnelName => "tun0".to_owned(),
                        Type::Network => "10.1.0.0/16".to_owned(),
                        Type::AwsId(prefix) => format!("{prefix}0a1b"),
                        _ => "eth0".to_owned(),
                    });
                }
                if node.children().is_empty() {
                    found.push((path, node));
                } else {
                    below(node.children(), &path, found);
                }
            }
        }
        let mut found = Vec::new();
        below(schema::ROOT, &[], &mut found);
        found
    }

    fn value(of: &Type) -> BoxedStrategy<String> {
        match of {
            Type::Text(_) => "[ -~é{}]{0,12}".boxed(),
            Type::Secret => "[ -~\u{2003}\t]{4,12}".boxed(),
            Type::Path => "/[ -~]{0,12}".boxed(),
            Type::HostName => "[a-z]{1,5}(\\.[a-z]{1,5})?".boxed(),
            Type::Name => "[a-z0-9][a-z0-9_.-]{0,5}".boxed(),
            Type::TunnelName => "tun[0-9]{1,4}".boxed(),
            Type::InterfaceName | Type::OtherInterface => "e[a-z0-9!{}'\"#*.]{0,5}".boxed(),
            Type::Weight => (-253..=253_i16).prop_map(|n| n.to_string()).boxed(),
            Type::Number { min, max, .. } => (*min..=*max).prop_map(|n| n.to_string()).boxed(),
            Type::NumberOr { min, max, words } => {
                let words: Vec<_> = words.iter().map(|word| word.word.to_owned()).collect();
                prop_oneof![(*min..=*max).prop_map(|n| n.to_string()), select(words)].boxed()
            }
            Type::BitsOr { width, .. } => {
                (0..1_u32 << width).prop_map(|n| format!("{n:#x}")).boxed()
            }
            Type::Bool => any::<bool>().prop_map(|b| b.to_string()).boxed(),
            Type::Choice(words) => {
                let usable = words.iter().filter(|word| word.status == Status::Supported);
                select(usable.map(|word| word.word.to_owned()).collect::<Vec<_>>()).boxed()
            }
            Type::Choices(words) => {
                let words: Vec<_> = words.iter().map(|word| word.word).collect();
                vec(select(words), 1..3)
                    .prop_map(|words| words.join(","))
                    .boxed()
            }
            Type::Endpoint | Type::Address => "10\\.0\\.0\\.[1-9]|2001:db8::[1-9]".boxed(),
            Type::Listen => "(127\\.0\\.0\\.1:|\\[::1\\]:)?[1-9][0-9]{0,3}".boxed(),
            Type::Prefix => "10\\.0\\.0\\.[1-9]/24|2001:db8::[1-9]/64".boxed(),
            Type::File | Type::Command => "/[a-z ]{1,5}".boxed(),
            Type::Server => "https://[a-z]{1,5}:[1-9]".boxed(),
            Type::KeyPrefix => "/[a-z]{1,5}".boxed(),
            Type::Ipv4Group => "225\\.0\\.0\\.[1-9]".boxed(),
            Type::McastGroup => "239\\.1\\.1\\.[1-9]".boxed(),
            Type::Service => {
                "10\\.0\\.0\\.[1-9]/24(/eth[0-9](/10\\.0\\.0\\.255)?)?|[a-z]{1,5}\\.service|[g-z]{1,5}(::[ -9;-~]{1,5})?".boxed()
            }
            Type::Network => "10\\.[1-9]\\.0\\.0/16|2001:db8:[1-9]::/48".boxed(),
            Type::Ipv4Address => "10\\.0\\.0\\.[1-9]".boxed(),
            Type::AwsId(prefix) => {
                let prefix = *prefix;
                "[0-9a-f]{1,5}"
                    .prop_map(move |id| format!("{prefix}{id}"))
                    .boxed()
            }
            Type::AwsInterface => "eni-[0-9a-f]{1,5}|eth[0-9]".boxed(),
            Type::AwsDestination => "10\\.[1-9]\\.0\\.0/16|pl-[0-9a-f]{1,5}".boxed(),
            Type::Url => "https?://[a-z]{1,5}(:[1-9])?".boxed(),
        }
    }

    fn statement() -> impl Strategy<Value = Statement> {
        select(leaves()).prop_flat_map(|(path, node)| {
            let value = match &node.kind {
                Kind::Leaf(of) | Kind::Multi(of) => value(of).prop_map(Some).boxed(),
                Kind::Branch(_) | Kind::Tag(..) | Kind::Flag => Just(None).boxed(),
            };
            (
                value,
                prop::option::of("[a-z'\"{}\\\\]([ -)+-~]{0,6}[a-z])?"),
            )
                .prop_map(move |(value, comment)| Statement {
                    path: path.clone(),
                    value,
                    origin: Origin::File,
                    comment,
                })
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_it_was(statements in vec(statement(), 0..20)) {
            // The first reading brings them into the order of the language.
            let statements = read(&set_form(&statements));
            prop_assert_eq!(&read(&set_form(&statements)), &statements);
            prop_assert_eq!(&read(&brace_form(&statements)), &statements);
        }
    }
}
