//! `show interfaces`.

use super::{Table, paint::Tone};
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
        let mut notes = notes.iter().map(|note| Tone::Attention.paint(note));
        table.row([
            name.into(),
            role.to_string().into(),
            format!("{xdp_mode}{reason}").into(),
            if *fast_path { "yes" } else { "no" }.into(),
            notes.next().unwrap_or_default(),
        ]);
        for note in notes {
            table.row(["".into(), "".into(), "".into(), "".into(), note]);
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
        let text = interfaces(&[underlay, lan, missing, both]);
        golden::check_both("interfaces", &text);
        golden::check_folded("interfaces", &text, 80);
        golden::check("interfaces-none", &interfaces(&[]));
    }
}
