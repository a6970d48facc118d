//! The messages on the control socket.
//!
//! `{"version":1,"command":"status"}` is answered by `{"version":1,"ok":{"status":{…}}}` or by
//! `{"version":1,"error":{"code":"…","message":"…"}}`. A new field is no new version; a change of
//! meaning is. Units are in the names; instants are nanoseconds of the boottime clock, zero for
//! "never".

mod arbiter;
mod configuration;
mod force;
mod heartbeat;
mod history;
mod interface;
mod log;
mod rotation;
mod status;
mod steps;
mod tunnel;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use arbiter::{ArbiterStatus, ArbiterTimes};
pub use configuration::{ConfigurationStatus, Configured, Configuring, LastChange};
pub use force::{Force, ForceBegun, Forced};
pub use heartbeat::{HeartbeatStatus, Life, loss_percent};
pub use history::{DROPPED_ORDER, Finding, Known, Stages, Step, Transition};
pub use interface::{InterfaceRole, InterfaceStatus};
pub use log::{LogLine, LogSeverity, LogWanted};
pub use rotation::{Rotation, SessionRotation};
pub use status::{
    Authority, DuplicateStatus, FenceStatus, GateState, GroupStatus, MonitorState, MonitorStatus,
    NodeState, NodeStatus, PathStatus, Priorities, ServiceStatus, Status,
};
pub use steps::{StepBucket, StepTimes};
pub use tunnel::{ClearedStatus, EpochKeyStatus, KeepaliveStatus, TunnelStatus};

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Request {
    /// Of the protocol: 1.
    pub version: u32,
    pub command: Command,
    /// Of [`Command::RotateSecret`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// Of [`Command::Force`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<Force>,
    /// Of [`Command::Configure`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuring: Option<Configuring>,
    /// Of [`Command::Configuration`]: to show the secrets, of those who may change something only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secrets: bool,
    /// Of [`Command::Configuration`]: to show the defaults that hold, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub defaults: bool,
    /// Of [`Command::LogLevel`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Of [`Command::Log`]; all lines if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogWanted>,
    /// Of [`Command::ClearCounters`]; all tunnels if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
}

impl Request {
    /// `command` in the version that this program speaks.
    pub const fn new(command: Command) -> Self {
        Self {
            version: VERSION,
            command,
            rotation: None,
            force: None,
            configuring: None,
            secrets: false,
            defaults: false,
            level: None,
            log: None,
            tunnel: None,
        }
    }

    /// A step of the change of the secret.
    pub fn rotate(rotation: Rotation) -> Self {
        Self {
            rotation: Some(rotation),
            ..Self::new(Command::RotateSecret)
        }
    }

    /// A move of a group.
    pub fn force(force: Force) -> Self {
        Self {
            force: Some(force),
            ..Self::new(Command::Force)
        }
    }

    /// A step of a change of the configuration.
    pub fn configure(step: Configuring) -> Self {
        Self {
            configuring: Some(step),
            ..Self::new(Command::Configure)
        }
    }

    /// The configuration that runs.
    pub fn configuration(secrets: bool, defaults: bool) -> Self {
        Self {
            secrets,
            defaults,
            ..Self::new(Command::Configuration)
        }
    }

    /// What is to be logged.
    pub fn log_level(level: String) -> Self {
        Self {
            level: Some(level),
            ..Self::new(Command::LogLevel)
        }
    }

    /// Lines of the log.
    pub fn log(wanted: LogWanted) -> Self {
        Self {
            log: Some(wanted),
            ..Self::new(Command::Log)
        }
    }

    /// The counters of one tunnel, or of all.
    pub fn clear_counters(tunnel: Option<String>) -> Self {
        Self {
            tunnel,
            ..Self::new(Command::ClearCounters)
        }
    }
}

