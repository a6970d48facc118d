//! Settings of one interface.

use anyhow::{Context as _, Result};
use rtnetlink::LinkUnspec;

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
}
