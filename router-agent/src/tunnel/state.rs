//! What a tunnel shall be, what it is, and what is to be done about the difference. Pure.

use router_common::{net::IPV6_MINIMUM_MTU, time::BootTime};

use super::{
    Entries, HeartbeatListener, Surroundings, Transit, entries,
    epoch::EpochSlots,
    keepalive::Keepalive,
    mtu::{self, Mtu},
    overhead,
};
use crate::{
    config::Tunnel,
    net::{self, Link},
};

/// The interface by which outer packets come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    pub ifindex: u32,
    pub name: String,
    /// Zero if the interface is no VLAN's.
    pub vlan: u16,
    /// Bytes.
    pub mtu: u32,
    pub is_up: bool,
}

impl Underlay {
    pub fn of(link: &Link) -> Self {
        Self {
            ifindex: link.index,
            name: link.name.clone(),
            vlan: link.vlan_id.unwrap_or(0),
            mtu: link.mtu,
            is_up: link.is_up(),
        }
    }
}

/// Both ends of a tunnel's veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub user_ifindex: u32,
    pub user_mac: [u8; 6],
    pub dataplane_ifindex: u32,
}

impl Device {
    pub fn of(user: &Link, dataplane: &Link) -> Self {
        Self {
            user_ifindex: user.index,
            user_mac: user.mac,
            dataplane_ifindex: dataplane.index,
        }
    }
}

/// Less than the underlay's MTU, as a router on the way said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearntMtu {
    /// Bytes, the outer headers included.
    pub mtu: u32,
    pub at: BootTime,
}

/// One thing to do for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the programs forget a device that is gone.
    Forget(Device),
    /// Make the device with an MTU of so many bytes; what is there of it is to be replaced.
    Create { mtu: u32 },
    /// Tell the programs.
    SetEntries(Entries),
    /// Set the MTUs of the dataplane end, `full`, and of the user's end, `present`.
    SetMtu { full: u32, present: u32 },
    /// Give the device back what it shall have of IPv6, at an MTU of so many bytes.
    RestoreIpv6 { mtu: u32 },
    /// Set the dataplane end up or down, which gives the user's end its carrier or takes it.
    SetCarrier(bool),
}

/// A tunnel.
#[derive(Clone, Debug)]
pub struct TunnelState {
    tunnel: Tunnel,
    index: u32,
    heartbeat: Option<HeartbeatListener>,
    epochs: Option<EpochSlots>,
    transit: Transit,
    /// Whether the stack would take packets from the device, and give it some.
    device_up: bool,
    /// The newest, which may be gone.
    underlay: Underlay,
    has_underlay: bool,
    device: Option<Device>,
    lost: Option<Device>,
    path_mtu: Option<LearntMtu>,
    pub keepalive: Option<Keepalive>,
    done: Done,
}

/// What has been done for the device that there is.
#[derive(Clone, Copy, Debug)]
struct Done {
    entries: Option<Entries>,
    full_mtu: u32,
    present_mtu: u32,
    /// The kernel has taken IPv6 off the device, which had too small an MTU for it.
    lacks_ipv6: bool,
    carrier: bool,
}

impl Done {
    /// For a device just made.
    const fn nothing(mtu: u32) -> Self {
        Self {
            entries: None,
            full_mtu: mtu,
            present_mtu: mtu,
            lacks_ipv6: mtu < IPV6_MINIMUM_MTU,
            carrier: true,
        }
    }
}

impl TunnelState {
    /// With a device just made, whose MTU is the full one of this underlay.
    pub fn new(
        tunnel: Tunnel,
        index: u32,
        heartbeat: Option<HeartbeatListener>,
        epochs: Option<EpochSlots>,
        transit: Transit,
        underlay: Underlay,
        device: Device,
    ) -> Self {
        let done = Done::nothing(mtu::full(&tunnel, underlay.mtu));
        Self {
            tunnel,
            index,
            heartbeat,
            epochs,
            transit,
            device_up: true,
            underlay,
            has_underlay: true,
            device: Some(device),
            lost: None,
            path_mtu: None,
            keepalive: None,
            done,
        }
    }

