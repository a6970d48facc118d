//! A received frame, read and written with the bounds checks that the verifier asks for.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes},
    programs::XdpContext,
};
use bytemuck::Pod;
use router_common::packet::Packet;

/// The frame of an [`XdpContext`]. Holds no pointer into the packet: every access computes its
/// own, so that none survives a change of the packet's bounds.
#[derive(Clone, Copy)]
pub struct Frame<'a>(pub &'a XdpContext);

impl Frame<'_> {
    /// Bytes of the frame, with what lies in further buffers (XDP frags, Linux 5.18).
    #[inline(always)]
    pub fn whole_len(self) -> usize {
        // SAFETY: the context of this very call.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    /// Whether the frame is `length` bytes long or longer.
    #[inline(always)]
    pub fn reaches(self, length: usize) -> bool {
        // Mostly the first buffer tells, without a call.
        length <= self.len() || length <= self.whole_len()
    }

    /// The four words at `offset`, such as two IPv6 addresses, by single loads.
    #[inline(always)]
    pub fn words(self, offset: usize) -> Option<[u64; 4]> {
        let start = self.at(offset);
        if start + size_of::<[u64; 4]>() > self.0.data_end() {
            return None;
        }
        let [a, b, c, d];
        // SAFETY: the loads lie within the packet; those of a packet need no alignment.
        unsafe {
            core::arch::asm!(
                "{a} = *(u64 *)({start} + 0)",
                "{b} = *(u64 *)({start} + 8)",
                "{c} = *(u64 *)({start} + 16)",
                "{d} = *(u64 *)({start} + 24)",
                start = in(reg) start,
                a = out(reg) a,
                b = out(reg) b,
                c = out(reg) c,
                d = lateout(reg) d,
                options(readonly)
            );
        }
        Some([a, b, c, d])
    }

    /// Bytes in the first buffer, which alone can be read and written here.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.0.data_end() - self.0.data()
    }

    /// The address of the byte at `offset`, as one value: what is compared with the packet's end is
    /// what is then used.
    // VERIFIER: "R1 offset is outside of the packet": LLVM added a variable offset to the packet's
    // start once for the comparison, and once more for the access.
    #[inline(always)]
    fn at(self, offset: usize) -> usize {
        let mut address = self.0.data() + offset;
        // SAFETY: changes nothing; it hides from LLVM where the value comes from.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) address, options(pure, nomem)) };
        address
    }

    /// Writes `value` at `offset`; `None`, and nothing written, if it does not fit.
    #[inline(always)]
    pub fn write<T: Pod>(self, offset: usize, value: &T) -> Option<()> {
        let start = self.at(offset);
        if start + size_of::<T>() > self.0.data_end() {
            return None;
        }
        // SAFETY: `start..start + size_of::<T>()` lies within the packet, which this program alone
        // writes while it runs, and any bytes are a valid packet.
        unsafe { put_at(start, value) };
        Some(())
    }

    /// Has the values at two offsets change places; `None`, and nothing written, if one does not fit.
    #[inline(always)]
    pub fn exchange<T: Pod>(self, first: usize, second: usize) -> Option<()> {
        let before: T = self.read(first)?;
        let other: T = self.read(second)?;
        self.write(first, &other)?;
        self.write(second, &before)
    }

    /// As [`Packet::read`], by a helper: for what is long and then read as words. Bytes of a packet
    /// have no alignment, and 64-bit words put together from single bytes would cost more than
    /// the call.
    // VERIFIER: telling LLVM that misaligned access is allowed (allows-misaligned-mem-access) gives
    // single loads from packets, but also "misaligned stack access off 0+0+-60 size 8".
    #[inline(always)]
    pub fn load<T: Pod>(self, offset: usize) -> Option<T> {
        // Not zeroed first: LLVM makes that a call, byte by byte.
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: a place of our own; after success all of it is written, and any bytes are a `T`.
        unsafe {
            self.load_into(offset, value.as_mut_ptr())?;
            Some(value.assume_init())
        }
    }

    /// As [`Frame::load`], to a place that is not the stack.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes.
    #[inline(always)]
    pub unsafe fn load_into<T: Pod>(self, offset: usize, to: *mut T) -> Option<()> {
        // SAFETY: `to` is good for `size_of::<T>()` bytes, and any bytes are a `T`.
        let result = unsafe {
            bpf_xdp_load_bytes(self.0.ctx, offset as u32, to.cast(), size_of::<T>() as u32)
        };
        (result == 0).then_some(())
    }

    /// As [`Frame::write`], by a helper; see [`Frame::load`].
    #[inline(always)]
    pub fn store<T: Pod>(self, offset: usize, value: &T) -> Option<()> {
        let pointer = core::ptr::from_ref(value);
        // SAFETY: `pointer` is good for `size_of::<T>()` bytes.
        let result = unsafe {
            bpf_xdp_store_bytes(
                self.0.ctx,
                offset as u32,
                pointer.cast_mut().cast(),
                size_of::<T>() as u32,
            )
        };
        (result == 0).then_some(())
    }
}

