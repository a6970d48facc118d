//! GRE over IPv4 (RFC 2784, RFC 2890): what an underlay packet is, and the headers to put before
//! an inner packet.

use bytemuck::{Pod, Zeroable};

use crate::{
    net::{ETH_P_IPV4, Ethernet, Ipv4, PROTO_GRE},
    packet::Packet,
};

/// The four bytes every GRE header starts with (RFC 2784 §2.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct GreBase {
    flags_version: [u8; 2],
    protocol: [u8; 2],
}

impl GreBase {
    pub const LEN: usize = size_of::<Self>();
    const KEY_PRESENT: u16 = 0x2000;
    const VERSION_MASK: u16 = 0x0007;

    #[inline(always)]
    pub const fn new(protocol: u16, has_key: bool) -> Self {
        let flags = if has_key { Self::KEY_PRESENT } else { 0 };
        Self {
            flags_version: flags.to_be_bytes(),
            protocol: protocol.to_be_bytes(),
        }
    }

    #[inline(always)]
    const fn flags_version(self) -> u16 {
        u16::from_be_bytes(self.flags_version)
    }
}

/// Bytes of the outer headers: IPv4 and GRE, with or without a key (RFC 2890 §2.1).
#[inline(always)]
pub const fn overhead(has_key: bool) -> usize {
    Ipv4::LEN + GreBase::LEN + if has_key { 4 } else { 0 }
}

/// What tells one tunnel from another: (outer source, outer destination, key). Seen from the
/// receiving side; addresses and key in network order as in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct TunnelKey {
    pub local: [u8; 4],
    pub remote: [u8; 4],
    pub key: [u8; 4],
    /// 1 if the tunnel is keyed: a keyed tunnel takes only its key, key 0 is a key.
    has_key: u32,
}

const _: () = assert!(size_of::<TunnelKey>() == 16);

impl TunnelKey {
    #[inline(always)]
    pub fn new(local: [u8; 4], remote: [u8; 4], key: Option<u32>) -> Self {
        Self {
            local,
            remote,
            key: key.unwrap_or(0).to_be_bytes(),
            has_key: u32::from(key.is_some()),
        }
    }

    pub const fn key(&self) -> Option<u32> {
        if self.has_key == 0 {
            None
        } else {
            Some(u32::from_be_bytes(self.key))
        }
    }
}

/// A GRE packet that the fast path can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gre {
    pub tunnel: TunnelKey,
    /// EtherType of the inner packet.
    pub inner_protocol: u16,
    /// Where the inner packet starts, in bytes from the start of the frame.
    pub inner_offset: usize,
    /// Length of the inner packet in bytes, by the outer IPv4 header.
    pub inner_length: usize,
}

/// Why a frame is not for the fast path. None of these is an error of ours: the stack gets the
/// frame as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFast {
    /// Not IPv4 with protocol 47, or shorter than its headers.
    NotGre,
    /// IPv4 options before GRE.
    OuterOptions,
    /// A fragment of a GRE packet.
    OuterFragment,
    /// A GRE version other than 0, such as PPTP's 1 (RFC 2637).
    Version,
    /// Checksum, sequence, routing or reserved bits (RFC 2784 §2.1, RFC 1701).
    Flags,
    /// Lengths that contradict each other.
    Truncated,
}

