//! Captures of the underlay, what is in them, and whether the checksums are right.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use router_common::{
    gre::{self, AnyKey, Gre},
    net::{
        ETH_P_IPV4, ETH_P_IPV6, ETH_P_TEB, Ethernet, GRE_UDP_PORT, Ipv4, Ipv6,
        PROTO_DESTINATION_OPTIONS, PROTO_GRE, PROTO_ICMP, PROTO_TCP, PROTO_UDP, Udp,
    },
    packet::Packet as _,
};
use rustix::process::Signal;

use crate::{
    lab::{Node, Process},
    poll,
};

/// Behind an Ethernet header, in bytes (IEEE 802.3 §4.2.3.3).
const SHORTEST_PAYLOAD: usize = 46;
const PROTO_HOP_BY_HOP: u8 = 0;
const PROTO_ICMPV6: u8 = 58;

/// A `tcpdump` under way.
pub struct Capture {
    tcpdump: Process,
    path: PathBuf,
    messages: PathBuf,
}

impl Capture {
    /// Starts to write frames of `interface` that `filter` takes; at most `limit`.
    pub fn start(node: &Node, interface: &str, filter: &str, limit: u32) -> Result<Self> {
        let path = node.directory().join(format!("{interface}.pcap"));
        let messages = node.directory().join(format!("{interface}.tcpdump.log"));
        let mut command = Command::new("tcpdump");
        command
            .args(["-n", "-U", "-s0", "-B8192", "-Zroot"])
            .args(["-i", interface])
            .args(["-c", &limit.to_string(), "-w"])
            .arg(&path)
            .args(filter.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&messages)?);
        let tcpdump = node.spawn("tcpdump", &mut command)?;
        let capture = Self {
            tcpdump,
            path,
            messages,
        };
        poll::until(Duration::from_secs(5), || {
            let text = fs::read_to_string(&capture.messages)?;
            ensure!(text.contains("listening on"), "tcpdump says: {text}");
            Ok(())
        })?;
        Ok(capture)
    }

    /// Waits until as many frames were captured as were asked for.
    pub fn wait_within(&mut self, within: Duration) -> Result<()> {
        self.tcpdump.wait_within(within).map(drop)
    }

    /// The frames so far.
    pub fn frames(&self) -> Result<Vec<Vec<u8>>> {
        read(&self.path)
    }

    /// Ends it; the frames. Those of the last moments may be missing.
    pub fn finish(mut self) -> Result<Vec<Vec<u8>>> {
        if self.tcpdump.is_running()? {
            self.tcpdump.signal(Signal::INT)?;
            self.tcpdump.wait_within(Duration::from_secs(5))?;
        }
        read(&self.path)
    }
}

/// The frames of a capture file.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    frames(&bytes).with_context(|| format!("{} is no capture", path.display()))
}

/// The pcap format (draft-ietf-opsawg-pcap): a header of 24 bytes, and before each frame 16 bytes
/// of which the third word is its length here and the fourth that on the wire.
fn frames(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    let word = |offset: usize| bytes.read(offset).map(u32::from_le_bytes);
    ensure!(word(0) == Some(MAGIC), "the magic number is another");
    ensure!(word(20) == Some(1), "the link type is not Ethernet");
    let mut frames = Vec::new();
    let mut offset = 24;
    while let (Some(length), Some(on_wire)) = (word(offset + 8), word(offset + 12)) {
        ensure!(length == on_wire, "a frame was captured in part");
        offset += 16;
        let end = offset + usize::try_from(length)?;
        match bytes.get(offset..end) {
            Some(frame) => frames.push(frame.to_vec()),
            None => bail!("the last frame is cut"),
        }
        offset = end;
    }
    Ok(frames)
}

/// A packet of a tunnel as it was on the wire.
#[derive(Clone, Debug)]
pub struct Wrapped<'a> {
    pub ipv6: bool,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Zero over IPv4.
    pub flow_label: u32,
    /// Whether no router may fragment it, as none does with IPv6.
    pub dont_fragment: bool,
    /// Source and destination of GRE in UDP.
    pub ports: Option<(u16, u16)>,
    pub key: Option<u32>,
    /// The first 16 of the GRE header.
    pub bits: u16,
    pub header: gre::Header,
    /// From the GRE header on.
    pub gre: &'a [u8],
    pub inner: &'a [u8],
}

