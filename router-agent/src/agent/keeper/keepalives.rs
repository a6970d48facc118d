//! The tunnels' keepalives: when they are sent, and what comes back.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use router_common::time::BootTime;
use tracing::{info, warn};

use super::{
    Keeper,
    gre_socket::{GreSocket, Outer},
};
use crate::{
    config::{HeaderByte, Tunnel},
    tunnel::{
        self,
        keepalive::{self, Keepalive},
    },
};

/// RFC 1812 §3.1 and the kernel's own choice for what is not forwarded.
const DEFAULT_TTL: u8 = 255;
/// Class selector 6, "network control" (RFC 4594 §3.1).
const NETWORK_CONTROL: u8 = 0xc0;

impl Keeper {
    pub(super) fn begin_keepalives(&mut self, now: BootTime) -> Result<()> {
        for state in &mut self.tunnels {
            let tunnel = state.tunnel();
            let Some(config) = tunnel.keepalive.filter(|_| tunnel.enabled) else {
                continue;
            };
            if keepalive::packet(tunnel).is_none() {
                warn!(
                    tunnel = tunnel.name,
                    "no keepalive is sent: with checksum or sequence numbers none would come back"
                );
                continue;
            }
            if self.gre_socket.is_none() {
                let socket = GreSocket::open().context("cannot open a socket for keepalives")?;
                self.gre_socket = Some(socket);
            }
            let heard = self.counters.of(state.index())?.keepalives_heard;
            state.keepalive = Some(Keepalive::new(config, heard, now));
        }
        Ok(())
    }

    /// Sends the keepalives that are due, and looks who answers.
    pub(super) fn keep_alive(&mut self, now: BootTime) {
        let Some(socket) = &self.gre_socket else {
            return;
        };
        for (position, state) in self.tunnels.iter_mut().enumerate() {
            let Some(mut keepalive) = state.keepalive else {
                continue;
            };
            // The map was there when the agent started.
            let heard = self.counters.of(state.index()).unwrap_or_default();
            // What comes back by the slow path has been to the far end too.
            let slow = self.slow_path.counters(&tunnel::key(state.tunnel()));
            let slow_heard = slow.map_or(0, |counters| counters.keepalives_heard.get());
            let was_up = keepalive.is_up();
            let due = keepalive.tick(heard.keepalives_heard + slow_heard, now);
            state.keepalive = Some(keepalive);
            let tunnel = state.tunnel();
            match (was_up, keepalive.is_up()) {
                (true, false) => warn!(
                    tunnel = tunnel.name,
                    "no keepalive comes back: the tunnel goes down"
                ),
                (false, true) => info!(
                    tunnel = tunnel.name,
                    "a keepalive has come back: the tunnel goes up"
                ),
                (true, true) | (false, false) => {}
            }
            if due {
                // One that cannot be sent does not come back either, which is what counts.
                let _ = send_keepalive(socket, tunnel);
            }
            self.dirty.insert(position);
        }
    }
}

fn send_keepalive(socket: &GreSocket, tunnel: &Tunnel) -> Option<()> {
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (tunnel.local_ip, tunnel.remote_ip) else {
        return None;
    };
    let fixed = |byte, default| match byte {
        HeaderByte::Fixed(value) => value,
        HeaderByte::Inherit => default,
    };
    let outer = Outer {
        local,
        remote,
        ttl: fixed(tunnel.ttl, DEFAULT_TTL),
        tos: fixed(tunnel.tos, NETWORK_CONTROL),
    };
    socket.send(&outer, &keepalive::packet(tunnel)?).ok()
}
