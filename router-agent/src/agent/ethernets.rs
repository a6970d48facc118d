//! The interfaces between which and the tunnels packets may pass by the stack: what they must be.

use std::fs;

use anyhow::{Context as _, Result};

use super::preflight::Problem;
use crate::{
    config::Config,
    net::{Link, Netlink, Offload},
};

/// Kinds of interfaces that are no network card and still send what XDP redirects to them.
const KINDS_THAT_TRANSMIT: [&str; 3] = ["veth", "tun", "netdevsim"];

/// Interfaces that cannot take the part that the configuration gives them.
pub fn unfit(config: &Config, links: &[Link]) -> Vec<Problem> {
    lans(config)
        .filter_map(|name| {
            let link = links.iter().find(|link| link.name == name)?;
            let find = |index| links.iter().find(|link| link.index == index);
            Some(Problem::new(
                format!("interface {name}: {}", obstacle(link, find)?),
                format!("remove `set interfaces ethernet {name} fast-path enable`"),
            ))
        })
        .collect()
}

/// Those with `fast-path enable`, as they are called in the configuration.
pub fn lans(config: &Config) -> impl Iterator<Item = &str> {
    config
        .ethernets
        .iter()
        .filter(|ethernet| ethernet.fast_path)
        .map(|ethernet| ethernet.name.as_str())
}

/// Why an interface cannot be a LAN that packets pass by the stack, if it cannot. `find` knows
/// interfaces by their indices.
pub fn obstacle<'a>(link: &Link, find: impl Fn(u32) -> Option<&'a Link>) -> Option<String> {
    if is_port(link, find) {
        return Some(
            "no fast-path for a port of another interface, such as a bridge or a bond: its packets \
             would pass by that one, and by the fence there"
                .to_owned(),
        );
    }
    let kind = link.kind.as_deref()?;
    if kind == "bond" {
        // `bond_xdp_set`, drivers/net/bonding/bond_main.c.
        return Some(
            "no fast-path for a bond: the kernel has its ports run a native XDP program, and they take no part"
                .to_owned(),
        );
    }
    (!KINDS_THAT_TRANSMIT.contains(&kind)).then(|| {
        format!("no fast-path for a {kind} interface: the kernel would drop what XDP sends by it")
    })
}

/// Whether what comes by it is taken for that of the bridge or bond that it is part of. A member of a
/// VRF stays an interface of its own. `find` knows interfaces by their indices.
pub fn is_port<'a>(link: &Link, find: impl Fn(u32) -> Option<&'a Link>) -> bool {
    let is_vrf = |controller| find(controller).is_some_and(Link::is_vrf);
    link.controller
        .is_some_and(|controller| !is_vrf(controller))
}

/// Sees to it that frames of VLANs come with their tags, without which they would pass for the
/// interface's own.
pub fn keep_tags(interface: &str, netlink: &Netlink) -> Result<()> {
    netlink
        .set_offloads(interface, &[(Offload::RxVlan, false)])
        .with_context(|| format!("{interface} has VLANs, and its driver takes their tags off"))
}

/// Whether the kernel's reverse path check on the interface is the strict one. The greater of the
/// two settings counts (ip-sysctl, `rp_filter`); an interface without IPv4 has none.
pub fn has_strict_reverse_path(interface: &str) -> bool {
    let setting = |of: &str| {
        fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/rp_filter"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    is_strict(setting("all"), setting(interface))
}

fn is_strict(all: u8, own: u8) -> bool {
    /// 2 is loose.
    const STRICT: u8 = 1;
    all.max(own) == STRICT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sample;

    #[test]
    fn only_an_interface_of_its_own_is_a_lan() {
        let mut links = [
            sample(2, "eth1"),
            sample(3, "br0"),
            sample(4, "red"),
            sample(5, "eth2"),
        ];
        for (link, kind) in links.iter_mut().skip(1).zip(["bridge", "vrf"]) {
            link.kind = Some(kind.to_owned());
        }
        let mut says = |controller| {
            links[0].controller = controller;
            let find = |index| links.iter().find(|link| link.index == index);
            obstacle(&links[0], find)
        };
        assert_eq!(says(None), None);
        assert_eq!(says(Some(4)), None, "a VRF");
        for port_of in [3, 5, 99] {
            let why = says(Some(port_of)).unwrap();
            assert!(why.contains("a port of another interface"), "{why}");
        }
    }

    #[test]
    fn a_bond_is_no_lan() {
        let mut link = sample(2, "bond0");
        for (kind, is_fit) in [("bond", false), ("vlan", false), ("veth", true)] {
            link.kind = Some(kind.to_owned());
            assert_eq!(obstacle(&link, |_| None).is_none(), is_fit, "{kind}");
        }
    }

    #[test]
    fn the_greater_setting_counts() {
        assert!(!is_strict(0, 0));
        assert!(is_strict(1, 0));
        assert!(is_strict(0, 1));
        assert!(!is_strict(1, 2), "loose");
        assert!(!is_strict(2, 1), "loose");
    }
}