impl<'a> Wrapped<'a> {
    /// `None` if it is no GRE packet, or one that a tunnel would not send.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let (key, gre) = gre::parse(frame).ok()?;
        let Gre {
            header,
            outer_offset,
            outer_tos,
            inner_offset,
            inner_length,
            label,
        } = gre;
        let gre_offset = inner_offset.checked_sub(header.length)?;
        let end = inner_offset + inner_length;
        let (ipv6, ttl, flow_label, dont_fragment) = match key {
            AnyKey::Ipv4(_) => {
                let outer: Ipv4 = frame.read(outer_offset)?;
                (false, outer.ttl, 0, outer.dont_fragment())
            }
            AnyKey::Ipv6(_) => {
                let outer: Ipv6 = frame.read(outer_offset)?;
                (true, outer.hop_limit, outer.flow_label(), true)
            }
        };
        let ports = if label.is_udp() {
            let udp: Udp = frame.read(gre_offset - Udp::LEN)?;
            Some((udp.source(), udp.destination()))
        } else {
            None
        };
        Some(Self {
            ipv6,
            tos: outer_tos,
            ttl,
            flow_label,
            dont_fragment,
            ports,
            key: label.key(),
            bits: u16::from_be_bytes(frame.read(gre_offset)?),
            header,
            gre: frame.get(gre_offset..end)?,
            inner: frame.get(inner_offset..end)?,
        })
    }

    /// The inner IP packet, also that of an inner frame, and its EtherType.
    pub fn inner_ip(&self) -> Option<(u16, &'a [u8])> {
        if self.header.protocol == ETH_P_TEB {
            ip_of_frame(self.inner)
        } else {
            Some((self.header.protocol, self.inner))
        }
    }

    /// Type of service or traffic class of the inner IP packet.
    pub fn inner_tos(&self) -> Option<u8> {
        match self.inner_ip()? {
            (ETH_P_IPV4, ip) => Some(ip.read::<Ipv4>(0)?.tos),
            (ETH_P_IPV6, ip) => Some(ip.read::<Ipv6>(0)?.traffic_class()),
            _ => None,
        }
    }
}

/// What is behind the Ethernet header and its tags, and its EtherType.
pub fn ip_of_frame(frame: &[u8]) -> Option<(u16, &[u8])> {
    let link = gre::link(frame)?;
    Some((link.ether_type, frame.get(link.offset..)?))
}

/// RFC 3376 §4.
const PROTO_IGMP: u8 = 2;

/// What was found in a capture.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub gre_packets: usize,
    /// Inner TCP segments whose checksum was computed anew.
    pub tcp_segments: usize,
    /// The same of UDP, ICMP and ICMPv6.
    pub messages: usize,
    pub wrong: Vec<String>,
}

/// Computes all checksums of the packets of tunnels anew: of the outer IPv4 and GRE headers, and of
/// IP, TCP, UDP, ICMP and ICMPv6 inside.
pub fn verify(frames: &[Vec<u8>]) -> Findings {
    let mut findings = Findings::default();
    for (number, frame) in frames.iter().enumerate() {
        let Some(wrapped) = Wrapped::read(frame) else {
            if is_of_a_tunnel(frame) {
                findings
                    .wrong
                    .push(format!("frame {number}: no GRE that can be read"));
            }
            continue;
        };
        findings.gre_packets += 1;
        let result = verify_outer(frame, &wrapped).and_then(|()| match wrapped.inner_ip() {
            Some((ether_type, packet)) => {
                let is_frame = wrapped.header.protocol == ETH_P_TEB;
                let padded = if is_frame { SHORTEST_PAYLOAD } else { 0 };
                verify_ip(ether_type, packet, padded)
            }
            None => bail!("the inner frame is cut"),
        });
        findings.take(number, result);
    }
    findings
}

/// Whether a frame is GRE's by its IP protocol or UDP port, whatever else is in it.
fn is_of_a_tunnel(frame: &[u8]) -> bool {
    let Some((ether_type, packet)) = ip_of_frame(frame) else {
        return false;
    };
    let (protocol, payload) = match ether_type {
        ETH_P_IPV4 => (
            packet.read::<Ipv4>(0).map(|header| header.protocol),
            Ipv4::LEN,
        ),
        ETH_P_IPV6 => (
            packet.read::<Ipv6>(0).map(|header| header.next_header),
            Ipv6::LEN,
        ),
        _ => return false,
    };
    // RFC 768: the destination port is the second field.
    let port = packet.read::<[u8; 2]>(payload + 2);
    protocol == Some(PROTO_GRE)
        || (protocol == Some(PROTO_UDP) && port == Some(GRE_UDP_PORT.to_be_bytes()))
}

