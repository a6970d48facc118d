//! Interfaces as the kernel tells of them.

use std::collections::HashMap;

use rtnetlink::packet_route::{
    AddressFamily,
    link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp},
};

use super::{DATAPLANE_SUFFIX, OURS, dataplane_end};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Bytes.
    pub mtu: u32,
    pub mac: [u8; 6],
    /// `veth`, `vlan`, `bridge` and the like; none for a network card.
    pub kind: Option<String>,
    /// Index of the interface that a VLAN lies on, or of the other end of a veth pair.
    pub parent: Option<u32>,
    pub vlan_id: Option<u16>,
    /// Index of the bridge (or bond, or VRF) that it is part of.
    pub controller: Option<u32>,
    /// Somebody has set it up.
    pub admin_up: bool,
    /// It has a carrier: a cable, or its other end is up.
    pub carrier: bool,
    /// The XDP programs attached, by their kernel-wide ids.
    pub xdp_programs: Vec<u32>,
    /// Device group, see `ip link set group`.
    pub(super) group: u32,
    pub(super) is_ours: bool,
}

impl Link {
    /// Whether an agent made this device: it carries the alias, or it is one end of a veth pair
    /// called like a tunnel and its dataplane end, left by an agent that died in between. The
    /// latter only a listing of all interfaces shows.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Whether the two are one veth pair.
    pub(super) fn is_other_end_of(&self, other: &Self) -> bool {
        self.is_veth()
            && other.is_veth()
            && self.parent == Some(other.index)
            && other.parent == Some(self.index)
    }

    /// Whether packets can pass.
    pub fn is_up(&self) -> bool {
        self.admin_up && self.carrier
    }

    /// Whether it only holds addresses, which packets reach by other interfaces.
    pub fn leads_nowhere(&self) -> bool {
        self.name == "lo" || self.kind.as_deref() == Some("dummy")
    }

    pub(super) fn is_bridge(&self) -> bool {
        self.kind.as_deref() == Some("bridge")
    }

    pub fn is_vrf(&self) -> bool {
        self.kind.as_deref() == Some("vrf")
    }

    pub fn is_veth(&self) -> bool {
        self.kind.as_deref() == Some("veth")
    }

    /// Whether it is called like the dataplane end of a tunnel.
    pub(super) fn is_dataplane_end(&self) -> bool {
        self.name.ends_with(DATAPLANE_SUFFIX)
    }

    /// `None` if the message is not about an interface but about its part in a bridge.
    pub(super) fn from_message(message: LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            mac: [0; 6],
            kind: None,
            parent: None,
            vlan_id: None,
            controller: None,
            admin_up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            xdp_programs: Vec::new(),
            group: 0,
            is_ours: false,
        };
        for attribute in message.attributes {
            link.learn(attribute);
        }
        Some(link)
    }

    fn learn(&mut self, attribute: LinkAttribute) {
        match attribute {
            LinkAttribute::IfName(name) => self.name = name,
            LinkAttribute::Mtu(mtu) => self.mtu = mtu,
            LinkAttribute::Address(mac) => self.mac = mac.try_into().unwrap_or_default(),
            LinkAttribute::IfAlias(alias) => self.is_ours = alias == OURS,
            LinkAttribute::Link(index) => self.parent = (index != 0).then_some(index),
            LinkAttribute::Controller(index) => self.controller = (index != 0).then_some(index),
            LinkAttribute::Group(group) => self.group = group,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => self.kind = Some(kind.to_string()),
                        LinkInfo::Data(InfoData::Vlan(data)) => {
                            self.vlan_id = data.iter().find_map(|info| match info {
                                InfoVlan::Id(id) => Some(*id),
                                _ => None,
                            });
                        }
                        _ => {}
                    }
                }
            }
            LinkAttribute::Xdp(xdp) => {
                for attribute in xdp {
                    let (LinkXdp::ProgId(id)
                    | LinkXdp::DrvProgId(id)
                    | LinkXdp::SkbProgId(id)
                    | LinkXdp::HwProgId(id)) = attribute
                    else {
                        continue;
                    };
                    if id != 0 && !self.xdp_programs.contains(&id) {
                        self.xdp_programs.push(id);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Marks the veth pairs that are called like a tunnel and its dataplane end.
pub(super) fn find_ours(links: &mut [Link]) {
    let names: HashMap<u32, String> = links
        .iter()
        .filter(|link| link.is_veth())
        .map(|link| (link.index, link.name.clone()))
        .collect();
    for link in links.iter_mut().filter(|link| link.is_veth()) {
        let Some(other) = link.parent.and_then(|index| names.get(&index)) else {
            continue;
        };
        link.is_ours |= *other == dataplane_end(&link.name) || link.name == dataplane_end(other);
    }
}

#[cfg(test)]
pub fn sample(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu: 1500,
        mac: [2, 0, 0, 0, 0, 1],
        kind: None,
        parent: None,
        vlan_id: None,
        controller: None,
        admin_up: true,
        carrier: true,
        xdp_programs: Vec::new(),
        group: 0,
        is_ours: false,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;

    #[test]
    fn a_pair_called_like_a_tunnel_is_ours() {
        let veth = |index, name: &str, parent| Link {
            kind: Some("veth".to_owned()),
            parent: Some(parent),
            ..sample(index, name)
        };
        let mut links = [
            veth(2, "tun0", 3),
            veth(3, "tun0-dp", 2),
            // Only one of the names fits.
            veth(4, "tun1", 5),
            veth(5, "tun2-dp", 4),
            // A VLAN device on an interface called like a tunnel.
            Link {
                parent: Some(2),
                ..sample(6, "tun0-dp")
            },
        ];
        links[4].kind = Some("vlan".to_owned());
        find_ours(&mut links);
        assert_eq!(
            links.map(|link| link.is_ours()),
            [true, true, false, false, false]
        );
    }

    #[test]
    fn everything_is_learnt() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName("eth0.5".into()),
            LinkAttribute::Mtu(1400),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Link(2),
            LinkAttribute::Controller(0),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(5)])),
            ]),
            // With several programs the kernel names none as the one.
            LinkAttribute::Xdp(vec![LinkXdp::DrvProgId(41), LinkXdp::SkbProgId(42)]),
        ];
        let expected = Link {
            mtu: 1400,
            kind: Some("vlan".into()),
            parent: Some(2),
            vlan_id: Some(5),
            carrier: false,
            xdp_programs: vec![41, 42],
            ..sample(7, "eth0.5")
        };
        assert_eq!(Link::from_message(message), Some(expected));
    }

    #[test]
    fn a_message_about_a_bridge_port_is_none_about_the_interface() {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(Link::from_message(message), None);
    }
}