    /// The device was there before, with MTUs of so many bytes at the dataplane end, `full`, and at
    /// the user's end, `present`. A lower one there is what a router on the path had said.
    #[must_use]
    pub fn with_kept_device(mut self, full: u32, present: u32, now: BootTime) -> Self {
        let is_as_now = full == net::dataplane_mtu(self.done.full_mtu);
        // The dataplane end does not tell less than that.
        let is_told = is_as_now || full > IPV6_MINIMUM_MTU;
        let full = if is_as_now { self.done.full_mtu } else { full };
        self.done.full_mtu = full;
        self.done.present_mtu = present;
        self.done.lacks_ipv6 = present < IPV6_MINIMUM_MTU;
        self.path_mtu = (present < full && is_told).then(|| LearntMtu {
            mtu: mtu::path_of(&self.tunnel, full, present),
            at: now,
        });
        self
    }

    pub const fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    pub const fn index(&self) -> u32 {
        self.index
    }

    pub const fn epochs(&self) -> Option<EpochSlots> {
        self.epochs
    }

    pub const fn device(&self) -> Option<Device> {
        self.device
    }

    /// None while no interface has the tunnel's address.
    pub fn underlay(&self) -> Option<&Underlay> {
        self.has_underlay.then_some(&self.underlay)
    }

    pub const fn path_mtu(&self) -> Option<LearntMtu> {
        self.path_mtu
    }

    pub fn mtu(&self) -> Mtu {
        let path_mtu = self.path_mtu.map(|learnt| learnt.mtu);
        mtu::on_path(&self.tunnel, self.underlay.mtu, path_mtu)
    }

    /// The programs keep what they know of an underlay that is gone: there may soon be another.
    pub fn set_underlay(&mut self, underlay: Option<Underlay>) {
        self.has_underlay = underlay.is_some();
        if let Some(underlay) = underlay {
            self.underlay = underlay;
        }
    }

    pub const fn set_path_mtu(&mut self, learnt: Option<LearntMtu>) {
        self.path_mtu = learnt;
    }

    /// Set down, or without its carrier, it forwards nothing past the stack either.
    pub const fn set_device_up(&mut self, up: bool) {
        self.device_up = up;
    }

    /// The device that was there before has gone.
    pub const fn lose_device(&mut self) {
        self.lost = self.device.take();
    }

    pub const fn has_strict_reverse_path(&self) -> bool {
        self.transit.strict_reverse_path
    }

    /// Whether the stack would take only what came the way that leads back.
    pub const fn set_strict_reverse_path(&mut self, strict: bool) {
        self.transit.strict_reverse_path = strict;
    }

    pub const fn set_user_mac(&mut self, mac: [u8; 6]) {
        if let Some(device) = &mut self.device {
            device.user_mac = mac;
        }
    }

    /// [`Action::Create`] has been done.
    pub const fn created(&mut self, device: Device, mtu: u32) {
        self.device = Some(device);
        self.device_up = true;
        self.done = Done::nothing(mtu);
    }

    /// An action other than [`Action::Create`] has been done.
    pub const fn done(&mut self, action: Action) {
        match action {
            Action::Create { .. } => {}
            Action::Forget(_) => self.lost = None,
            Action::SetEntries(entries) => self.done.entries = Some(entries),
            Action::SetMtu { full, present } => {
                self.done.full_mtu = full;
                self.done.present_mtu = present;
                self.done.lacks_ipv6 |= present < IPV6_MINIMUM_MTU;
            }
            Action::RestoreIpv6 { .. } => self.done.lacks_ipv6 = false,
            Action::SetCarrier(carrier) => self.done.carrier = carrier,
        }
    }

    /// What the programs know of it; `None` if they know nothing.
    pub fn entries(&self) -> Option<&Entries> {
        self.done.entries.as_ref()
    }

