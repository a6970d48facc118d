//! The fences' programs on the interfaces that groups protect. Unlike the others they stay when the
//! agent stops: without authority nothing protected is forwarded, and who has stopped has none.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::TcAttachType;
use router_common::map::{Fence, MAX_GROUPS, name};

use super::{
    Dataplane,
    attach::{self, Hook},
    former,
    pins::Pins,
    program,
    query::{self, Whereabouts},
};

/// What an interface has that is protected.
const HOOKS: [Hook; 2] = [
    Hook {
        program: program::FENCE_IN,
        direction: TcAttachType::Ingress,
        priority: 0x5255,
    },
    Hook {
        program: program::FENCE_OUT,
        direction: TcAttachType::Egress,
        priority: 0x5255,
    },
];

impl Dataplane {
    /// Has group `group` protect the transit of interface `interface`. From here on it passes only if
    /// the group's fence is open.
    pub fn protect(&mut self, interface: &str, ifindex: u32, group: u32) -> Result<()> {
        self.set_element(name::PROTECTED, ifindex, group)?;
        // What is handed over from the underlay has come by a tunnel, and not by this interface.
        let handover = self.pins.tc_link(attach::HANDOVER.program, ifindex);
        for hook in HOOKS {
            let path = self.pins.fence(hook.program, ifindex)?;
            name_anew(&self.pins.former_fence(hook.program, ifindex), &path)?;
            let ahead = (hook.direction == attach::HANDOVER.direction).then_some(&*handover);
            attach::tc(&mut self.programs, hook, interface, &path, ahead)?;
        }
        Ok(())
    }

    /// Whether the fence's programs are on `interface`.
    pub fn protects(&self, interface: &str) -> Result<bool> {
        for hook in HOOKS {
            if !attach::has_tc(&self.programs, hook, interface)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends the protection of an interface that has gone; its programs went with it.
    pub fn forget_protected(&mut self, ifindex: u32) -> Result<()> {
        self.remove_element::<u32, u32>(name::PROTECTED, &ifindex)?;
        for hook in HOOKS {
            attach::end_link(&self.pins.fence(hook.program, ifindex)?)?;
        }
        Ok(())
    }

    /// Ends the fences of all interfaces of this network namespace but those of `kept`: an agent with
    /// another configuration left them. Indices and names.
    pub fn end_other_fences(&mut self, kept: &[(u32, String)]) -> Result<()> {
        let kept_pins = kept
            .iter()
            .flat_map(|(ifindex, _)| HOOKS.map(|hook| self.pins.fence(hook.program, *ifindex)));
        let kept_pins: HashSet<PathBuf> = kept_pins.collect::<Result<_>>()?;
        for path in former::files(&self.pins.fences()) {
            if kept_pins.contains(&path) || query::whereabouts(&path)? == Whereabouts::Elsewhere {
                continue;
            }
            attach::end_link(&path)?;
        }
        attach::detach_filters(
            &HOOKS,
            &kept.iter().map(|(_, name)| name.as_str()).collect(),
        )?;
        self.forget::<u32, u32>(name::PROTECTED, |ifindex, _| {
            kept.iter().all(|(kept, _)| kept != ifindex)
        })
    }

    /// Closes a group's fence.
    pub fn close_fence(&mut self, group: u32) -> Result<()> {
        if group < MAX_GROUPS {
            self.fences()?.write(group, &Fence::default());
        }
        Ok(())
    }

    /// Closes every fence.
    pub fn close_fences(&mut self) -> Result<()> {
        let fences = self.fences()?;
        for group in 0..MAX_GROUPS {
            fences.write(group, &Fence::default());
        }
        Ok(())
    }
}

/// Gives a link that an earlier version pinned at `former` its present name, if its interface is one of
/// this network namespace. It is the fence's all the time.
fn name_anew(former: &Path, path: &Path) -> Result<()> {
    if former.exists() && query::whereabouts(former)? == Whereabouts::Here {
        fs::rename(former, path).with_context(|| format!("cannot rename {}", former.display()))?;
    }
    Ok(())
}

/// Ends every fence, in whatever network namespace: its interface's transit passes again.
pub(super) fn end_all(pins: &Pins) -> Result<()> {
    attach::detach_filters(&HOOKS, &HashSet::new())?;
    for path in former::files(&pins.fences()) {
        attach::end_link(&path)?;
    }
    Ok(())
}
