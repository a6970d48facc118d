//! From the types that kernel and agent share to named fields. Pure; secrets end here.

use router_common::{
    gre::Label,
    identity::{Claim, Flags, NodeId},
    keys::Named,
    map::{
        EpochSlot, Fence, FenceCounters, Format, Granted, Interface, Lease, LocalState, MAX_GROUPS,
        Reason, RoundTrips, Sequence, SessionConfig, SessionKey, SessionState, Settings, Traffic,
        TunnelDevice, TunnelEgress, TunnelEvents, TunnelIngress, TunnelKey, TunnelKey6,
        egress_flag, ingress_flag, interface_flag,
    },
    net::{Mac, ipv4_from_word},
    slot::{TunnelSlot, TunnelSlot6},
};
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Fields, InterfaceNames};

/// Shown in place of a key.
const SECRET: &str = "***";

/// A key or value of a map that an operator can be shown.
pub trait Decode {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields;
}

/// An index that stands for an interface.
#[derive(Clone, Copy, Debug)]
pub struct InterfaceIndex(pub u32);

/// An index into an array, named by what it counts.
#[derive(Clone, Copy, Debug)]
pub enum Index {
    Tunnel(u32),
    Session(u32),
    Group(u32),
    Reason(u32),
    /// Of a table in front of the tunnels.
    Slot(u32),
    /// A group's, or that of a domain of tunnels.
    Epoch(u32),
    /// Of an array with one element.
    Only(u32),
}

impl Decode for InterfaceIndex {
    fn decode(&self, interfaces: &dyn InterfaceNames) -> Fields {
        Fields::default()
            .with("ifindex", self.0)
            .with("interface", interfaces.name(self.0))
    }
}

impl Decode for Index {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let (name, index) = match *self {
            Self::Tunnel(index) => ("tunnel_index", index),
            Self::Session(index) => ("session_index", index),
            Self::Epoch(index) if index >= MAX_GROUPS => ("epoch_slot", index),
            Self::Group(index) | Self::Epoch(index) => ("group_index", index),
            Self::Reason(index) => return Fields::default().with("reason", reason(index)),
            Self::Slot(number) => ("slot", number),
            Self::Only(index) => ("index", index),
        };
        Fields::default().with(name, index)
    }
}

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
        } = *self;
        Fields::default()
            .with("user_ifindex", user_ifindex)
            .with("user_interface", interfaces.name(user_ifindex))
            .with("dataplane_ifindex", dataplane_ifindex)
            .with("dataplane_interface", interfaces.name(dataplane_ifindex))
            .with("mtu_bytes", mtu)
            .with("mss_ipv4_bytes", (mss_ipv4 != 0).then_some(mss_ipv4))
            .with("mss_ipv6_bytes", (mss_ipv6 != 0).then_some(mss_ipv6))
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

fn format_names(format: Format) -> Value {
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
        let Self {
            sent,
            next_received,
            any_received,
        } = *self;
        Fields::default().with("sent", sent).with(
            "next_received",
            (any_received != 0).then_some(next_received),
        )
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

fn counters(named: impl Iterator<Item = (&'static str, u64)>) -> Fields {
    named.fold(Fields::default(), |fields, (name, value)| {
        fields.with(name, value)
    })
}

/// Packets of a [`Reason`].
impl Decode for u64 {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        Fields::default().with("packets", *self)
    }
}

impl Decode for SessionKey {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            tunnel_index,
            session,
        } = *self;
        Fields::default()
            .with("tunnel_index", tunnel_index)
            .with("session", session_id(session))
    }
}

impl Decode for SessionConfig {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            keys,
            session,
            local_node,
            peer_node,
            local_address,
            group,
            padding: _,
        } = *self;
        Fields::default()
            .with("session", session_id(session))
            .with("local_node", local_node)
            .with("peer_node", peer_node)
            .with("local_address", ipv4(local_address))
            .with("group_index", group)
            .with(
                "secrets",
                keys.slots.iter().filter(|slot| !slot.is_empty()).count(),
            )
            .with("keys", SECRET)
    }
}

