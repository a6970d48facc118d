//! What part interfaces have in forwarding by the stack, and who is told of it. Pure, but for
//! [`Register::act`].

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use router_common::map::{Interface, interface_flag};

use crate::{
    agent::board::NONE,
    control::protocol::{InterfaceRole, InterfaceStatus},
    dataplane::{Dataplane, Mode},
    net::Link,
};

/// An interface by which packets reach the tunnels.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    pub link: &'a Link,
    pub role: InterfaceRole,
    /// Why it cannot be a LAN.
    pub obstacle: Option<String>,
    /// Where its frames are first seen.
    pub mode: Option<&'a Mode>,
    /// Of its own programs.
    pub own_mode: Option<&'a Mode>,
    pub has_strict_reverse_path: bool,
    /// As in [`Interface`].
    pub protected_by: u16,
}

impl Part<'_> {
    /// What the programs shall know of it, if they shall. `any_native` says whether any interface
    /// has programs in the driver.
    pub fn interface(&self, any_native: bool) -> Option<Interface> {
        let is_lan = self.role != InterfaceRole::Underlay && self.obstacle.is_none();
        if self.role == InterfaceRole::Lan && !is_lan {
            return None;
        }
        let flag = |flag, yes| if yes { flag } else { 0 };
        Some(Interface {
            flags: flag(interface_flag::LAN, is_lan)
                | flag(
                    interface_flag::TRANSMIT,
                    transmits(self.own_mode?, any_native),
                )
                | flag(
                    interface_flag::STRICT_REVERSE_PATH,
                    self.has_strict_reverse_path,
                ),
            mac: self.link.mac,
            protected_by: self.protected_by,
        })
    }

    /// With `interface` as the programs know it.
    pub fn status(&self, interface: Option<&Interface>) -> InterfaceStatus {
        let has = |flag| interface.is_some_and(|interface| interface.flags & flag != 0);
        let transmits = has(interface_flag::TRANSMIT);
        let mut notes = Vec::from_iter(self.obstacle.clone());
        if interface.is_some() && !transmits {
            notes.push(
                "not in native XDP mode as others are: nothing passes by the stack to it"
                    .to_owned(),
            );
        }
        if interface.is_some() && self.link.is_veth() {
            notes.push(
                "fast-path on a veth: its far end must have tx checksum offload off \
                 (`ethtool -K`) and an XDP program or GRO on, or packets are broken or lost"
                    .to_owned(),
            );
        }
        InterfaceStatus {
            name: self.link.name.clone(),
            role: self.role,
            xdp_mode: self.mode.map_or(NONE, Mode::name).to_owned(),
            xdp_mode_reason: self.mode.and_then(Mode::reason).map(ToOwned::to_owned),
            fast_path: transmits || has(interface_flag::LAN),
            notes,
        }
    }
}

/// Of a LAN called `name` in the configuration, of which there is no interface.
pub fn missing(name: &str) -> InterfaceStatus {
    InterfaceStatus {
        name: name.to_owned(),
        role: InterfaceRole::Lan,
        xdp_mode: NONE.to_owned(),
        xdp_mode_reason: None,
        fast_path: false,
        notes: vec!["there is no such interface at present".to_owned()],
    }
}

/// Whether what XDP redirects to an interface in `mode` is sent. Native mode shows that the driver
/// has XDP. In generic mode whatever the interface is it sends, but only what was received in
/// generic mode.
fn transmits(mode: &Mode, any_native: bool) -> bool {
    *mode == Mode::Native || !any_native
}

/// What the programs know of interfaces, by index.
#[derive(Debug, Default)]
pub struct Register(BTreeMap<u32, Interface>);

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Forget(u32),
    Set(u32, Interface),
}

impl Register {
    pub fn get(&self, index: u32) -> Option<&Interface> {
        self.0.get(&index)
    }

    /// Of the interfaces that they know.
    pub fn indices(&self) -> BTreeSet<u32> {
        self.0.keys().copied().collect()
    }

    /// Makes the programs know what is `wanted`, and nothing else.
    pub fn act(
        &mut self,
        wanted: &BTreeMap<u32, Interface>,
        dataplane: &mut Dataplane,
    ) -> Result<()> {
        for step in self.due(wanted) {
            match step {
                Step::Forget(index) => dataplane.forget_interface(index)?,
                Step::Set(index, interface) => dataplane.set_interface(index, interface)?,
            }
            self.done(&step);
        }
        Ok(())
    }

    /// Room is made before it is taken.
    fn due(&self, wanted: &BTreeMap<u32, Interface>) -> Vec<Step> {
        let Self(told) = self;
        let stale = told.keys().filter(|index| !wanted.contains_key(index));
        let new = wanted
            .iter()
            .filter(|(index, interface)| told.get(index) != Some(interface));
        stale
            .map(|&index| Step::Forget(index))
            .chain(new.map(|(&index, &interface)| Step::Set(index, interface)))
            .collect()
    }

    fn done(&mut self, step: &Step) {
        match *step {
            Step::Forget(index) => self.0.remove(&index),
            Step::Set(index, interface) => self.0.insert(index, interface),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample;

    const LAN: u32 = interface_flag::LAN;
    const TRANSMIT: u32 = interface_flag::TRANSMIT;

    fn flags(role: InterfaceRole, mode: Option<&Mode>, obstacle: Option<&str>) -> Option<u32> {
        let link = sample(2, "eth1");
        let part = Part {
            link: &link,
            role,
            obstacle: obstacle.map(ToOwned::to_owned),
            mode,
            own_mode: mode,
            has_strict_reverse_path: false,
            protected_by: 0,
        };
        let interface = part.interface(true)?;
        assert_eq!(interface.mac, link.mac);
        Some(interface.flags)
    }

    #[test]
    fn native_redirects_to_native_only() {
        let generic = Mode::Generic(String::new());
        assert!(transmits(&Mode::Native, true));
        assert!(!transmits(&generic, true));
        assert!(transmits(&generic, false));
    }

    #[test]
    fn only_what_has_the_programs_takes_part() {
        use InterfaceRole::{Both, Lan, Underlay};
        let native = Some(&Mode::Native);
        assert_eq!(flags(Underlay, native, None), Some(TRANSMIT));
        assert_eq!(flags(Lan, native, None), Some(LAN | TRANSMIT));
        assert_eq!(flags(Both, native, None), Some(LAN | TRANSMIT));
        for role in [Underlay, Lan, Both] {
            assert_eq!(flags(role, None, None), None);
        }
        let generic = Mode::Generic(String::new());
        assert_eq!(flags(Lan, Some(&generic), None), Some(LAN));
        let obstacle = Some("it is a bridge");
        assert_eq!(flags(Lan, native, obstacle), None);
        assert_eq!(flags(Both, native, obstacle), Some(TRANSMIT));
    }

    #[test]
    fn the_programs_are_told_what_differs() {
        let known = |mac| Interface {
            mac: [mac; 6],
            ..Interface::default()
        };
        let mut register = Register::default();
        let mut tell = |wanted: &[(u32, Interface)]| {
            let due = register.due(&wanted.iter().copied().collect());
            for step in &due {
                register.done(step);
            }
            due
        };
        let both = [(2, known(2)), (3, known(3))];
        assert_eq!(
            tell(&both),
            [Step::Set(2, known(2)), Step::Set(3, known(3))]
        );
        assert_eq!(tell(&both), []);
        // One has another address, one is made anew.
        assert_eq!(
            tell(&[(2, known(9)), (8, known(3))]),
            [
                Step::Forget(3),
                Step::Set(2, known(9)),
                Step::Set(8, known(3))
            ]
        );
    }
}
