//! Tunnels, interfaces and what is counted of them.

use router_common::{
    gre::Label,
    map::{
        Format, Interface, Sequence, Settings, Traffic, TunnelDevice, TunnelEgress, TunnelEvents,
        TunnelIngress, TunnelKey, TunnelKey6, egress_flag, ingress_flag, interface_flag,
    },
    slot::{TunnelSlot, TunnelSlot6},
};
use serde_json::Value;

use super::{Decode, Fields, InterfaceNames, counters, ipv4, ipv6, mac, names};

impl Decode for TunnelKey {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            local,
            remote,
            label,
        } = *self;
        with_label(
            Fields::default()
                .with("local", ipv4(local))
                .with("remote", ipv4(remote)),
            label,
        )
    }
}

impl Decode for TunnelKey6 {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self { addresses, label } = *self;
        with_label(
            Fields::default()
                .with("local", ipv6(addresses.local))
                .with("remote", ipv6(addresses.remote)),
            label,
        )
    }
}

fn with_label(fields: Fields, label: Label) -> Fields {
    let carrier = if label.is_udp() { "gre-udp" } else { "gre" };
    let key = if label.is_epoch() {
        Value::from("cluster-epoch")
    } else {
        Value::from(label.key())
    };
    fields.with("key", key).with("encapsulation", carrier)
}

impl Decode for TunnelIngress {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields {
        let Self {
            index,
            format,
            flags,
            user_ifindex,
            user_mac,
            vlan,
            heartbeat_address,
            heartbeat_port,
            epoch_slot,
        } = *self;
        Fields::default()
            .with("tunnel_index", index)
            .with("format", format_names(format))
            .with(
                "flags",
                names(
                    flags,
                    &[
                        (ingress_flag::TRANSIT, "transit"),
                        (ingress_flag::ADJUST_MSS, "adjust-mss"),
                        (ingress_flag::STRICT_REVERSE_PATH, "strict-reverse-path"),
                        (ingress_flag::EPOCH, "epoch"),
                    ],
                ),
            )
            .with("user_ifindex", user_ifindex)
            .with("user_interface", interfaces.name(user_ifindex))
            .with("user_mac", mac(user_mac))
            .with("vlan", (vlan != 0).then_some(vlan))
            .with(
                "heartbeat_address",
                (heartbeat_port != 0).then(|| ipv4(heartbeat_address)),
            )
            .with(
                "heartbeat_port",
                (heartbeat_port != 0).then_some(heartbeat_port),
            )
            .with(
                "epoch_slot",
                (flags & ingress_flag::EPOCH != 0).then_some(epoch_slot),
            )
    }
}

impl Decode for TunnelSlot {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields {
        let Self {
            key,
            ingress,
            padding: _,
            taken,
        } = self;
        slot(key, ingress, *taken, interfaces)
    }
}

impl Decode for TunnelSlot6 {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields {
        let Self {
            key,
            ingress,
            padding: _,
            taken,
        } = self;
        slot(key, ingress, *taken, interfaces)
    }
}

fn slot(
    key: &impl Decode,
    ingress: &TunnelIngress,
    taken: u64,
    interfaces: &dyn InterfaceNames,
) -> Fields {
    key.decode(interfaces)
        .and(ingress.decode(interfaces))
        .with("taken", taken != 0)
}

impl Decode for TunnelDevice {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields {
        let Self {
            user_ifindex,
            dataplane_ifindex,
            mtu,
            mss_ipv4,
            mss_ipv6,
            vlan,
            padding: _,
        } = *self;
        Fields::default()
            .with("user_ifindex", user_ifindex)
            .with("user_interface", interfaces.name(user_ifindex))
            .with("dataplane_ifindex", dataplane_ifindex)
            .with("dataplane_interface", interfaces.name(dataplane_ifindex))
            .with("mtu_bytes", mtu)
            .with("mss_ipv4_bytes", (mss_ipv4 != 0).then_some(mss_ipv4))
            .with("mss_ipv6_bytes", (mss_ipv6 != 0).then_some(mss_ipv6))
            .with("vlan", (vlan != 0).then_some(vlan))
    }
}