/// Reads the outer headers of an Ethernet frame.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(frame: &P) -> Result<Gre, NotFast> {
    let ethernet: Ethernet = frame.read(0).ok_or(NotFast::NotGre)?;
    if ethernet.ether_type() != ETH_P_IPV4 {
        return Err(NotFast::NotGre);
    }
    let outer: Ipv4 = frame.read(Ethernet::LEN).ok_or(NotFast::NotGre)?;
    if outer.version() != 4 || outer.protocol != PROTO_GRE {
        return Err(NotFast::NotGre);
    }
    if outer.has_options() {
        return Err(NotFast::OuterOptions);
    }
    if outer.is_fragment() {
        return Err(NotFast::OuterFragment);
    }
    let gre_offset = Ethernet::LEN + Ipv4::LEN;
    let base: GreBase = frame.read(gre_offset).ok_or(NotFast::Truncated)?;
    let flags_version = base.flags_version();
    if flags_version & GreBase::VERSION_MASK != 0 {
        return Err(NotFast::Version);
    }
    let (key, has_key) = match flags_version {
        0 => ([0; 4], false),
        GreBase::KEY_PRESENT => (
            frame
                .read(gre_offset + GreBase::LEN)
                .ok_or(NotFast::Truncated)?,
            true,
        ),
        _ => return Err(NotFast::Flags),
    };
    let inner_length = usize::from(outer.total_length())
        .checked_sub(overhead(has_key))
        .ok_or(NotFast::Truncated)?;
    Ok(Gre {
        tunnel: TunnelKey {
            local: outer.destination,
            remote: outer.source,
            key,
            has_key: u32::from(has_key),
        },
        inner_protocol: u16::from_be_bytes(base.protocol),
        inner_offset: Ethernet::LEN + overhead(has_key),
        inner_length,
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::net::{ETH_P_IPV6, PROTO_UDP};

    fn frame(flags_version: u16, after_base: &[u8]) -> Vec<u8> {
        let length = Ipv4::LEN + GreBase::LEN + after_base.len();
        let mut frame = Vec::new();
        frame.extend_from_slice(bytemuck::bytes_of(&Ethernet::new(
            [2; 6], [4; 6], ETH_P_IPV4,
        )));
        frame.extend_from_slice(bytemuck::bytes_of(&Ipv4::new(
            PROTO_GRE,
            [10, 0, 2, 10],
            [10, 0, 1, 10],
            0,
            255,
            u16::try_from(length).unwrap(),
        )));
        frame.extend_from_slice(&flags_version.to_be_bytes());
        frame.extend_from_slice(&ETH_P_IPV6.to_be_bytes());
        frame.extend_from_slice(after_base);
        frame
    }

    #[test]
    fn plain_and_keyed() {
        let plain = parse(frame(0, &[7; 40]).as_slice()).unwrap();
        assert_eq!(
            plain.tunnel,
            TunnelKey::new([10, 0, 1, 10], [10, 0, 2, 10], None)
        );
        assert_eq!((plain.inner_offset, plain.inner_length), (38, 40));
        assert_eq!(plain.inner_protocol, ETH_P_IPV6);

        let mut body = 0x0102_0304_u32.to_be_bytes().to_vec();
        body.extend_from_slice(&[7; 40]);
        let keyed = parse(frame(0x2000, &body).as_slice()).unwrap();
        assert_eq!(keyed.tunnel.key(), Some(0x0102_0304));
        assert_eq!((keyed.inner_offset, keyed.inner_length), (42, 40));
    }

    #[test]
    fn a_keyed_tunnel_with_key_zero_is_not_an_unkeyed_one() {
        assert_ne!(
            TunnelKey::new([1; 4], [2; 4], Some(0)),
            TunnelKey::new([1; 4], [2; 4], None)
        );
    }

    #[test]
    fn what_the_fast_path_leaves() {
        let refused = |flags| parse(frame(flags, &[0; 16]).as_slice()).unwrap_err();
        assert_eq!(refused(0x0001), NotFast::Version);
        assert_eq!(refused(0x2001), NotFast::Version);
        for flags in [0x8000, 0x1000, 0x4000, 0x0800, 0x0008, 0xb000] {
            assert_eq!(refused(flags), NotFast::Flags, "{flags:#06x}");
        }

        let mut options = frame(0, &[0; 16]);
        options[14] = 0x46;
        assert_eq!(parse(options.as_slice()), Err(NotFast::OuterOptions));
        for (byte, value) in [(20, 0x20), (21, 1)] {
            let mut fragment = frame(0, &[0; 16]);
            fragment[byte] = value;
            assert_eq!(parse(fragment.as_slice()), Err(NotFast::OuterFragment));
        }
        let mut udp = frame(0, &[0; 16]);
        udp[23] = PROTO_UDP;
        assert_eq!(parse(udp.as_slice()), Err(NotFast::NotGre));
        let mut lying = frame(0, &[0; 16]);
        lying[16..18].copy_from_slice(&23_u16.to_be_bytes());
        assert_eq!(parse(lying.as_slice()), Err(NotFast::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes: Vec<u8>) {
            let _ = parse(bytes.as_slice());
        }

        #[test]
        fn every_cut_is_refused(cut in 0_usize..42) {
            let whole = frame(0x2000, &[0; 4]);
            prop_assert!(parse(&whole[..cut]).is_err());
        }
    }
}
