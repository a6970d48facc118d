//! conntrackd's configuration.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use ipnet::IpNet;

use super::Unusable;
use crate::{
    config::{Config, ConntrackSync, SyncLink, Tunnel},
    net::{Address, Link},
};

/// Where the kernel does not say how many connections it tracks at most.
const USUAL_MOST_CONNECTIONS: u32 = 262_144;
/// The daemon's real-time priority, below all threads of the agent's.
const PRIORITY: u32 = 1;

/// How a group's nodes tell each other of connections, and of which.
pub struct Ways {
    sync: ConntrackSync,
    /// This node's address on each of the links.
    locals: Vec<Ipv4Addr>,
    /// Addresses whose connections are not told: they are of one node, and stay there.
    ignored: BTreeSet<IpAddr>,
    most_connections: u32,
}

impl Ways {
    /// Finds this node's addresses.
    pub fn find(
        sync: &ConntrackSync,
        config: &Config,
        links: &[Link],
        addresses: &[Address],
    ) -> Result<Self, Unusable> {
        let locals = sync
            .links
            .iter()
            .map(|way| local_address(way, config, links, addresses))
            .collect::<Result<Vec<_>, _>>()?;
        let mut ignored: BTreeSet<IpAddr> = sync.ignored.iter().copied().collect();
        ignored.extend([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] as [IpAddr; 2]);
        ignored.extend(locals.iter().map(|&local| IpAddr::V4(local)));
        for tunnel in &config.tunnels {
            ignored.extend([tunnel.local_ip, tunnel.remote_ip]);
            ignored.extend(tunnel.addresses.iter().map(IpNet::addr));
        }
        let most = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok();
        Ok(Self {
            sync: sync.clone(),
            locals,
            ignored,
            most_connections: most
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(USUAL_MOST_CONNECTIONS),
        })
    }

    /// The file; the daemon's own files are to be at `lock` and `socket`.
    pub fn text(&self, lock: &Path, socket: &Path) -> String {
        let Self {
            sync,
            locals,
            ignored,
            most_connections,
        } = self;
        let mut text = String::from(
            "# Written by router-agent, and again when it changes.\n\
             Sync {\n\tMode FTFW {\n\t\tStartupResync yes\n\t}\n",
        );
        for (place, (link, local)) in sync.links.iter().zip(locals).enumerate() {
            let default = if place == 0 { " Default" } else { "" };
            let SyncLink {
                interface,
                peer,
                port,
            } = link;
            let ends = match peer {
                Some(peer) => format!(
                    "\tUDP{default} {{\n\t\tIPv4_address {local}\n\
                     \t\tIPv4_Destination_Address {peer}\n\t\tPort {port}\n"
                ),
                None => format!(
                    "\tMulticast{default} {{\n\t\tIPv4_address {group}\n\
                     \t\tIPv4_interface {local}\n\t\tGroup {port}\n",
                    group = sync.mcast_group
                ),
            };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{ends}\t\tInterface {interface}\n\
                 \t\tSndSocketBuffer {bytes}\n\t\tRcvSocketBuffer {bytes}\n\t\tChecksum yes\n\t}}\n",
                bytes = sync.sync_queue_bytes
            );
        }
        let _ = write!(
            text,
            "}}\nGeneral {{\n\tSyslog yes\n\tLogFile no\n\tLockFile {lock}\n\
             \tUNIX {{\n\t\tPath {socket}\n\t}}\n\
             \tHashSize 32768\n\tHashLimit {limit}\n\
             \tNetlinkBufferSize {bytes}\n\tNetlinkBufferSizeMaxGrowth {bytes}\n\
             \tScheduler {{\n\t\tType RR\n\t\tPriority {PRIORITY}\n\t}}\n\
             \tFilter From Userspace {{\n",
            lock = lock.display(),
            socket = socket.display(),
            // It keeps those that have ended until the peer knows.
            limit = most_connections.saturating_mul(2),
            bytes = sync.event_queue_bytes,
        );
        if !sync.protocols.is_empty() {
            text.push_str("\t\tProtocol Accept {\n");
            for protocol in &sync.protocols {
                let _ = writeln!(text, "\t\t\t{}", protocol_name(protocol));
            }
            text.push_str("\t\t}\n");
        }
        text.push_str("\t\tAddress Ignore {\n");
        for address in ignored {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let _ = writeln!(text, "\t\t\t{family}_address {address}");
        }
        text.push_str("\t\t}\n\t}\n}\n");
        text
    }
}

