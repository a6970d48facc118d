//! What the kernel programs and the agent share: wire formats, map value types, the keyed MAC and
//! the pure logic on packets. Everything here also compiles and is tested on the host.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod bench;
pub mod checksum;
pub mod ecn;
pub mod gre;
pub mod heartbeat;
pub mod histogram;
pub mod identity;
#[cfg(feature = "user")]
pub mod kdf;
pub mod keys;
pub mod lease;
pub mod log;
pub mod map;
pub mod martian;
pub mod mss;
pub mod net;
pub mod own;
pub mod packet;
pub mod siphash;
pub mod slot;
pub mod time;
