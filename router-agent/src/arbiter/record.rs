//! A record as it lies in etcd: JSON, so that an operator can read it there.

use std::time::Duration;

use router_common::identity::{Claim, Epoch, NodeId};
use serde::{Deserialize, Serialize};

use crate::cluster::{Mode, Record};

/// Of the form below. A record of another version is not ours to judge.
const VERSION: u32 = 1;

/// The fields in their order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    epoch: u32,
    owner: u32,
    mode: ModeText,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ModeText {
    Paired,
    Solo { term_us: u64 },
}

/// Why a value is no record.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it is not a record in JSON: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it has version {0}, and this program knows version {VERSION}")]
    Version(u32),
    #[error("its term is 0")]
    NoTerm,
}

pub fn encode(record: &Record) -> Result<String, serde_json::Error> {
    let Record { claim, mode } = *record;
    serde_json::to_string(&Text {
        version: VERSION,
        epoch: claim.epoch.0,
        owner: claim.owner.0,
        mode: match mode {
            Mode::Paired => ModeText::Paired,
            Mode::Solo { term } => ModeText::Solo {
                term_us: u64::try_from(term.as_micros()).unwrap_or(u64::MAX),
            },
        },
    })
}

pub fn decode(value: &[u8]) -> Result<Record, Unreadable> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    let OnlyVersion { version } = serde_json::from_slice(value)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let Text {
        version: _,
        epoch,
        owner,
        mode,
    } = serde_json::from_slice(value)?;
    let mode = match mode {
        ModeText::Paired => Mode::Paired,
        ModeText::Solo { term_us: 0 } => return Err(Unreadable::NoTerm),
        ModeText::Solo { term_us } => Mode::Solo {
            term: Duration::from_micros(term_us),
        },
    };
    Ok(Record {
        claim: Claim {
            epoch: Epoch(epoch),
            owner: NodeId(owner),
        },
        mode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mode: Mode) -> Record {
        Record {
            claim: Claim {
                epoch: Epoch(7),
                owner: NodeId(2),
            },
            mode,
        }
    }

    #[test]
    fn records_are_written_as_documented_and_read_back() {
        let solo = Mode::Solo {
            term: Duration::from_secs(3),
        };
        for (mode, text) in [
            (
                Mode::Paired,
                r#"{"version":1,"epoch":7,"owner":2,"mode":"paired"}"#,
            ),
            (
                solo,
                r#"{"version":1,"epoch":7,"owner":2,"mode":{"solo":{"term_us":3000000}}}"#,
            ),
        ] {
            assert_eq!(encode(&record(mode)).unwrap(), text);
            assert_eq!(decode(text.as_bytes()).unwrap(), record(mode));
        }
        // The first one, which nobody owns.
        let first = Record {
            claim: Claim::default(),
            mode: solo,
        };
        let text = encode(&first).unwrap();
        assert_eq!(decode(text.as_bytes()).unwrap(), first, "{text}");
    }

    #[test]
    fn what_is_no_record_is_not_guessed_at() {
        for (value, why) in [
            ("", "not a record in JSON"),
            ("7", "not a record in JSON"),
            (r#"{"epoch":7}"#, "missing field `version`"),
            (r#"{"version":2,"generation":7}"#, "version 2"),
            (
                r#"{"version":1,"epoch":7,"owner":2,"mode":"duo"}"#,
                "unknown variant",
            ),
            (
                r#"{"version":1,"epoch":7,"owner":2,"mode":"paired","term":1}"#,
                "unknown field `term`",
            ),
            (
                r#"{"version":1,"epoch":-7,"owner":2,"mode":"paired"}"#,
                "invalid value",
            ),
            (
                r#"{"version":1,"epoch":7,"owner":2,"mode":{"solo":{"term_us":0}}}"#,
                "term is 0",
            ),
        ] {
            let error = decode(value.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{value}: {error}");
        }
        assert!(decode(&[0xff, 0xfe]).is_err());
    }
}
