//! The cluster's secrets: stated here, or read where they are.

use router_common::kdf::secret_number;

use super::super::Facts;
use super::super::diagnostic::{Problem, Report};
use super::super::secret::Secret;
use super::super::secret_place::{SecretPlace, Unreadable};
use super::super::tree::{Branch, Stated};
use super::super::value::Value;

/// The secret, and the one that is still accepted.
pub(super) struct Secrets {
    pub current: Secret,
    pub previous: Option<Secret>,
}

/// The nodes of a secret, of which one is stated.
struct Names {
    text: &'static str,
    file: &'static str,
    credential: &'static str,
}

const CURRENT: Names = Names {
    text: "pre-shared-secret",
    file: "pre-shared-secret-file",
    credential: "pre-shared-secret-credential",
};

const PREVIOUS: Names = Names {
    text: "previous-pre-shared-secret",
    file: "previous-pre-shared-secret-file",
    credential: "previous-pre-shared-secret-credential",
};

/// None if there is no secret, or one that cannot be had; the report says why.
pub(super) fn check(branch: &Branch, facts: &Facts, report: &mut Report) -> Option<Secrets> {
    let is_missing = CURRENT
        .all()
        .iter()
        .all(|name| !branch.has(name) && !branch.is_broken(name));
    if is_missing {
        report.add(
            Problem::error(branch.place, "`cluster` lacks `pre-shared-secret`").help(
                "add `set cluster pre-shared-secret 'TEXT'`, or say with `pre-shared-secret-file` or `pre-shared-secret-credential` where it is",
            ),
        );
    }
    let current = CURRENT.one(branch, facts, report);
    let previous = PREVIOUS.one(branch, facts, report);
    let current = current?;
    Some(Secrets {
        previous: previous.and_then(|previous| distinct(&current, previous, report)),
        current: current.value,
    })
}

impl Names {
    fn all(&self) -> [&'static str; 3] {
        let Self {
            text,
            file,
            credential,
        } = *self;
        [text, file, credential]
    }

    fn one(&self, branch: &Branch, facts: &Facts, report: &mut Report) -> Option<Stated<Secret>> {
        let mut stated = self
            .all()
            .into_iter()
            .filter_map(|name| branch.value(name).map(|value| (name, value)));
        let (name, first) = stated.next()?;
        if let Some((second, other)) = stated.next() {
            report.add(
                Problem::error(
                    other.place,
                    format!("`{second}` states again what `{name}` states"),
                )
                .help("keep one of the two lines")
                .also(first.place, "the first one"),
            );
            return None;
        }
        let place = match &first.value {
            Value::Secret(secret) => {
                return Some(Stated {
                    value: secret.clone(),
                    place: first.place,
                });
            }
            Value::Text(path) if name == self.file => SecretPlace::File(path.into()),
            Value::Text(credential) => SecretPlace::Credential(credential.clone()),
            _ => return None,
        };
        match (facts.read_secret)(&place) {
            Ok(value) => Some(Stated {
                value,
                place: first.place,
            }),
            Err(Unreadable { reason, remedy }) => {
                report.add(Problem::error(first.place, reason).help(remedy));
                None
            }
        }
    }
}

/// Messages name their secrets by numbers of 16 bits, which must differ.
fn distinct(
    current: &Stated<Secret>,
    previous: Stated<Secret>,
    report: &mut Report,
) -> Option<Secret> {
    let number = |secret: &Secret| secret_number(secret.expose().as_bytes());
    if previous.value == current.value {
        report.add(
            Problem::error(
                previous.place,
                "`previous-pre-shared-secret` is the same as `pre-shared-secret`",
            )
            .help("remove the line, or state the secret that was used before"),
        );
        return None;
    }
    if number(&previous.value) == number(&current.value) {
        report.add(
            Problem::error(
                previous.place,
                "heartbeats cannot tell these two secrets apart: by chance they have the same number",
            )
            .help("choose another `pre-shared-secret`"),
        );
        return None;
    }
    Some(previous.value)
}
