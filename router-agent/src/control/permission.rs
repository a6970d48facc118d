//! Who may do what at the control socket, and why it does not let an operator in.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Whether a client of this user may change anything. Its file's mode says who may ask.
pub fn may_change(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// What to do about "permission denied" at `socket`.
pub fn remedy(socket: &Path) -> String {
    match fs::metadata(socket) {
        Ok(metadata) => {
            let gid = metadata.gid();
            let group = fs::read_to_string("/etc/group")
                .ok()
                .and_then(|groups| group_name(&groups, gid))
                .unwrap_or_else(|| format!("number {gid}"));
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

/// The name of the group `gid` in the text of an `/etc/group`.
fn group_name(groups: &str, gid: u32) -> Option<String> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\nnonsense\nrouter:x:970:alice,bob\n";
        assert_eq!(group_name(groups, 970).as_deref(), Some("router"));
        assert_eq!(group_name(groups, 971), None);
    }
}
