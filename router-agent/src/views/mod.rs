//! What an operator reads: text out of the [protocol](crate::control::protocol)'s structs. Pure
//! functions; the same struct always gives the same text, with colours in it.

mod at;
mod changes;
mod cluster;
pub mod events;
mod fence;
mod force;
mod heartbeat;
mod history;
mod instant;
mod interfaces;
pub mod json;
mod log;
pub mod page;
pub mod paint;
mod rotation;
mod table;
pub mod top;
mod tunnel;
mod version;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod schema;

pub use changes::applied;
pub use cluster::cluster_status;
pub use force::{Moved, moved};
pub use heartbeat::heartbeat;
pub use history::history;
pub use interfaces::interfaces;
pub use log::log;
pub use rotation::rotation;
pub use table::Table;
pub use tunnel::{tunnels_brief, tunnels_detail};
pub use version::version;