impl Decode for Interface {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            flags,
            mac: address,
            protected_by,
        } = *self;
        let known = [
            (interface_flag::LAN, "lan"),
            (interface_flag::TRANSMIT, "transmit"),
            (interface_flag::STRICT_REVERSE_PATH, "strict-reverse-path"),
        ];
        Fields::default()
            .with("mac", mac(address))
            .with("flags", names(flags, &known))
            .with("protected_by_group", protected_by.checked_sub(1))
    }
}

impl Decode for TunnelEgress {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields {
        let Self {
            index,
            underlay_ifindex,
            format,
            flags,
            local,
            remote,
            key,
            flow_label,
            ttl,
            tos,
            mss_ipv4,
            mss_ipv6,
            epoch_slot,
        } = *self;
        let has_epoch = flags & egress_flag::EPOCH != 0;
        let unless_inherited = |inherit, value: u32| {
            if flags & inherit != 0 {
                Value::from("inherit")
            } else {
                Value::from(value)
            }
        };
        let address = |address: [u8; 16]| {
            if format.has(Format::IPV6) {
                ipv6(address)
            } else {
                let [a, b, c, d, ..] = address;
                ipv4([a, b, c, d])
            }
        };
        Fields::default()
            .with("tunnel_index", index)
            .with("underlay_ifindex", underlay_ifindex)
            .with("underlay_interface", interfaces.name(underlay_ifindex))
            .with("local", address(local))
            .with("remote", address(remote))
            .with(
                "key",
                (format.has(Format::KEY) && !has_epoch).then(|| u32::from_be_bytes(key)),
            )
            .with("epoch_slot", has_epoch.then_some(epoch_slot))
            .with("format", format_names(format))
            .with(
                "ttl",
                unless_inherited(egress_flag::TTL_INHERIT, u32::from(ttl)),
            )
            .with(
                "tos",
                unless_inherited(egress_flag::TOS_INHERIT, u32::from(tos)),
            )
            .with(
                "flow_label",
                unless_inherited(egress_flag::FLOW_LABEL_INHERIT, flow_label),
            )
            .with("mss_ipv4_bytes", (mss_ipv4 != 0).then_some(mss_ipv4))
            .with("mss_ipv6_bytes", (mss_ipv6 != 0).then_some(mss_ipv6))
            .with(
                "flags",
                names(
                    flags,
                    &[
                        (egress_flag::TTL_INHERIT, "ttl-inherit"),
                        (egress_flag::TOS_INHERIT, "tos-inherit"),
                        (egress_flag::FLOW_LABEL_INHERIT, "flow-label-inherit"),
                        (egress_flag::MAY_FRAGMENT, "may-fragment"),
                        (egress_flag::TRANSIT, "transit"),
                        (egress_flag::EPOCH, "epoch"),
                    ],
                ),
            )
    }
}

fn format_names(format: Format) -> Vec<String> {
    names(
        format.0,
        &[
            (Format::KEY.0, "key"),
            (Format::CHECKSUM.0, "checksum"),
            (Format::SEQUENCE.0, "sequence"),
            (Format::UDP.0, "udp"),
            (Format::IPV6.0, "ipv6"),
            (Format::LAYER2.0, "layer2"),
        ],
    )
}

impl Decode for Sequence {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self { sent, received } = *self;
        // See `Sequence::received`.
        let next = received & u64::from(u32::MAX);
        Fields::default()
            .with("sent", sent)
            .with("next_received", (received != 0).then_some(next))
    }
}

impl Decode for Settings {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            marker,
            encapsulated_mark,
        } = *self;
        Fields::default()
            .with("marker", marker.map(|byte| format!("{byte:02x}")).join(":"))
            .with("encapsulated_mark", format!("{encapsulated_mark:#010x}"))
    }
}

impl Decode for Traffic {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        counters(self.named())
    }
}

impl Decode for TunnelEvents {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        counters(self.named())
    }
}
