//! `show interfaces`.

use super::Table;
use crate::control::protocol::InterfaceStatus;

const HEADER: [&str; 5] = ["Interface", "Role", "XDP", "Fast-path", "Note"];

/// A line for each interface, and one more for each further note.
pub fn interfaces(interfaces: &[InterfaceStatus]) -> String {
    let mut table = Table::new(&HEADER);
    for interface in interfaces {
        let InterfaceStatus {
            name,
            role,
            xdp_mode,
            xdp_mode_reason,
            fast_path,
            notes,
        } = interface;
        let reason = xdp_mode_reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(" ({reason})"));
        let mut notes = notes.iter().map(String::as_str);
        table.row([
            name.as_str(),
            &role.to_string(),
            &format!("{xdp_mode}{reason}"),
            if *fast_path { "yes" } else { "no" },
            notes.next().unwrap_or_default(),
        ]);
        for note in notes {
            table.row(["", "", "", "", note]);
        }
    }
    table.render(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control::protocol::InterfaceRole, views::golden};

    #[test]
    fn each_interface_has_its_line() {
        let underlay = InterfaceStatus {
            name: "eth0".to_owned(),
            role: InterfaceRole::Underlay,
            xdp_mode: "native".to_owned(),
            fast_path: true,
            ..InterfaceStatus::default()
        };
        let lan = InterfaceStatus {
            name: "eth1".to_owned(),
            role: InterfaceRole::Lan,
            xdp_mode: "generic".to_owned(),
            xdp_mode_reason: Some("the driver has no native XDP".to_owned()),
            fast_path: true,
            notes: vec![
                "nothing passes by the stack to it".to_owned(),
                "it is down".to_owned(),
            ],
        };
        let missing = InterfaceStatus {
            name: "eth2".to_owned(),
            role: InterfaceRole::Lan,
            xdp_mode: "none".to_owned(),
            notes: vec!["there is no such interface at present".to_owned()],
            ..InterfaceStatus::default()
        };
        let both = InterfaceStatus {
            name: "eth3".to_owned(),
            role: InterfaceRole::Both,
            ..underlay.clone()
        };
        golden::check("interfaces", &interfaces(&[underlay, lan, missing, both]));
        golden::check("interfaces-none", &interfaces(&[]));
    }
}
