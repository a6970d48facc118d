//! What of root's power the agent keeps.
//!
//! A process of root has all capabilities that its bounding set allows; the agent gives up all but
//! those that it has a use for. A program that it executes as root, a script or its successor, begins
//! with what the bounding set allows again, unless new privileges are forbidden, as in the unit of the
//! package.

use anyhow::{Context as _, Result};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Without these the agent cannot do its work.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON);

/// Without these it does it less well, or not for every configuration.
const USEFUL: CapabilitySet = CapabilitySet::SYS_NICE
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::KILL);

/// Gives up what the agent has no use for. A thread has capabilities of its own, so this is for a
/// process that has one thread only.
pub fn drop_the_rest() -> Result<()> {
    let cannot = "cannot give up capabilities";
    let kept = capabilities(None).context(cannot)?.permitted & (NEEDED | USEFUL);
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).context(cannot)
}

/// The names of capabilities that the agent needs, and this process does not have.
pub fn missing() -> Result<Vec<String>> {
    let held = capabilities(None).context("cannot ask for this process's capabilities")?;
    Ok(names(NEEDED - held.effective))
}

fn names(capabilities: CapabilitySet) -> Vec<String> {
    let names = capabilities.iter_names();
    names.map(|(name, _)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_as_capabilities_7_does() {
        assert_eq!(
            names(NEEDED),
            ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_BPF"]
        );
        assert!(names(CapabilitySet::empty()).is_empty());
    }
}
