//! Sees to it that what the tunnels' devices send comes to our program: the kernel tells nobody who
//! asks for interfaces that a qdisc or a filter has gone.

use anyhow::Result;
use router_common::time::BootTime;
use tracing::warn;

use super::{Keeper, detached::Detached, interfaces::in_turn};
use crate::{dataplane::Dataplane, net::dataplane_end};

/// So many devices are looked at at once, in turn.
const DEVICES_AT_A_LOOK: usize = 256;

/// What is known of the devices' ways to the program.
#[derive(Debug, Default)]
pub struct Egress {
    /// Positions of tunnels whose packets did not come to it.
    detached: Detached<usize>,
    /// Why they still do not.
    trouble: Option<String>,
    next: usize,
}

impl Egress {
    pub fn notes(&self, position: usize) -> impl Iterator<Item = String> {
        let was_detached = self.detached.is_told(&position).then(|| {
            "somebody took our program from its device within the last ten minutes: what it sent \
             meanwhile is lost"
                .to_owned()
        });
        was_detached.into_iter().chain(self.trouble.clone())
    }
}

impl Keeper {
    pub(super) async fn look_at_egress(&mut self, dataplane: &mut Dataplane, now: BootTime) {
        if self.egress.detached.expire(now) {
            self.dirty.extend(0..self.tunnels.len());
        }
        let trouble = match self.restore_egress(dataplane, now).await {
            Ok(()) => None,
            Err(error) => Some(format!(
                "what the tunnels' devices send does not come to our program: {error:#}"
            )),
        };
        if self.egress.trouble != trouble {
            if let Some(text) = &trouble {
                warn!("{text}; it will be tried again");
            }
            self.egress.trouble = trouble;
            self.dirty.extend(0..self.tunnels.len());
        }
    }

    async fn restore_egress(&mut self, dataplane: &mut Dataplane, now: BootTime) -> Result<()> {
        // Devices that are to be made again get all that they need then.
        let devices: Vec<_> = self
            .tunnels
            .iter()
            .enumerate()
            .filter_map(|(position, state)| {
                let end = dataplane_end(&state.tunnel().name);
                Some((position, (state.device()?.dataplane_ifindex, end)))
            })
            .collect();
        if devices.is_empty() {
            return Ok(());
        }
        let turn = in_turn(&mut self.egress.next, devices.len(), DEVICES_AT_A_LOOK);
        let (positions, ends): (Vec<_>, Vec<_>) = turn
            .into_iter()
            .map(|number| devices[number].clone())
            .unzip();
        for joined in self.netlink.ensure_joined(&ends).await? {
            let (_, device) = &ends[joined];
            warn!(
                device,
                "somebody took its ingress qdisc away; it has one again"
            );
            self.lose_egress(positions[joined], now);
        }
        let program = dataplane.egress_program()?;
        if self.netlink.ensure_egress(&program).await? {
            warn!("somebody took our filter from the tunnels' devices; it is there again");
            for (position, _) in devices {
                self.lose_egress(position, now);
            }
        }
        Ok(())
    }

    fn lose_egress(&mut self, position: usize, now: BootTime) {
        self.egress.detached.tell(position, now);
        self.dirty.insert(position);
    }
}
