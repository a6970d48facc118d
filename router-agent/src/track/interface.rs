//! Whether interfaces are up, as the kernel announces it.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;
use tracing::warn;

use super::{Found, Teller};
use crate::net::{
    Link, LinkEvent, LinkMonitor, Netlink,
    watch::{Dependency, Watch},
};

/// After the kernel could not be heard.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows all of them until nobody listens.
pub async fn follow(interfaces: Vec<(String, Teller)>, netlink: Netlink) {
    let (names, tellers): (Vec<_>, Vec<_>) = interfaces.into_iter().unzip();
    let mut told = vec![None; names.len()];
    while let Err(error) = hear(&names, &tellers, &mut told, &netlink).await {
        warn!("{error:#}; interfaces that are tracked are listed anew");
        sleep(AGAIN).await;
    }
}

/// Tells what is and what changes. Ends well when nobody listens.
async fn hear(
    names: &[String],
    tellers: &[Teller],
    told: &mut [Option<Found>],
    netlink: &Netlink,
) -> Result<()> {
    // Whatever happens after this is heard.
    let mut monitor = LinkMonitor::open()?;
    let dependencies = names.iter().cloned().map(Dependency::Named).collect();
    let mut watch = Watch::new(dependencies, netlink.links().await?, &[]);
    loop {
        for (place, teller) in tellers.iter().enumerate() {
            let found = state(watch.link(place));
            if told[place].as_ref() != Some(&found) {
                told[place] = Some(found.clone());
                if !teller.tell(found) {
                    return Ok(());
                }
            }
        }
        match monitor.next().await? {
            LinkEvent::Resync => {
                watch.resync(netlink.links().await?, &[]);
            }
            event => {
                watch.observe(event);
            }
        }
    }
}

fn state(link: Option<&Link>) -> Found {
    let why = match link {
        None => "it does not exist",
        Some(link) if !link.admin_up => "it is set down",
        Some(link) if !link.carrier => "it has no carrier",
        Some(_) => return Ok(()),
    };
    Err(why.to_owned())
}
