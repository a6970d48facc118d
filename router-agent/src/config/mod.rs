//! The configuration: text in, [`Config`] or diagnostics out.
//!
//! Nothing here asks the system. What a check must know of it comes in as [`Facts`]. The way is
//! one downward read: text → words ([`lex`]) in one of two forms ([`set_form`], [`brace_form`]) → the
//! tree of what is stated ([`tree`], by [`schema`] and [`value`]) → what holds between values
//! ([`check`]) → [`model`].

mod brace_form;
mod check;
mod comments;
mod conntrack_sync;
mod defaults;
mod diagnostic;
mod diff;
mod import;
mod lex;
mod model;
mod possible;
mod print;
mod reference;
mod resources;
mod schema;
mod secret;
mod secret_place;
mod set_form;
mod source;
mod statement;
mod track;
mod tree;
mod value;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

pub use conntrack_sync::{ConntrackSync, SyncLink};
pub use diagnostic::{Diagnostic, Position, Refused, Severity, render_all};
pub use diff::{Change, Sign};
pub use import::{Account, Imported};
pub use model::{
    AdjustMss, BridgePort, Cluster, Config, Control, Encapsulation, Etcd, EtcdUser, Ethernet,
    FlowLabel, GreKey, Group, HeaderByte, Keepalive, Prefer, Role, Secret, Tls, Tunnel, XdpMode,
};
pub use resources::{
    Aws, AwsResource, KernelRoute, RouteDestination, ScriptCall, Service, ServiceAddress, Way,
};

use diagnostic::{Problem, Report};
use secret_place::{SecretPlace, Unreadable};
use source::{Masks, Place};
use tree::Tree;

pub use possible::{NoSuchNode, Possible, completions, possible};
pub use reference::reference;
pub use secret::Secrets;
pub use source::{Form, HIDDEN};
pub use statement::{Origin, Statement};
pub use track::{Pace, Track, Tracked, Weight};

/// A larger file is not a configuration. Bytes.
pub const LARGEST_FILE: u64 = 10_000_000;

/// What the check must know of the system.
#[derive(Clone, Debug)]
pub struct Facts {
    /// As `uname -n` prints it.
    kernel_host_name: String,
    /// Reads a secret that the configuration does not hold itself.
    read_secret: fn(&SecretPlace) -> Result<Secret, Unreadable>,
}

impl Facts {
    /// Secrets are read where the configuration says.
    pub fn of_host(kernel_host_name: impl Into<String>) -> Self {
        Self {
            kernel_host_name: kernel_host_name.into(),
            read_secret: secret_place::read,
        }
    }
}

/// A configuration that is accepted.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    tree: Tree,
    text: Secret,
    /// In the order of the file. At most 50 besides those of nodes that are known and ignored, and one
    /// without a position that counts the rest.
    pub warnings: Vec<Diagnostic>,
    /// All of them, also those left out.
    pub warning_count: usize,
}

impl Loaded {
    /// What the text states, in the order of the language.
    pub fn stated(&self, secrets: Secrets) -> Vec<Statement> {
        statement::stated(&self.tree, secrets)
    }

    /// As [`Loaded::stated`], with the defaults that hold besides.
    pub fn in_effect(&self, secrets: Secrets) -> Vec<Statement> {
        statement::in_effect(&self.tree, secrets)
    }

    /// The whole text, secrets included.
    pub fn text(&self) -> &str {
        self.text.expose()
    }

    /// What `new` states otherwise than this. Secrets are compared and not shown.
    pub fn difference(&self, new: &Self) -> Vec<Change> {
        diff::difference(&self.tree, &new.tree)
    }

    /// The warnings as text, empty if there are none. `color` adds terminal colours.
    pub fn render_warnings(&self, color: bool) -> String {
        render_all(&self.warnings, color)
    }
}

/// Checks `text` whole. `source_name` stands in the diagnostics; `strict` makes an error of each
/// part of a Vyatta configuration that is none of this router's business.
pub fn parse(
    source_name: &str,
    text: &str,
    facts: &Facts,
    strict: bool,
) -> Result<Loaded, Refused> {
    if text.len() as u64 > LARGEST_FILE {
        return Err(too_large(source_name));
    }
    let form = Form::of(text);
    let masks = Masks::of(text, form);
    let mut report = Report::new(source_name, text, &masks);
    let tree = form.read(text, &masks, strict, &mut report);
    let config = check::check(&tree.root, facts, &mut report);
    match config {
        Some(config) if !report.has_errors() => Ok(Loaded {
            config,
            tree,
            text: Secret::new(text),
            warning_count: report.warnings(),
            warnings: report.into_warnings(),
        }),
        _ => Err(report.into_refused()),
    }
}

impl Form {
    fn read(self, text: &str, masks: &Masks, strict: bool, report: &mut Report) -> Tree {
        match self {
            Self::Set => set_form::read(text, masks, strict, report),
            Self::Brace => brace_form::read(text, masks, strict, report),
        }
    }
}

/// What a text states, whatever is wrong with it.
struct Read {
    tree: Tree,
    /// Of what is not in the tree.
    errors: Vec<Diagnostic>,
}

/// Carries over what can be of a configuration of an old system.
pub fn import(path: &Path, facts: &Facts, secrets: Secrets) -> Result<Imported, Refused> {
    let name = path.display().to_string();
    let text = read_text(path)?;
    let form = Form::of(&text);
    let masks = Masks::of(&text, form);
    let mut report = Report::new(&name, &text, &masks);
    let tree = form.read(&text, &masks, false, &mut report);
    let errors = report.into_errors();
    Ok(import::import(Read { tree, errors }, facts, secrets))
}

/// Reads the file and checks it as [`parse`] does.
pub fn load(path: &Path, facts: &Facts, strict: bool) -> Result<Loaded, Refused> {
    parse(
        &path.display().to_string(),
        &read_text(path)?,
        facts,
        strict,
    )
}

fn read_text(path: &Path) -> Result<String, Refused> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(Refused::whole_file(
            &name,
            format!("the configuration file cannot be read: {error}"),
            "state the path of a file that this user may read",
        ));
    }
    text_of(&name, bytes)
}

/// What a file holds, if it may be a configuration. `source_name` stands in the diagnostics.
pub fn text_of(source_name: &str, bytes: Vec<u8>) -> Result<String, Refused> {
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(too_large(source_name));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let valid = error.as_bytes().get(..valid).unwrap_or_default();
        not_utf8(source_name, valid)
    })
}

fn too_large(name: &str) -> Refused {
    Refused::whole_file(
        name,
        format!("the configuration file is larger than {LARGEST_FILE} bytes"),
        "check that this is the file you mean",
    )
}

/// `valid` is what comes before the first byte that is wrong.
fn not_utf8(name: &str, valid: &[u8]) -> Refused {
    let mut text = String::from_utf8_lossy(valid).into_owned();
    let start = text.len();
    let line_start = text.rfind('\n').map_or(0, |at| at + 1);
    let place = Place {
        line: text.matches('\n').count() + 1,
        column: text[line_start..].chars().count() + 1,
        start,
        end: start + char::REPLACEMENT_CHARACTER.len_utf8(),
        line_start,
    };
    text.push(char::REPLACEMENT_CHARACTER);
    let masks = Masks::of(&text, Form::of(&text));
    let mut report = Report::new(name, &text, &masks);
    report.add(
        Problem::error(place, "the file is not UTF-8 text: a wrong byte is here")
            .help("retype the character, and save the file as UTF-8; nothing else of it is checked before"),
    );
    report.into_refused()
}
