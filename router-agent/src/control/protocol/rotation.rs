//! The change of the pre-shared secret.

use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// A step of the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Rotation {
    /// Accept this secret beside the present one, and ask the peers to use it.
    Begin(
        #[serde(with = "exposed")]
        #[cfg_attr(test, schemars(with = "String"))]
        Secret,
    ),
    /// Accept only the secret that was begun with; `force`: although a peer may need the other one.
    Finish { force: bool },
}

/// How far a session is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SessionRotation {
    /// Its name.
    pub group: String,
    /// Interface through which the messages go.
    pub path: String,
    /// Host name of the peer.
    pub peer: String,
    /// `none`, `peer-lacks-it`, `peer-has-it` or `both-use-it`.
    pub progress: String,
}

/// A secret on its way over the control socket, which only root and the agent's user may send.
pub(super) mod exposed {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Secret;

    pub fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret.expose())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        String::deserialize(from).map(Secret::new)
    }
}
