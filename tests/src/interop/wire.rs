//! GRE as captured, read without any of the product's parsers, and all its checksums computed anew.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, bail, ensure};

use crate::capture::ones_complement_sum;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Transparent Ethernet bridging.
const TEB: u16 = 0x6558;
const VLAN: u16 = 0x8100;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// RFC 8086 §3.1.
const GRE_IN_UDP: u16 = 4754;

/// What an IP header says, with its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// TOS or traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv6 only.
    pub flow_label: u32,
    /// IPv4's "don't fragment"; always for IPv6.
    pub dont_fragment: bool,
    /// A part of a packet: its payload has no header of its own to read.
    pub is_fragment: bool,
    /// RFC 2473 §5.1 in an IPv6 header.
    pub has_destination_options: bool,
    pub protocol: u8,
    pub payload: &'a [u8],
}

/// A GRE packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub outer: Ip<'a>,
    pub in_udp: bool,
    pub has_checksum: bool,
    pub key: Option<u32>,
    pub sequence: Option<u32>,
    /// EtherType of the payload.
    pub protocol: u16,
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The inner IP packet, without Ethernet and VLAN headers; `None` if it is not IP.
    pub fn inner(&self) -> Result<Option<Ip<'a>>> {
        if self.protocol == TEB {
            frame(self.payload)
        } else {
            ip(self.protocol, self.payload)
        }
    }
}

/// Reads a captured frame; `None` if it is not GRE.
///
/// # Errors
///
/// A checksum that is wrong, or a length that cannot be.
pub fn read(bytes: &[u8]) -> Result<Option<Packet<'_>>> {
    let Some(outer) = frame(bytes)? else {
        return Ok(None);
    };
    if outer.is_fragment {
        return Ok(None);
    }
    let (in_udp, gre) = match outer.protocol {
        GRE => (false, outer.payload),
        UDP if word(outer.payload, 2)? == GRE_IN_UDP => (true, cut(outer.payload, 8)?),
        _ => return Ok(None),
    };
    let flags = word(gre, 0)?;
    let mut offset = 4;
    let mut field = |present: u16| -> Result<Option<u32>> {
        if flags & present == 0 {
            return Ok(None);
        }
        offset += 4;
        long(gre, offset - 4).map(Some)
    };
    let checksum = field(0x8000)?;
    let key = field(0x2000)?;
    let sequence = field(0x1000)?;
    if checksum.is_some() {
        ensure!(ones_complement_sum(&[gre]) == 0xffff, "GRE checksum");
    }
    let packet = Packet {
        outer,
        in_udp,
        has_checksum: checksum.is_some(),
        key,
        sequence,
        protocol: word(gre, 2)?,
        payload: cut(gre, offset)?,
    };
    packet.inner().context("inner packet")?;
    Ok(Some(packet))
}

/// How many frames carry fragments of IP packets.
pub fn fragments(frames: &[Vec<u8>]) -> Result<usize> {
    let mut count = 0;
    for bytes in frames {
        count += usize::from(frame(bytes)?.is_some_and(|ip| ip.is_fragment));
    }
    Ok(count)
}

/// UDP in IPv4 in GRE in IPv4 with options (four times "no operation", RFC 791 §3.1). Each pair of
/// addresses is source and destination.
pub fn with_options(
    outer: [&str; 2],
    inner: [&str; 2],
    port: u16,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let length = u16::try_from(8 + payload.len())?.to_be_bytes();
    let port = port.to_be_bytes();
    let udp = [&port, &port, &length, [0; 2].as_slice(), payload].concat();
    let inner = ipv4_packet(UDP, inner, &[], &udp)?;
    let gre = [&[0, 0], IPV4.to_be_bytes().as_slice(), &inner].concat();
    ipv4_packet(GRE, outer, &[1; 4], &gre)
}

fn ipv4_packet(
    protocol: u8,
    addresses: [&str; 2],
    options: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>> {
    let words = 5 + u8::try_from(options.len() / 4)?;
    let length = u16::try_from(20 + options.len() + payload.len())?.to_be_bytes();
    let mut header = vec![
        0x40 | words,
        0,
        length[0],
        length[1],
        0,
        0,
        0,
        0,
        64,
        protocol,
        0,
        0,
    ];
    for address in addresses {
        header.extend(address.parse::<Ipv4Addr>()?.octets());
    }
    header.extend(options);
    let checksum = !ones_complement_sum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header.extend(payload);
    Ok(header)
}

/// The IP packet of an Ethernet frame, if it has one.
fn frame(bytes: &[u8]) -> Result<Option<Ip<'_>>> {
    let (mut protocol, mut offset) = (word(bytes, 12)?, 14);
    while protocol == VLAN {
        protocol = word(bytes, offset + 2)?;
        offset += 4;
    }
    ip(protocol, cut(bytes, offset)?)
}

fn ip(protocol: u16, bytes: &[u8]) -> Result<Option<Ip<'_>>> {
    let packet = match protocol {
        IPV4 => ipv4(bytes)?,
        IPV6 => ipv6(bytes)?,
        _ => return Ok(None),
    };
    verify_payload(&packet)?;
    Ok(Some(packet))
}

fn ipv4(bytes: &[u8]) -> Result<Ip<'_>> {
    let header = usize::from(byte(bytes, 0)? & 0x0f) * 4;
    let bytes = until(bytes, word(bytes, 2)?.into())?;
    ensure!(
        ones_complement_sum(&[until(bytes, header)?]) == 0xffff,
        "IPv4 header checksum"
    );
    let fragment = word(bytes, 6)?;
    Ok(Ip {
        source: address::<4>(bytes, 12)?,
        destination: address::<4>(bytes, 16)?,
        traffic_class: byte(bytes, 1)?,
        hop_limit: byte(bytes, 8)?,
        flow_label: 0,
        dont_fragment: fragment & 0x4000 != 0,
        is_fragment: fragment & 0x3fff != 0,
        has_destination_options: false,
        protocol: byte(bytes, 9)?,
        payload: cut(bytes, header)?,
    })
}

