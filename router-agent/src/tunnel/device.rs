//! The device that a tunnel's configuration asks for.

use crate::{
    config::{Encapsulation, Tunnel},
    net::{BridgePortSpec, TunnelDevice},
};

/// `mtu` in bytes.
pub fn device(tunnel: &Tunnel, mtu: u32) -> TunnelDevice<'_> {
    TunnelDevice {
        name: &tunnel.name,
        mtu,
        layer2: tunnel.encapsulation == Encapsulation::GreBridge,
        multicast: tunnel.multicast,
        addresses: &tunnel.addresses,
        bridge: tunnel.bridge.as_ref().map(|port| BridgePortSpec {
            bridge: &port.bridge,
            cost: port.cost,
            priority: port.priority,
        }),
        // Both are of each packet on the wire, which the stack must have made by then.
        checksums_in_software: tunnel.checksum || tunnel.sequence,
        enabled: tunnel.enabled,
    }
}
