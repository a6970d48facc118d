//! Who may do what at the control socket, and why it does not let an operator in.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use nix::unistd::{Gid, Group};
use rustix::fs::Mode;
use tracing::{info, warn};

use super::peer::Peer;
use crate::config::Control;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    Nothing,
    /// Look, but not at secrets.
    Ask,
    Change,
}

/// Whom the socket is for, besides root and the agent's own user. Without any group the file's mode
/// says who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    admins: Option<SystemGroup>,
    readers: Option<SystemGroup>,
}

/// A group of users. Nobody is a member of one that was not found.
#[derive(Clone, Debug)]
struct SystemGroup {
    name: String,
    gid: Arc<OnceLock<u32>>,
}

impl Access {
    /// For the groups that the configuration names, of which none was looked for yet.
    pub fn of(control: &Control) -> Self {
        let group = |name: &Option<String>| name.as_deref().map(SystemGroup::new);
        Self {
            admins: group(&control.socket_group),
            readers: group(&control.read_only_group),
        }
    }

    /// Looks for the groups, or says which of them there is not. That takes as long as the system's
    /// sources of names do.
    pub fn find(&self) -> Result<(), String> {
        // One that is missing keeps none from being found.
        let outcomes: Vec<_> = self.groups().map(SystemGroup::find).collect();
        outcomes.into_iter().collect()
    }

    /// Has the groups looked for on a thread of its own, again and again until all are found, and waits a
    /// moment for the first look. Till then nobody is a member.
    pub fn keep_looking(&self) -> io::Result<()> {
        const AGAIN: Duration = Duration::from_secs(10);
        const FIRST: Duration = Duration::from_millis(200);
        if self.groups().next().is_none() {
            return Ok(());
        }
        let access = self.clone();
        let (looked, first) = mpsc::sync_channel(1);
        let look = move || {
            let mut trouble = None;
            while let Err(error) = access.find() {
                if trouble.as_ref() != Some(&error) {
                    warn!(
                        "service control: {error}: its members are refused, and it is looked for again; \
                         make it (`groupadd --system GROUP`), or name one that `getent group` shows"
                    );
                }
                trouble = Some(error);
                // Nobody waits any more after the first look.
                let _ = looked.try_send(());
                thread::sleep(AGAIN);
            }
            if trouble.is_some() {
                info!("service control: all groups are found");
            }
            let _ = looked.try_send(());
        };
        thread::Builder::new()
            .name("groups".to_owned())
            .spawn(look)?;
        // One that takes longer is not waited for.
        let _ = first.recv_timeout(FIRST);
        Ok(())
    }

    /// What the kernel's word on a client allows it.
    pub fn rights(&self, peer: &Peer) -> Rights {
        let is_member = |group: &Option<SystemGroup>| {
            group
                .as_ref()
                .is_some_and(|group| group.gid.get().is_some_and(|gid| peer.is_in(*gid)))
        };
        if peer.uid == 0
            || peer.uid == rustix::process::geteuid().as_raw()
            || is_member(&self.admins)
        {
            Rights::Change
        } else if is_member(&self.readers) || self.groups().next().is_none() {
            Rights::Ask
        } else {
            Rights::Nothing
        }
    }

    /// The mode of the socket's file. With groups everybody may knock, and the agent looks who it is: to give
    /// the file to a group takes a capability that it does without.
    pub fn file_mode(&self) -> Mode {
        let has_groups = self.groups().next().is_some();
        Mode::from_raw_mode(if has_groups { 0o666 } else { 0o660 })
    }

    /// Why a client may not do `what`.
    pub fn may_not(&self, what: &str) -> String {
        match &self.admins {
            Some(group) => format!(
                "only root, the agent's own user and members of the group {0} may {what}: join {0}",
                group.name
            ),
            None => format!(
                "only root and the agent's own user may {what}; `service control socket-group` lets a \
                 group"
            ),
        }
    }

    /// Why a client may do nothing.
    pub fn stranger(&self) -> String {
        let names: Vec<_> = self.groups().map(|group| &*group.name).collect();
        format!(
            "only root, the agent's own user and members of the group {0} may ask: join {0}",
            names.join(" or ")
        )
    }

    fn groups(&self) -> impl Iterator<Item = &SystemGroup> {
        self.admins.iter().chain(&self.readers)
    }
}

