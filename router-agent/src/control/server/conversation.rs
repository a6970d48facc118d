//! One client: read a line, answer it, until the client has had enough or misbehaves.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    time::timeout,
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Afterwards, Limits, Source, Step};
use crate::config::Secrets;
use crate::control::{
    peer::Peer,
    permission::{Access, Rights},
    protocol::{
        AgentVersion, Body, Command, Configuring, FailureCode, Force, LogWanted, Response,
        Rotation, VERSION,
    },
};

/// Who connected, if the socket is for him; to another the reason is told.
pub fn admit(stream: &UnixStream, access: &Arc<Access>) -> Option<Client> {
    let rights = match Peer::of(stream) {
        Ok(peer) => access.rights(&peer),
        Err(error) => {
            tracing::debug!(%error, "the kernel does not tell who a control client is");
            Rights::Nothing
        }
    };
    let client = Client {
        rights,
        access: Arc::clone(access),
    };
    if rights > Rights::Nothing {
        return Some(client);
    }
    refuse(stream, FailureCode::Forbidden, access.stranger());
    None
}

/// Tells a client that there is no place for it, nor one to wait at.
pub fn turn_away(stream: &UnixStream) {
    let remedy = "too many others ask the agent, who may only look as well: try again";
    refuse(stream, FailureCode::Busy, remedy);
}

/// Tells one who has just connected why he is not heard.
fn refuse(stream: &UnixStream, code: FailureCode, reason: impl Into<String>) {
    if let Ok(mut text) = serde_json::to_vec(&Response::error(code, reason)) {
        text.push(b'\n');
        // Nothing was sent before it, so that there is room; who has gone need not hear it.
        let _ = rustix::io::write(stream, &text);
    }
}

