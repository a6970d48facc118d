//! Bounds-checked reading, the same for a packet in the kernel and a byte slice on the host.

use bytemuck::Pod;

/// A packet of which parts can be copied out.
pub trait Packet {
    /// The `T` at `offset` bytes from the packet's start; `None` if it does not lie wholly within.
    fn read<T: Pod>(&self, offset: usize) -> Option<T>;

    /// As [`Packet::read`], for an offset that the packet itself tells. The kernel's verifier would
    /// follow every value that it may have; a helper takes any.
    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        self.read(offset)
    }
}

impl Packet for [u8] {
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        self.get(offset..end).map(bytemuck::pod_read_unaligned)
    }
}