/// As conntrackd writes it.
fn protocol_name(written: &str) -> String {
    match written {
        "icmp6" => "IPv6-ICMP".to_owned(),
        other => other.to_uppercase(),
    }
}

/// Of several addresses the one in the peer's network, else the first that stays on this node.
fn local_address(
    way: &SyncLink,
    config: &Config,
    links: &[Link],
    addresses: &[Address],
) -> Result<Ipv4Addr, Unusable> {
    let name = &way.interface;
    let tunnel = config.tunnels.iter().find(|tunnel| tunnel.name == *name);
    let nets: Vec<IpNet> = match tunnel {
        Some(Tunnel {
            multicast: false, ..
        }) if way.peer.is_none() => return Err(Unusable::NoMulticast(name.clone())),
        // It may not be there yet.
        Some(tunnel) => tunnel.addresses.clone(),
        None => {
            let link = links.iter().find(|link| link.name == *name);
            let link = link.ok_or_else(|| Unusable::NoInterface(name.clone()))?;
            let of_link = addresses.iter().filter(|a| a.link_index == link.index);
            of_link.map(|address| address.net).collect()
        }
    };
    let moving: Vec<IpAddr> = config.service_addresses().collect();
    let fit: Vec<_> = nets
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) if !moving.contains(&net.addr().into()) => Some(net),
            IpNet::V4(_) | IpNet::V6(_) => None,
        })
        .collect();
    let near = way
        .peer
        .and_then(|peer| fit.iter().find(|net| net.contains(&peer)));
    near.or(fit.first())
        .map(|net| net.addr())
        .ok_or_else(|| Unusable::NoAddress(name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(peer: Option<Ipv4Addr>) -> Ways {
        Ways {
            sync: ConntrackSync {
                links: vec![SyncLink {
                    interface: "tun00".into(),
                    peer,
                    port: 3780,
                }],
                protocols: vec!["tcp", "icmp6"],
                ignored: Vec::new(),
                mcast_group: Ipv4Addr::new(225, 0, 0, 50),
                event_queue_bytes: 8 << 20,
                sync_queue_bytes: 1 << 20,
            },
            locals: vec![Ipv4Addr::new(169, 254, 0, 1)],
            ignored: [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()].into(),
            most_connections: 1000,
        }
    }

    #[test]
    fn it_is_told_all_that_it_must_know() {
        let text = ways(None).text(Path::new("/run/lock"), Path::new("/run/ctl"));
        for line in [
            "Multicast Default {",
            "IPv4_interface 169.254.0.1",
            "Interface tun00",
            "RcvSocketBuffer 1048576",
            "LockFile /run/lock",
            "Path /run/ctl",
            "HashLimit 2000",
            "NetlinkBufferSizeMaxGrowth 8388608",
            "IPv6-ICMP",
            "IPv6_address ::1",
        ] {
            assert!(
                text.lines().any(|found| found.trim() == line),
                "{line}: {text}"
            );
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn a_peer_that_is_stated_is_told_alone() {
        let peer = Ipv4Addr::new(169, 254, 0, 2);
        let text = ways(Some(peer)).text(Path::new("/run/lock"), Path::new("/run/ctl"));
        assert!(text.contains("IPv4_Destination_Address 169.254.0.2"));
        assert!(!text.contains("Multicast"));
    }
}
