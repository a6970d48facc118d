//! What packets and tunnels cost, in figures. Nothing is judged: figures of one machine are compared
//! with each other.

pub mod aws;
pub mod dataplane;
pub mod failover;
pub mod heartbeat;
pub mod live;
pub mod plot;
pub mod report;
pub mod rig;
pub mod rounds;
pub mod tunnels;
pub mod vm_ratio;
