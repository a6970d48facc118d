//! Captures of the underlay, and whether the checksums in them are right.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use router_common::{
    gre::{self, Gre},
    net::{ETH_P_IPV4, Ethernet, Ipv4},
    packet::Packet as _,
};
use rustix::process::Signal;

use crate::{
    lab::{Node, Process},
    poll,
};

const TCP: u8 = 6;

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
            .args(["-n", "-U", "-s0", "-B8192", "-Zroot", "-i", interface])
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

    /// Ends it; the frames.
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

/// What was found in a capture of GRE packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub gre_packets: usize,
    /// Inner TCP segments whose checksum was computed anew.
    pub tcp_segments: usize,
    pub wrong: Vec<String>,
}

/// Computes all checksums of IPv4 in GRE in IPv4 anew.
pub fn verify(frames: &[Vec<u8>]) -> Findings {
    let mut findings = Findings::default();
    for (number, frame) in frames.iter().enumerate() {
        let Ok((_, gre)) = gre::parse(frame.as_slice()) else {
            continue;
        };
        findings.gre_packets += 1;
        match verify_one(frame, &gre) {
            Ok(is_tcp) => findings.tcp_segments += usize::from(is_tcp),
            Err(error) => findings.wrong.push(format!("frame {number}: {error}")),
        }
    }
    findings
}

/// Whether a TCP checksum was among those that are right.
fn verify_one(frame: &[u8], gre: &Gre) -> Result<bool> {
    let outer: Ipv4 = frame.read(Ethernet::LEN).context("no outer header")?;
    ensure!(outer.checksum_is_valid(), "outer IPv4 checksum");
    if gre.header.protocol != ETH_P_IPV4 {
        return Ok(false);
    }
    let inner = frame
        .get(gre.inner_offset..gre.inner_offset + gre.inner_length)
        .context("the inner packet is cut")?;
    let header: Ipv4 = inner.read(0).context("no inner header")?;
    ensure!(
        usize::from(header.total_length()) == inner.len(),
        "inner length"
    );
    ensure!(header.checksum_is_valid(), "inner IPv4 checksum");
    if header.has_options() || header.is_fragment() || header.protocol != TCP {
        return Ok(false);
    }
    let segment = &inner[Ipv4::LEN..];
    let length = u16::try_from(segment.len())?.to_be_bytes();
    // RFC 9293 §3.1: the pseudo header's addresses, protocol and length come into the sum.
    let pseudo = [
        header.source.as_slice(),
        &header.destination,
        &[0, TCP],
        &length,
    ]
    .concat();
    ensure!(
        ones_complement_sum(&[&pseudo, segment]) == 0xffff,
        "inner TCP checksum"
    );
    Ok(true)
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
    use router_common::{gre::GreBase, net::PROTO_GRE};

    use super::*;

    /// A TCP segment with an odd payload in IPv4 in GRE in IPv4 in Ethernet, all sums right.
    fn good() -> Vec<u8> {
        let [from, to] = [[169, 254, 0, 1], [169, 254, 0, 2]];
        let mut tcp = [[0; 12].as_slice(), &[0x50, 0x10], &[0; 6], b"abc"].concat();
        let length = u16::try_from(tcp.len()).unwrap();
        let pseudo = [from, to, [0, TCP, 0, length.to_be_bytes()[1]]].concat();
        let sum = ones_complement_sum(&[&pseudo, &tcp]);
        tcp[16..18].copy_from_slice(&(!sum).to_be_bytes());
        let inner = Ipv4::new(TCP, from, to, 0, 64, 20 + length);
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
