//! The one place where a refusal becomes a verdict.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action, xdp_md},
    programs::TcContext,
};
use router_common::{
    gre::NotFast,
    log::Matter,
    map::{Reason, TunnelEvents},
};

use crate::{log, maps};

/// What to do with a frame that was handled.
#[derive(Clone, Copy)]
pub enum Action {
    /// On to the stack, where [`crate::underlay_handover`] takes it.
    ToStack,
    /// Turned into its answer; out by where it came.
    Answer,
    /// Forwarded; out by where the redirect said.
    Redirect,
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
    /// For tunnel `index`, and for the slow path.
    Slow { index: u32 },
    /// For tunnel `index`, and its headers are illegal or contradict each other.
    Malformed { index: u32 },
    /// For tunnel `index`, carrying a protocol that it does not.
    Unsupported { index: u32 },
    /// For tunnel `index`, with a checksum against its configuration, or without.
    Checksum { index: u32 },
    /// For tunnel `index`, without a sequence number or with an old one.
    Sequence { index: u32 },
    /// For tunnel `index`, of an epoch that has passed.
    Epoch { index: u32 },
    /// For tunnel `index`, congestion marked where nobody would understand it.
    Congestion { index: u32 },
    /// By tunnel `index`, a heartbeat of a session that we do not have.
    NoSession { index: u32 },
    /// By tunnel `index`, on the heartbeat port, but no heartbeat.
    NotHeartbeat { index: u32 },
    /// A heartbeat that was refused, and counted in its session.
    Refused { session: u32, why: Matter },
    /// The packet's start cannot be moved.
    NoHeadroom,
    /// From outside, with our mark.
    Impostor,
    /// Protected, and its group has no authority to forward; counted there.
    Fenced { group: u32 },
}

/// A protected packet whose group has no authority to forward; counted.
#[derive(Clone, Copy)]
pub struct Fenced {
    /// Its index.
    pub group: u32,
}

impl Refusal {
    /// It has nothing to do with a tunnel of ours.
    #[inline(always)]
    pub fn is_not_ours(self) -> bool {
        matches!(self, Self::NotFast(NotFast::NotGre) | Self::NoTunnel)
    }
}

/// Where a refused frame goes.
enum Fate {
    Stack,
    Drop,
}

/// Counts the refusal and decides.
#[inline(always)]
fn fate(refusal: Refusal) -> Fate {
    match refusal {
        Refusal::NotFast(NotFast::NotGre) => Fate::Stack,
        Refusal::NotFast(NotFast::OuterOptions) => to_stack(Reason::OuterOptions),
        Refusal::NotFast(NotFast::OuterFragment) => to_stack(Reason::OuterFragment),
        Refusal::NotFast(NotFast::Version) => to_stack(Reason::Version),
        Refusal::NotFast(NotFast::UdpChecksum) => to_stack(Reason::UdpChecksum),
        Refusal::NotFast(NotFast::Truncated) => to_stack(Reason::Truncated),
        Refusal::NoTunnel => to_stack(Reason::NoTunnel),
        Refusal::Slow { index } => {
            maps::count(index, |counters| counters.rx_slow += 1);
            Fate::Stack
        }
        Refusal::Malformed { index } => dropped_by(index, |counters| counters.rx_errors += 1),
        Refusal::Unsupported { index } => {
            dropped_by(index, |counters| counters.rx_unsupported += 1)
        }
        Refusal::Checksum { index } => {
            dropped_by(index, |counters| counters.rx_checksum_errors += 1)
        }
        Refusal::Sequence { index } => {
            dropped_by(index, |counters| counters.rx_sequence_errors += 1)
        }
        Refusal::Epoch { index } => dropped_by(index, |counters| counters.rx_epoch_errors += 1),
        Refusal::Congestion { index } => dropped_by(index, |counters| counters.rx_ecn_errors += 1),
        Refusal::Refused { .. } | Refusal::Fenced { .. } => Fate::Drop,
        Refusal::NoSession { .. } => dropped(Reason::NoSession),
        Refusal::NotHeartbeat { .. } => dropped(Reason::NotHeartbeat),
        Refusal::NoHeadroom => dropped(Reason::NoHeadroom),
        Refusal::Impostor => dropped(Reason::Impostor),
    }
}