/// What a client may ask for. Each only reads, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Answered by [`Body::Status`].
    Status,
    /// Answered by [`Body::Tunnels`].
    Tunnels,
    /// Answered by [`Body::Interfaces`].
    Interfaces,
    /// Answered by [`Body::Heartbeat`].
    Heartbeat,
    /// Answered by [`Body::Version`].
    Version,
    /// Changes which secrets are accepted; of those who may change something only. Answered by
    /// [`Body::RotateSecret`].
    RotateSecret,
    /// Moves a group; of those who may change something only. Answered by [`Body::Force`].
    Force,
    /// Answered by [`Body::Configuration`].
    Configuration,
    /// Changes what the agent runs by; of those who may change something only. Answered by
    /// [`Body::Configure`].
    Configure,
    /// Changes what is logged; of those who may change something only. Answered by [`Body::LogLevel`].
    LogLevel,
    /// Answered by [`Body::Log`].
    Log,
    /// Has the counters of tunnels shown from now on; of those who may change something only. Answered
    /// by [`Body::ClearCounters`].
    ClearCounters,
    /// The same with those of the sessions. Answered by [`Body::ClearHeartbeatCounters`].
    ClearHeartbeatCounters,
}

impl Command {
    pub const ALL: [Self; 13] = [
        Self::Status,
        Self::Tunnels,
        Self::Interfaces,
        Self::Heartbeat,
        Self::Version,
        Self::RotateSecret,
        Self::Force,
        Self::Configuration,
        Self::Configure,
        Self::LogLevel,
        Self::Log,
        Self::ClearCounters,
        Self::ClearHeartbeatCounters,
    ];

    /// The command's word in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Tunnels => "tunnels",
            Self::Interfaces => "interfaces",
            Self::Heartbeat => "heartbeat",
            Self::Version => "version",
            Self::RotateSecret => "rotate-secret",
            Self::Force => "force",
            Self::Configuration => "configuration",
            Self::Configure => "configure",
            Self::LogLevel => "log-level",
            Self::Log => "log",
            Self::ClearCounters => "clear-counters",
            Self::ClearHeartbeatCounters => "clear-heartbeat-counters",
        }
    }

    /// The command that `name` stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Response {
    /// The version that the agent speaks.
    pub version: u32,
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Response {
    pub const fn ok(body: Body) -> Self {
        Self {
            version: VERSION,
            outcome: Outcome::Ok(body),
        }
    }

    pub fn error(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            version: VERSION,
            outcome: Outcome::Error(Failure {
                code,
                message: message.into(),
            }),
        }
    }
}

/// Answered or refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Ok(Body),
    Error(Failure),
}

/// The answer to a [`Command`] of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    Status(Status),
    Tunnels(Vec<TunnelStatus>),
    Interfaces(Vec<InterfaceStatus>),
    Heartbeat(Vec<HeartbeatStatus>),
    Version(AgentVersion),
    RotateSecret(Vec<SessionRotation>),
    Force(ForceBegun),
    Configuration(ConfigurationStatus),
    Configure(Configured),
    /// The level as it is now.
    LogLevel(String),
    /// The oldest first.
    Log(Vec<LogLine>),
    /// The tunnels whose counters were cleared.
    ClearCounters(Vec<String>),
    /// The sessions whose counters were cleared, as `GROUP over PATH`.
    ClearHeartbeatCounters(Vec<String>),
}

/// Which program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AgentVersion {
    /// Version of the agent's package.
    pub agent: String,
    /// Version of the control protocol.
    pub protocol: u32,
    /// Version of the layout of the pinned maps.
    pub map_layout: u32,
}

