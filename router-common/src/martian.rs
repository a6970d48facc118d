//! Addresses that a router must not forward from or to (RFC 1812 §5.3.7, RFC 6890 §2.2). A group
//! is no martian as a destination: whether it may go on is for multicast routing to say.

/// "This network", loopback, multicast, link-local (RFC 3927 §7), and what is reserved, with the
/// limited broadcast.
#[inline(always)]
pub const fn is_martian_ipv4_source(address: [u8; 4]) -> bool {
    address[0] >> 4 == 0xe || is_martian_ipv4_destination(address)
}

/// As [`is_martian_ipv4_source`], without multicast.
#[inline(always)]
pub const fn is_martian_ipv4_destination(address: [u8; 4]) -> bool {
    matches!(address, [0 | 127 | 240.., ..] | [169, 254, ..])
}

/// Unspecified, loopback, IPv4-mapped, link-local (RFC 4291 §2.5.6) and multicast.
#[inline(always)]
pub const fn is_martian_ipv6_source(address: [u8; 16]) -> bool {
    address[0] == 0xff || is_martian_ipv6_destination(address)
}

/// As [`is_martian_ipv6_source`], without multicast.
#[inline(always)]
pub const fn is_martian_ipv6_destination(address: [u8; 16]) -> bool {
    matches!(
        address,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 | 1]
            | [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..]
            | [0xfe, 0x80..=0xbf, ..]
    )
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ipv4_at_the_edges_of_each_range() {
        // Address, as a source, as a destination.
        let table = [
            ("0.0.0.0", true, true),
            ("0.255.255.255", true, true),
            ("1.0.0.0", false, false),
            ("10.0.0.1", false, false),
            ("126.255.255.255", false, false),
            ("127.0.0.0", true, true),
            ("127.255.255.255", true, true),
            ("128.0.0.0", false, false),
            ("169.253.255.255", false, false),
            ("169.254.0.0", true, true),
            ("169.254.255.255", true, true),
            ("169.255.0.0", false, false),
            ("223.255.255.255", false, false),
            ("224.0.0.0", true, false),
            ("239.255.255.255", true, false),
            ("240.0.0.0", true, true),
            ("255.255.255.255", true, true),
        ];
        for (address, source, destination) in table {
            let octets = address.parse::<Ipv4Addr>().unwrap().octets();
            assert_eq!(is_martian_ipv4_source(octets), source, "{address}");
            assert_eq!(
                is_martian_ipv4_destination(octets),
                destination,
                "{address}"
            );
        }
    }

    #[test]
    fn ipv6_at_the_edges_of_each_range() {
        let table = [
            ("::", true, true),
            ("::1", true, true),
            ("::2", false, false),
            ("::ffff:0.0.0.0", true, true),
            ("::ffff:192.0.2.1", true, true),
            ("0:0:0:0:1:ffff::", false, false),
            ("64:ff9b::c000:201", false, false),
            ("2001:db8::1", false, false),
            ("fd00::1", false, false),
            ("fe7f:ffff::", false, false),
            ("fe80::", true, true),
            ("febf:ffff::1", true, true),
            ("fec0::", false, false),
            ("feff::1", false, false),
            ("ff00::", true, false),
            ("ff02::1", true, false),
        ];
        for (address, source, destination) in table {
            let octets = address.parse::<Ipv6Addr>().unwrap().octets();
            assert_eq!(is_martian_ipv6_source(octets), source, "{address}");
            assert_eq!(
                is_martian_ipv6_destination(octets),
                destination,
                "{address}"
            );
        }
    }

    proptest! {
        #[test]
        fn as_the_standard_library_says(octets: [u8; 4]) {
            let address = Ipv4Addr::from(octets);
            let destination = octets[0] == 0
                || octets[0] >= 240
                || address.is_loopback()
                || address.is_link_local();
            prop_assert_eq!(is_martian_ipv4_destination(octets), destination);
            prop_assert_eq!(
                is_martian_ipv4_source(octets),
                destination || address.is_multicast()
            );
        }
    }
}
