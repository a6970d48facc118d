//! What is known of the MTU of the tunnels' paths.

use router_common::time::BootTime;
use tracing::info;

use super::Keeper;
use crate::{
    path_mtu::icmp::PathMtu,
    tunnel::{quoted, state::LearntMtu},
};

impl Keeper {
    /// Goes on believing what devices that were kept show of their paths.
    pub(super) fn begin_paths(&mut self) {
        for (position, state) in self.tunnels.iter().enumerate() {
            if let (Some(learnt), Some(underlay)) = (state.path_mtu(), state.underlay()) {
                self.paths
                    .note(position, learnt.mtu, underlay.mtu, learnt.at);
            }
        }
    }

    /// Takes in a router's word.
    pub(super) fn learn(&mut self, path: &PathMtu, now: BootTime) {
        let positions: Vec<usize> = self
            .by_addresses
            .between(path)
            .iter()
            .copied()
            .filter(|&position| quoted::may_be_of(path, self.tunnels[position].tunnel()))
            .collect();
        for position in positions {
            let state = &self.tunnels[position];
            let Some(underlay) = state.underlay() else {
                continue;
            };
            let lowered = self.paths.note(position, path.mtu, underlay.mtu, now);
            if let Some(mtu) = lowered {
                self.set_path_mtu(position, Some(LearntMtu { mtu, at: now }));
            }
        }
    }

    pub(super) fn set_path_mtu(&mut self, position: usize, learnt: Option<LearntMtu>) {
        let state = &mut self.tunnels[position];
        let tunnel = &state.tunnel().name;
        if let Some(LearntMtu { mtu, at: _ }) = learnt {
            info!(tunnel, mtu, "the path's MTU is lower");
        } else {
            info!(
                tunnel,
                "the path's MTU is the underlay's again, as far as we know"
            );
        }
        state.set_path_mtu(learnt);
        self.dirty.insert(position);
    }
}
