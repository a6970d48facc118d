//! Tunnels' devices: veth pairs, thousands of them at once.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    ops::RangeInclusive,
};

use anyhow::{Context as _, Result, anyhow, bail};
use ipnet::IpNet;
use router_common::net::IPV6_MINIMUM_MTU;
use rtnetlink::{
    LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        address::AddressAttribute,
        link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage},
    },
};

use super::{
    Link, Netlink, OURS, OURS_PROTOCOL, Offload, address_message, dataplane_end, egress,
    requests::{Answer, Request},
};

/// A GSO packet and its outer headers must fit the 16 bits of an IPv4 length.
const GSO_MAX_SIZE: u32 = 65_000;

/// Features of a device (`ethtool -k`) by which it takes packets that are to be cut into segments or summed later. The
/// egress program has no room for its headers in a long packet that is encapsulated already, nor in one of SCTP or in a
/// list of packets; and SCTP's checksum, taken later, would be of a short frame's padding too (RFC 9260 §6.8). The
/// stack does these before they come to it.
const DONE_BEFORE: [&str; 10] = [
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-esp-segmentation",
    "tx-sctp-segmentation",
    "tx-checksum-sctp",
    "tx-gso-list",
];

/// Devices that are about to be deleted are put into the first of these device groups that nobody
/// uses. The numbers are such as people do not choose.
const DELETION_GROUPS: RangeInclusive<u32> = 0x5254_0000..=0x5254_ffff;
/// While the kernel deletes a group, nobody else can change the network: the addresses of a
/// takeover wait, some tenths of a second for each thousand.
const DELETED_AT_ONCE: usize = 1_000;

/// What a tunnel's device shall be like.
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches that do not depend on each other"
)]
#[derive(Clone, Debug)]
pub struct TunnelDevice<'a> {
    pub name: &'a str,
    /// Bytes.
    pub mtu: u32,
    /// Carries whole Ethernet frames; else packets alone, without ARP.
    pub layer2: bool,
    pub multicast: bool,
    pub addresses: &'a [IpNet],
    pub bridge: Option<BridgePortSpec<'a>>,
    /// What comes to the dataplane end has its checksums, and is no longer than the MTU.
    pub checksums_in_software: bool,
    pub enabled: bool,
}

/// How a tunnel is part of a bridge.
#[derive(Clone, Copy, Debug)]
pub struct BridgePortSpec<'a> {
    /// Name of a bridge that exists.
    pub bridge: &'a str,
    /// Of the spanning tree; the kernel's choice if none.
    pub cost: Option<u16>,
    /// 0 to 63; the kernel's choice if none.
    pub priority: Option<u8>,
}

/// A device and the bridge that it goes to, by index.
pub(super) struct Planned<'a> {
    pub device: &'a TunnelDevice<'a>,
    pub bridge: Option<(u32, BridgePortSpec<'a>)>,
}