/// Talks with a client until it closes the connection or breaks a limit.
pub async fn hold(
    stream: UnixStream,
    client: Client,
    source: &(dyn Source + Send + Sync),
    limits: Limits,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    // A request may bring a secret.
    let mut line = Zeroizing::new(Vec::new());
    loop {
        line.zeroize();
        let reading = read_line(&mut reader, &mut line, client.longest_request(limits));
        let (answer, goes_on) = match timeout(limits.read, reading).await {
            Ok(Ok(Line::Whole)) => (answer(&line, &client, source, limits).await, true),
            Ok(Ok(Line::TooLong)) => (too_long(client.longest_request(limits)).into(), false),
            Ok(Ok(Line::End)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            // Silent between requests: it merely keeps a place.
            Err(_) if line.is_empty() => return Ok(()),
            Err(_) => (too_slow(limits).into(), false),
        };
        let Answer {
            response,
            afterwards,
        } = answer;
        let sent = send(&mut write, &response, limits).await;
        if let Some(afterwards) = afterwards {
            afterwards();
        }
        sent?;
        if !goes_on {
            return Ok(());
        }
    }
}

/// Who asks.
pub struct Client {
    rights: Rights,
    access: Arc<Access>,
}

impl Client {
    pub fn may_change(&self) -> bool {
        self.rights == Rights::Change
    }

    fn longest_request(&self, limits: Limits) -> usize {
        match self.rights {
            Rights::Change => limits.change_bytes,
            Rights::Ask | Rights::Nothing => limits.request_bytes,
        }
    }

    /// What one hears who may only look.
    fn refusal(&self, what: &str) -> Option<Response> {
        match self.rights {
            Rights::Change => None,
            Rights::Ask | Rights::Nothing => Some(Response::error(
                FailureCode::Forbidden,
                self.access.may_not(what),
            )),
        }
    }
}

/// What is said, and what is to happen then.
struct Answer {
    response: Response,
    afterwards: Option<Afterwards>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self {
            response,
            afterwards: None,
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads up to a newline or the end of input.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<Line> {
    // Room for the newline; a line that fills it without one is too long.
    let room = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(room).read_until(b'\n', line).await?;
    Ok(match line.last() {
        None => Line::End,
        Some(b'\n') => Line::Whole,
        Some(_) if line.len() > limit => Line::TooLong,
        Some(_) => Line::Whole,
    })
}

async fn send(write: &mut OwnedWriteHalf, response: &Response, limits: Limits) -> io::Result<()> {
    let mut text = serde_json::to_vec(response)?;
    text.push(b'\n');
    timeout(limits.write, write.write_all(&text))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Takes a request apart field by field, so that each mistake gets its own answer.
async fn answer(
    line: &[u8],
    client: &Client,
    source: &(dyn Source + Send + Sync),
    limits: Limits,
) -> Answer {
    #[derive(serde::Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    #[derive(serde::Deserialize)]
    struct OnlyCommand {
        command: String,
    }

    let version = match serde_json::from_slice(line) {
        Ok(OnlyVersion { version }) => version,
        Err(error) => return bad_request(&error).into(),
    };
    if version != VERSION {
        return Response::error(
            FailureCode::UnsupportedVersion,
            format!("this agent speaks version {VERSION} of the protocol, not {version}"),
        )
        .into();
    }
    let name = match serde_json::from_slice(line) {
        Ok(OnlyCommand { command }) => command,
        Err(error) => return bad_request(&error).into(),
    };
    let Some(command) = Command::from_name(&name) else {
        let known = Command::ALL.map(Command::name).join(", ");
        return Response::error(
            FailureCode::UnknownCommand,
            format!("there is no command {name:?}; there are: {known}"),
        )
        .into();
    };
    Response::ok(match command {
        Command::Status => Body::Status(source.status()),
        Command::Tunnels => Body::Tunnels(source.tunnels()),
        Command::Interfaces => Body::Interfaces(source.interfaces()),
        Command::Heartbeat => Body::Heartbeat(source.heartbeat()),
        Command::Version => Body::Version(AgentVersion::own()),
        Command::RotateSecret => return rotate(line, client, source).await.into(),
        Command::Force => return force(line, client, source, limits).await.into(),
        Command::Configuration => return configuration(line, client, source).into(),
        Command::Configure => return configure(line, client, source).await,
        Command::LogLevel => return set_log_level(line, client, source).into(),
        Command::Log => return log(line, source).into(),
        Command::ClearCounters => return clear_counters(line, client, source).into(),
        Command::ClearHeartbeatCounters => return clear_heartbeat_counters(client, source).into(),
    })
    .into()
}

fn configuration(line: &[u8], client: &Client, source: &(dyn Source + Send + Sync)) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyWhat {
        #[serde(default)]
        secrets: bool,
        #[serde(default)]
        defaults: bool,
    }

    let OnlyWhat { secrets, defaults } = match serde_json::from_slice(line) {
        Ok(what) => what,
        Err(error) => return bad_request(&error),
    };
    if secrets && let Some(refusal) = client.refusal("see the secrets") {
        return refusal;
    }
    let secrets = if secrets {
        Secrets::Shown
    } else {
        Secrets::Masked
    };
    Response::ok(Body::Configuration(source.configuration(secrets, defaults)))
}

async fn configure(line: &[u8], client: &Client, source: &(dyn Source + Send + Sync)) -> Answer {
    #[derive(serde::Deserialize)]
    struct OnlyStep {
        configuring: Configuring,
    }

    if let Some(refusal) = client.refusal("change the configuration") {
        return refusal.into();
    }
    // What is wrong with it is not told: it may be a secret.
    let Ok(OnlyStep { configuring }) = serde_json::from_slice(line) else {
        return Response::error(
            FailureCode::BadRequest,
            r#"no step such as "configuring":{"apply":{"name":"…","text":"…"}} or "configuring":"confirm""#,
        )
        .into();
    };
    match source.configure(configuring).await {
        Ok(Step {
            configured,
            afterwards,
        }) => Answer {
            response: Response::ok(Body::Configure(configured)),
            afterwards,
        },
        Err(reason) => Response::error(FailureCode::Impossible, reason).into(),
    }
}

fn set_log_level(line: &[u8], client: &Client, source: &(dyn Source + Send + Sync)) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyLevel {
        level: String,
    }

    if let Some(refusal) = client.refusal("change what is logged") {
        return refusal;
    }
    let level = match serde_json::from_slice(line) {
        Ok(OnlyLevel { level }) => level,
        Err(error) => return bad_request(&error),
    };
    match source.set_log_level(&level) {
        Ok(()) => Response::ok(Body::LogLevel(level)),
        Err(reason) => Response::error(FailureCode::Impossible, reason),
    }
}

fn log(line: &[u8], source: &(dyn Source + Send + Sync)) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyWanted {
        #[serde(default)]
        log: LogWanted,
    }

    match serde_json::from_slice(line) {
        Ok(OnlyWanted { log }) => Response::ok(Body::Log(source.log(&log))),
        Err(error) => bad_request(&error),
    }
}

fn clear_counters(line: &[u8], client: &Client, source: &(dyn Source + Send + Sync)) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyTunnel {
        #[serde(default)]
        tunnel: Option<String>,
    }

    if let Some(refusal) = client.refusal("clear counters") {
        return refusal;
    }
    let tunnel = match serde_json::from_slice(line) {
        Ok(OnlyTunnel { tunnel }) => tunnel,
        Err(error) => return bad_request(&error),
    };
    match source.clear_counters(tunnel.as_deref()) {
        Ok(names) => Response::ok(Body::ClearCounters(names)),
        Err(reason) => Response::error(FailureCode::Impossible, reason),
    }
}

