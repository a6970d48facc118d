//! Labs of network namespaces, the product's binaries in them, and the demonstration.
//!
//! A lab is made of nodes, cables and faults. Nothing of it is in the machine's own network
//! namespace, and nothing of it outlives its owner: see [`lab::Namespaces`].

pub mod agent;
pub mod article;
pub mod aws;
pub mod bench;
pub mod capture;
pub mod chaos;
pub mod clock;
pub mod cluster;
pub mod demo;
pub mod etcd;
pub mod format;
pub mod forwarding;
pub mod frames;
pub mod interop;
pub mod kernel;
pub mod lab;
pub mod machine;
pub mod many_tunnels;
pub mod moto;
pub mod other_build;
mod packet_socket;
pub mod passing;
pub mod poll;
pub mod replacing;
pub mod sites;
pub mod status;
pub mod talk;
pub mod traced;
pub mod traffic;
pub mod transit;