/// Computes the checksums of IP packets anew that are in no tunnel.
pub fn verify_plain(frames: &[Vec<u8>]) -> Findings {
    let mut findings = Findings::default();
    for (number, frame) in frames.iter().enumerate() {
        if let Some((ether_type, packet)) = ip_of_frame(frame) {
            findings.take(number, verify_ip(ether_type, packet, SHORTEST_PAYLOAD));
        }
    }
    findings
}

impl Findings {
    fn take(&mut self, frame: usize, result: Result<Option<u8>>) {
        match result {
            Ok(Some(PROTO_TCP)) => self.tcp_segments += 1,
            Ok(Some(_)) => self.messages += 1,
            Ok(None) => {}
            Err(error) => self.wrong.push(format!("frame {frame}: {error}")),
        }
    }
}

fn verify_outer(frame: &[u8], wrapped: &Wrapped<'_>) -> Result<()> {
    if !wrapped.ipv6 {
        let outer: Ipv4 = frame.read(Ethernet::LEN).context("no outer header")?;
        ensure!(outer.checksum_is_valid(), "outer IPv4 checksum");
    }
    if wrapped.header.has_checksum() {
        ensure!(
            ones_complement_sum(&[wrapped.gre]) == 0xffff,
            "GRE checksum"
        );
    }
    Ok(())
}

/// The protocol whose checksum is right; none if there is no checksum. The packet may have been
/// filled up to `padded` bytes.
fn verify_ip(ether_type: u16, packet: &[u8], padded: usize) -> Result<Option<u8>> {
    let length = match ether_type {
        ETH_P_IPV4 => {
            let header: Ipv4 = packet.read(0).context("no IPv4 header")?;
            usize::from(header.total_length())
        }
        ETH_P_IPV6 => {
            let header: Ipv6 = packet.read(0).context("no IPv6 header")?;
            Ipv6::LEN + usize::from(header.payload_length())
        }
        _ => return Ok(None),
    };
    ensure!(
        length == packet.len() || packet.len() <= padded,
        "length of the IP packet"
    );
    let packet = packet.get(..length).context("the IP packet is cut")?;
    if ether_type == ETH_P_IPV4 {
        verify_ipv4(packet)
    } else {
        verify_ipv6(packet)
    }
}

fn verify_ipv4(packet: &[u8]) -> Result<Option<u8>> {
    let header: Ipv4 = packet.read(0).context("no IPv4 header")?;
    let (with_options, payload) = packet
        .split_at_checked(header.header_length())
        .context("IPv4 options")?;
    ensure!(
        ones_complement_sum(&[with_options]) == 0xffff,
        "IPv4 checksum"
    );
    if header.is_fragment() {
        return Ok(None);
    }
    let addresses = [header.source, header.destination].concat();
    verify_payload(header.protocol, &addresses, payload)
}

fn verify_ipv6(packet: &[u8]) -> Result<Option<u8>> {
    let header: Ipv6 = packet.read(0).context("no IPv6 header")?;
    let mut payload = &packet[Ipv6::LEN..];
    let mut protocol = header.next_header;
    while matches!(protocol, PROTO_HOP_BY_HOP | PROTO_DESTINATION_OPTIONS) {
        // RFC 8200 §4.2: next header, and length in units of 8 bytes without the first.
        let [next, units]: [u8; 2] = payload.read(0).context("extension header")?;
        payload = payload
            .get((usize::from(units) + 1) * 8..)
            .context("extension header")?;
        protocol = next;
    }
    let addresses = [header.source, header.destination].concat();
    verify_payload(protocol, &addresses, payload)
}

