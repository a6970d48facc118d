//! Settings of one interface.

use anyhow::{Context as _, Result};
use rtnetlink::{
    LinkUnspec,
    packet_route::link::{AfSpecInet, AfSpecUnspec, InetDevConf, LinkAttribute},
};

use super::Netlink;

impl Netlink {
    /// Sets an interface's MTU, in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let request = self.handle.link().set(message);
        request
            .execute()
            .await
            .with_context(|| format!("cannot set the MTU of interface {index} to {mtu}"))
    }

    /// Sets an interface up or down.
    pub async fn set_up(&self, index: u32, up: bool) -> Result<()> {
        let link = LinkUnspec::new_with_index(index);
        let link = if up { link.up() } else { link.down() };
        let request = self.handle.link().set(link.build());
        request.execute().await.with_context(|| {
            let state = if up { "up" } else { "down" };
            format!("cannot set interface {index} {state}")
        })
    }

    /// Has the kernel keep the other IPv4 addresses of a network when the first of them is removed from the
    /// interface.
    pub async fn promote_secondaries(&self, index: u32) -> Result<()> {
        let mut settings = InetDevConf::default();
        settings.promote_secondaries = 1;
        let settings = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(settings)]);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![settings]))
            .build();
        let request = self.handle.link().set(message);
        request
            .execute()
            .await
            .with_context(|| format!("cannot set promote_secondaries of interface {index}"))
    }
}