    /// What is to be done next.
    pub fn due(&self) -> Option<Action> {
        let Mtu {
            full,
            present,
            may_fragment,
        } = self.mtu();
        if let Some(lost) = self.lost {
            return Some(Action::Forget(lost));
        }
        let Some(device) = self.device else {
            return Some(Action::Create { mtu: present });
        };
        let done = &self.done;
        if (done.full_mtu, done.present_mtu) != (full, present) {
            return Some(Action::SetMtu { full, present });
        }
        let forwarding = self.due_for_forwarding(device, present, may_fragment);
        // Last, for it may fail where all else works.
        forwarding.or_else(|| {
            let may_have_ipv6 = present >= IPV6_MINIMUM_MTU;
            (done.lacks_ipv6 && may_have_ipv6).then_some(Action::RestoreIpv6 { mtu: present })
        })
    }

    fn due_for_forwarding(
        &self,
        device: Device,
        present: u32,
        may_fragment: bool,
    ) -> Option<Action> {
        if !self.tunnel.enabled {
            return None;
        }
        let done = &self.done;
        let entries = entries(
            &self.tunnel,
            &Surroundings {
                index: self.index,
                user_ifindex: device.user_ifindex,
                user_mac: device.user_mac,
                dataplane_ifindex: device.dataplane_ifindex,
                underlay_ifindex: self.underlay.ifindex,
                vlan: self.underlay.vlan,
                mtu: present,
                may_fragment,
                transit: Transit {
                    has_lan: self.transit.has_lan && self.device_up,
                    ..self.transit
                },
                heartbeat: self.heartbeat,
                epochs: self.epochs,
            },
        );
        if done.entries != Some(entries) {
            return Some(Action::SetEntries(entries));
        }
        let carrier = self.keepalive.is_none_or(|keepalive| keepalive.is_up());
        (done.carrier != carrier).then_some(Action::SetCarrier(carrier))
    }