fn verify_payload(protocol: u8, addresses: &[u8], payload: &[u8]) -> Result<Option<u8>> {
    // RFC 9293 §3.1: the pseudo header's addresses, protocol and length come into the sum.
    let length = u16::try_from(payload.len())?.to_be_bytes();
    let pseudo = [addresses, &[0, protocol], &length].concat();
    let right = match protocol {
        PROTO_TCP | PROTO_ICMPV6 => ones_complement_sum(&[&pseudo, payload]) == 0xffff,
        PROTO_UDP => {
            let udp: Udp = payload.read(0).context("no UDP header")?;
            // Only IPv4 lets UDP go without (RFC 8200 §8.1).
            (!udp.has_checksum() && addresses.len() == 8)
                || ones_complement_sum(&[&pseudo, payload]) == 0xffff
        }
        PROTO_ICMP | PROTO_IGMP => ones_complement_sum(&[payload]) == 0xffff,
        _ => return Ok(None),
    };
    ensure!(right, "checksum of inner protocol {protocol}");
    Ok(Some(protocol))
}

/// RFC 1071, over parts of which only the last may have an odd length.
pub(crate) fn ones_complement_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<2>();
        sum += words
            .iter()
            .map(|word| u64::from(u16::from_be_bytes(*word)))
            .sum::<u64>();
        if let [last] = rest {
            sum += u64::from(u16::from_be_bytes([*last, 0]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use bytemuck::bytes_of;
    use router_common::gre::{GreBase, bit};

    use super::*;

    /// A TCP segment with an odd payload in IPv4 in GRE in IPv4 in Ethernet, all sums right.
    fn good() -> Vec<u8> {
        let [from, to] = [[169, 254, 0, 1], [169, 254, 0, 2]];
        let mut tcp = [[0; 12].as_slice(), &[0x50, 0x10], &[0; 6], b"abc"].concat();
        let length = u16::try_from(tcp.len()).unwrap();
        let pseudo = [from, to, [0, PROTO_TCP, 0, length.to_be_bytes()[1]]].concat();
        let sum = ones_complement_sum(&[&pseudo, &tcp]);
        tcp[16..18].copy_from_slice(&(!sum).to_be_bytes());
        let inner = Ipv4::new(PROTO_TCP, from, to, 0, 64, 20 + length);
        let outer = Ipv4::new(
            PROTO_GRE,
            [10, 0, 1, 10],
            [10, 0, 2, 10],
            0,
            255,
            44 + length,
        );
        [
            bytes_of(&Ethernet::new([2; 6], [4; 6], ETH_P_IPV4)),
            bytes_of(&outer),
            bytes_of(&GreBase::new(0, ETH_P_IPV4)),
            bytes_of(&inner),
            &tcp,
        ]
        .concat()
    }

    #[test]
    fn right_checksums_are_found_right() {
        let findings = verify(&[good()]);
        assert_eq!((findings.gre_packets, findings.tcp_segments), (1, 1));
        assert_eq!(findings.wrong, [""; 0]);
    }

    #[test]
    fn a_packet_in_no_tunnel_is_verified_too() {
        let inner = &good()[Ethernet::LEN + Ipv4::LEN + GreBase::LEN..];
        let ethernet = Ethernet::new([2; 6], [4; 6], ETH_P_IPV4);
        let mut frame = [bytes_of(&ethernet), inner].concat();
        assert_eq!(verify_plain(std::slice::from_ref(&frame)).tcp_segments, 1);
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(verify_plain(&[frame]).wrong.len(), 1);
    }

    #[test]
    fn any_corrupted_byte_under_a_checksum_is_found() {
        let whole = good();
        // TTLs (outer and inner) and everything of TCP; lengths and versions change what is read.
        for byte in [22, 46].into_iter().chain(58..whole.len()) {
            let mut frame = whole.clone();
            frame[byte] ^= 0x10;
            assert_eq!(verify(&[frame]).wrong.len(), 1, "byte {byte}");
        }
    }

    #[test]
    fn gre_that_cannot_be_read_is_found() {
        let mut frame = good();
        // The version, of the GRE header's second byte.
        frame[Ethernet::LEN + Ipv4::LEN + 1] = 7;
        assert_eq!(verify(&[frame]).wrong.len(), 1);
    }

    /// As of a join to a multicast group (RFC 3376 §4), which has the Router Alert option (RFC 2113).
    #[test]
    fn behind_options_checksums_are_looked_at() {
        let igmp = [0x16, 0, 0xfa, 0x04, 239, 1, 1, 1].to_vec();
        let sum = !ones_complement_sum(&[&igmp[..2], &igmp[4..]]);
        let igmp = [&igmp[..2], &sum.to_be_bytes(), &igmp[4..]].concat();
        let mut header =
            bytes_of(&Ipv4::new(PROTO_IGMP, [1; 4], [239, 1, 1, 1], 0, 1, 32)).to_vec();
        header[0] = 0x46;
        header.extend([148, 4, 0, 0]);
        header[10..12].fill(0);
        let sum = !ones_complement_sum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let packet = [header, igmp].concat();
        assert_eq!(verify_ipv4(&packet).unwrap(), Some(PROTO_IGMP));
        for byte in [8, 21, 25, 31] {
            let mut packet = packet.clone();
            packet[byte] ^= 0x10;
            assert!(verify_ipv4(&packet).is_err(), "byte {byte}");
        }
    }

    /// The same segment, in a frame with a VLAN tag, in GRE with checksum and key, over IPv6.
    fn good_frame_over_ipv6() -> Vec<u8> {
        let inner = good()[Ethernet::LEN + Ipv4::LEN + GreBase::LEN..].to_vec();
        let frame = [
            bytes_of(&Ethernet::new([6; 6], [8; 6], 0x8100)),
            &[0, 7, 8, 0],
            &inner,
        ]
        .concat();
        let mut gre = [
            bytes_of(&GreBase::new(bit::CHECKSUM | bit::KEY, ETH_P_TEB)),
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &frame,
        ]
        .concat();
        let sum = ones_complement_sum(&[&gre]);
        gre[4..6].copy_from_slice(&(!sum).to_be_bytes());
        let length = u16::try_from(gre.len()).unwrap();
        let outer = Ipv6::new(PROTO_GRE, [1; 16], [2; 16], 0xb8, 0x12345, 64, length);
        [
            bytes_of(&Ethernet::new([2; 6], [4; 6], ETH_P_IPV6)),
            bytes_of(&outer),
            &gre,
        ]
        .concat()
    }

    #[test]
    fn a_frame_over_ipv6_is_read_and_verified() {
        let whole = good_frame_over_ipv6();
        let wrapped = Wrapped::read(&whole).unwrap();
        assert_eq!((wrapped.ipv6, wrapped.tos, wrapped.ttl), (true, 0xb8, 64));
        assert_eq!((wrapped.flow_label, wrapped.key), (0x12345, Some(5)));
        assert_eq!((wrapped.ports, wrapped.inner_tos()), (None, Some(0)));
        let findings = verify(std::slice::from_ref(&whole));
        assert_eq!((findings.tcp_segments, &*findings.wrong), (1, &[][..]));
        // From the GRE checksum on, but for the reserved word after it.
        for byte in (58..60).chain(62..whole.len()) {
            let mut frame = whole.clone();
            frame[byte] ^= 0x10;
            assert_eq!(verify(&[frame]).wrong.len(), 1, "byte {byte}");
        }
    }

    #[test]
    fn gre_in_udp_is_read() {
        let inner = good()[Ethernet::LEN + Ipv4::LEN..].to_vec();
        let length = u16::try_from(inner.len() + Udp::LEN).unwrap();
        let frame = [
            bytes_of(&Ethernet::new([2; 6], [4; 6], ETH_P_IPV4)),
            bytes_of(&Ipv4::new(
                PROTO_UDP,
                [10, 0, 1, 10],
                [10, 0, 2, 10],
                0,
                255,
                20 + length,
            )),
            bytes_of(&Udp::without_checksum(50_000, GRE_UDP_PORT, length)),
            &inner,
        ]
        .concat();
        let wrapped = Wrapped::read(&frame).unwrap();
        assert_eq!(wrapped.ports, Some((50_000, GRE_UDP_PORT)));
        assert_eq!(verify(&[frame]).tcp_segments, 1);
    }

    #[test]
    fn a_capture_gives_back_its_frames() {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 12]);
        file.extend(1_u32.to_le_bytes());
        for frame in [[1, 2, 3].as_slice(), &[4]] {
            let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
            file.extend([[0; 4], [0; 4], length, length].concat());
            file.extend(frame);
        }
        assert_eq!(frames(&file).unwrap(), [vec![1, 2, 3], vec![4]]);
        file.pop();
        assert!(frames(&file).is_err());
    }
}
