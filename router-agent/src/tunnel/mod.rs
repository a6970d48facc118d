//! A tunnel: what the kernel programs are told of it, and what becomes of it as the interfaces
//! around it change.

mod device;
pub mod epoch;
pub mod keepalive;
pub mod mtu;
pub mod quoted;
pub mod state;
#[cfg(test)]
pub mod testing;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use router_common::{
    gre::{Addresses6, AnyKey, Format, Label, TunnelKey, TunnelKey6},
    map::{MAX_TUNNELS, TunnelDevice, TunnelEgress, TunnelIngress, egress_flag, ingress_flag},
};

pub use self::device::device;
use self::epoch::EpochSlots;
use crate::config::{AdjustMss, Encapsulation, FlowLabel, GreKey, HeaderByte, Tunnel};

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
    /// If the key is an epoch.
    pub epochs: Option<EpochSlots>,
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

/// The index under which the programs know a tunnel's device from before, by what they know of its
/// user's and its dataplane end; `None` if the configuration now asks for another device.
pub fn index_of_former(
    tunnel: &Tunnel,
    user: Option<&TunnelEgress>,
    dataplane: Option<&TunnelEgress>,
) -> Option<u32> {
    let (user, dataplane) = (user?, dataplane?);
    let now = format(tunnel);
    let same = |one: Format| dataplane.format.has(one) == now.has(one);
    let numbers = |format: Format| format.has(Format::CHECKSUM) || format.has(Format::SEQUENCE);
    (user.index == dataplane.index
        && user.index < MAX_TUNNELS
        && same(Format::LAYER2)
        && numbers(dataplane.format) == numbers(now))
    .then_some(user.index)
}

/// The index of each of `count` tunnels, by position: that of before, if it is among `kept`, else the
/// lowest that is free.
pub fn indices(count: usize, kept: &BTreeMap<usize, u32>) -> Vec<u32> {
    let used: BTreeSet<u32> = kept.values().copied().collect();
    let mut free = (0..).filter(|index| !used.contains(index));
    (0..count)
        .map(|position| match kept.get(&position) {
            Some(&index) => index,
            // There are not more tunnels than indices.
            None => free.next().unwrap_or(u32::MAX),
        })
        .collect()
}

/// By how many bytes the tunnel's MTU is smaller than the path's.
pub fn overhead(tunnel: &Tunnel) -> u32 {
    // Some dozens of bytes.
    u32::try_from(format(tunnel).overhead()).unwrap_or(u32::MAX)
}

