//! What an operator reads: text out of the [protocol](crate::control::protocol)'s structs. Pure
//! functions; the same struct always gives the same text.

mod cluster;
pub mod events;
mod fence;
mod force;
mod heartbeat;
mod history;
mod instant;
mod interfaces;
pub mod json;
mod rotation;
mod table;
pub mod top;
mod tunnel;
mod version;

#[cfg(test)]
mod golden;

pub use cluster::cluster_status;
pub use force::{Moved, moved};
pub use heartbeat::heartbeat;
pub use history::history;
pub use interfaces::interfaces;
pub use rotation::rotation;
pub use table::Table;
pub use tunnel::{tunnels_brief, tunnels_detail};
pub use version::version;
