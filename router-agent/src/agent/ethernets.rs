//! The interfaces between which and the tunnels packets may pass by the stack.

use std::fs;

use anyhow::{Context as _, Result};
use router_common::map::{Interface, interface_flag};
use tracing::{info, warn};

use super::{keeper::ChooseMode, preflight::Problem};
use crate::{
    config::Config,
    dataplane::{Dataplane, Mode},
    net::{Link, Netlink, Offload},
};

/// Kinds of interfaces that are no network card and still send what XDP redirects to them.
const KINDS_THAT_TRANSMIT: [&str; 4] = ["veth", "bond", "tun", "netdevsim"];

/// Interfaces that cannot take the part that the configuration gives them.
pub fn unfit(config: &Config, links: &[Link]) -> Vec<Problem> {
    fast(config, links)
        .filter_map(|link| {
            let kind = link.kind.as_deref()?;
            (!KINDS_THAT_TRANSMIT.contains(&kind)).then(|| {
                Problem::new(
                    format!(
                        "interface {}: no fast-path for a {kind} interface: the kernel would drop \
                         what XDP sends by it",
                        link.name
                    ),
                    format!(
                        "remove `set interfaces ethernet {} fast-path enable`",
                        link.name
                    ),
                )
            })
        })
        .collect()
}

/// Those with `fast-path enable`.
fn fast<'a>(config: &'a Config, links: &'a [Link]) -> impl Iterator<Item = &'a Link> {
    config
        .ethernets
        .iter()
        .filter(|ethernet| ethernet.fast_path)
        .filter_map(|ethernet| links.iter().find(|link| link.name == ethernet.name))
}

/// An interface that takes part.
struct Part {
    link: Link,
    mode: Mode,
    is_lan: bool,
}

/// Puts the LAN program on what has `fast-path enable`, and tells the programs of these and of the
/// underlays, on which programs are already. Without LANs nothing is told: then nothing passes by
/// the stack.
pub async fn set_up(
    config: &Config,
    choose_mode: &ChooseMode,
    underlays: impl Iterator<Item = (&Link, &Mode)>,
    netlink: &Netlink,
    dataplane: &mut Dataplane,
) -> Result<()> {
    let links = netlink.links().await?;
    let lans: Vec<&Link> = fast(config, &links).collect();
    if lans.is_empty() {
        return Ok(());
    }
    let is_lan = |link: &Link| lans.iter().any(|lan| lan.index == link.index);
    let mut parts: Vec<Part> = Vec::new();
    for (underlay, mode) in underlays {
        if parts.iter().all(|part| part.link.index != underlay.index) {
            parts.push(Part {
                link: underlay.clone(),
                mode: mode.clone(),
                is_lan: is_lan(underlay),
            });
        }
    }
    for lan in &lans {
        if parts.iter().any(|part| part.link.index == lan.index) {
            continue;
        }
        let mode = dataplane.attach_lan(&lan.name, choose_mode(&lan.name))?;
        match &mode {
            Mode::Native => info!(interface = lan.name, "XDP mode native"),
            Mode::Generic(reason) => warn!(interface = lan.name, reason, "XDP mode generic"),
        }
        parts.push(Part {
            link: Link::clone(lan),
            mode,
            is_lan: true,
        });
    }
    let any_native = parts.iter().any(|part| part.mode == Mode::Native);
    for part in &parts {
        let name = &part.link.name;
        if part.is_lan {
            keep_tags(&part.link, &links, netlink)?;
        }
        if part.link.is_veth() {
            warn!(
                interface = name,
                "fast-path on a veth: its far end must have tx checksum offload off (`ethtool -K`) \
                 and an XDP program or GRO on, or packets are broken or lost"
            );
        }
        let transmits = transmits(&part.mode, any_native);
        if !transmits {
            warn!(
                interface = name,
                "not in native XDP mode as others are: nothing passes by the stack to it"
            );
        }
        dataplane.set_interface(part.link.index, interface(part, transmits))?;
        if part.is_lan {
            info!(interface = name, "fast-path enabled");
        }
    }
    Ok(())
}

/// Whether what XDP redirects to an interface in `mode` is sent. Native mode shows that the driver
/// has XDP. In generic mode whatever the interface is it sends, but only what was received in
/// generic mode.
fn transmits(mode: &Mode, any_native: bool) -> bool {
    *mode == Mode::Native || !any_native
}

fn interface(part: &Part, transmits: bool) -> Interface {
    let flag = |flag, yes| if yes { flag } else { 0 };
    Interface {
        flags: flag(interface_flag::LAN, part.is_lan)
            | flag(interface_flag::TRANSMIT, transmits)
            | flag(
                interface_flag::STRICT_REVERSE_PATH,
                has_strict_reverse_path(&part.link.name),
            ),
        mac: part.link.mac,
        padding: [0; 2],
    }
}

/// Sees to it that frames of a VLAN come with their tag, without which they would pass for the
/// interface's own.
fn keep_tags(link: &Link, links: &[Link], netlink: &Netlink) -> Result<()> {
    let has_vlan = links
        .iter()
        .any(|other| other.vlan_id.is_some() && other.parent == Some(link.index));
    if !has_vlan {
        return Ok(());
    }
    netlink
        .set_offloads(&link.name, &[(Offload::RxVlan, false)])
        .with_context(|| {
            format!(
                "{} has VLANs, and its driver takes their tags off; no fast-path there",
                link.name
            )
        })
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

    #[test]
    fn the_greater_setting_counts() {
        assert!(!is_strict(0, 0));
        assert!(is_strict(1, 0));
        assert!(is_strict(0, 1));
        assert!(!is_strict(1, 2), "loose");
        assert!(!is_strict(2, 1), "loose");
    }

    #[test]
    fn native_redirects_to_native_only() {
        let generic = Mode::Generic(String::new());
        assert!(transmits(&Mode::Native, true));
        assert!(!transmits(&generic, true));
        assert!(transmits(&generic, false));
    }
}
