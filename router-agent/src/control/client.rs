//! The tool's end of the control socket: blocking, with one deadline for each exchange.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use zeroize::Zeroizing;

use super::{
    permission,
    protocol::{
        AgentVersion, Body, Command, ConfigurationStatus, Configured, Configuring, Failure, Force,
        ForceBegun, HeartbeatStatus, InterfaceStatus, LogLine, LogWanted, Outcome, Request,
        Response, Rotation, SessionRotation, Status, TunnelStatus, VERSION,
    },
};

/// Enough for the largest number of tunnels and sessions that the maps hold.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the agent gave no answer, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no agent listens on {}: start it with `router-agent run --config FILE`, or name its socket with --socket", socket.display()
    )]
    NotRunning { socket: PathBuf },
    #[error("permission denied at {}: {remedy}", socket.display())]
    PermissionDenied { socket: PathBuf, remedy: String },
    #[error(
        "the agent speaks version {theirs} of the control protocol and this program version {VERSION}: use the routerctl that was installed with the agent"
    )]
    OtherVersion { theirs: u32 },
    #[error("the agent at {} did not answer within {timeout:?}: see its log, it may be stopped or overloaded", socket.display())]
    TimedOut { socket: PathBuf, timeout: Duration },
    #[error("the agent refused the request: {message}")]
    Refused { message: String },
    #[error("the agent closed the connection without an answer: see its log")]
    ConnectionClosed,
    #[error("what answers at {} is not the agent: {reason}", socket.display())]
    NotUnderstood { socket: PathBuf, reason: String },
    #[error("cannot talk with the agent at {}", socket.display())]
    Io { socket: PathBuf, source: io::Error },
}

