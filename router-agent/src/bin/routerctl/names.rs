//! Names that a shell completes: those of the running agent, if it answers at once, and of the maps.

use std::{env, time::Duration};

use clap_complete::CompletionCandidate;
use router_agent::{
    control::{DEFAULT_SOCKET, SOCKET_VARIABLE, client::Client},
    maps::Known,
};

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
    let groups = agent().status().unwrap_or_default().groups.into_iter();
    let names = groups.map(|group| CompletionCandidate::new(group.group));
    [CompletionCandidate::new("group")]
        .into_iter()
        .chain(names)
        .collect()
}

fn agent() -> Client {
    /// An operator waits for it.
    const TIMEOUT: Duration = Duration::from_millis(300);
    let socket = env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
    Client::new(socket).with_timeout(TIMEOUT)
}
