//! A tunnel: what the kernel programs are told of it, and what becomes of it as the interfaces
//! around it change.

mod device;
pub mod keepalive;
pub mod mtu;
pub mod quoted;
pub mod state;
#[cfg(test)]
pub mod testing;

use std::net::IpAddr;

use router_common::{
    gre::{Addresses6, AnyKey, Format, Label, TunnelKey, TunnelKey6},
    map::{TunnelDevice, TunnelEgress, TunnelIngress, egress_flag, ingress_flag},
};

pub use self::device::device;
use crate::config::{AdjustMss, Encapsulation, FlowLabel, HeaderByte, Tunnel};

/// IPv4 (RFC 791) or IPv6 (RFC 8200) and TCP (RFC 9293) headers without options, in bytes.
const IPV4_TCP_HEADERS: u32 = 40;
const IPV6_TCP_HEADERS: u32 = 60;

/// Where heartbeats in a tunnel come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatListener {
    pub address: [u8; 4],
    pub port: u16,
}

/// How packets of a tunnel may pass by the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transit {
    /// Whether there is an interface with `fast-path enable`.
    pub has_lan: bool,
    /// Of the tunnel's device, by its `rp_filter`.
    pub strict_reverse_path: bool,
}

/// What the system gave a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    pub index: u32,
    pub user_ifindex: u32,
    pub user_mac: [u8; 6],
    pub dataplane_ifindex: u32,
    pub underlay_ifindex: u32,
    /// Of the underlay, if it is a VLAN's device; else zero.
    pub vlan: u16,
    /// Of the tunnel's device, in bytes.
    pub mtu: u32,
    /// Whether the path's MTU is below what the device may have.
    pub may_fragment: bool,
    pub transit: Transit,
    pub heartbeat: Option<HeartbeatListener>,
}

/// A tunnel's elements in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries {
    pub key: AnyKey,
    pub ingress: TunnelIngress,
    pub egress: TunnelEgress,
    pub device: TunnelDevice,
}

/// The wire format that a tunnel's configuration asks for.
pub fn format(tunnel: &Tunnel) -> Format {
    Format::default()
        .with(Format::KEY, tunnel.key.is_some())
        .with(Format::CHECKSUM, tunnel.checksum)
        .with(Format::SEQUENCE, tunnel.sequence)
        .with(
            Format::UDP,
            matches!(tunnel.encapsulation, Encapsulation::GreUdp),
        )
        .with(Format::IPV6, tunnel.local_ip.is_ipv6())
        .with(
            Format::LAYER2,
            matches!(tunnel.encapsulation, Encapsulation::GreBridge),
        )
}

/// By how many bytes the tunnel's MTU is smaller than the path's.
pub fn overhead(tunnel: &Tunnel) -> u32 {
    // Some dozens of bytes.
    u32::try_from(format(tunnel).overhead()).unwrap_or(u32::MAX)
}

/// What tells the tunnel's packets from others when they arrive.
pub fn key(tunnel: &Tunnel) -> AnyKey {
    let label = Label::new(tunnel.key, format(tunnel).has(Format::UDP));
    match (tunnel.local_ip, tunnel.remote_ip) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => AnyKey::Ipv4(TunnelKey {
            local: local.octets(),
            remote: remote.octets(),
            label,
        }),
        (local, remote) => AnyKey::Ipv6(TunnelKey6 {
            addresses: Addresses6 {
                remote: ipv6_octets(remote),
                local: ipv6_octets(local),
            },
            label,
        }),
    }
}

/// The check sees to it that both addresses are of one family.
fn ipv6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
    }
}

pub fn entries(tunnel: &Tunnel, surroundings: &Surroundings) -> Entries {
    let Surroundings {
        index,
        user_ifindex,
        user_mac,
        dataplane_ifindex,
        underlay_ifindex,
        vlan,
        mtu,
        may_fragment,
        transit: Transit {
            has_lan,
            strict_reverse_path,
        },
        heartbeat,
    } = *surroundings;
    let format = format(tunnel);
    let (mss_ipv4, mss_ipv6) = segment_sizes(tunnel, mtu);
    let flag = |flag, yes| if yes { flag } else { 0 };
    let (ttl, ttl_flag) = header_byte(tunnel.ttl, egress_flag::TTL_INHERIT);
    let (tos, tos_flag) = header_byte(tunnel.tos, egress_flag::TOS_INHERIT);
    let (flow_label, flow_label_flag) = match tunnel.flow_label {
        FlowLabel::Fixed(label) => (label, 0),
        FlowLabel::Inherit => (0, egress_flag::FLOW_LABEL_INHERIT),
    };
    let transit = has_lan && tunnel.fast_path && tunnel.encapsulation != Encapsulation::GreBridge;
    Entries {
        key: key(tunnel),
        ingress: TunnelIngress {
            index,
            format,
            flags: flag(ingress_flag::TRANSIT, transit)
                | flag(ingress_flag::ADJUST_MSS, tunnel.adjust_mss.is_some())
                | flag(ingress_flag::STRICT_REVERSE_PATH, strict_reverse_path),
            user_ifindex,
            user_mac,
            vlan,
            heartbeat_address: heartbeat.map_or([0; 4], |listener| listener.address),
            heartbeat_port: heartbeat.map_or(0, |listener| listener.port),
            padding: [0; 2],
        },
        egress: TunnelEgress {
            index,
            underlay_ifindex,
            format,
            flags: ttl_flag
                | tos_flag
                | flow_label_flag
                | flag(egress_flag::MAY_FRAGMENT, may_fragment)
                | flag(egress_flag::TRANSIT, transit),
            local: octets(tunnel.local_ip),
            remote: octets(tunnel.remote_ip),
            key: tunnel.key.unwrap_or(0).to_be_bytes(),
            flow_label,
            ttl,
            tos,
            mss_ipv4,
            mss_ipv6,
            padding: [0; 2],
        },
        device: TunnelDevice {
            user_ifindex,
            dataplane_ifindex,
            mtu,
            mss_ipv4,
            mss_ipv6,
        },
    }
}

/// Largest TCP segments to announce, over IPv4 and IPv6, in bytes; zero to leave them alone.
fn segment_sizes(tunnel: &Tunnel, mtu: u32) -> (u16, u16) {
    let fitting = |headers| u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
    match tunnel.adjust_mss {
        None => (0, 0),
        Some(AdjustMss::Auto) => (fitting(IPV4_TCP_HEADERS), fitting(IPV6_TCP_HEADERS)),
        Some(AdjustMss::Fixed(size)) => (size, size),
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn header_byte(byte: HeaderByte, inherit: u32) -> (u8, u32) {
    match byte {
        HeaderByte::Fixed(value) => (value, 0),
        HeaderByte::Inherit => (0, inherit),
    }
}
