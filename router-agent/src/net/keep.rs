//! Tunnels' devices that are there already: those that fit are kept, with their index, and only
//! what differs is changed.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use rtnetlink::{
    LinkUnspec,
    packet_route::address::{AddressAttribute, AddressProtocol},
};

use super::{
    Address, Link, Netlink, OURS_PROTOCOL, SERVICE_PROTOCOL, TunnelDevice, dataplane_end,
    requests::Request,
    tunnels::{
        Planned, add_address, all_done, dataplane_up, ipv6_setting, one_of_each_pair, ours,
        remove_address, set_ipv6, set_link,
    },
};

/// A tunnel's veth pair.
#[derive(Clone, Debug)]
pub struct Pair {
    pub user: Link,
    pub dataplane: Link,
    /// It was there before. Its MTUs are what they were; all else is as it shall be.
    pub kept: bool,
}

impl Netlink {
    /// Sees to it that there are these tunnels' veth pairs, in their order, and no others of ours.
    /// One that is there is kept if it `fits`: position, user's end, dataplane end. The others are
    /// made as by [`Self::create_tunnels`].
    ///
    /// A device of the same name that is not ours is an error, found before anything is changed.
    /// After any other, what was kept may be half changed.
    pub async fn ensure_tunnels(
        &self,
        devices: &[TunnelDevice<'_>],
        mut fits: impl FnMut(usize, &Link, &Link) -> bool,
    ) -> Result<Vec<Pair>> {
        let links = self.links().await?;
        let by_name: HashMap<_, _> = links.iter().map(|link| (&*link.name, link)).collect();
        let mut kept = Vec::with_capacity(devices.len());
        let mut missing = Vec::new();
        for (position, device) in devices.iter().enumerate() {
            let planned = Planned::new(device, &by_name)?;
            let ends = (
                ours(device.name, &by_name)?,
                ours(&dataplane_end(device.name), &by_name)?,
            );
            let pair = match ends {
                (Some(user), Some(dataplane))
                    if user.is_other_end_of(dataplane) && fits(position, user, dataplane) =>
                {
                    Some((planned, user, dataplane))
                }
                _ => {
                    missing.push(planned);
                    None
                }
            };
            kept.push(pair);
        }
        let stay: HashSet<u32> = kept
            .iter()
            .flatten()
            .flat_map(|(_, user, dataplane)| [user.index, dataplane.index])
            .collect();
        let lost = links
            .iter()
            .filter(|link| link.is_ours() && !stay.contains(&link.index));
        self.delete(&one_of_each_pair(lost.collect()), &links)
            .await?;
        self.adjust(&kept, &links).await?;
        let mut made = self.make(&missing).await?.into_iter();
        kept.into_iter()
            .map(|pair| {
                if let Some((_, user, dataplane)) = pair {
                    return Ok(Pair {
                        user: user.clone(),
                        dataplane: dataplane.clone(),
                        kept: true,
                    });
                }
                let (user, dataplane) = made.next().context("a device was not made")?;
                Ok(Pair {
                    user,
                    dataplane,
                    kept: false,
                })
            })
            .collect()
    }

    /// Changes what of the kept devices is not as it shall be.
    async fn adjust(
        &self,
        kept: &[Option<(Planned<'_>, &Link, &Link)>],
        links: &[Link],
    ) -> Result<()> {
        if kept.iter().all(Option::is_none) {
            return Ok(());
        }
        let bridges: HashSet<u32> = links
            .iter()
            .filter(|link| link.is_bridge())
            .map(|link| link.index)
            .collect();
        let mut addresses: HashMap<u32, Vec<(IpNet, bool)>> = HashMap::new();
        for (Address { link_index, net }, protocol) in self.addresses_with_protocols().await? {
            let is_ours = protocol == Some(OURS_PROTOCOL);
            addresses
                .entry(link_index)
                .or_default()
                .push((net, is_ours));
        }
        let mut requests = Vec::new();
        let mut ends = Vec::new();
        for (planned, user, dataplane) in kept.iter().flatten() {
            set_link_local(planned.device.name, planned.device)?;
            self.set_features(planned.device)?;
            requests.push(planned.user_end(user));
            let is_port = user.controller.is_some_and(|of| bridges.contains(&of));
            if planned.bridge.is_none() && is_port {
                let free = LinkUnspec::new_with_index(user.index).nocontroller();
                requests.push(set_link("take from its bridge", &user.name, free.build()));
            }
            requests.extend(planned.join_bridge(user));
            requests.push(dataplane_up(dataplane));
            ends.push((dataplane.index, dataplane.name.clone()));
            let has = addresses.remove(&user.index).unwrap_or_default();
            let wanted: Vec<_> = planned.device.addresses_at(user.mtu).collect();
            requests.extend(address_changes(user, &has, &wanted));
        }
        all_done(self.requests.execute(requests).await?)?;
        self.ensure_joined(&ends).await?;
        Ok(())
    }

    /// What `device` shall have of IPv6, whose MTU allows it again: the kernel had taken all of it off.
    /// The user's end may have another name than `device` says.
    pub async fn restore_ipv6(&self, device: &TunnelDevice<'_>, user: &Link) -> Result<()> {
        // An agent of before had made that end narrow, too.
        set_ipv6(&dataplane_end(device.name), "disable_ipv6")?;
        set_link_local(&user.name, device)?;
        if !device.has_link_local() {
            take_link_local_away(&user.name)?;
        }
        let ipv6 = device.addresses.iter().filter(|net| net.addr().is_ipv6());
        let requests = ipv6.map(|net| add_address(user, *net)).collect();
        all_done(self.requests.execute(requests).await?)
    }

    /// The service addresses that agents have added, but for those of `known`: removed.
    pub async fn remove_other_services(&self, known: &[Address]) -> Result<Vec<Address>> {
        let mut removed = Vec::new();
        for (address, protocol) in self.addresses_with_protocols().await? {
            if protocol == Some(SERVICE_PROTOCOL) && !known.contains(&address) {
                self.remove_address(address.link_index, address.net).await?;
                removed.push(address);
            }
        }
        Ok(removed)
    }

    /// All addresses, and who added them.
    async fn addresses_with_protocols(&self) -> Result<Vec<(Address, Option<AddressProtocol>)>> {
        let messages = self.address_messages().await?;
        let protocol = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Protocol(protocol) => Some(*protocol),
            _ => None,
        };
        Ok(messages
            .iter()
            .filter_map(|message| {
                let address = Address::from_message(message)?;
                Some((address, message.attributes.iter().find_map(protocol)))
            })
            .collect())
    }
}

/// Addresses of others stay.
fn address_changes(user: &Link, has: &[(IpNet, bool)], wanted: &[IpNet]) -> Vec<Request> {
    let too_much = has
        .iter()
        .filter(|(net, is_ours)| *is_ours && !wanted.contains(net))
        .map(|(net, _)| remove_address(user, *net));
    let missing = wanted
        .iter()
        .filter(|net| !has.iter().any(|(there, _)| there == *net))
        .map(|net| add_address(user, *net));
    too_much.chain(missing).collect()
}

/// That which the device has made before it was told not to.
fn take_link_local_away(interface: &str) -> Result<()> {
    const ALLOWED: &str = "0";
    let path = ipv6_setting(interface, "disable_ipv6");
    if fs::read_to_string(&path).is_ok_and(|disabled| disabled.trim() == ALLOWED) {
        for disabled in ["1", ALLOWED] {
            fs::write(&path, disabled).with_context(|| format!("cannot write {path}"))?;
        }
    }
    Ok(())
}

/// Lets the user's end have an IPv6 link-local address or not, see
/// [`TunnelDevice::has_link_local`].
fn set_link_local(interface: &str, device: &TunnelDevice<'_>) -> Result<()> {
    const MODE: &str = "addr_gen_mode";
    /// IN6_ADDR_GEN_MODE_NONE.
    const NONE: &str = "1";
    if !device.has_link_local() {
        return set_ipv6(interface, MODE);
    }
    let path = ipv6_setting(interface, MODE);
    // Without IPv6 there is no such file.
    if fs::read_to_string(&path).is_ok_and(|mode| mode.trim() == NONE) {
        let usual = fs::read_to_string(ipv6_setting("default", MODE))?;
        fs::write(&path, usual).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