impl Decode for SessionState {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            last_heard_ns,
            last_reply_ns,
            peer_tx_ns,
            peer_generation,
            peer_claim: _,
            peer_status: _,
            peer_address,
            newest_echo_ns,
            peer_keys: _,
            probe_sequence,
            reply_sequence,
            first_probe_sequence,
            first_reply_sequence,
            probes,
            replies,
            rtt_last_ns,
            rtt_min_ns,
            rtt_max_ns,
            rtt_sum_ns,
            transit_ns,
            jitter_16ths,
            mac_failures,
            last_mac_failure_ns,
            stale,
            unproven,
            wrong_sender,
            not_understood,
        } = *self;
        // Numbers, which every message tells.
        let Named { used, wanted } = self.peer_keys();
        claim(
            Fields::default()
                .with(
                    "peer_address",
                    ipv4_from_word(peer_address).map(|address| address.to_string()),
                )
                .with("peer_generation", peer_generation),
            self.claim(),
        )
        .with("used_secret", used)
        .with("wanted_secret", wanted)
        .with("flags", flag_names(self.flags()))
        .with("agent_age_us", as_us(self.agent_age()))
        .with("last_heard_ns", last_heard_ns)
        .with("last_reply_ns", last_reply_ns)
        .with("peer_tx_ns", peer_tx_ns)
        .with("newest_echo_ns", newest_echo_ns)
        .with("probe_sequence", probe_sequence)
        .with("reply_sequence", reply_sequence)
        .with("first_probe_sequence", first_probe_sequence)
        .with("first_reply_sequence", first_reply_sequence)
        .with("probes", probes)
        .with("replies", replies)
        .with("rtt_last_ns", rtt_last_ns)
        .with("rtt_min_ns", rtt_min_ns)
        .with("rtt_max_ns", rtt_max_ns)
        .with("rtt_sum_ns", rtt_sum_ns)
        .with("transit_ns", transit_ns)
        .with("jitter_ns", jitter_16ths / 16)
        .with("mac_failures", mac_failures)
        .with("last_mac_failure_ns", last_mac_failure_ns)
        .with("stale", stale)
        .with("unproven", unproven)
        .with("wrong_sender", wrong_sender)
        .with("not_understood", not_understood)
    }
}

/// Its quantiles: the buckets themselves are too many to be read.
impl Decode for RoundTrips {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        [
            ("p50_ns", 500),
            ("p99_ns", 990),
            ("p999_ns", 999),
            ("max_ns", 1_000),
        ]
        .into_iter()
        .fold(
            Fields::default().with("replies", self.count()),
            |fields, (name, per_mille)| fields.with(name, self.quantile_ns(per_mille)),
        )
    }
}

impl Decode for LocalState {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        claim(
            Fields::default().with("generation", self.generation()),
            self.claim(),
        )
        .with("flags", flag_names(self.flags()))
        .with("agent_beat_ns", self.agent_beat().as_ns())
        .with("grant_us", self.grant().as_us())
    }
}

impl Decode for Granted {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self { granted_ns } = *self;
        Fields::default().with("granted_ns", granted_ns)
    }
}

impl Decode for Fence {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            authority_end_ns,
            lease_ns,
            claim: word,
            opened_ns,
        } = *self;
        claim(
            Fields::default()
                .with("open", opened_ns != 0)
                .with("opened_ns", opened_ns)
                .with("authority_end_ns", authority_end_ns)
                .with("lease_ns", lease_ns),
            Claim::from_word(word),
        )
    }
}

impl Decode for Lease {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self {
            granted_tx_ns,
            renewals,
            not_for_us,
            too_short,
            first_passed_ns,
            padding: _,
        } = *self;
        Fields::default()
            .with("granted_tx_ns", granted_tx_ns)
            .with("renewals", renewals)
            .with("not_for_us", not_for_us)
            .with("too_short", too_short)
            .with("first_passed_ns", first_passed_ns)
    }
}

impl Decode for FenceCounters {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        self.named()
            .fold(Fields::default(), |fields, (name, packets)| {
                fields.with(name, packets)
            })
    }
}

impl Decode for EpochSlot {
    fn decode(&self, _: &dyn InterfaceNames) -> Fields {
        let Self { epoch } = *self;
        Fields::default().with("epoch", epoch)
    }
}

fn ipv4(octets: [u8; 4]) -> String {
    Ipv4Addr::from(octets).to_string()
}

fn ipv6(octets: [u8; 16]) -> String {
    Ipv6Addr::from(octets).to_string()
}

fn mac(octets: Mac) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

fn session_id(session: u32) -> String {
    format!("{session:#010x}")
}

fn as_us(age: std::time::Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

fn reason(index: u32) -> String {
    Reason::ALL
        .into_iter()
        .find(|reason| *reason as u32 == index)
        .map_or_else(|| index.to_string(), |reason| reason.name().to_owned())
}

fn claim(fields: Fields, claim: Claim) -> Fields {
    let Claim { epoch, owner } = claim;
    fields
        .with("epoch", epoch.0)
        .with("owner_node", (owner != NodeId::NONE).then_some(owner.0))
}

fn flag_names(flags: Flags) -> Value {
    names(
        u32::from(flags.0),
        &[
            (u32::from(Flags::FORWARDING.0), "forwarding"),
            (u32::from(Flags::ELIGIBLE.0), "eligible"),
            (u32::from(Flags::CANDIDATE.0), "candidate"),
        ],
    )
}

/// The names of the bits that are set; bits without a name as a number.
fn names(bits: u32, known: &[(u32, &str)]) -> Value {
    let mut rest = bits;
    let mut names = Vec::new();
    for (bit, name) in known {
        if bits & bit != 0 {
            names.push(Value::from(*name));
            rest &= !bit;
        }
    }
    if rest != 0 {
        names.push(Value::from(format!("{rest:#x}")));
    }
    Value::from(names)
}

#[cfg(test)]
mod tests;
