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
    config::{Cluster, Group, Secret},
    dataplane::MappedArray,
    heartbeat::rotation::{self, Progress, Refusal, starting},
};

/// A session's keys, before and after.
type Change = (u32, Keys);

/// The keys of the session of `group` between `host` and `peer`, as a configuration states them.
pub(super) fn stated(cluster: &Cluster, group: &str, host: &str, peer: &str) -> Keys {
    let slot = |secret: &Secret| kdf::slot(secret.expose().as_bytes(), group, host, peer);
    let previous = cluster.previous_secret.as_ref();
    starting(slot(&cluster.secret), previous.map(slot))
}

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

    /// Accepts the secret alone that was begun with, in every session; or in none. Unless forced, only if
    /// it is that of `next`, what the next start would know.
    pub(super) fn finish_rotation(
        &self,
        force: bool,
        next: Option<&Cluster>,
    ) -> Result<(), Refusal> {
        let configs = self.locked_keys();
        let changes = self.changes(|session| {
            let peer = self.heard.read(session.index).peer_keys();
            rotation::finish(&configs.read(session.index).keys, peer, force)
        })?;
        if !force && !next.is_some_and(|next| self.ask_for_secret_of(next, &configs)) {
            return Err(Refusal::NotStated);
        }
        write(&configs, &changes);
        Ok(())
    }

    /// Whether each peer understands an agent with the secrets of `new`, also one that changes later or not
    /// at all. Sessions that `new` has no more have nobody to talk to.
    pub(super) fn peers_understand(&self, new: &Cluster) -> bool {
        let keeps = |session: &SessionFacts| {
            let name = &self.groups()[session.group].name;
            new.interfaces.contains(&session.path)
                && new.groups.iter().any(|group| group.name == *name)
        };
        let configs = self.locked_keys();
        self.sessions.iter().filter(|s| keeps(s)).all(|session| {
            let present = configs.read(session.index).keys;
            let peer = self.heard.read(session.index).peer_keys();
            rotation::goes_on(&present, peer, &self.stated(new, session))
        })
    }

    /// Whether all sessions accept what `cluster` states, and nothing else.
    pub(super) fn has_secrets_of(&self, cluster: &Cluster) -> bool {
        let configs = self.locked_keys();
        self.sessions.iter().all(|session| {
            let present = configs.read(session.index).keys;
            rotation::is_same(&present, &self.stated(cluster, session))
        })
    }

    /// Whether the secret that all sessions ask for is that of `cluster`.
    fn ask_for_secret_of(&self, cluster: &Cluster, configs: &MappedArray<SessionConfig>) -> bool {
        self.sessions.iter().all(|session| {
            let stated = self.stated(cluster, session);
            let present = configs.read(session.index).keys;
            present.find(present.wanted()) == stated.find(stated.wanted())
        })
    }

    /// By the names of the present configuration.
    fn stated(&self, cluster: &Cluster, session: &SessionFacts) -> Keys {
        let group: &Group = &self.groups()[session.group];
        let host = &self.config.host_name;
        stated(cluster, &group.name, host, self.peer(group))
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