fn clear_heartbeat_counters(client: &Client, source: &(dyn Source + Send + Sync)) -> Response {
    if let Some(refusal) = client.refusal("clear counters") {
        return refusal;
    }
    match source.clear_heartbeat_counters() {
        Ok(names) => Response::ok(Body::ClearHeartbeatCounters(names)),
        Err(reason) => Response::error(FailureCode::Impossible, reason),
    }
}

async fn rotate(line: &[u8], client: &Client, source: &(dyn Source + Send + Sync)) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyRotation {
        rotation: Rotation,
    }

    if let Some(refusal) = client.refusal("change the secret") {
        return refusal;
    }
    // What is wrong with it is not told: it may be the secret.
    let Ok(OnlyRotation { rotation }) = serde_json::from_slice(line) else {
        return Response::error(
            FailureCode::BadRequest,
            r#"no step such as "rotation":{"begin":"SECRET"} or "rotation":{"finish":{"force":false}}"#,
        );
    };
    match source.rotate(rotation).await {
        Ok(sessions) => Response::ok(Body::RotateSecret(sessions)),
        Err(reason) => Response::error(FailureCode::Impossible, reason),
    }
}

async fn force(
    line: &[u8],
    client: &Client,
    source: &(dyn Source + Send + Sync),
    limits: Limits,
) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyForce {
        force: Force,
    }

    if let Some(refusal) = client.refusal("move a group") {
        return refusal;
    }
    let order = match serde_json::from_slice(line) {
        Ok(OnlyForce { force }) => force,
        Err(error) => return bad_request(&error),
    };
    let (begun, verdict) = match source.force(&order) {
        Ok(begun) => begun,
        Err(reason) => return Response::error(FailureCode::Impossible, reason),
    };
    match timeout(limits.write, verdict).await {
        Ok(Ok(Ok(()))) => Response::ok(Body::Force(begun)),
        Ok(Ok(Err(refusal))) => Response::error(FailureCode::Impossible, refusal.to_string()),
        Ok(Err(_)) | Err(_) => Response::error(
            FailureCode::TimedOut,
            "the agent is stopping or does not get to it; nothing is known to have been done",
        ),
    }
}

fn bad_request(error: &serde_json::Error) -> Response {
    Response::error(
        FailureCode::BadRequest,
        format!(r#"not a request such as {{"version":{VERSION},"command":"status"}}: {error}"#),
    )
}

fn too_long(longest: usize) -> Response {
    Response::error(
        FailureCode::TooLong,
        format!("a request has at most {longest} bytes"),
    )
}

fn too_slow(limits: Limits) -> Response {
    Response::error(
        FailureCode::TimedOut,
        format!("the request did not end within {:?}", limits.read),
    )
}
