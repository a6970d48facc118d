//! One client: read a line, answer it, until the client has had enough or misbehaves.

use std::io;

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    time::timeout,
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Limits, Source};
use crate::control::{
    permission,
    protocol::{AgentVersion, Body, Command, FailureCode, Response, Rotation, VERSION},
};

/// Talks with a client until it closes the connection or breaks a limit.
pub async fn hold(
    stream: UnixStream,
    source: &(dyn Source + Send + Sync),
    limits: Limits,
) -> io::Result<()> {
    let client = Client {
        may_change: permission::may_change(stream.peer_cred()?.uid()),
    };
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    // A request may bring a secret.
    let mut line = Zeroizing::new(Vec::new());
    loop {
        line.zeroize();
        let reading = read_line(&mut reader, &mut line, limits.request_bytes);
        let (response, goes_on) = match timeout(limits.read, reading).await {
            Ok(Ok(Line::Whole)) => (answer(&line, client, source), true),
            Ok(Ok(Line::TooLong)) => (too_long(limits), false),
            Ok(Ok(Line::End)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            // Silent between requests: it merely keeps a place.
            Err(_) if line.is_empty() => return Ok(()),
            Err(_) => (too_slow(limits), false),
        };
        send(&mut write, &response, limits).await?;
        if !goes_on {
            return Ok(());
        }
    }
}

/// Who asks.
#[derive(Clone, Copy)]
struct Client {
    may_change: bool,
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
fn answer(line: &[u8], client: Client, source: &(dyn Source + Send + Sync)) -> Response {
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
        Err(error) => return bad_request(&error),
    };
    if version != VERSION {
        return Response::error(
            FailureCode::UnsupportedVersion,
            format!("this agent speaks version {VERSION} of the protocol, not {version}"),
        );
    }
    let name = match serde_json::from_slice(line) {
        Ok(OnlyCommand { command }) => command,
        Err(error) => return bad_request(&error),
    };
    let Some(command) = Command::from_name(&name) else {
        let known = Command::ALL.map(Command::name).join(", ");
        return Response::error(
            FailureCode::UnknownCommand,
            format!("there is no command {name:?}; there are: {known}"),
        );
    };
    Response::ok(match command {
        Command::Status => Body::Status(source.status()),
        Command::Tunnels => Body::Tunnels(source.tunnels()),
        Command::Interfaces => Body::Interfaces(source.interfaces()),
        Command::Heartbeat => Body::Heartbeat(source.heartbeat()),
        Command::Version => Body::Version(AgentVersion::own()),
        Command::RotateSecret => return rotate(line, client, source),
        Command::LogLevel => return set_log_level(line, client, source),
    })
}

fn set_log_level(line: &[u8], client: Client, source: &(dyn Source + Send + Sync)) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyLevel {
        level: String,
    }

    if !client.may_change {
        return Response::error(
            FailureCode::Forbidden,
            "only root and the agent's own user may change what is logged",
        );
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

fn rotate(line: &[u8], client: Client, source: &(dyn Source + Send + Sync)) -> Response {
    #[derive(serde::Deserialize)]
    struct OnlyRotation {
        rotation: Rotation,
    }

    if !client.may_change {
        return Response::error(
            FailureCode::Forbidden,
            "only root and the agent's own user may change the secret",
        );
    }
    // What is wrong with it is not told: it may be the secret.
    let Ok(OnlyRotation { rotation }) = serde_json::from_slice(line) else {
        return Response::error(
            FailureCode::BadRequest,
            r#"no step such as "rotation":{"begin":"SECRET"} or "rotation":{"finish":{"force":false}}"#,
        );
    };
    match source.rotate(&rotation) {
        Ok(sessions) => Response::ok(Body::RotateSecret(sessions)),
        Err(reason) => Response::error(FailureCode::Impossible, reason),
    }
}

fn bad_request(error: &serde_json::Error) -> Response {
    Response::error(
        FailureCode::BadRequest,
        format!(r#"not a request such as {{"version":{VERSION},"command":"status"}}: {error}"#),
    )
}

fn too_long(limits: Limits) -> Response {
    Response::error(
        FailureCode::TooLong,
        format!("a request has at most {} bytes", limits.request_bytes),
    )
}

fn too_slow(limits: Limits) -> Response {
    Response::error(
        FailureCode::TimedOut,
        format!("the request did not end within {:?}", limits.read),
    )
}
