//! Names that a shell completes: those of the running agent, if it answers at once, and of the maps.

use std::{env, ffi::OsString, time::Duration};

use clap::Parser as _;
use clap_complete::CompletionCandidate;
use router_agent::{
    config::{Possible, completions},
    control::{DEFAULT_SOCKET, SOCKET_VARIABLE, client::Client},
    maps::Known,
};

use crate::{Arguments, Command, configure::Configure};

/// As `maps list` shows them.
pub fn maps() -> Vec<CompletionCandidate> {
    let names = Known::names().into_iter();
    names
        .map(|name| CompletionCandidate::new(name.to_lowercase()))
        .collect()
}

pub fn tunnels() -> Vec<CompletionCandidate> {
    let tunnels = agent().tunnels().unwrap_or_default().into_iter();
    let names = tunnels.map(|tunnel| tunnel.name);
    names.map(CompletionCandidate::new).collect()
}

/// What may come behind `show interfaces tunnel`.
pub fn tunnels_and_extents() -> Vec<CompletionCandidate> {
    let mut candidates = tunnels();
    candidates.extend(["brief", "detail"].map(CompletionCandidate::new));
    candidates
}

/// What may come behind `force cluster active`: `group` and its name.
pub fn groups() -> Vec<CompletionCandidate> {
    let mut candidates = vec![CompletionCandidate::new("group")];
    candidates.extend(group_names());
    candidates
}

fn group_names() -> Vec<CompletionCandidate> {
    let groups = agent().status().unwrap_or_default().groups.into_iter();
    groups
        .map(|group| CompletionCandidate::new(group.group))
        .collect()
}

/// What may come next in the path of `configure help`.
pub fn nodes() -> Vec<CompletionCandidate> {
    let path = path_so_far().unwrap_or_default();
    let words: Vec<_> = path.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["interfaces", "tunnel"] => tunnels(),
        ["cluster", "group"] => group_names(),
        _ => completions(&path)
            .into_iter()
            .map(|Possible { word, help }| {
                let help = (!help.is_empty()).then(|| help.into());
                CompletionCandidate::new(word).help(help)
            })
            .collect(),
    }
}

/// The words before the one to be completed. A shell gives the whole line behind `--`, and says which word
/// is meant unless it is the last.
fn path_so_far() -> Option<Vec<String>> {
    let line: Vec<OsString> = env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .collect();
    let index = env::var("_CLAP_COMPLETE_INDEX").ok();
    let index = index.map_or(Some(line.len().checked_sub(1)?), |index| index.parse().ok())?;
    match Arguments::try_parse_from(line.get(..index)?).ok()?.command {
        Command::Configure(Configure::Help { path }) => Some(path),
        _ => None,
    }
}

fn agent() -> Client {
    /// An operator waits for it.
    const TIMEOUT: Duration = Duration::from_millis(300);
    let socket = env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
    Client::new(socket).with_timeout(TIMEOUT)
}
