//! How long the packets in a tunnel may be.

use router_common::net::IPV6_MINIMUM_MTU;

use super::overhead;
use crate::config::Tunnel;

/// MTUs of a tunnel's device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mtu {
    /// By the configuration, else by the underlay.
    pub full: u32,
    /// As far as the path is known.
    pub present: u32,
    /// Whether routers must fragment outer packets for `present` to fit.
    pub may_fragment: bool,
}

/// The MTU of a device on an underlay of `underlay_mtu` bytes.
pub fn full(tunnel: &Tunnel, underlay_mtu: u32) -> u32 {
    tunnel
        .mtu
        .map_or_else(|| underlay_mtu.saturating_sub(overhead(tunnel)), u32::from)
}

/// With `path_mtu` bytes for an outer packet, if it is less than the underlay's.
///
/// Not below what IPv6 needs: the kernel would take IPv6 off the device. IPv4 routers then fragment
/// the outer packets. IPv6 routers do not (RFC 8200 §5), so over IPv6 only a tunnel that has an IPv6
/// address itself stays at that.
pub fn on_path(tunnel: &Tunnel, underlay_mtu: u32, path_mtu: Option<u32>) -> Mtu {
    let full = full(tunnel, underlay_mtu);
    let Some(path_mtu) = path_mtu else {
        return Mtu {
            full,
            present: full,
            may_fragment: false,
        };
    };
    let fitting = path_mtu.saturating_sub(overhead(tunnel));
    let present = fitting.min(full).max(floor(tunnel, full));
    Mtu {
        full,
        present,
        may_fragment: can_fragment(tunnel) && present > fitting,
    }
}

/// The path's MTU for which [`on_path`] gave `present`, which is less than `full`; the least where it may have been
/// less than that.
pub fn path_of(tunnel: &Tunnel, full: u32, present: u32) -> u32 {
    if present > floor(tunnel, full) {
        present.saturating_add(overhead(tunnel))
    } else {
        IPV6_MINIMUM_MTU
    }
}

fn can_fragment(tunnel: &Tunnel) -> bool {
    tunnel.local_ip.is_ipv4()
}

/// Whether it has an IPv6 address of its own.
pub fn has_ipv6(tunnel: &Tunnel) -> bool {
    tunnel.addresses.iter().any(|net| net.addr().is_ipv6())
}

fn floor(tunnel: &Tunnel, full: u32) -> u32 {
    if can_fragment(tunnel) || has_ipv6(tunnel) {
        IPV6_MINIMUM_MTU.min(full)
    } else {
        0
    }
}

/// Whether packets of the full MTU are too long for the underlay itself.
pub fn is_too_long(tunnel: &Tunnel, underlay_mtu: u32) -> bool {
    full(tunnel, underlay_mtu) + overhead(tunnel) > underlay_mtu
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::testing::tunnel;

    fn mtu(full: u32, present: u32, may_fragment: bool) -> Mtu {
        Mtu {
            full,
            present,
            may_fragment,
        }
    }

    fn over_ipv6(addresses: &[&str]) -> Tunnel {
        Tunnel {
            local_ip: "fd00::1".parse().unwrap(),
            remote_ip: "fd00::2".parse().unwrap(),
            addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
            ..tunnel()
        }
    }

    #[test]
    fn follows_underlay_and_path() {
        let plain = tunnel();
        assert_eq!(on_path(&plain, 1500, None), mtu(1476, 1476, false));
        assert_eq!(on_path(&plain, 9000, Some(1400)), mtu(8976, 1376, false));
        assert_eq!(on_path(&plain, 1500, Some(1304)), mtu(1476, 1280, false));
        assert_eq!(on_path(&plain, 1500, Some(1303)), mtu(1476, 1280, true));
        let fixed = Tunnel {
            mtu: Some(1300),
            ..tunnel()
        };
        assert_eq!(on_path(&fixed, 1500, Some(1400)), mtu(1300, 1300, false));
        assert_eq!(on_path(&fixed, 1500, Some(1290)), mtu(1300, 1280, true));
        let small = Tunnel {
            mtu: Some(600),
            ..tunnel()
        };
        assert_eq!(on_path(&small, 1500, Some(1280)), mtu(600, 600, false));
        assert!(!is_too_long(&small, 1500) && !is_too_long(&plain, 1500));
        assert!(is_too_long(&fixed, 1323));
    }

    #[test]
    fn what_a_device_had_tells_its_path() {
        let plain = tunnel();
        assert_eq!(path_of(&plain, 1476, 1376), 1400);
        for path in [1280, 1290, 1303, 1305] {
            let before = on_path(&plain, 1500, Some(path));
            let after = path_of(&plain, before.full, before.present);
            assert_eq!(on_path(&plain, 1500, Some(after)), before);
        }
        // Of 1304 a device says as much as of less: routers may fragment what need not be.
        let after = path_of(&plain, 1476, 1280);
        assert_eq!(on_path(&plain, 1500, Some(after)), mtu(1476, 1280, true));
        let only_ipv4 = over_ipv6(&["10.9.9.1/24"]);
        assert_eq!(path_of(&only_ipv4, 1456, 1236), 1280);
    }

    #[test]
    fn ipv6_routers_do_not_fragment() {
        assert_eq!(
            on_path(&over_ipv6(&["10.9.9.1/24"]), 1500, Some(1280)),
            mtu(1456, 1236, false)
        );
        assert_eq!(
            on_path(&over_ipv6(&["fd01::1/64"]), 1500, Some(1280)),
            mtu(1456, 1280, false)
        );
    }
}
