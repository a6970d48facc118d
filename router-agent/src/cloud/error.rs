//! What can go wrong between this node and the EC2 API, told apart by what helps.

use std::time::Duration;

use thiserror::Error;

/// Clocks may differ by so much before AWS refuses a signature (SigV4: five minutes).
pub const TOLERATED_SKEW: Duration = Duration::from_mins(5);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloudError {
    #[error("{endpoint} cannot be reached: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error("{action}: no answer within {limit:?}")]
    TimedOut {
        action: &'static str,
        limit: Duration,
    },
    /// Throttled, or out of order.
    #[error("{action}: the API is busy ({code})")]
    Busy { action: &'static str, code: String },
    #[error(
        "{action}: not permitted: let the instance's role do ec2:{action} (docs/aws.md has the policy)"
    )]
    NotPermitted { action: &'static str },
    #[error(
        "{action}: the credentials are refused ({code}): see that they are of this account, and that \
         the region {region} is enabled for it"
    )]
    CredentialsRefused {
        action: &'static str,
        code: String,
        region: String,
    },
    #[error(
        "{action}: signature refused, as this node's clock is {} s {} that of AWS: let it follow a \
         time server",
        by.as_secs(), if *is_ahead { "ahead of" } else { "behind" }
    )]
    ClockSkew {
        action: &'static str,
        by: Duration,
        is_ahead: bool,
    },
    #[error("{what} (region {region}): see its name, and `aws region`")]
    NotFound {
        /// A sentence.
        what: String,
        region: String,
    },
    #[error("{action} is refused: {code}: {message}")]
    Refused {
        action: &'static str,
        code: String,
        message: String,
    },
    #[error(
        "no credentials yet: {0}; see that the instance has a role and that its metadata service \
         answers, or set AWS_PROFILE or AWS_ACCESS_KEY_ID"
    )]
    NoCredentials(String),
    #[error(
        "this system has no root certificates, by which it would know the API: install ca-certificates"
    )]
    NoRoots,
    #[error("no region: set `aws region`, AWS_REGION, or allow the instance's metadata service")]
    NoRegion,
    #[error(
        "the network interface of this node is not known: {0}; set `aws interface eni-…`, or allow the \
         instance's metadata service"
    )]
    NoInterface(String),
    #[error(
        "{interface} drops what is not addressed to it, and ec2:ModifyNetworkInterfaceAttribute is not \
         permitted: run `aws ec2 modify-network-interface-attribute --network-interface-id {interface} \
         --no-source-dest-check`"
    )]
    SourceDestCheck { interface: String },
    #[error("{action}: the answer is not understood: {reason}")]
    NotUnderstood {
        action: &'static str,
        reason: String,
    },
}

impl CloudError {
    /// Whether another node would have no better luck now.
    pub fn is_everywhere(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Busy { .. } => true,
            Self::NotPermitted { .. }
            | Self::CredentialsRefused { .. }
            | Self::ClockSkew { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::NoCredentials(_)
            | Self::NoRoots
            | Self::NoRegion
            | Self::NoInterface(_)
            | Self::SourceDestCheck { .. }
            | Self::NotUnderstood { .. } => false,
        }
    }

    /// Whether it lies before any resource: every other one would meet with it.
    pub fn concerns_all(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Busy { .. }
            | Self::CredentialsRefused { .. }
            | Self::ClockSkew { .. }
            | Self::NoCredentials(_)
            | Self::NoRoots
            | Self::NoRegion
            | Self::NoInterface(_) => true,
            Self::NotPermitted { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. }
            | Self::SourceDestCheck { .. }
            | Self::NotUnderstood { .. } => false,
        }
    }

    pub fn has_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }
}

/// What the API said, and when it did by its own clock.
#[derive(Debug)]
pub struct Rejection {
    pub status: u16,
    pub code: String,
    pub message: String,
    /// How far this node's clock is ahead of the API's, or behind if negative. Seconds.
    pub skew_s: i64,
}

impl Rejection {
    /// Whether the request would have been carried out, had it not been a dry run.
    pub fn is_dry_run(&self) -> bool {
        self.code == "DryRunOperation"
    }

    /// The codes are those of EC2's API reference, "Error codes".
    pub fn classify(self, action: &'static str, region: &str) -> CloudError {
        let Self {
            status,
            code,
            message,
            skew_s,
        } = self;
        let region = region.to_owned();
        let by = Duration::from_secs(skew_s.unsigned_abs());
        match &*code {
            "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "RequestThrottled"
            | "InternalError"
            | "InternalFailure"
            | "ServiceUnavailable"
            | "Unavailable" => CloudError::Busy { action, code },
            "UnauthorizedOperation" | "AccessDenied" => CloudError::NotPermitted { action },
            "RequestExpired"
            | "AuthFailure"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
                if by >= TOLERATED_SKEW =>
            {
                CloudError::ClockSkew {
                    action,
                    by,
                    is_ahead: skew_s > 0,
                }
            }
            "AuthFailure"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "OptInRequired"
            | "UnrecognizedClientException"
            | "ExpiredToken"
            | "RequestExpired"
            | "InvalidSignatureException" => CloudError::CredentialsRefused {
                action,
                code,
                region,
            },
            _ if status >= 500 || status == 429 => CloudError::Busy { action, code },
            _ if code.ends_with("ID.NotFound") || code.ends_with("Id.NotFound") => {
                CloudError::NotFound {
                    what: message,
                    region,
                }
            }
            _ => CloudError::Refused {
                action,
                code,
                message,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(status: u16, code: &str, skew_s: i64) -> CloudError {
        let rejection = Rejection {
            status,
            code: code.into(),
            message: "m".into(),
            skew_s,
        };
        rejection.classify("ReplaceRoute", "eu-west-1")
    }

    #[test]
    fn only_what_is_nobodys_fault_is_everywhere() {
        for (status, code) in [
            (503, "RequestLimitExceeded"),
            (500, ""),
            (503, "x"),
            (429, "y"),
        ] {
            assert!(classified(status, code, 0).is_everywhere(), "{code}");
        }
        for code in [
            "UnauthorizedOperation",
            "AuthFailure",
            "InvalidRouteTableID.NotFound",
            "InvalidParameterValue",
        ] {
            assert!(!classified(400, code, 0).is_everywhere(), "{code}");
        }
    }

    #[test]
    fn a_refused_signature_is_laid_to_the_clock_if_that_is_wrong() {
        let text = classified(400, "RequestExpired", -600).to_string();
        assert!(text.contains("600 s behind"), "{text}");
        let text = classified(401, "AuthFailure", 400).to_string();
        assert!(text.contains("400 s ahead of"), "{text}");
        let fine = classified(401, "AuthFailure", 2);
        assert!(
            matches!(fine, CloudError::CredentialsRefused { .. }),
            "{fine}"
        );
    }
}