impl AgentVersion {
    /// Of the program that this is compiled into.
    pub fn own() -> Self {
        Self {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: VERSION,
            map_layout: router_common::map::LAYOUT_VERSION,
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    pub code: FailureCode,
    /// For people.
    pub message: String,
}

/// Why a request was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// Not a request at all.
    BadRequest,
    UnknownCommand,
    UnsupportedVersion,
    /// The line was longer than the agent reads.
    TooLong,
    /// The line did not end in time.
    TimedOut,
    /// This client's user may not do that.
    Forbidden,
    /// Not possible as things are.
    Impossible,
    /// Too many others ask.
    Busy,
    /// One of a later agent's.
    #[serde(other)]
    Other,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn requests_are_written_as_documented() {
        for command in Command::ALL {
            let text = serde_json::to_string(&Request::new(command)).unwrap();
            assert_eq!(text, format!(r#"{{"version":1,"command":"{command}"}}"#));
            assert_eq!(Command::from_name(command.name()), Some(command));
        }
    }

    #[test]
    fn steps_of_a_rotation_are_written_as_documented_and_shown_without_the_secret() {
        let begin = Request::rotate(Rotation::Begin(Secret::new("cloudpack")));
        let text = serde_json::to_string(&begin).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"command":"rotate-secret","rotation":{"begin":"cloudpack"}}"#
        );
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), begin);
        assert!(!format!("{begin:?}").contains("cloudpack"));
        let finish = Request::rotate(Rotation::Finish { force: false });
        assert_eq!(
            serde_json::to_string(&finish).unwrap(),
            r#"{"version":1,"command":"rotate-secret","rotation":{"finish":{"force":false}}}"#
        );
    }

    #[test]
    fn moves_are_written_as_documented() {
        let force = Request::force(Force {
            group: Some("aws".to_owned()),
            to: Forced::Standby,
            i_know: false,
        });
        let text = serde_json::to_string(&force).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"command":"force","force":{"group":"aws","to":"standby","i_know":false}}"#
        );
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), force);
        let least = r#"{"version":1,"command":"force","force":{"to":"active"}}"#;
        let least: Request = serde_json::from_str(least).unwrap();
        assert!(!least.force.unwrap().i_know);
    }

    #[test]
    fn steps_of_a_configuration_are_written_as_documented_and_shown_without_the_text() {
        let apply = Request::configure(Configuring::Apply {
            name: "router.conf".to_owned(),
            text: Secret::new("set cluster pre-shared-secret cloudpack"),
            confirm_within_s: Some(60),
            dry_run: false,
        });
        let text = serde_json::to_string(&apply).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"command":"configure","configuring":{"apply":{"name":"router.conf","text":"set cluster pre-shared-secret cloudpack","confirm_within_s":60,"dry_run":false}}}"#
        );
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), apply);
        assert!(!format!("{apply:?}").contains("cloudpack"));
        assert_eq!(
            serde_json::to_string(&Request::configure(Configuring::RollBack)).unwrap(),
            r#"{"version":1,"command":"configure","configuring":"roll-back"}"#
        );
        assert_eq!(
            serde_json::to_string(&Request::configuration(true, false)).unwrap(),
            r#"{"version":1,"command":"configuration","secrets":true}"#
        );
    }

    #[test]
    fn responses_survive_the_socket() {
        let responses = [
            Response::ok(Body::Status(Status::default())),
            Response::ok(Body::Tunnels(vec![TunnelStatus::default()])),
            Response::ok(Body::Interfaces(vec![InterfaceStatus::default()])),
            Response::ok(Body::Heartbeat(vec![HeartbeatStatus {
                rtt_last_us: Some(0.1 + 0.2),
                probes_sent: u64::MAX,
                ..HeartbeatStatus::default()
            }])),
            Response::ok(Body::Version(AgentVersion::own())),
            Response::ok(Body::RotateSecret(vec![SessionRotation::default()])),
            Response::ok(Body::Force(ForceBegun::default())),
            Response::ok(Body::Configuration(ConfigurationStatus::default())),
            Response::ok(Body::Configure(Configured::default())),
            Response::ok(Body::Log(vec![LogLine::default()])),
            Response::ok(Body::ClearCounters(vec!["tun00".to_owned()])),
            Response::ok(Body::ClearHeartbeatCounters(vec![
                "aws over tun00".to_owned(),
            ])),
            Response::error(FailureCode::BadRequest, "no"),
        ];
        for response in responses {
            let text = serde_json::to_string(&response).unwrap();
            assert_eq!(serde_json::from_str::<Response>(&text).unwrap(), response);
        }
    }

    #[test]
    fn a_later_agents_failure_is_still_a_failure() {
        let text = r#"{"version":1,"error":{"code":"moon-phase","message":"wait"},"more":1}"#;
        let response: Response = serde_json::from_str(text).unwrap();
        assert_eq!(response, Response::error(FailureCode::Other, "wait"));
    }

    #[test]
    fn errors_are_written_as_documented() {
        let text =
            serde_json::to_string(&Response::error(FailureCode::UnknownCommand, "x")).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"error":{"code":"unknown-command","message":"x"}}"#
        );
    }
}
