//! Finds out whether somebody else uses a service address that this node holds (RFC 5227 §2.4, "ongoing
//! address conflict detection"): by what others say of themselves, and by asking now and then. The address
//! stays here whatever is found: who owns it is the failover core's to say.
//!
//! All of it is apart from the takeover, which waits for nothing here.

mod claim;
mod rivals;
mod socket;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use anyhow::{Context as _, Result};
use router_common::time::BootTime;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::sleep,
};
use tracing::{debug, warn};

use self::{claim::Claim, rivals::Rivals, socket::Ear};
use crate::{
    agent::report::{News, Report},
    clock,
    net::{Link, Netlink, announce::Announcer},
};

/// What the takeover tells of its addresses.
#[derive(Clone, Debug)]
pub enum Word {
    /// An address was taken, perhaps once more.
    Held(Held),
    /// A group's addresses are to be released.
    LetGo { group: usize },
}

/// An address of a group, on its interface.
#[derive(Clone, Debug)]
pub struct Held {
    pub group: usize,
    /// Place among the group's resources.
    pub resource: usize,
    /// As it is written.
    pub service: String,
    pub link: Link,
    pub address: IpAddr,
}

/// Somebody else who uses a held address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    pub mac: [u8; 6],
    /// How often it has said so.
    pub claims: u64,
    /// When it last did.
    pub last: BootTime,
}

/// Displays as `ip link` does.
#[derive(Clone, Copy, Debug)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([first, others @ ..]) = self;
        write!(f, "{first:02x}")?;
        others
            .iter()
            .try_for_each(|octet| write!(f, ":{octet:02x}"))
    }
}

/// Watches over the addresses that are held.
pub struct Lookout {
    /// One hears of IPv4, one of IPv6 if there is any.
    arp: Ear,
    advertisements: Option<Ear>,
    announcer: Announcer,
    netlink: Netlink,
    rivals: Rivals,
    reports: UnboundedSender<Report>,
}

impl Lookout {
    /// Opens what it takes to watch over `addresses`; must be called within a runtime.
    pub fn open(
        addresses: &[IpAddr],
        netlink: Netlink,
        reports: UnboundedSender<Report>,
    ) -> Result<Self> {
        let is_ipv4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        let over_ipv4: Vec<_> = addresses.iter().filter_map(is_ipv4).collect();
        let has_ipv6 = addresses.iter().any(IpAddr::is_ipv6);
        let context = "cannot open a packet socket to hear of duplicate addresses";
        Ok(Self {
            arp: Ear::of_arp(&over_ipv4).context(context)?,
            advertisements: has_ipv6
                .then(Ear::of_advertisements)
                .transpose()
                .context(context)?,
            announcer: Announcer::open().context(context)?,
            netlink,
            rivals: Rivals::default(),
            reports,
        })
    }

    /// Goes on until the takeover has ended.
    pub async fn run(mut self, mut words: UnboundedReceiver<Word>) {
        loop {
            let deadline = self.rivals.next_deadline();
            let wait = async {
                match deadline {
                    Some(at) => sleep(at.since(clock::now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                word = words.recv() => match word {
                    Some(Word::Held(held)) => self.rivals.hold(held, clock::now()),
                    Some(Word::LetGo { group }) => self.rivals.let_go(group),
                    None => return,
                },
                (link, claim) = self.arp.hear() => self.rivals.note(link, claim, clock::now()),
                (link, claim) = hear(self.advertisements.as_ref()) => {
                    self.rivals.note(link, claim, clock::now());
                }
                () = wait => self.act(clock::now()).await,
            }
        }
    }

    async fn act(&mut self, now: BootTime) {
        for held in self.rivals.probes(now) {
            if let Err(error) = self.probe(&held).await {
                debug!(
                    service = held.service,
                    "cannot ask who else has it: {error:#}"
                );
            }
        }
        let found = self.rivals.reports(now);
        if found.is_empty() {
            return;
        }
        // Another interface of this node on the same LAN answers for the address as well.
        let own: Vec<_> = match self.netlink.links().await {
            Ok(links) => links.into_iter().map(|link| link.mac).collect(),
            Err(error) => {
                warn!("{error:#}");
                Vec::new()
            }
        };
        for (held, duplicate, is_new) in found {
            let Held {
                group, resource, ..
            } = held;
            let Duplicate { mac, .. } = duplicate;
            if own.contains(&mac) {
                self.rivals.dismiss(group, resource, mac);
                continue;
            }
            let news = News::Duplicate {
                resource,
                duplicate,
                is_new,
            };
            // Without a reader there is nobody to tell.
            let _ = self.reports.send(Report { group, news });
        }
    }

    /// Has whoever else uses an address say so, and only to us.
    async fn probe(&self, held: &Held) -> Result<()> {
        let Held { link, address, .. } = held;
        match address {
            IpAddr::V4(address) => self.announcer.probe_ipv4(link, *address)?,
            IpAddr::V6(address) => {
                let own = self.netlink.addresses().await?;
                let from = own.into_iter().find_map(|own| match own.net.addr() {
                    IpAddr::V6(from)
                        if own.link_index == link.index && from.is_unicast_link_local() =>
                    {
                        Some(from)
                    }
                    _ => None,
                });
                let from: Ipv6Addr = from.context("the interface has no link-local address")?;
                self.announcer.probe_ipv6(link, from, *address)?;
            }
        }
        Ok(())
    }
}

/// What is found, in words.
pub fn words(service: &str, mac: [u8; 6]) -> String {
    format!("{} uses {service}, too, which this node holds", Mac(mac))
}

async fn hear(ear: Option<&Ear>) -> (u32, Claim) {
    match ear {
        Some(ear) => ear.hear().await,
        None => std::future::pending().await,
    }
}
