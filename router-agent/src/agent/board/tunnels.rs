//! The tunnels as an operator sees them.

use router_common::time::BootTime;

use super::{Facts, NONE, TunnelFacts, whole_ms};
use crate::{
    agent::{
        cleared::{Counter, Counters},
        present::Present,
        words::{header_byte, interface_is_up},
    },
    config::{GreKey, Keepalive},
    control::protocol::{EpochKeyStatus, KeepaliveStatus, TunnelStatus},
    dataplane::Mode,
    tunnel::{self, epoch::EpochSlots},
};

impl Facts {
    pub(super) fn tunnel_status(
        &self,
        facts: &TunnelFacts,
        present: Present,
        now: BootTime,
    ) -> TunnelStatus {
        let TunnelFacts {
            tunnel,
            index: _,
            epochs,
        } = facts;
        let Present {
            mtu,
            path_mtu,
            underlay,
            mode,
            keepalive,
            notes,
        } = present;
        let counters = self.tunnel_counters(facts);
        let mode_name = mode.as_ref().map_or(NONE, Mode::name);
        let mode_reason = mode.as_ref().and_then(Mode::reason);
        TunnelStatus {
            name: tunnel.name.clone(),
            addresses: tunnel.addresses.iter().map(ToString::to_string).collect(),
            description: tunnel.description.clone().unwrap_or_default(),
            mtu,
            local: tunnel.local_ip.to_string(),
            remote: tunnel.remote_ip.to_string(),
            key: tunnel.key.and_then(GreKey::fixed),
            epoch_key: epochs.map(|EpochSlots { sent, received }| EpochKeyStatus {
                sent: sent.map_or(0, |slot| self.epochs.epoch(slot.into()).0),
                newest_received: self.epochs.epoch(received.into()).0,
                domain: tunnel.epoch_domain.clone(),
            }),
            ttl: header_byte(tunnel.ttl),
            tos: header_byte(tunnel.tos),
            underlay: underlay.unwrap_or_else(|| NONE.to_owned()),
            xdp_mode: mode_name.to_owned(),
            xdp_mode_reason: self.driver_trouble().or(mode_reason.map(ToOwned::to_owned)),
            admin_up: tunnel.enabled,
            link_up: tunnel.enabled && interface_is_up(&tunnel.name),
            multicast: tunnel.multicast,
            encapsulation: tunnel.encapsulation.to_string(),
            path_mtu: path_mtu.map(|learnt| learnt.mtu),
            path_mtu_age_ms: path_mtu.map(|learnt| whole_ms(now.since(learnt.at))),
            keepalive: keepalive.map(|keepalive| {
                let Keepalive { interval, retries } = keepalive.config();
                KeepaliveStatus {
                    interval_ms: whole_ms(interval),
                    retries,
                    up: keepalive.is_up(),
                    unanswered: keepalive.unanswered(),
                }
            }),
            notes,
            cleared: self.cleared.of(&tunnel.name, &counters, now),
            counters: counters
                .iter()
                .map(|(name, counter)| ((*name).to_owned(), counter.value))
                .collect(),
        }
    }

    pub(super) fn tunnel_counters(&self, facts: &TunnelFacts) -> Counters {
        // The map was there when the agent started; without it the counters stay at zero.
        let counters = self.counters.of(facts.index).unwrap_or_default();
        let slow = self.slow_path.counters(&tunnel::key(&facts.tunnel));
        let counters = counters
            .named()
            .map(|(name, value)| (name, Counter { value, life: 0 }));
        let slow = slow.iter().flat_map(|slow| slow.named());
        let life = self.generation;
        counters
            .chain(slow.map(|(name, value)| (name, Counter { value, life })))
            .collect()
    }
}