impl SystemGroup {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            gid: Arc::default(),
        }
    }

    fn find(&self) -> Result<(), String> {
        let Self { name, gid } = self;
        if gid.get().is_some() {
            return Ok(());
        }
        match Group::from_name(name) {
            Ok(Some(group)) => {
                gid.get_or_init(|| group.gid.as_raw());
                Ok(())
            }
            Ok(None) => Err(format!("there is no group {name} of users")),
            Err(error) => Err(format!("the group {name} cannot be looked up: {error}")),
        }
    }
}

/// What to do about "permission denied" at `socket`.
pub fn remedy(socket: &Path) -> String {
    match fs::metadata(socket) {
        Ok(metadata) => {
            let gid = metadata.gid();
            let group = Group::from_gid(Gid::from_raw(gid))
                .ok()
                .flatten()
                .map_or_else(|| format!("number {gid}"), |group| group.name);
            let mode = metadata.mode() & 0o7777;
            format!("it has mode {mode:04o}: run as root or as a member of the group {group}")
        }
        Err(_) => match socket.parent() {
            Some(directory) => format!(
                "the directory {} may not be searched: run as root",
                directory.display()
            ),
            None => "run as root".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMINS: u32 = 70;
    const READERS: u32 = 71;
    const STRANGER: u32 = 65_534;

    fn access(admins: bool, readers: bool) -> Access {
        let group = |name: &str, gid| SystemGroup {
            name: name.to_owned(),
            gid: Arc::new(OnceLock::from(gid)),
        };
        Access {
            admins: admins.then(|| group("netadmin", ADMINS)),
            readers: readers.then(|| group("netread", READERS)),
        }
    }

    fn rights(access: &Access, uid: u32, gid: u32, groups: &[u32]) -> Rights {
        access.rights(&Peer {
            uid,
            gid,
            groups: groups.to_vec(),
        })
    }

    #[test]
    fn members_may_what_their_group_may() {
        use Rights::{Ask, Change, Nothing};
        for (admins, readers, of_admin, of_reader, of_stranger) in [
            (false, false, Ask, Ask, Ask),
            (true, false, Change, Nothing, Nothing),
            (false, true, Nothing, Ask, Nothing),
            (true, true, Change, Ask, Nothing),
        ] {
            let access = access(admins, readers);
            for (gid, expected) in [
                (ADMINS, of_admin),
                (READERS, of_reader),
                (STRANGER, of_stranger),
            ] {
                let as_first = rights(&access, STRANGER, gid, &[]);
                let as_further = rights(&access, STRANGER, STRANGER, &[5, gid]);
                assert_eq!((as_first, as_further), (expected, expected), "{access:?}");
            }
            assert_eq!(rights(&access, 0, STRANGER, &[]), Change);
        }
        let both = access(true, true);
        assert_eq!(rights(&both, STRANGER, READERS, &[ADMINS]), Change);
    }

    #[test]
    fn the_file_lets_in_whom_the_agent_hears() {
        for (admins, readers, mode) in [
            (false, false, 0o660),
            (true, false, 0o666),
            (false, true, 0o666),
            (true, true, 0o666),
        ] {
            let access = access(admins, readers);
            assert_eq!(access.file_mode().as_raw_mode(), mode);
        }
    }

    #[test]
    fn refusals_name_the_group_to_join() {
        let both = access(true, true);
        assert!(both.may_not("do that").ends_with("do that: join netadmin"));
        assert!(both.stranger().ends_with("join netadmin or netread"));
        let none = access(false, false).may_not("do that");
        assert!(none.contains("service control socket-group"), "{none}");
    }

    #[test]
    fn groups_are_those_of_the_system() {
        let control = |name: &str| Control {
            socket_group: Some(name.to_owned()),
            read_only_group: None,
        };
        let root = Access::of(&control("root"));
        // Before it was found nobody is a member, and nobody may what all may without any group.
        assert_eq!(rights(&root, STRANGER, 0, &[]), Rights::Nothing);
        // Who asks later has another copy.
        root.clone().find().unwrap();
        assert_eq!(rights(&root, STRANGER, 0, &[]), Rights::Change);
        let none = Access::of(&control("no-such-group"));
        let error = none.find().unwrap_err();
        assert!(error.contains("no group no-such-group"), "{error}");
        assert_eq!(rights(&none, STRANGER, 0, &[]), Rights::Nothing);
    }
}
