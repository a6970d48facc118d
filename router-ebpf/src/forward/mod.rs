//! Between LAN and tunnel without the stack. What is odd in any way, and what the stack would
//! answer, is left to it untouched.

mod from_lan;
mod passenger;
mod route;
mod to_lan;

use aya_ebpf::{helpers::generated::bpf_redirect, programs::XdpContext};
use router_common::net::Ethernet;

use self::route::Hop;
pub use self::route::Query;
use crate::{
    decap::Arrived,
    fence,
    frame::Frame,
    verdict::{Action, Fenced, Refusal},
};

/// What became of a packet that might be forwarded.
#[derive(Clone, Copy)]
enum Outcome {
    /// It is the stack's, and as it was.
    NotTaken,
    /// On its way out.
    Forwarded,
    /// Its group, of this index, has no authority to forward; counted.
    Fenced(u32),
    /// Changed already when something failed.
    Broken,
}

/// Forwards what a host of the LAN sends into a tunnel; `None` if it does not take it.
#[inline(always)]
pub fn from_lan(ctx: &XdpContext) -> Option<Result<Action, Refusal>> {
    from_lan::forward(ctx.ctx).result()
}

/// Forwards what came for a tunnel to a host of a LAN; `None` if it does not take it.
#[inline(always)]
pub fn to_lan(ctx: &XdpContext, arrived: &Arrived) -> Option<Result<Action, Refusal>> {
    to_lan::forward(ctx.ctx, arrived).result()
}

impl Outcome {
    /// `None` if the packet was not taken.
    #[inline(always)]
    fn result(self) -> Option<Result<Action, Refusal>> {
        match self {
            Self::NotTaken => None,
            Self::Forwarded => Some(Ok(Action::Redirect)),
            Self::Fenced(group) => Some(Err(Refusal::Fenced { group })),
            Self::Broken => Some(Err(Refusal::NoHeadroom)),
        }
    }
}

/// Whatever is forwarded without the stack leaves here, with its Ethernet header, for which there is room,
/// past the fence of the group that protects the LAN, to the next hop.
#[inline(always)]
fn leave(ctx: &XdpContext, hop: &Hop, ether_type: u16, protected_by: u16) -> Outcome {
    let ethernet = Ethernet::new(hop.destination_mac, hop.source_mac, ether_type);
    if Frame(ctx).write(0, &ethernet).is_none() {
        return Outcome::Broken;
    }
    // Last, for what is said of a packet that does not pass is read from it.
    if let Err(Fenced { group }) = fence::transit(protected_by) {
        return Outcome::Fenced(group);
    }
    // SAFETY: a helper without memory arguments. Without flags it does not fail.
    unsafe { bpf_redirect(hop.ifindex, 0) };
    Outcome::Forwarded
}
