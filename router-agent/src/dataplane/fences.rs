//! The fences' programs on the interfaces that groups protect. Unlike the others they stay when the
//! agent stops: without authority nothing protected is forwarded, and who has stopped has none.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use aya::{maps::HashMap, programs::TcAttachType};
use router_common::map::name;

use super::{Dataplane, attach, gone, pins::Pins, program};

/// What an interface has that is protected.
const PROGRAMS: [(&str, TcAttachType); 2] = [
    (program::FENCE_IN, TcAttachType::Ingress),
    (program::FENCE_OUT, TcAttachType::Egress),
];

impl Dataplane {
    /// Has group `group` protect the transit of interface `interface`. From here on it passes only if
    /// the group's fence is open.
    pub fn protect(&mut self, interface: &str, ifindex: u32, group: u32) -> Result<()> {
        let mut protected: HashMap<_, u32, u32> = self.map_mut(name::PROTECTED)?;
        protected.insert(ifindex, group, 0)?;
        for program in PROGRAMS {
            attach::fence(&mut self.programs, program, interface, &self.pins)?;
        }
        Ok(())
    }

    /// Whether the fence's programs are on `interface`, as far as can be told.
    pub fn protects(&self, interface: &str) -> Result<bool> {
        for (program, direction) in PROGRAMS {
            if !attach::has_tc(&self.programs, program, interface, direction)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends the protection of an interface that has gone; its programs went with it.
    pub fn forget_protected(&mut self, ifindex: u32) -> Result<()> {
        let mut protected: HashMap<_, u32, u32> = self.map_mut(name::PROTECTED)?;
        gone(protected.remove(&ifindex)).context("cannot forget a protected interface")?;
        for (program, _) in PROGRAMS {
            attach::end_link(&self.pins.fence(program, ifindex))?;
        }
        Ok(())
    }

    /// Ends the fences of all interfaces but `kept`: an agent with another configuration left them.
    pub fn end_other_fences(&mut self, kept: &BTreeSet<u32>) -> Result<()> {
        let kept: BTreeSet<_> = kept
            .iter()
            .flat_map(|ifindex| PROGRAMS.map(|(program, _)| self.pins.fence(program, *ifindex)))
            .collect();
        let directory = self.pins.fences();
        let cannot = || format!("cannot list {}", directory.display());
        for entry in fs::read_dir(&directory).with_context(cannot)? {
            let path = entry.with_context(cannot)?.path();
            if !kept.contains(&path) {
                attach::end_link(&path)?;
            }
        }
        Ok(())
    }
}

/// Ends every fence: its interface's transit passes again.
pub(super) fn end_all(pins: &Pins) -> Result<()> {
    attach::detach_filters(&PROGRAMS)?;
    match fs::remove_dir_all(pins.fences()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", pins.fences().display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
