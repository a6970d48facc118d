//! The agent as another build would be: the same, with kernel programs of other bytes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use object::{File, Object as _, ObjectSection as _, SectionKind};
use router_agent::dataplane::OBJECT;

use crate::{agent, lab::Node};

/// Bytes of an instruction (RFC 9669 §3).
const INSTRUCTION: usize = 8;
/// `dst = imm` of 32 and of 64 bits (RFC 9669 §4.1). For an immediate that is not negative they do
/// the same.
const MOV32: u8 = 0xb4;
const MOV64: u8 = 0xb7;

/// Writes such an agent into `directory`; its path.
pub fn write(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("router-agent-of-another-build");
    fs::copy(agent::binary("router-agent")?, &path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    change(&path)?;
    Ok(path)
}

/// Makes one of the agent at `path`.
pub fn change(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let at = bytes
        .windows(OBJECT.len())
        .position(|window| window == OBJECT)
        .context("the agent holds other programs than these tests; build both")?;
    let other = with_other_bytes(OBJECT)?;
    bytes[at..at + other.len()].copy_from_slice(&other);
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// What identifies the programs on a node's underlay, whichever agent loaded them.
pub fn program_tag(node: &Node) -> Result<String> {
    let link = node.exec(&["ip", "link", "show", "eth0"])?;
    let (_, rest) = link
        .split_once(" tag ")
        .with_context(|| format!("no program: {link}"))?;
    Ok(rest
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

/// Every entry point and function gets another instruction where it does not matter.
fn with_other_bytes(object: &[u8]) -> Result<Vec<u8>> {
    let mut changed = object.to_vec();
    let mut times = 0;
    for section in File::parse(object)?.sections() {
        if section.kind() != SectionKind::Text {
            continue;
        }
        let (start, length) = section.file_range().context("code lies in the file")?;
        let (start, length) = (usize::try_from(start)?, usize::try_from(length)?);
        let code = &mut changed[start..start + length];
        for instruction in code.chunks_exact_mut(INSTRUCTION) {
            let is_negative = instruction[INSTRUCTION - 1] & 0x80 != 0;
            if instruction[0] == MOV32 && !is_negative {
                instruction[0] = MOV64;
                times += 1;
            }
        }
    }
    ensure!(times > 0, "nothing could be changed");
    Ok(changed)
}
