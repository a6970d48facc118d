//! The configuration: text in, [`Config`] or diagnostics out.
//!
//! Nothing here asks the system. What a check must know of it comes in as [`Facts`]. The way is
//! one downward read: lines → words ([`lex`]) → the tree of what is stated ([`tree`], by
//! [`schema`] and [`value`]) → what holds between values ([`check`]) → [`model`].

mod check;
mod diagnostic;
mod lex;
mod model;
mod resources;
mod schema;
mod secret;
mod set_form;
mod source;
mod tree;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use diagnostic::{Diagnostic, Position, Refused, Severity, render_all};
pub use model::{
    AdjustMss, BridgePort, Cluster, Config, Encapsulation, Ethernet, FlowLabel, GreKey, Group,
    HeaderByte, Keepalive, Prefer, Role, Secret, Tunnel, XdpMode,
};
pub use resources::{
    Aws, AwsResource, KernelRoute, RouteDestination, ScriptCall, Service, ServiceAddress, Way,
};

use diagnostic::{Problem, Report};
use source::{Masks, Place};

/// A larger file is not a configuration. Bytes.
pub const LARGEST_FILE: u64 = 10_000_000;

/// What the check must know of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// As `uname -n` prints it.
    pub kernel_host_name: String,
}

/// A configuration that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub config: Config,
    /// In the order of the file. At most 50, and one without a position that counts the rest.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
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
    let masks = Masks::of(text);
    let mut report = Report::new(source_name, text, &masks);
    let config = set_form::read(text, &masks, strict, &mut report)
        .and_then(|root| check::check(&root, facts, &mut report));
    match config {
        Some(config) if !report.has_errors() => Ok(Loaded {
            config,
            warnings: report.into_warnings(),
        }),
        _ => Err(report.into_refused()),
    }
}

/// Reads the file and checks it as [`parse`] does.
pub fn load(path: &Path, facts: &Facts, strict: bool) -> Result<Loaded, Refused> {
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
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(too_large(&name));
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name, &text, facts, strict),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            Err(not_utf8(
                &name,
                error.as_bytes().get(..valid).unwrap_or_default(),
            ))
        }
    }
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
    let masks = Masks::of(&text);
    let mut report = Report::new(name, &text, &masks);
    report.add(
        Problem::error(place, "the file is not UTF-8 text: a wrong byte is here")
            .help("retype the character, and save the file as UTF-8"),
    );
    report.into_refused()
}
