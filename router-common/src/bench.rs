//! What `cargo xtask bench` and its programs in the kernel tell each other.

use bytemuck::{Pod, Zeroable};

use crate::heartbeat::Heartbeat;

/// Name of the map with the one [`Bench`].
pub const MAP: &str = "BENCH";

/// Name of the map with the [`Arrivals`] of each CPU.
pub const ARRIVALS: &str = "ARRIVALS";

/// Bytes at a frame's start that are written anew; no outer headers that are measured are longer.
pub const HEADERS: usize = 96;

/// The frame that a program gives back its shape, and the number in it that changes from run to
/// run: an address, a key or a sequence number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Bench {
    pub headers: [u8; HEADERS],
    /// By how many bytes the measured program moves the frame's start: backwards if it adds some.
    pub removed: i32,
    /// Where the number is, in bytes from the frame's start; zero if nothing changes.
    pub number_offset: u32,
    /// The numbers go from `first` to before `end`, and over again.
    pub first: u32,
    pub end: u32,
    pub next: u32,
    /// From each number to the next; no more than there are. One by one, or with large steps, which
    /// no processor foresees.
    pub step: u32,
    /// The interface that frames are sent by.
    pub ifindex: u32,
    pub padding: u32,
}

/// What arrived where packets are counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Arrivals {
    pub packets: u64,
    /// Destination of the IPv4 packets that count.
    pub destination: [u8; 4],
    pub padding: [u8; 4],
}

/// Name of the map with the one [`BenchHeartbeat`].
pub const HEARTBEAT_MAP: &str = "BENCH_HEARTBEAT";

/// Bytes of a heartbeat's frame: Ethernet, IPv4, GRE without options, and the inner packet.
pub const HEARTBEAT_FRAME: usize = 14 + 20 + 4 + Heartbeat::IPV4_LENGTH as usize;

/// The heartbeat that arrives over and over, as if it were the next each time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct BenchHeartbeat {
    pub frame: [u8; HEARTBEAT_FRAME],
    pub padding: [u8; 2],
    /// The session's place in the maps.
    pub session: u32,
}

#[cfg(feature = "user")]
// SAFETY: `bytemuck::Pod` already demands what `aya::Pod` does.
unsafe impl aya::Pod for Bench {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Arrivals {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for BenchHeartbeat {}
