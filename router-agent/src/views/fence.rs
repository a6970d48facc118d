//! A group's fence, in a line.

use std::time::Duration;

use super::instant::ago;
use crate::control::protocol::{Authority, FenceStatus, GateState};

/// Whether protected packets pass, by whose word, until when, and what did not.
pub fn summary(fence: &FenceStatus, now_ns: u64) -> String {
    let short = if fence.grants_too_short > 0 {
        "; the peer's grants are too short: the two configurations differ in dead-interval"
    } else {
        ""
    };
    gate(fence, now_ns) + &dropped(fence) + short
}

/// Whether protected packets pass, by whose word, and until when.
pub fn gate(fence: &FenceStatus, now_ns: u64) -> String {
    let by = match fence.authority {
        Some(Authority::OwnAgent) => "by its own agent's word",
        Some(Authority::Grants) => "by its peer's grants",
        None => "",
    };
    let end_ns = fence.end_ns;
    match fence.gate {
        GateState::Open => {
            let left = Duration::from_nanos(end_ns.saturating_sub(now_ns));
            format!("open {by}, for {} ms more", left.as_millis())
        }
        GateState::Expired if end_ns == 0 => format!("not open yet {by}"),
        GateState::Expired => format!("no longer open {by}, ended {}", ago(end_ns, now_ns)),
        GateState::Closed => "closed".to_owned(),
    }
}

/// What it dropped, if anything.
fn dropped(fence: &FenceStatus) -> String {
    match fence.dropped_in + fence.dropped_out + fence.dropped_transit {
        0 => String::new(),
        packets => format!("; {packets} packets dropped"),
    }
}
