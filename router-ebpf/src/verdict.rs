//! The one place where a refusal becomes a verdict.

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use router_common::{gre::NotFast, map::Reason};

use crate::maps;

/// What to do with a frame that was handled.
#[derive(Clone, Copy)]
pub enum Action {
    /// Decapsulated; on to the stack, where [`crate::underlay_handover`] takes it.
    Deliver,
    /// Turned into its answer; out by where it came.
    Answer,
    /// Consumed.
    Consume,
}

/// Why a frame was not handled.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// Not for the fast path.
    NotFast(NotFast),
    /// GRE, but of no tunnel of ours.
    NoTunnel,
    /// For tunnel `index`, and its lengths contradict each other.
    Malformed { index: u32 },
    /// For tunnel `index`, carrying a protocol that we do not.
    Unsupported { index: u32 },
    /// A heartbeat of a session that we do not have.
    NoSession,
    /// On the heartbeat port, but no heartbeat.
    NotHeartbeat,
    /// A heartbeat that was refused, and counted in its session.
    Refused,
    /// The driver gives no room for metadata or cannot move the packet's start.
    NoHeadroom,
}

#[inline(always)]
pub fn of_xdp(result: Result<Action, Refusal>) -> u32 {
    match result {
        Ok(Action::Deliver) | Err(Refusal::NotFast(NotFast::NotGre)) => xdp_action::XDP_PASS,
        Ok(Action::Answer) => xdp_action::XDP_TX,
        Ok(Action::Consume) | Err(Refusal::Refused) => xdp_action::XDP_DROP,
        Err(Refusal::NotFast(
            NotFast::OuterOptions
            | NotFast::OuterFragment
            | NotFast::Version
            | NotFast::Flags
            | NotFast::Truncated,
        )) => counted(Reason::NotFast, xdp_action::XDP_PASS),
        Err(Refusal::NoTunnel) => counted(Reason::NoTunnel, xdp_action::XDP_PASS),
        Err(Refusal::Malformed { index }) => {
            maps::count(index, |counters| counters.rx_errors += 1);
            xdp_action::XDP_DROP
        }
        Err(Refusal::Unsupported { index }) => {
            maps::count(index, |counters| counters.rx_unsupported += 1);
            xdp_action::XDP_DROP
        }
        Err(Refusal::NoSession) => counted(Reason::NoSession, xdp_action::XDP_DROP),
        Err(Refusal::NotHeartbeat) => counted(Reason::NotHeartbeat, xdp_action::XDP_DROP),
        Err(Refusal::NoHeadroom) => counted(Reason::NoHeadroom, xdp_action::XDP_DROP),
    }
}

#[inline(always)]
fn counted(reason: Reason, verdict: u32) -> u32 {
    maps::count_reason(reason);
    verdict
}

/// Why a packet of the stack was not sent through its tunnel.
#[derive(Clone, Copy)]
pub enum SendRefusal {
    /// The interface is no dataplane end of ours.
    NoEgress,
    /// Neither IPv4 nor IPv6.
    Unsupported { index: u32 },
    /// The outer headers could not be put before it.
    NoRoom { index: u32 },
}

/// The verdict for TC; `Ok` holds the one that the redirect gave. What cannot be sent is dropped:
/// the dataplane end leads nowhere else.
#[inline(always)]
pub fn of_tc(result: Result<i32, SendRefusal>) -> i32 {
    match result {
        Ok(verdict) => verdict,
        Err(SendRefusal::NoEgress) => {
            maps::count_reason(Reason::NoEgress);
            TC_ACT_SHOT
        }
        Err(SendRefusal::Unsupported { index }) => {
            maps::count(index, |counters| counters.tx_unsupported += 1);
            TC_ACT_SHOT
        }
        Err(SendRefusal::NoRoom { index }) => {
            maps::count(index, |counters| counters.tx_errors += 1);
            TC_ACT_SHOT
        }
    }
}
