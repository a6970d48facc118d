//! The failover core: who of a group's two nodes is active, and why.
//!
//! [`Core`] is a machine without clock, sockets or log: what the kernel heard of the peer, what the
//! monitors say and what became of the takeover go in as [`Event`]s with their time; [`Command`]s
//! and the [`Advertisement`] for our heartbeats come out. `core/table.rs` holds the table of transitions,
//! `cause.rs` the operator's words for each of them, `policy.rs` every interval they wait for.

mod arbiter;
mod cause;
mod core;
mod history;
mod mandate;
#[cfg(test)]
mod model;
#[cfg(test)]
mod node;
#[cfg(test)]
mod planted;
mod policy;
mod report;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod told;

pub use self::{
    arbiter::{Answer, Fault, Mode, Record, Request, Revision},
    cause::Cause,
    core::{Advertisement, Command, Core, Event, Forced, Refusal, State},
    history::{ArbiterFinding, Finding, Transition},
    mandate::{Mandate, Opening},
    policy::{ArbiterPolicy, Policy, Prefer, wanted_answer},
    report::{FormerLife, PeerFinding, PeerReport, said_last},
};