    /// What an operator should know of it, in words.
    pub fn notes(&self) -> Vec<String> {
        let Self {
            tunnel, underlay, ..
        } = self;
        let mut notes = Vec::new();
        if !self.has_underlay {
            notes.push(format!(
                "no interface has the address {}: what its far end sends is taken where it comes, and \
                 packets go by {}, where the address was last",
                tunnel.local_ip, underlay.name
            ));
        } else if !underlay.is_up {
            notes.push(format!("its underlay {} is down", underlay.name));
        }
        if self.device.is_none() {
            notes.push("its device was deleted and could not be made again yet".to_owned());
        }
        if mtu::is_too_long(tunnel, underlay.mtu) {
            notes.push(format!(
                "MTU {} and {} bytes of headers do not fit {}'s MTU {}: full packets are lost",
                mtu::full(tunnel, underlay.mtu),
                overhead(tunnel),
                underlay.name,
                underlay.mtu
            ));
        }
        let Mtu {
            present,
            may_fragment,
            ..
        } = self.mtu();
        if mtu::has_ipv6(tunnel) && present < IPV6_MINIMUM_MTU {
            notes.push(format!(
                "IPv6 needs an MTU of {IPV6_MINIMUM_MTU} bytes, and this is {present}: its IPv6 addresses come when {} has {}",
                underlay.name,
                IPV6_MINIMUM_MTU + overhead(tunnel)
            ));
        }
        if may_fragment {
            notes.push(
                "the path is too narrow for 1280 bytes: routers on it fragment outer packets"
                    .to_owned(),
            );
        }
        if let Some(keepalive) = self.keepalive
            && !keepalive.is_up()
        {
            notes.push(format!(
                "down: {} keepalives in a row did not come back",
                keepalive.unanswered()
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config, tunnel::testing::tunnel};

    const DEVICE: Device = Device {
        user_ifindex: 10,
        user_mac: [2; 6],
        dataplane_ifindex: 11,
    };

    fn underlay() -> Underlay {
        Underlay {
            ifindex: 2,
            name: "eth0".to_owned(),
            vlan: 0,
            mtu: 1500,
            is_up: true,
        }
    }

    /// Does all that is due; what that was.
    fn settle(state: &mut TunnelState) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = state.due() {
            actions.push(action);
            match action {
                Action::Create { mtu } => {
                    let device = Device {
                        user_ifindex: 20,
                        dataplane_ifindex: 21,
                        ..DEVICE
                    };
                    state.created(device, mtu);
                }
                other => state.done(other),
            }
            assert!(actions.len() < 10, "{actions:?}");
        }
        actions
    }

    fn settled() -> TunnelState {
        let mut state = TunnelState::new(
            tunnel(),
            3,
            None,
            None,
            Transit::default(),
            underlay(),
            DEVICE,
        );
        let actions = settle(&mut state);
        assert!(matches!(actions[..], [Action::SetEntries(_)]));
        state
    }

    /// The one action due, if it changes the programs' elements.
    fn one_change(state: &mut TunnelState) -> Entries {
        match settle(state)[..] {
            [Action::SetEntries(entries)] => entries,
            ref actions => panic!("{actions:?}"),
        }
    }

    #[test]
    fn another_underlay_is_told_to_the_programs_alone() {
        let mut state = settled();
        let other = Underlay {
            ifindex: 7,
            vlan: 5,
            ..underlay()
        };
        state.set_underlay(Some(other));
        let entries = one_change(&mut state);
        assert_eq!(entries.egress.underlay_ifindex, 7);
        assert_eq!(entries.ingress.vlan, 5);
        assert_eq!(state.notes(), [""; 0]);
    }

    #[test]
    fn a_kept_device_goes_on_with_what_the_path_said() {
        let now = BootTime::from_ns(7);
        let new = || {
            TunnelState::new(
                tunnel(),
                3,
                None,
                None,
                Transit::default(),
                underlay(),
                DEVICE,
            )
        };
        let mut same = new().with_kept_device(1476, 1476, now);
        assert_eq!(same.path_mtu(), None);
        one_change(&mut same);
        let mut narrow = new().with_kept_device(1476, 1376, now);
        let learnt = LearntMtu { mtu: 1400, at: now };
        assert_eq!(narrow.path_mtu(), Some(learnt));
        assert_eq!(one_change(&mut narrow).device.mtu, 1376);
        // Of before the underlay had its MTU.
        let mut old = new().with_kept_device(1400, 1400, now);
        assert_eq!(old.path_mtu(), None);
        let set = Action::SetMtu {
            full: 1476,
            present: 1476,
        };
        assert_eq!(settle(&mut old)[0], set);
    }

    #[test]
    fn a_kept_device_that_was_too_narrow_for_ipv6() {
        let now = BootTime::from_ns(7);
        let kept = |mtu: Option<u16>, present| {
            let tunnel = Tunnel { mtu, ..tunnel() };
            let transit = Transit::default();
            TunnelState::new(tunnel, 3, None, None, transit, underlay(), DEVICE)
                .with_kept_device(1280, present, now)
        };
        // As it shall be, and of before the configuration said more.
        let mut small = kept(Some(600), 600);
        assert_eq!(small.path_mtu(), None);
        one_change(&mut small);
        let mut former = kept(None, 600);
        assert_eq!(former.path_mtu(), None);
        let set = Action::SetMtu {
            full: 1476,
            present: 1476,
        };
        let actions = settle(&mut former);
        assert_eq!(actions[0], set);
        assert_eq!(actions[2], Action::RestoreIpv6 { mtu: 1476 });
        // A full MTU that is as good as that of IPv6, and less on the path.
        let narrow = kept(Some(1280), 1236);
        assert_eq!(narrow.path_mtu().map(|learnt| learnt.mtu), Some(1280));
    }

    #[test]
    fn ipv6_comes_back_with_the_mtu_that_it_needs() {
        let mut state = settled();
        let narrow = |mtu| Underlay { mtu, ..underlay() };
        state.set_underlay(Some(narrow(1300)));
        assert!(matches!(
            settle(&mut state)[..],
            [Action::SetMtu { .. }, Action::SetEntries(_)]
        ));
        state.set_underlay(Some(underlay()));
        let expected = Action::RestoreIpv6 { mtu: 1476 };
        // All else is done before, should it fail.
        let actions = settle(&mut state);
        assert!(matches!(
            actions[..2],
            [Action::SetMtu { .. }, Action::SetEntries(_)]
        ));
        assert_eq!(actions[2..], [expected]);
    }

    #[test]
    fn without_an_underlay_all_stays_and_is_told() {
        let mut state = settled();
        state.set_underlay(None);
        assert_eq!(settle(&mut state), []);
        assert_eq!(state.underlay(), None);
        assert!(state.notes()[0].contains("10.0.1.10"));
        state.set_underlay(Some(Underlay {
            is_up: false,
            ..underlay()
        }));
        assert_eq!(settle(&mut state), []);
        assert!(state.notes()[0].contains("eth0 is down"));
        state.set_underlay(Some(underlay()));
        assert_eq!(state.notes(), [""; 0]);
    }

    #[test]
    fn the_mtu_follows_underlay_and_path() {
        let mut state = settled();
        state.set_underlay(Some(Underlay {
            mtu: 9000,
            ..underlay()
        }));
        let [
            Action::SetMtu {
                full: 8976,
                present: 8976,
            },
            Action::SetEntries(entries),
        ] = settle(&mut state)[..]
        else {
            panic!("not as expected");
        };
        assert_eq!(entries.device.mtu, 8976);
        let learnt = |mtu| {
            Some(LearntMtu {
                mtu,
                at: BootTime::from_ns(1),
            })
        };
        state.set_path_mtu(learnt(1280));
        let actions = settle(&mut state);
        assert_eq!(
            actions[0],
            Action::SetMtu {
                full: 8976,
                present: 1280
            }
        );
        assert!(state.notes()[0].contains("fragment"));
        state.set_path_mtu(None);
        assert_eq!(settle(&mut state).len(), 2);
        assert_eq!(state.mtu().present, 8976);
    }

    #[test]
    fn a_configured_mtu_that_does_not_fit_is_told() {
        let wide = Tunnel {
            mtu: Some(1490),
            ..tunnel()
        };
        let state = TunnelState::new(wide, 0, None, None, Transit::default(), underlay(), DEVICE);
        assert!(state.notes()[0].contains("do not fit eth0's MTU 1500"));
    }

    #[test]
    fn a_device_that_is_gone_is_made_again_with_all_its_state() {
        let mut state = settled();
        state.set_path_mtu(Some(LearntMtu {
            mtu: 1400,
            at: BootTime::from_ns(1),
        }));
        settle(&mut state);
        state.lose_device();
        let actions = settle(&mut state);
        let [
            Action::Forget(DEVICE),
            Action::Create { mtu: 1376 },
            Action::SetMtu {
                full: 1476,
                present: 1376,
            },
            Action::SetEntries(entries),
        ] = actions[..]
        else {
            panic!("{actions:?}");
        };
        assert_eq!(entries.device.user_ifindex, 20);
        assert_eq!(entries.device.dataplane_ifindex, 21);
        assert_eq!(entries.ingress.index, 3);
    }

    #[test]
    fn another_hardware_address_is_told_to_the_programs() {
        let mut state = settled();
        state.set_user_mac([6; 6]);
        assert_eq!(one_change(&mut state).ingress.user_mac, [6; 6]);
    }

    #[test]
    fn a_disabled_tunnel_has_a_device_and_no_elements() {
        let disabled = Tunnel {
            enabled: false,
            ..tunnel()
        };
        let mut state = TunnelState::new(
            disabled,
            0,
            None,
            None,
            Transit::default(),
            underlay(),
            DEVICE,
        );
        assert_eq!(settle(&mut state), []);
    }

    #[test]
    fn without_keepalives_coming_back_there_is_no_carrier() {
        let config = config::Keepalive {
            interval: Duration::from_secs(1),
            retries: 1,
        };
        let at = |seconds| BootTime::from_ns(1).after(Duration::from_secs(seconds));
        let mut state = settled();
        let mut keepalive = Keepalive::new(config, 0, at(0));
        for (now, heard, expected) in [
            (0, 0, None),
            (1, 0, Some(false)),
            (2, 0, None),
            (3, 1, Some(true)),
        ] {
            keepalive.tick(heard, at(now));
            state.keepalive = Some(keepalive);
            let expected: Vec<_> = expected.map(Action::SetCarrier).into_iter().collect();
            assert_eq!(settle(&mut state), expected, "{now}");
            assert_eq!(state.notes().is_empty(), keepalive.is_up());
        }
    }
}