impl Netlink {
    /// Makes tunnels' veth pairs anew. Of each: the user's end and the dataplane end, as they were
    /// before addresses were added and they were set up. What the dataplane ends receive is lost
    /// until [`Self::ensure_egress`].
    ///
    /// Devices of the same names that an earlier agent made are replaced. One that is not ours is
    /// an error, found before anything is changed. Any other error takes back all that was made.
    pub async fn create_tunnels(&self, devices: &[TunnelDevice<'_>]) -> Result<Vec<(Link, Link)>> {
        let links = self.links().await?;
        let by_name: HashMap<_, _> = links.iter().map(|link| (&*link.name, link)).collect();
        let mut planned = Vec::with_capacity(devices.len());
        let mut left_over = Vec::new();
        for device in devices {
            planned.push(Planned::new(device, &by_name)?);
            for name in [device.name, &dataplane_end(device.name)] {
                left_over.extend(ours(name, &by_name)?);
            }
        }
        self.delete(&one_of_each_pair(left_over), &links).await?;
        self.make(&planned).await
    }

    /// Makes devices whose names are free; an error takes back all that was made.
    pub(super) async fn make(&self, planned: &[Planned<'_>]) -> Result<Vec<(Link, Link)>> {
        let outcome = self.try_make(planned).await;
        if outcome.is_err() {
            // The names were free, so whatever of ours has them now was made here.
            let names: Vec<_> = planned
                .iter()
                .map(|one| one.device.name.to_owned())
                .collect();
            if let Err(error) = self.remove_tunnels(&names).await {
                tracing::warn!("tunnels are left half made: {error:#}");
            }
        }
        outcome
    }

    async fn try_make(&self, planned: &[Planned<'_>]) -> Result<Vec<(Link, Link)>> {
        let creations = planned.iter().map(Planned::creation).collect();
        all_done(self.requests.execute(creations).await?)?;

        let links = self.links().await?;
        let mut by_name: HashMap<_, _> = links
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        let mut take = |name: &str| {
            by_name
                .remove(name)
                .with_context(|| format!("interface {name} has gone"))
        };
        let mut ends = Vec::with_capacity(planned.len());
        let mut requests = Vec::new();
        for one in planned {
            let device = one.device;
            let user = take(device.name)?;
            let dataplane = take(&dataplane_end(device.name))?;
            // The dataplane end is no host: nothing of its own may appear in the tunnel.
            set_ipv6(&dataplane.name, "disable_ipv6")?;
            if !device.has_link_local() {
                set_ipv6(&user.name, "addr_gen_mode")?;
            }
            self.set_features(device)?;
            requests.extend(one.set_up(&user, &dataplane));
            ends.push((user, dataplane));
        }
        all_done(self.requests.execute(requests).await?)?;
        Ok(ends)
    }

    /// Has the stack do before what the egress program cannot leave to be done later, and what the tunnel's format
    /// asks for.
    pub(super) fn set_features(&self, device: &TunnelDevice<'_>) -> Result<()> {
        let name = device.name;
        self.set_offloads(name, &device.offloads())?;
        self.ethtool
            .turn_off(name, &DONE_BEFORE)
            .with_context(|| format!("cannot turn features of {name} off"))
    }

    /// Deletes the tunnels' devices that there are. One that is not ours stays and is an error.
    pub async fn remove_tunnels(&self, names: &[String]) -> Result<()> {
        let links = self.links().await?;
        let by_name: HashMap<_, _> = links.iter().map(|link| (&*link.name, link)).collect();
        let mut doomed = Vec::new();
        let mut outcome = Ok(());
        for name in names {
            match ours(name, &by_name) {
                Ok(link) => doomed.extend(link),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        self.delete(&doomed, &links).await?;
        outcome
    }

    /// Deletes every device that an agent made; the names of the users' ends.
    pub async fn remove_all_tunnels(&self) -> Result<Vec<String>> {
        let links = self.links().await?;
        let ours = links.iter().filter(|link| link.is_ours()).collect();
        let doomed = one_of_each_pair(ours);
        self.delete(&doomed, &links).await?;
        Ok(doomed.iter().map(|link| link.name.clone()).collect())
    }

    /// Deletes pairs of which one end each is given; they may be gone already.
    ///
    /// One after the other, each would wait until no processor can still see it. A group waits once.
    pub(super) async fn delete(&self, doomed: &[&Link], all: &[Link]) -> Result<()> {
        if doomed.is_empty() {
            return Ok(());
        }
        let used: HashSet<u32> = all.iter().map(|link| link.group).collect();
        let mut groups = DELETION_GROUPS;
        let group = groups
            .find(|group| !used.contains(group))
            .context("all device groups that deletion could use are in use")?;
        // With an address goes its route at once. Left to the device's end, each device would make
        // the kernel search all routes for its own.
        let mut addresses: HashMap<u32, Vec<IpNet>> = HashMap::new();
        for address in self.addresses().await? {
            if address.net.addr().is_ipv4() {
                addresses
                    .entry(address.link_index)
                    .or_default()
                    .push(address.net);
            }
        }
        // The newest first: the kernel keeps a list of what shares the egress program, in which it
        // finds these at once.
        let mut doomed = doomed.to_vec();
        doomed.sort_by_key(|link| link.index);
        for some in doomed.rchunks(DELETED_AT_ONCE) {
            let mut requests = Vec::new();
            for link in some {
                let addresses = addresses.remove(&link.index).unwrap_or_default();
                requests.extend(addresses.into_iter().map(|net| remove_address(link, net)));
                let message = LinkUnspec::new_with_index(link.index).link_group(group);
                requests.push(set_link("delete", &link.name, message.build()));
            }
            done_or_gone(self.requests.execute(requests).await?)?;
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::Group(group));
            let deletion = Request::new(
                format!("delete {} interfaces", some.len()),
                RouteNetlinkMessage::DelLink(message),
                0,
            );
            done_or_gone(self.requests.execute(vec![deletion]).await?)?;
        }
        Ok(())
    }
}

impl TunnelDevice<'_> {
    /// Whether the user's end makes itself an IPv6 address. Ten thousand that do have the kernel
    /// walk a list of ten thousand routes to fe80::/64 for each. A tunnel that has no part in IPv6
    /// does without; IPv6 can be routed through it all the same.
    pub(super) fn has_link_local(&self) -> bool {
        let is_ipv6 = |net: &IpNet| matches!(net, IpNet::V6(_));
        self.bridge.is_none()
            && (self.layer2 || self.multicast || self.addresses.iter().any(is_ipv6))
    }

    /// Those that a device of `mtu` bytes can have. The others wait until it is wider.
    pub(super) fn addresses_at(&self, mtu: u32) -> impl Iterator<Item = IpNet> {
        let has_ipv6 = mtu >= IPV6_MINIMUM_MTU;
        let addresses = self.addresses.iter().copied();
        addresses.filter(move |net| has_ipv6 || net.addr().is_ipv4())
    }

    fn offloads(&self) -> Vec<(Offload, bool)> {
        let mut offloads = Vec::new();
        if self.checksums_in_software {
            offloads.push((Offload::TxChecksum, false));
        }
        if self.layer2 || self.checksums_in_software {
            // A tag belongs into the frame's bytes: the other end may be far away.
            offloads.push((Offload::TxVlan, false));
        }
        offloads
    }
}

impl<'a> Planned<'a> {
    pub fn new(device: &'a TunnelDevice<'a>, links: &HashMap<&str, &Link>) -> Result<Self> {
        let bridge = match device.bridge {
            None => None,
            Some(spec) => match links.get(spec.bridge) {
                Some(link) if link.is_bridge() => Some((link.index, spec)),
                Some(_) => bail!("{}: interface {} is no bridge", device.name, spec.bridge),
                None => bail!(
                    "{}: there is no bridge {bridge}; make it (`ip link add {bridge} type bridge`)",
                    device.name,
                    bridge = spec.bridge
                ),
            },
        };
        Ok(Self { device, bridge })
    }

    fn creation(&self) -> Request {
        let Self { device, bridge: _ } = self;
        // A queue for each processor is of use where XDP or GRO runs, and costs memory and time
        // everywhere.
        let attributes = |mtu| {
            [
                LinkAttribute::Mtu(mtu),
                LinkAttribute::NumTxQueues(1),
                LinkAttribute::NumRxQueues(1),
            ]
        };
        let mut peer = LinkUnspec::new_with_name(&dataplane_end(device.name)).build();
        peer.attributes
            .extend(attributes(dataplane_mtu(device.mtu)));
        let mut message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(device.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .append_extra_attribute(LinkAttribute::GsoMaxSize(GSO_MAX_SIZE))
            .build();
        message.attributes.extend(attributes(device.mtu));
        Request::new(
            format!("create interface {}", device.name),
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// The user's end comes first: without a carrier, which the other end gives it, IPv6 looks
    /// through its routes once less.
    fn set_up(&self, user: &Link, dataplane: &Link) -> Vec<Request> {
        let mut requests = vec![self.user_end(user)];
        requests.extend(self.join_bridge(user));
        requests.push(egress::join(dataplane.index, &dataplane.name));
        requests.push(dataplane_up(dataplane));
        let addresses = self.device.addresses_at(self.device.mtu);
        requests.extend(addresses.map(|net| add_address(user, net)));
        requests
    }

    /// What the user's end shall be like, but for its bridge and addresses.
    pub(super) fn user_end(&self, user: &Link) -> Request {
        let device = self.device;
        let end = LinkUnspec::new_with_index(user.index)
            .arp(device.layer2)
            .multicast(device.multicast || device.layer2)
            .allmulticast(device.multicast)
            .append_extra_attribute(LinkAttribute::IfAlias(OURS.to_owned()));
        let end = if device.enabled { end.up() } else { end.down() };
        set_link("set up", device.name, end.build())
    }

    pub(super) fn join_bridge(&self, user: &Link) -> Vec<Request> {
        let Self { device, bridge } = self;
        let Some((index, spec)) = bridge else {
            return Vec::new();
        };
        let mut requests = Vec::new();
        let purpose = format!("make {} a port of bridge {}", device.name, spec.bridge);
        if user.controller != Some(*index) {
            let joined = LinkUnspec::new_with_index(user.index).controller(*index);
            requests.push(Request::new(
                purpose.clone(),
                RouteNetlinkMessage::SetLink(joined.build()),
                0,
            ));
        }
        let mut port = LinkBridgePort::new(user.index);
        if let Some(cost) = spec.cost {
            port = port.cost(cost.into());
        }
        if let Some(priority) = spec.priority {
            port = port.priority(priority.into());
        }
        if spec.cost.is_some() || spec.priority.is_some() {
            let message = RouteNetlinkMessage::NewLink(port.build());
            requests.push(Request::new(purpose, message, 0));
        }
        requests
    }
}

/// The MTU of the dataplane end of a device of `mtu` bytes. Never so little that the kernel takes IPv6 off it: once it is
/// wider it would be a host again.
pub fn dataplane_mtu(mtu: u32) -> u32 {
    mtu.max(IPV6_MINIMUM_MTU)
}

pub(super) fn dataplane_up(dataplane: &Link) -> Request {
    let end = LinkUnspec::new_with_index(dataplane.index)
        .arp(false)
        .append_extra_attribute(LinkAttribute::IfAlias(OURS.to_owned()))
        .up();
    set_link("set up", &dataplane.name, end.build())
}

pub(super) fn add_address(user: &Link, net: IpNet) -> Request {
    let mut message = address_message(user.index, net, None);
    message
        .attributes
        .push(AddressAttribute::Protocol(OURS_PROTOCOL));
    Request::new(
        format!("add address {net} to {}", user.name),
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

pub(super) fn remove_address(link: &Link, net: IpNet) -> Request {
    Request::new(
        format!("remove address {net} from {}", link.name),
        RouteNetlinkMessage::DelAddress(address_message(link.index, net, None)),
        0,
    )
}

pub(super) fn set_link(what: &str, name: &str, message: LinkMessage) -> Request {
    Request::new(
        format!("{what} interface {name}"),
        RouteNetlinkMessage::SetLink(message),
        0,
    )
}

/// The device called `name`, if there is one. That it is not ours is an error.
pub(super) fn ours<'a>(name: &str, links: &HashMap<&str, &'a Link>) -> Result<Option<&'a Link>> {
    match links.get(name) {
        Some(link) if link.is_ours() => Ok(Some(link)),
        Some(_) => Err(anyhow!(
            "interface {name} exists already and is not ours; rename or delete it"
        )),
        None => Ok(None),
    }
}

/// With one end of a pair goes the other. The user's end stays in the list, if both are in it.
pub(super) fn one_of_each_pair(mut links: Vec<&Link>) -> Vec<&Link> {
    links.sort_by_key(|link| link.is_dataplane_end());
    let mut gone = HashSet::new();
    links.retain(|link| {
        gone.extend(link.parent);
        !gone.contains(&link.index)
    });
    links
}

pub(super) fn all_done(answers: Vec<Answer>) -> Result<()> {
    answers.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}

/// As [`all_done`], but others may have deleted the interface or address meanwhile.
fn done_or_gone(answers: Vec<Answer>) -> Result<()> {
    let is_gone = |answer: &Answer| {
        matches!(
            answer
                .as_ref()
                .map_err(|refusal| refusal.error.raw_os_error()),
            Err(Some(libc::ENODEV | libc::EADDRNOTAVAIL))
        )
    };
    all_done(answers.into_iter().filter(|a| !is_gone(a)).collect())
}

/// Sets an interface's IPv6 setting to one, as far as the kernel has IPv6 and the MTU allows it.
pub(super) fn set_ipv6(interface: &str, setting: &str) -> Result<()> {
    let path = ipv6_setting(interface, setting);
    match fs::write(&path, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot write {path}; /proc/sys must be writable"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(super) fn ipv6_setting(interface: &str, setting: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{interface}/{setting}")
}
