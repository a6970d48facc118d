//! Thousands of tunnels: their devices, and how long the kernel takes for them.

use std::{
    future::Future,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use ipnet::{IpNet, Ipv4Net};
use router_agent::net::{Netlink, TunnelDevice};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `task` in a new network namespace, on a thread of its own.
pub fn in_namespace<T, F>(task: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let run = || {
        // SAFETY: of a network namespace nothing is shared with other threads.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .context("cannot make a network namespace; this needs root")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(task())
    };
    thread::spawn(run)
        .join()
        .map_err(|_| anyhow!("a task in a network namespace panicked"))?
}

/// A plain layer 3 tunnel.
pub fn layer3<'a>(name: &'a str, addresses: &'a [IpNet]) -> TunnelDevice<'a> {
    TunnelDevice {
        name,
        mtu: 1476,
        layer2: false,
        multicast: false,
        addresses,
        bridge: None,
        checksums_in_software: false,
        enabled: true,
    }
}

/// `tun0`, `tun1`, … each with an address of its own in 10.0.0.0/8.
pub fn names_and_addresses(count: u32) -> Result<Vec<(String, [IpNet; 1])>> {
    (0..count)
        .map(|number| {
            let address = (10 << 24 | (4 * number + 1)).into();
            let net = Ipv4Net::new(address, 30)?;
            Ok((format!("tun{number}"), [net.into()]))
        })
        .collect()
}

/// How long it took.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub creation: Duration,
    pub removal: Duration,
}

/// Makes `count` tunnels' devices in a new network namespace and removes them. Needs root.
pub fn measure(count: u32) -> Result<Figures> {
    in_namespace(move || async move {
        let netlink = Netlink::open()?;
        let wanted = names_and_addresses(count)?;
        let devices: Vec<_> = wanted
            .iter()
            .map(|(name, addresses)| layer3(name, addresses))
            .collect();
        let start = Instant::now();
        netlink.create_tunnels(&devices).await?;
        let creation = start.elapsed();
        let start = Instant::now();
        netlink.remove_all_tunnels().await?;
        let removal = start.elapsed();
        ensure!(netlink.links().await?.len() == 1, "interfaces are left");
        Ok(Figures { creation, removal })
    })
}
