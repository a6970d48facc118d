//! Does for a tunnel what is due, and lets an operator see what is.

use anyhow::{Context as _, Result, anyhow};
use tracing::info;

use super::{super::present::Present, HeartbeatSocket, Keeper};
use crate::{
    config::Tunnel,
    dataplane::Dataplane,
    heartbeat,
    net::{self, Netlink},
    tunnel::{
        self,
        state::{Action, Device},
    },
};

impl Keeper {
    /// Does for one tunnel what is due: the only place where a tunnel is changed.
    pub(super) async fn settle(
        &mut self,
        position: usize,
        dataplane: &mut Dataplane,
    ) -> Result<()> {
        let Self {
            netlink,
            tunnels,
            heartbeats,
            slow_path,
            watch,
            ..
        } = self;
        let state = &mut tunnels[position];
        while let Some(action) = state.due() {
            let device = state.device();
            match (action, device) {
                (Action::Create { mtu }, _) => {
                    let device = create(netlink, state.tunnel(), mtu).await?;
                    netlink.ensure_egress(&dataplane.egress_program()?).await?;
                    if let Some(HeartbeatSocket { socket, address }) = heartbeats.get(&position) {
                        // If it fails, the device is made once more.
                        heartbeat::bind_again(socket, &state.tunnel().name, *address)
                            .context("the heartbeat socket cannot follow its device")?;
                    }
                    state.created(device, mtu);
                }
                (Action::Forget(lost), _) => dataplane.forget_device(&lost)?,
                (Action::SetEntries(entries), _) => {
                    dataplane.set_tunnel(&entries)?;
                    slow_path.set(&entries);
                }
                (Action::SetMtu { full, present }, Some(device)) => {
                    let dataplane_mtu = net::dataplane_mtu(full);
                    netlink
                        .set_mtu(device.dataplane_ifindex, dataplane_mtu)
                        .await?;
                    netlink.set_mtu(device.user_ifindex, present).await?;
                    info!(tunnel = state.tunnel().name, mtu = present, "MTU changed");
                }
                (Action::RestoreIpv6 { mtu }, Some(device)) => {
                    let user = watch.interface(device.user_ifindex);
                    let user = user.context("the device is gone")?;
                    let device = tunnel::device(state.tunnel(), mtu);
                    netlink.restore_ipv6(&device, user).await?;
                }
                (Action::SetCarrier(up), Some(device)) => {
                    netlink.set_up(device.dataplane_ifindex, up).await?;
                }
                (
                    Action::SetMtu { .. } | Action::RestoreIpv6 { .. } | Action::SetCarrier(_),
                    None,
                ) => {
                    return Err(anyhow!("the device is gone"));
                }
            }
            state.done(action);
        }
        Ok(())
    }

    /// Lets an operator see what is.
    pub(super) fn publish(&self, position: usize) {
        let state = &self.tunnels[position];
        let link = state
            .underlay()
            .and_then(|underlay| self.watch.interface(underlay.ifindex));
        let mut notes = state.notes();
        if let Some(link) = link {
            notes.extend(self.attachments.notes(link, "its underlay"));
        }
        notes.extend(self.egress.notes(position));
        notes.extend(self.troubles.get(&position).cloned());
        let present = Present {
            mtu: state.mtu().present,
            path_mtu: state.path_mtu(),
            underlay: state.underlay().map(|underlay| underlay.name.clone()),
            mode: link
                .and_then(|link| self.attachments.mode(link, &self.watch))
                .cloned(),
            keepalive: state.keepalive,
            notes,
        };
        self.presents.set(position, present);
    }
}

async fn create(netlink: &Netlink, tunnel: &Tunnel, mtu: u32) -> Result<Device> {
    let ends = netlink
        .create_tunnels(&[tunnel::device(tunnel, mtu)])
        .await?;
    let (user, dataplane) = ends.first().context("no device was made")?;
    info!(tunnel = tunnel.name, "its device was made again");
    Ok(Device::of(user, dataplane))
}
