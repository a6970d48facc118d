//! The agent of a redundant router, as a library: `router-agent` and `routerctl` are its doors.

pub use router_cluster as cluster;

pub mod agent;
pub mod arbiter;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod duplicate;
pub mod heartbeat;
pub mod history;
pub mod live;
pub mod logging;
pub mod maps;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod path_mtu;
pub mod slow_path;
pub mod takeover;
pub mod terminal;
pub mod track;
pub mod tunnel;
pub mod views;