/// Asks the agent at one socket; a connection for each question.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// The same client with another deadline for each exchange.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub fn status(&self) -> Result<Status, ClientError> {
        match self.ask(Command::Status)? {
            Body::Status(status) => Ok(status),
            other => Err(self.answers_another_question(&other)),
        }
    }

    pub fn tunnels(&self) -> Result<Vec<TunnelStatus>, ClientError> {
        match self.ask(Command::Tunnels)? {
            Body::Tunnels(tunnels) => Ok(tunnels),
            other => Err(self.answers_another_question(&other)),
        }
    }

    pub fn interfaces(&self) -> Result<Vec<InterfaceStatus>, ClientError> {
        match self.ask(Command::Interfaces)? {
            Body::Interfaces(interfaces) => Ok(interfaces),
            other => Err(self.answers_another_question(&other)),
        }
    }

    pub fn heartbeat(&self) -> Result<Vec<HeartbeatStatus>, ClientError> {
        match self.ask(Command::Heartbeat)? {
            Body::Heartbeat(sessions) => Ok(sessions),
            other => Err(self.answers_another_question(&other)),
        }
    }

    pub fn version(&self) -> Result<AgentVersion, ClientError> {
        match self.ask(Command::Version)? {
            Body::Version(version) => Ok(version),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// Makes a step of the change of the secret.
    pub fn rotate(&self, rotation: Rotation) -> Result<Vec<SessionRotation>, ClientError> {
        match self.request(&Request::rotate(rotation))? {
            Body::RotateSecret(sessions) => Ok(sessions),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// Changes what the agent logs.
    pub fn set_log_level(&self, level: &str) -> Result<String, ClientError> {
        match self.request(&Request::log_level(level.to_owned()))? {
            Body::LogLevel(level) => Ok(level),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// What the agent logged last.
    pub fn log(&self, wanted: LogWanted) -> Result<Vec<LogLine>, ClientError> {
        match self.request(&Request::log(wanted))? {
            Body::Log(lines) => Ok(lines),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// Has the counters of a tunnel, or of all, shown from now on; which they are.
    pub fn clear_counters(&self, tunnel: Option<String>) -> Result<Vec<String>, ClientError> {
        match self.request(&Request::clear_counters(tunnel))? {
            Body::ClearCounters(names) => Ok(names),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// Has the counters of all sessions shown from now on; which they are.
    pub fn clear_heartbeat_counters(&self) -> Result<Vec<String>, ClientError> {
        match self.ask(Command::ClearHeartbeatCounters)? {
            Body::ClearHeartbeatCounters(names) => Ok(names),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// Begins to move a group.
    pub fn force(&self, force: Force) -> Result<ForceBegun, ClientError> {
        match self.request(&Request::force(force))? {
            Body::Force(begun) => Ok(begun),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// What the agent runs by; with the secrets for those who may see them.
    pub fn configuration(
        &self,
        secrets: bool,
        defaults: bool,
    ) -> Result<ConfigurationStatus, ClientError> {
        match self.request(&Request::configuration(secrets, defaults))? {
            Body::Configuration(configuration) => Ok(configuration),
            other => Err(self.answers_another_question(&other)),
        }
    }

    /// Makes a step of a change of the configuration.
    pub fn configure(&self, step: Configuring) -> Result<Configured, ClientError> {
        match self.request(&Request::configure(step))? {
            Body::Configure(configured) => Ok(configured),
            other => Err(self.answers_another_question(&other)),
        }
    }

    fn ask(&self, command: Command) -> Result<Body, ClientError> {
        self.request(&Request::new(command))
    }

    fn request(&self, request: &Request) -> Result<Body, ClientError> {
        let line = self
            .exchange(request)
            .map_err(|error| self.explain(error))?;
        self.read_response(&line)
    }

    fn exchange(&self, request: &Request) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        let mut stream = connect(&self.socket, self.timeout)?;
        let mut text = Zeroizing::new(serde_json::to_vec(request)?);
        text.push(b'\n');
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        let sent = stream.write_all(&text);
        // Who may not ask is told before he has asked.
        let answer = read_line(&mut stream, deadline);
        if answer.is_err() {
            sent?;
        }
        answer
    }

    fn read_response(&self, line: &[u8]) -> Result<Body, ClientError> {
        #[derive(serde::Deserialize)]
        struct OnlyVersion {
            version: u32,
        }

        let OnlyVersion { version } =
            serde_json::from_slice(line).map_err(|error| self.not_understood(&error))?;
        if version != VERSION {
            return Err(ClientError::OtherVersion { theirs: version });
        }
        let response: Response =
            serde_json::from_slice(line).map_err(|error| self.not_understood(&error))?;
        match response.outcome {
            Outcome::Ok(body) => Ok(body),
            Outcome::Error(Failure { code: _, message }) => Err(ClientError::Refused { message }),
        }
    }

    fn explain(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket }
            }
            io::ErrorKind::PermissionDenied => ClientError::PermissionDenied {
                remedy: permission::remedy(&socket),
                socket,
            },
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::TimedOut {
                socket,
                timeout: self.timeout,
            },
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => ClientError::ConnectionClosed,
            io::ErrorKind::InvalidData => self.not_understood(&error),
            _ => ClientError::Io {
                socket,
                source: error,
            },
        }
    }

    fn answers_another_question(&self, body: &Body) -> ClientError {
        let kind = match body {
            Body::Status(_) => Command::Status,
            Body::Tunnels(_) => Command::Tunnels,
            Body::Heartbeat(_) => Command::Heartbeat,
            Body::Interfaces(_) => Command::Interfaces,
            Body::Version(_) => Command::Version,
            Body::RotateSecret(_) => Command::RotateSecret,
            Body::Force(_) => Command::Force,
            Body::Configuration(_) => Command::Configuration,
            Body::Configure(_) => Command::Configure,
            Body::LogLevel(_) => Command::LogLevel,
            Body::Log(_) => Command::Log,
            Body::ClearCounters(_) => Command::ClearCounters,
            Body::ClearHeartbeatCounters(_) => Command::ClearHeartbeatCounters,
        };
        self.not_understood(&format!("it answered {kind}, which was not asked"))
    }

    fn not_understood(&self, reason: &impl ToString) -> ClientError {
        ClientError::NotUnderstood {
            socket: self.socket.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Connects, waiting no longer than `timeout` for a place in a full backlog; the standard
/// library would wait for ever.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    let address = SocketAddrUnix::new(path)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads up to the first newline.
fn read_line(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0_u8; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        let length = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = chunk.get(..length).unwrap_or(&chunk);
        if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            line.extend(read.iter().take(end));
            return Ok(line);
        }
        line.extend_from_slice(read);
        if line.len() > MAX_RESPONSE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("its answer has more than {MAX_RESPONSE_BYTES} bytes"),
            ));
        }
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

#[cfg(test)]
mod tests;