fn ipv6(bytes: &[u8]) -> Result<Ip<'_>> {
    let payload = until(cut(bytes, 40)?, word(bytes, 4)?.into())?;
    let first = long(bytes, 0)?;
    let next = byte(bytes, 6)?;
    let has_destination_options = next == DESTINATION_OPTIONS;
    let (protocol, payload) = if has_destination_options {
        // RFC 8200 §4.6: the length counts units of 8 bytes beyond the first.
        let length = (usize::from(byte(payload, 1)?) + 1) * 8;
        (byte(payload, 0)?, cut(payload, length)?)
    } else {
        (next, payload)
    };
    Ok(Ip {
        source: address::<16>(bytes, 8)?,
        destination: address::<16>(bytes, 24)?,
        traffic_class: u8::try_from(first >> 20 & 0xff)?,
        hop_limit: byte(bytes, 7)?,
        flow_label: first & 0xf_ffff,
        dont_fragment: true,
        // A fragment header is protocol 44, which nobody here reads further.
        is_fragment: protocol == 44,
        has_destination_options,
        protocol,
        payload,
    })
}

/// The checksum of what an IP packet carries, where it is one whose checksum is known.
fn verify_payload(packet: &Ip) -> Result<()> {
    if packet.is_fragment {
        return Ok(());
    }
    let bytes = packet.payload;
    let has_pseudo_header = match packet.protocol {
        ICMP => false,
        // RFC 768: zero is none. That it is allowed for GRE over IPv6 too is RFC 8086 §6.2.
        UDP if word(bytes, 6)? == 0 => return Ok(()),
        TCP | UDP | ICMPV6 => true,
        _ => return Ok(()),
    };
    let pseudo = if has_pseudo_header {
        let addresses = [packet.source, packet.destination].map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        });
        let length = u32::try_from(bytes.len())?.to_be_bytes();
        [
            addresses.concat(),
            length.to_vec(),
            vec![0, packet.protocol],
        ]
        .concat()
    } else {
        Vec::new()
    };
    ensure!(
        ones_complement_sum(&[&pseudo, bytes]) == 0xffff,
        "checksum of protocol {} from {} to {}",
        packet.protocol,
        packet.source,
        packet.destination
    );
    Ok(())
}

fn address<const N: usize>(bytes: &[u8], at: usize) -> Result<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    let bytes = cut(bytes, at)?.first_chunk::<N>();
    Ok(IpAddr::from(*bytes.context("an address is cut")?))
}

fn byte(bytes: &[u8], at: usize) -> Result<u8> {
    bytes.get(at).copied().context("the packet is cut")
}

fn word(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

fn long(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from(word(bytes, at)?) << 16 | u32::from(word(bytes, at + 2)?))
}

fn cut(bytes: &[u8], at: usize) -> Result<&[u8]> {
    match bytes.get(at..) {
        Some(rest) => Ok(rest),
        None => bail!("the packet is cut at {} of {at} bytes", bytes.len()),
    }
}

fn until(bytes: &[u8], end: usize) -> Result<&[u8]> {
    match bytes.get(..end) {
        Some(start) => Ok(start),
        None => bail!("{end} bytes are announced, {} are there", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<u8> {
        let packet = with_options(
            ["10.0.2.10", "10.0.1.10"],
            ["10.254.0.2", "10.254.0.1"],
            5000,
            b"hello",
        );
        [&[2; 12], IPV4.to_be_bytes().as_slice(), &packet.unwrap()].concat()
    }

    #[test]
    fn a_packet_is_read_as_it_was_built() {
        let bytes = good();
        let packet = read(&bytes).unwrap().unwrap();
        assert_eq!(packet.outer.source.to_string(), "10.0.2.10");
        assert_eq!((packet.protocol, packet.key), (IPV4, None));
        let inner = packet.inner().unwrap().unwrap();
        assert_eq!(inner.source.to_string(), "10.254.0.2");
        assert_eq!(&inner.payload[8..], b"hello");
    }

    #[test]
    fn a_wrong_header_checksum_is_found() {
        // TTLs of the outer header (14 + 8) and of the inner (14 + 24 + 4 + 8).
        for byte in [22, 50] {
            let mut bytes = good();
            bytes[byte] ^= 0x10;
            let error = read(&bytes).unwrap_err();
            assert!(format!("{error:#}").contains("checksum"), "{error:#}");
        }
    }

    #[test]
    fn a_wrong_gre_checksum_is_found() {
        let mut bytes = good();
        // The bit that announces it, the field before the inner packet, and what follows from
        // that in the outer header.
        bytes[38] = 0x80;
        bytes.splice(42..42, [0; 4]);
        bytes[17] += 4;
        bytes[24..26].fill(0);
        let header = !ones_complement_sum(&[&bytes[14..38]]);
        bytes[24..26].copy_from_slice(&header.to_be_bytes());
        let gre = !ones_complement_sum(&[&bytes[38..]]);
        bytes[42..44].copy_from_slice(&gre.to_be_bytes());
        assert!(read(&bytes).unwrap().unwrap().has_checksum);
        *bytes.last_mut().unwrap() ^= 1;
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn a_cut_packet_is_never_read() {
        let whole = good();
        for end in 0..whole.len() {
            assert!(!matches!(read(&whole[..end]), Ok(Some(_))), "{end} bytes");
        }
    }
}
