//! The same for programs: the protocol's structs under a name, next to the version of this
//! schema. Fields come in the order of their declaration.

use serde::Serialize;

use super::force::Moved;
use crate::control::protocol::{
    AgentVersion, ConfigurationStatus, Configured, Finding, HeartbeatStatus, InterfaceStatus,
    LogLine, SessionRotation, Status, Transition, TunnelStatus,
};

/// Raised when a field changes its meaning or goes away; new ones may come at any time.
pub const SCHEMA_VERSION: u32 = 1;

/// A view as JSON: `{"schema_version":1,…}`.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "{T}Document"))]
pub struct Document<T> {
    /// Raised when a field changes its meaning or goes away.
    pub schema_version: u32,
    #[serde(flatten)]
    pub view: T,
}

impl<T> Document<T> {
    pub const fn of(view: T) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            view,
        }
    }
}

/// What a document shows, named as its field is.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum View<'a> {
    Status(&'a Status),
    Tunnels(&'a [TunnelStatus]),
    Interfaces(&'a [InterfaceStatus]),
    Heartbeat(&'a [HeartbeatStatus]),
    LogLevel(&'a str),
    Log(&'a [LogLine]),
    /// Names of tunnels, or of sessions.
    Cleared(&'a [String]),
    Rotation(&'a [SessionRotation]),
    Version(Versions<'a>),
    Force(&'a Moved),
    Configuration(&'a ConfigurationStatus),
    Configured(&'a Configured),
    #[serde(untagged)]
    History(History<'a>),
}

/// What happened, the newest last.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History<'a> {
    /// Changes of this node's state.
    pub transitions: Vec<&'a Transition>,
    /// What was found besides.
    pub findings: Vec<&'a Finding>,
}

impl<'a> History<'a> {
    /// Of all groups.
    pub fn of(status: &'a Status) -> Self {
        let mut findings: Vec<&Finding> = status
            .groups
            .iter()
            .flat_map(|group| &group.findings)
            .collect();
        findings.sort_by_key(|finding| finding.at().order(status));
        Self {
            transitions: transitions(status),
            findings,
        }
    }
}

/// This program and the agent, if it answered.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Versions<'a> {
    /// This program.
    pub routerctl: &'a AgentVersion,
    /// None if it did not answer.
    pub agent: Option<&'a AgentVersion>,
}

fn transitions(status: &Status) -> Vec<&Transition> {
    let mut transitions: Vec<&Transition> = status
        .groups
        .iter()
        .flat_map(|group| &group.transitions)
        .collect();
    transitions.sort_by_key(|transition| transition.at().order(status));
    transitions
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// As the package's script finds it in a document, with the tools of a bare system.
    fn is_another_layout(document: &str) -> bool {
        let script = include_str!("../../../packaging/debian/postinst");
        let start = script.find("is_another_layout() {").unwrap();
        let length = script[start..].find("\n}\n").unwrap() + "\n}\n".len();
        let function = &script[start..start + length];
        let shown = r#"routerctl() { [ "$*" = "show version --json" ] && printf %s "$DOCUMENT"; }"#;
        Command::new("sh")
            .args(["-c", &format!("{shown}\n{function}is_another_layout")])
            .env("DOCUMENT", document)
            .status()
            .unwrap()
            .success()
    }

    #[test]
    fn an_upgrade_tells_layouts_of_maps_apart() {
        let routerctl = &AgentVersion::own();
        let other = AgentVersion {
            map_layout: routerctl.map_layout + 1,
            ..routerctl.clone()
        };
        for (agent, expected) in [
            (Some(routerctl), false),
            (Some(&other), true),
            (None, false),
        ] {
            let view = View::Version(Versions { routerctl, agent });
            let document = serde_json::to_string_pretty(&Document::of(view)).unwrap();
            assert_eq!(is_another_layout(&document), expected, "{document}");
        }
    }

    #[test]
    fn documents_name_their_schema_first() {
        let status = Status::default();
        let document = Document::of(View::Status(&status));
        assert_eq!(
            serde_json::to_string(&document).unwrap(),
            r#"{"schema_version":1,"status":{"node":"","generation":0,"agent_uptime_ms":0,"now_ns":0,"clock_source":"","virtual_machine":false,"boot_id":"","clock_may_stop":false,"groups":[],"paths":[]}}"#
        );
        let document = Document::of(View::History(History::of(&status)));
        assert_eq!(
            serde_json::to_string(&document).unwrap(),
            r#"{"schema_version":1,"transitions":[],"findings":[]}"#
        );
    }
}
