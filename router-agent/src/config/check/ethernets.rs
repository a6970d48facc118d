//! `interfaces ethernet`.

use super::super::model::{Ethernet, XdpMode};
use super::super::tree::{Branch, Instance};
use super::super::value::Value;
use super::{is_enable, nodes_at, or_default};

/// Those of which the file states something that is ours. An old configuration that only gives
/// them addresses need not fit the interfaces that this host has.
pub(super) fn check(root: &Branch) -> Option<Vec<Ethernet>> {
    let Some(interfaces) = root.branch("interfaces") else {
        return Some(Vec::new());
    };
    interfaces
        .instances("ethernet")
        .iter()
        .filter(|Instance { branch, .. }| branch.has("fast-path") || branch.has("xdp-mode"))
        .map(ethernet)
        .collect()
}

fn ethernet(instance: &Instance) -> Option<Ethernet> {
    let nodes = nodes_at(&["interfaces", "ethernet"]);
    let branch = Some(&instance.branch);
    Some(Ethernet {
        name: instance.name.clone(),
        fast_path: is_enable(branch, nodes, "fast-path")?,
        xdp_mode: match or_default(branch, nodes, "xdp-mode")? {
            Value::Word("auto") => XdpMode::Auto,
            Value::Word("native") => XdpMode::Native,
            Value::Word("generic") => XdpMode::Generic,
            _ => return None,
        },
    })
}
