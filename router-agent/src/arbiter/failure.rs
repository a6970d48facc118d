//! Why etcd gave no answer that counts: for the core one word, for the operator what to do.

use std::{error::Error as _, fmt::Write as _};

use etcd_client::Error;
use tonic::Code;

use crate::cluster::Fault;

/// What an operator must know of a failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    /// In etcd's words, or the system's.
    pub detail: String,
}

/// What tells more comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Unreachable,
    TimedOut,
    /// It answers, and cannot decide: most of its members are gone, or cut off.
    NoLeader,
    /// User, password or certificate.
    Refused,
    /// The key holds what this program did not write.
    Garbled,
}

impl Kind {
    /// As the core knows it.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Unreachable | Self::NoLeader => Fault::Unreachable,
            Self::TimedOut => Fault::TimedOut,
            Self::Refused => Fault::Refused,
            Self::Garbled => Fault::Unreadable,
        }
    }

    /// Whether another endpoint of the same etcd may do better.
    pub const fn is_of_one_endpoint(self) -> bool {
        match self {
            Self::Unreachable | Self::NoLeader | Self::TimedOut => true,
            Self::Refused | Self::Garbled => false,
        }
    }
}

impl Failure {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub fn of(error: &Error) -> Self {
        let detail = with_sources(error);
        let kind = match error {
            Error::GRpcStatus(status) => of_status(status.code(), status.message(), &detail),
            Error::TransportError(_) | Error::IoError(_) => of_transport(&detail),
            _ => Kind::Unreachable,
        };
        Self { kind, detail }
    }
}

/// etcd's codes: api/v3rpc/rpctypes/error.go of its source.
fn of_status(code: Code, message: &str, detail: &str) -> Kind {
    match code {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition => Kind::Refused,
        Code::DeadlineExceeded => Kind::TimedOut,
        Code::Unavailable if message.contains("no leader") => Kind::NoLeader,
        // Its own limit of some seconds: a follower without a leader, or a disk that stands.
        Code::Unavailable if message.contains("timed out") => Kind::TimedOut,
        _ => of_transport(detail),
    }
}

/// TLS tells of certificates only in words.
fn of_transport(detail: &str) -> Kind {
    if detail.to_lowercase().contains("certificate") {
        Kind::Refused
    } else {
        Kind::Unreachable
    }
}

/// Each cause once: a transport's error repeats those below it.
fn with_sources(error: &Error) -> String {
    let mut text = match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    let mut source = match error {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(error) => error.source(),
        other => other.source(),
    };
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    fn kind(code: Code, message: &str) -> Kind {
        Failure::of(&Error::GRpcStatus(Status::new(code, message))).kind
    }

    #[test]
    fn etcds_refusals_are_told_apart() {
        for (code, message, expected) in [
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Kind::Refused,
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                Kind::Refused,
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
                Kind::Refused,
            ),
            (Code::Unavailable, "etcdserver: no leader", Kind::NoLeader),
            (
                Code::Unavailable,
                "etcdserver: request timed out",
                Kind::TimedOut,
            ),
            (
                Code::Unavailable,
                "etcdserver: leader changed",
                Kind::Unreachable,
            ),
            (
                Code::Unknown,
                "transport error: invalid peer certificate: UnknownIssuer",
                Kind::Refused,
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Kind::Unreachable,
            ),
        ] {
            assert_eq!(kind(code, message), expected, "{message}");
        }
    }
}
