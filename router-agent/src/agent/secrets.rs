//! Changes the secret of all sessions while they go on.

use std::sync::{
    MutexGuard, PoisonError,
    atomic::{Ordering, fence},
};

use router_common::{
    kdf,
    keys::{Keys, Slot},
    map::SessionConfig,
};

use super::board::{Facts, SessionFacts};
use crate::{
    config::Secret,
    dataplane::MappedArray,
    heartbeat::rotation::{self, Progress, Refusal},
};

/// A session's keys, before and after.
type Change = (u32, Keys);

impl Facts {
    /// Accepts `secret` beside the present one in every session, and asks the peers for it; or in none.
    pub(super) fn begin_rotation(&self, secret: &Secret) -> Result<(), Refusal> {
        let configs = self.locked_keys();
        let host = &self.config.host_name;
        let secret = secret.expose().as_bytes();
        let changes = self.changes(|session| {
            let group = &self.groups()[session.group];
            let new = kdf::slot(secret, &group.name, host, self.peer(group));
            rotation::begin(&configs.read(session.index).keys, &new)
        })?;
        write(&configs, &changes);
        Ok(())
    }

    /// Accepts the secret alone that was begun with, in every session; or in none.
    pub(super) fn finish_rotation(&self, force: bool) -> Result<(), Refusal> {
        let configs = self.locked_keys();
        let changes = self.changes(|session| {
            let peer = self.heard.read(session.index).peer_keys();
            rotation::finish(&configs.read(session.index).keys, peer, force)
        })?;
        write(&configs, &changes);
        Ok(())
    }

    pub(super) fn rotation(&self, session: &SessionFacts) -> Progress {
        let keys = self.locked_keys().read(session.index).keys;
        rotation::progress(&keys, self.heard.read(session.index).peer_keys())
    }

    fn changes(
        &self,
        change: impl Fn(&SessionFacts) -> Result<Keys, Refusal>,
    ) -> Result<Vec<Change>, Refusal> {
        self.sessions
            .iter()
            .map(|session| Ok((session.index, change(session)?)))
            .collect()
    }

    /// A panic elsewhere leaves the map as it is.
    fn locked_keys(&self) -> MutexGuard<'_, MappedArray<SessionConfig>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slots are filled before they have a number, and numbered before they are asked for: programs and
/// probes go on between any two of the words written here.
fn write(configs: &MappedArray<SessionConfig>, changes: &[Change]) {
    for (index, after) in changes {
        let config = configs.read(*index);
        let before = config.keys;
        let [first, second] = after.slots;
        let [old_first, old_second] = before.slots;
        let unless_new = |old: Slot, slot: Slot| Slot {
            number: if old.number == slot.number {
                slot.number
            } else {
                0
            },
            ..slot
        };
        let filled = Keys {
            slots: [unless_new(old_first, first), unless_new(old_second, second)],
            ..before
        };
        let numbered = Keys {
            wanted: before.wanted,
            ..*after
        };
        for keys in [filled, numbered, *after] {
            configs.write(*index, &SessionConfig { keys, ..config });
            fence(Ordering::SeqCst);
        }
    }
}