/// What tells the tunnel's packets from others when they arrive.
pub fn key(tunnel: &Tunnel) -> AnyKey {
    let is_udp = format(tunnel).has(Format::UDP);
    let label = if tunnel.key == Some(GreKey::ClusterEpoch) {
        Label::epoch(is_udp)
    } else {
        Label::new(tunnel.key.and_then(GreKey::fixed), is_udp)
    };
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
        epochs,
    } = *surroundings;
    let (sent, received) = epochs.map_or((None, None), |EpochSlots { sent, received }| {
        (sent, Some(received))
    });
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
                | flag(ingress_flag::STRICT_REVERSE_PATH, strict_reverse_path)
                | flag(ingress_flag::EPOCH, received.is_some()),
            user_ifindex,
            user_mac,
            vlan,
            heartbeat_address: heartbeat.map_or([0; 4], |listener| listener.address),
            heartbeat_port: heartbeat.map_or(0, |listener| listener.port),
            epoch_slot: received.unwrap_or(0),
        },
        egress: TunnelEgress {
            index,
            underlay_ifindex,
            format,
            flags: ttl_flag
                | tos_flag
                | flow_label_flag
                | flag(egress_flag::MAY_FRAGMENT, may_fragment)
                | flag(egress_flag::TRANSIT, transit)
                | flag(egress_flag::EPOCH, sent.is_some()),
            local: octets(tunnel.local_ip),
            remote: octets(tunnel.remote_ip),
            // Of an epoch that is nobody's: zero.
            key: tunnel
                .key
                .and_then(GreKey::fixed)
                .unwrap_or(0)
                .to_be_bytes(),
            flow_label,
            ttl,
            tos,
            mss_ipv4,
            mss_ipv6,
            epoch_slot: sent.unwrap_or(0),
        },
        device: TunnelDevice {
            user_ifindex,
            dataplane_ifindex,
            mtu,
            mss_ipv4,
            mss_ipv6,
            vlan,
            padding: [0; 6],
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::{testing::tunnel, *};

    const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
    const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 10);
    const LOCAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 10);
    const REMOTE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 10);

    const SURROUNDINGS: Surroundings = Surroundings {
        index: 7,
        user_ifindex: 20,
        user_mac: [2, 0, 0, 0, 0, 20],
        dataplane_ifindex: 21,
        underlay_ifindex: 3,
        vlan: 5,
        mtu: 1476,
        may_fragment: false,
        transit: Transit {
            has_lan: true,
            strict_reverse_path: false,
        },
        heartbeat: None,
        epochs: None,
    };

    fn over_ipv6() -> Tunnel {
        Tunnel {
            local_ip: LOCAL6.into(),
            remote_ip: REMOTE6.into(),
            ..tunnel()
        }
    }

    fn made(tunnel: &Tunnel) -> Entries {
        entries(tunnel, &SURROUNDINGS)
    }

    #[test]
    fn formats_and_what_they_take_of_the_mtu() {
        let plain = tunnel();
        let keyed = Tunnel {
            key: Some(GreKey::Fixed(0)),
            ..tunnel()
        };
        let everything = Tunnel {
            key: Some(GreKey::Fixed(9)),
            checksum: true,
            sequence: true,
            ..over_ipv6()
        };
        let in_udp = Tunnel {
            encapsulation: Encapsulation::GreUdp,
            ..tunnel()
        };
        let bridged = Tunnel {
            encapsulation: Encapsulation::GreBridge,
            ..tunnel()
        };
        let all_of = [
            Format::KEY,
            Format::CHECKSUM,
            Format::SEQUENCE,
            Format::IPV6,
        ];
        let all_of = all_of
            .iter()
            .fold(Format::default(), |all, one| all.with(*one, true));
        for (tunnel, expected, bytes) in [
            (plain, Format::default(), 24),
            (keyed, Format::KEY, 28),
            (over_ipv6(), Format::IPV6, 44),
            (everything, all_of, 56),
            (in_udp, Format::UDP, 32),
            (bridged, Format::LAYER2, 38),
        ] {
            assert_eq!(format(&tunnel), expected, "{tunnel:?}");
            assert_eq!(overhead(&tunnel), bytes, "{tunnel:?}");
            let Entries {
                ingress, egress, ..
            } = made(&tunnel);
            assert_eq!((ingress.format, egress.format), (expected, expected));
        }
    }

    #[test]
    fn a_device_is_known_again_unless_it_must_be_another() {
        let was = made(&tunnel()).egress;
        let known = |tunnel: &Tunnel| index_of_former(tunnel, Some(&was), Some(&was));
        let elsewhere = Tunnel {
            key: Some(GreKey::Fixed(9)),
            remote_ip: Ipv4Addr::new(10, 0, 3, 10).into(),
            ..tunnel()
        };
        let over_udp = Tunnel {
            encapsulation: Encapsulation::GreUdp,
            ..tunnel()
        };
        for same in [tunnel(), elsewhere, over_udp, over_ipv6()] {
            assert_eq!(known(&same), Some(7), "{same:?}");
        }
        let bridged = Tunnel {
            encapsulation: Encapsulation::GreBridge,
            ..tunnel()
        };
        let numbered = Tunnel {
            sequence: true,
            ..tunnel()
        };
        for other in [bridged, numbered] {
            assert_eq!(known(&other), None, "{other:?}");
        }
        assert_eq!(index_of_former(&tunnel(), Some(&was), None), None);
        let stranger = TunnelEgress { index: 8, ..was };
        assert_eq!(
            index_of_former(&tunnel(), Some(&was), Some(&stranger)),
            None
        );
        let wild = TunnelEgress {
            index: MAX_TUNNELS,
            ..was
        };
        assert_eq!(index_of_former(&tunnel(), Some(&wild), Some(&wild)), None);
    }

    #[test]
    fn tunnels_that_stay_keep_their_indices() {
        assert_eq!(indices(3, &BTreeMap::new()), [0, 1, 2]);
        let kept = BTreeMap::from([(1, 0), (3, 5)]);
        assert_eq!(indices(5, &kept), [1, 0, 2, 5, 3]);
    }

    #[test]
    fn keys_tell_tunnels_apart_as_the_wire_does() {
        let in_udp = Tunnel {
            encapsulation: Encapsulation::GreUdp,
            ..tunnel()
        };
        let keys = [
            None,
            Some(GreKey::Fixed(0)),
            Some(GreKey::Fixed(1)),
            Some(GreKey::ClusterEpoch),
        ]
        .map(|key| made(&Tunnel { key, ..tunnel() }).key);
        let all = [
            keys[0],
            keys[1],
            keys[2],
            keys[3],
            made(&in_udp).key,
            made(&over_ipv6()).key,
        ];
        for (index, key) in all.iter().enumerate() {
            assert!(!all[..index].contains(key), "{key:?}");
        }
        let expected = TunnelKey {
            local: LOCAL.octets(),
            remote: REMOTE.octets(),
            label: Label::new(Some(1), false),
        };
        assert_eq!(keys[2], AnyKey::Ipv4(expected));
        let expected = TunnelKey6 {
            addresses: Addresses6 {
                remote: REMOTE6.octets(),
                local: LOCAL6.octets(),
            },
            label: Label::new(None, false),
        };
        assert_eq!(all[5], AnyKey::Ipv6(expected));
        // A keyed packet that no tunnel has the key of is of an epoch.
        assert_eq!(keys[1].of_epoch(), Some(keys[3]));
        assert_eq!((keys[0].of_epoch(), keys[3].of_epoch()), (None, None));
        // Frames and packets of the same addresses and key cannot be told apart when they arrive.
        let bridged = Tunnel {
            encapsulation: Encapsulation::GreBridge,
            ..tunnel()
        };
        assert_eq!(made(&bridged).key, keys[0]);
    }

    #[test]
    fn addresses_and_key_as_they_are_written() {
        let tunnel = Tunnel {
            key: Some(GreKey::Fixed(0x0102_0304)),
            ..tunnel()
        };
        let egress = made(&tunnel).egress;
        assert_eq!(egress.local[..4], LOCAL.octets());
        assert_eq!(egress.remote[..4], REMOTE.octets());
        assert_eq!(
            (&egress.local[4..], &egress.remote[4..]),
            (&[0; 12][..], &[0; 12][..])
        );
        assert_eq!(egress.key, [1, 2, 3, 4]);
        let egress = made(&over_ipv6()).egress;
        assert_eq!(egress.local, LOCAL6.octets());
        assert_eq!(egress.remote, REMOTE6.octets());
    }

    #[test]
    fn an_epoch_is_sent_by_members_and_received_by_all() {
        let tunnel = Tunnel {
            key: Some(GreKey::ClusterEpoch),
            ..tunnel()
        };
        for (sent, expected) in [(Some(3), (true, 3)), (None, (false, 0))] {
            let epochs = EpochSlots { sent, received: 9 };
            let surroundings = Surroundings {
                epochs: Some(epochs),
                ..SURROUNDINGS
            };
            let Entries {
                ingress, egress, ..
            } = entries(&tunnel, &surroundings);
            assert_eq!(ingress.epoch_slot, 9);
            assert!(ingress.flags & ingress_flag::EPOCH != 0);
            let sends = egress.flags & egress_flag::EPOCH != 0;
            assert_eq!((sends, egress.epoch_slot), expected);
            // Who has no epoch of his own sends zero.
            assert_eq!((egress.format, egress.key), (Format::KEY, [0; 4]));
        }
    }

    #[test]
    fn header_bytes_are_fixed_or_inherited() {
        let egress = made(&tunnel()).egress;
        assert_eq!((egress.ttl, egress.tos), (255, 0));
        assert_eq!(
            egress.flags & !egress_flag::TRANSIT,
            egress_flag::TOS_INHERIT
        );
        let turned = Tunnel {
            ttl: HeaderByte::Inherit,
            tos: HeaderByte::Fixed(0xb8),
            flow_label: FlowLabel::Inherit,
            ..over_ipv6()
        };
        let egress = made(&turned).egress;
        assert_eq!((egress.ttl, egress.tos, egress.flow_label), (0, 0xb8, 0));
        let inherit = egress_flag::TTL_INHERIT | egress_flag::FLOW_LABEL_INHERIT;
        assert_eq!(egress.flags & !egress_flag::TRANSIT, inherit);
        let fixed = Tunnel {
            flow_label: FlowLabel::Fixed(0xf_ffff),
            ..over_ipv6()
        };
        assert_eq!(made(&fixed).egress.flow_label, 0xf_ffff);
    }

    #[test]
    fn segment_sizes_fit_the_mtu_or_the_configuration() {
        let of = |adjust_mss| {
            let Entries {
                ingress,
                egress,
                device,
                ..
            } = made(&Tunnel {
                adjust_mss,
                ..tunnel()
            });
            let sizes = (egress.mss_ipv4, egress.mss_ipv6);
            assert_eq!((device.mss_ipv4, device.mss_ipv6), sizes);
            (sizes, ingress.flags & ingress_flag::ADJUST_MSS != 0)
        };
        assert_eq!(of(None), ((0, 0), false));
        assert_eq!(of(Some(AdjustMss::Auto)), ((1436, 1416), true));
        assert_eq!(of(Some(AdjustMss::Fixed(1200))), ((1200, 1200), true));
    }

    #[test]
    fn layer_2_and_slow_tunnels_take_no_short_cut() {
        let bridged = Tunnel {
            encapsulation: Encapsulation::GreBridge,
            ..tunnel()
        };
        let slow = Tunnel {
            fast_path: false,
            ..tunnel()
        };
        for (tunnel, transit) in [(tunnel(), true), (bridged, false), (slow, false)] {
            let Entries {
                ingress, egress, ..
            } = made(&tunnel);
            assert_eq!(ingress.flags & ingress_flag::TRANSIT != 0, transit);
            assert_eq!(egress.flags & egress_flag::TRANSIT != 0, transit);
        }
    }

    #[test]
    fn what_the_system_gave_is_passed_on() {
        let listener = HeartbeatListener {
            address: [169, 254, 0, 1],
            port: 6940,
        };
        let surroundings = Surroundings {
            may_fragment: true,
            heartbeat: Some(listener),
            ..SURROUNDINGS
        };
        let Entries {
            ingress,
            egress,
            device,
            ..
        } = entries(&tunnel(), &surroundings);
        assert_eq!((ingress.index, egress.index), (7, 7));
        assert_eq!((ingress.user_ifindex, device.user_ifindex), (20, 20));
        assert_eq!((ingress.user_mac, ingress.vlan), ([2, 0, 0, 0, 0, 20], 5));
        assert_eq!((device.dataplane_ifindex, device.mtu), (21, 1476));
        assert_eq!(egress.underlay_ifindex, 3);
        assert!(egress.flags & egress_flag::MAY_FRAGMENT != 0);
        assert_eq!(ingress.heartbeat_address, [169, 254, 0, 1]);
        assert_eq!(ingress.heartbeat_port, 6940);
        assert_eq!(made(&tunnel()).ingress.heartbeat_port, 0);
    }
}
