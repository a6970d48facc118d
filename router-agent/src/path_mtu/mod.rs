//! The path MTU of tunnels: what routers on the way report, and how long it is believed.

pub mod icmp;
pub mod table;
