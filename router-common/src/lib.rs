//! What the kernel programs and the agent share: wire formats, map value types, the keyed MAC and
//! the pure logic on packets. Everything here also compiles and is tested on the host.
#![no_std]

pub mod identity;
pub mod time;
