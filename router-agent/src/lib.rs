//! The agent of a redundant router, as a library: `router-agent` and `routerctl` are its doors.

pub mod clock;
pub mod cluster;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod maps;
pub mod net;
pub mod views;