/// The bytes at `start`: those of a word by one load, as LLVM would read them one by one. Loads from
/// a packet need no alignment.
///
/// # Safety
///
/// They must lie within the packet.
#[inline(always)]
unsafe fn value_at<T: Pod>(start: usize) -> T {
    // SAFETY: the caller vouches for the bytes, of which any are a `T`; each word is as long as the
    // `T` that it is taken for.
    unsafe {
        match size_of::<T>() {
            2 => {
                let word: u64;
                core::arch::asm!("{0} = *(u16 *)({1} + 0)", out(reg) word, in(reg) start, options(readonly));
                core::mem::transmute_copy(&(word as u16))
            }
            4 => {
                let word: u64;
                core::arch::asm!("{0} = *(u32 *)({1} + 0)", out(reg) word, in(reg) start, options(readonly));
                core::mem::transmute_copy(&(word as u32))
            }
            8 => {
                let word: u64;
                core::arch::asm!("{0} = *(u64 *)({1} + 0)", out(reg) word, in(reg) start, options(readonly));
                core::mem::transmute_copy(&word)
            }
            _ => (start as *const T).read_unaligned(),
        }
    }
}

/// As [`value_at`], the other way.
///
/// # Safety
///
/// The bytes must lie within the packet, which nobody else may use meanwhile.
#[inline(always)]
unsafe fn put_at<T: Pod>(start: usize, value: &T) {
    // SAFETY: the caller vouches for the bytes; each word is as long as the `T` that it is.
    unsafe {
        match size_of::<T>() {
            2 => {
                let word = u64::from(core::mem::transmute_copy::<T, u16>(value));
                core::arch::asm!("*(u16 *)({0} + 0) = {1}", in(reg) start, in(reg) word);
            }
            4 => {
                let word = u64::from(core::mem::transmute_copy::<T, u32>(value));
                core::arch::asm!("*(u32 *)({0} + 0) = {1}", in(reg) start, in(reg) word);
            }
            8 => {
                let word = core::mem::transmute_copy::<T, u64>(value);
                core::arch::asm!("*(u64 *)({0} + 0) = {1}", in(reg) start, in(reg) word);
            }
            _ => (start as *mut T).write_unaligned(*value),
        }
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn read<T: Pod>(&self, offset: usize) -> Option<T> {
        let start = self.at(offset);
        if start + size_of::<T>() > self.0.data_end() {
            return None;
        }
        // SAFETY: `start..start + size_of::<T>()` lies within the packet, and any bytes are a `T`.
        Some(unsafe { value_at(start) })
    }

    #[inline(always)]
    fn load<T: Pod>(&self, offset: usize) -> Option<T> {
        Frame::load(*self, offset)
    }
}