/// What is said of the refusal, and of what index; nothing of packets that are not ours, or that the
/// slow path takes.
#[inline(always)]
fn said(refusal: Refusal) -> Option<(Matter, u32)> {
    Some(match refusal {
        Refusal::NotFast(
            NotFast::NotGre | NotFast::OuterOptions | NotFast::OuterFragment | NotFast::UdpChecksum,
        )
        | Refusal::Slow { .. } => return None,
        Refusal::NotFast(NotFast::Version) => (Matter::Version, 0),
        Refusal::NotFast(NotFast::Truncated) => (Matter::Truncated, 0),
        Refusal::NoTunnel => (Matter::NoTunnel, 0),
        Refusal::Malformed { index } => (Matter::Malformed, index),
        Refusal::Unsupported { index } => (Matter::Unsupported, index),
        Refusal::Checksum { index } => (Matter::Checksum, index),
        Refusal::Sequence { index } => (Matter::Sequence, index),
        Refusal::Epoch { index } => (Matter::Epoch, index),
        Refusal::Congestion { index } => (Matter::Congestion, index),
        Refusal::NoSession { index } => (Matter::NoSession, index),
        Refusal::NotHeartbeat { index } => (Matter::NotHeartbeat, index),
        Refusal::Refused { session, why } => (why, session),
        Refusal::NoHeadroom => (Matter::NoHeadroom, 0),
        Refusal::Impostor => (Matter::Impostor, 0),
        Refusal::Fenced { group } => (Matter::Fenced, group),
    })
}

#[inline(always)]
fn to_stack(reason: Reason) -> Fate {
    maps::count_reason(reason);
    Fate::Stack
}

#[inline(always)]
fn dropped(reason: Reason) -> Fate {
    maps::count_reason(reason);
    Fate::Drop
}

#[inline(always)]
fn dropped_by(index: u32, change: impl FnOnce(&mut TunnelEvents)) -> Fate {
    maps::count(index, change);
    Fate::Drop
}

/// The verdict of the XDP program.
#[inline(always)]
pub fn of_xdp(ctx: *mut xdp_md, result: Result<Action, Refusal>) -> u32 {
    match result {
        Ok(Action::ToStack) => xdp_action::XDP_PASS,
        Ok(Action::Answer) => xdp_action::XDP_TX,
        Ok(Action::Redirect) => xdp_action::XDP_REDIRECT,
        Ok(Action::Consume) => xdp_action::XDP_DROP,
        Err(refusal) => {
            if let Some((matter, subject)) = said(refusal) {
                log::of_frame(ctx, matter, subject);
            }
            match fate(refusal) {
                Fate::Stack => xdp_action::XDP_PASS,
                Fate::Drop => xdp_action::XDP_DROP,
            }
        }
    }
}

/// The verdict of TC on the underlay; `Ok` holds the one that the redirect gave. What is left to
/// the stack was counted by XDP.
#[inline(always)]
pub fn of_layer2(ctx: &TcContext, result: Result<i32, Refusal>) -> i32 {
    match result {
        Ok(verdict) => verdict,
        Err(Refusal::NotFast(_) | Refusal::NoTunnel | Refusal::Slow { .. }) => TC_ACT_UNSPEC,
        Err(refusal) => {
            if let Some((matter, subject)) = said(refusal) {
                log::of_skb(ctx.skb.skb, matter, subject);
            }
            match fate(refusal) {
                Fate::Stack => TC_ACT_UNSPEC,
                Fate::Drop => TC_ACT_SHOT,
            }
        }
    }
}

/// The verdict of TC at a protected interface.
#[inline(always)]
pub fn of_fence(ctx: &TcContext, result: Result<(), Fenced>) -> i32 {
    match result {
        Ok(()) => TC_ACT_UNSPEC,
        Err(Fenced { group }) => {
            log::of_skb(ctx.skb.skb, Matter::Fenced, group);
            TC_ACT_SHOT
        }
    }
}

/// Why a packet of the stack was not sent through its tunnel.
#[derive(Clone, Copy)]
pub enum SendRefusal {
    /// The interface is no dataplane end of ours.
    NoEgress,
    /// Not of a protocol that the tunnel carries.
    Unsupported { index: u32 },
    /// The outer headers could not be put before it.
    NoRoom { index: u32 },
}

/// The verdict for TC at the tunnel; `Ok` holds the one that the redirect gave. What cannot be sent
/// is dropped: the dataplane end leads nowhere else.
#[inline(always)]
pub fn of_tc(ctx: &TcContext, result: Result<i32, SendRefusal>) -> i32 {
    let refusal = match result {
        Ok(verdict) => return verdict,
        Err(refusal) => refusal,
    };
    let (matter, subject) = match refusal {
        SendRefusal::NoEgress => {
            maps::count_reason(Reason::NoEgress);
            (Matter::NoEgress, 0)
        }
        SendRefusal::Unsupported { index } => {
            maps::count(index, |counters| counters.tx_unsupported += 1);
            (Matter::UnsupportedSent, index)
        }
        SendRefusal::NoRoom { index } => {
            maps::count(index, |counters| counters.tx_errors += 1);
            (Matter::NoRoom, index)
        }
    };
    log::of_skb(ctx.skb.skb, matter, subject);
    TC_ACT_SHOT
}
