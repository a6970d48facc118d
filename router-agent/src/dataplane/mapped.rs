//! A BPF array in the agent's own memory.

use std::{
    marker::PhantomData,
    mem::offset_of,
    ops::Range,
    os::fd::AsFd as _,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering, fence},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use bytemuck::Pod;
use router_common::{
    identity::Epoch,
    map::{EpochSlot, Granted, LocalState},
    time::BootTime,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;

/// The elements of a memory-mapped array (`BPF_F_MMAPABLE`, Linux 5.5), read and written without
/// a system call, one 64-bit word at a time.
pub struct MappedArray<T> {
    words: NonNull<u64>,
    /// The first element of those in memory.
    first: u32,
    /// The one after the last.
    end: u32,
    writable: bool,
    _elements: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway; every access is to a whole aligned word.
unsafe impl<T: Send> Send for MappedArray<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for MappedArray<T> {}

impl<T: Pod> MappedArray<T> {
    /// The kernel pads elements to 8 bytes; ours need no padding.
    const WORDS: usize = {
        assert!(size_of::<T>().is_multiple_of(8));
        size_of::<T>() / 8
    };

    pub fn read_only(map: &MapData, length: u32) -> Result<Self> {
        Self::map(map, 0..length, ProtFlags::READ)
    }

    pub fn read_write(map: &MapData, length: u32) -> Result<Self> {
        Self::map(map, 0..length, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps no more of an array of `length` than is needed to read and write element `index`.
    pub fn around(map: &MapData, index: u32, length: u32) -> Result<Self> {
        // So many lie in whole pages, whatever the size of either.
        let together = u32::try_from(page_size()).context("pages of over 4 GiB")?;
        let first = index / together * together;
        let end = first.saturating_add(together).min(length);
        Self::map(map, first..end, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// The elements of `range`, which begins where a page does.
    fn map(map: &MapData, range: Range<u32>, protection: ProtFlags) -> Result<Self> {
        let Range { start: first, end } = range;
        let bytes = Self::bytes(end - first);
        let offset = u64::try_from(Self::bytes(first))?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            mmap(
                ptr::null_mut(),
                bytes,
                protection,
                MapFlags::SHARED,
                map.fd().as_fd(),
                offset,
            )
        }
        .context("cannot map a BPF array into memory")?;
        Ok(Self {
            words: NonNull::new(address.cast()).context("a mapping at address zero")?,
            first,
            end,
            writable: protection.contains(ProtFlags::WRITE),
            _elements: PhantomData,
        })
    }

    fn bytes(length: u32) -> usize {
        length as usize * Self::WORDS * 8
    }

    fn element(&self, index: u32) -> NonNull<u64> {
        let Self { first, end, .. } = *self;
        assert!(
            (first..end).contains(&index),
            "index {index} of {first}..{end}"
        );
        // SAFETY: `index` was compared with the bounds of the mapping.
        unsafe { self.words.add((index - first) as usize * Self::WORDS) }
    }

    /// The element as it is now. Its words may stem from two moments; each is whole.
    pub fn read(&self, index: u32) -> T {
        let element = self.element(index);
        let mut value = T::zeroed();
        let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut value));
        for (offset, word) in words.iter_mut().enumerate() {
            // SAFETY: within the element, aligned; the kernel may write it at any time.
            *word = unsafe { element.add(offset).read_volatile() };
        }
        value
    }

    /// A word of an element, which the kernel changes by atomic instructions only.
    fn atomic(&self, index: u32, word: usize) -> &AtomicU64 {
        assert!(word < Self::WORDS, "word {word} of {}", Self::WORDS);
        // SAFETY: within the element, aligned, alive as long as `self`; every access is to the whole
        // word.
        unsafe { AtomicU64::from_ptr(self.element(index).add(word).as_ptr()) }
    }

    /// Writes the element, word by word: who sees a word sees those before it, too.
    pub fn write(&self, index: u32, value: &T) {
        assert!(self.writable, "this array was mapped to be read only");
        let element = self.element(index);
        let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(value));
        for (offset, word) in words.iter().enumerate() {
            // SAFETY: within the element, aligned, mapped writable, alive as long as `self`; the kernel
            // may read the word at any time, and whole.
            let place = unsafe { AtomicU64::from_ptr(element.add(offset).as_ptr()) };
            place.store(*word, Ordering::Release);
        }
    }
}

impl MappedArray<LocalState> {
    /// Has the kernel say `local` in a session. Granting is closed before anything else changes, and opened
    /// after that; what was granted before it was closed [`MappedArray::newest`] tells then.
    ///
    /// Whether that ended granting.
    pub fn say(&self, session: u32, local: &LocalState) -> bool {
        let before = self.read(session);
        let is_same = before
            == LocalState {
                agent_beat_ns: before.agent_beat_ns,
                ..*local
            };
        if before.grant_us != 0 && !is_same {
            let closed = LocalState {
                grant_us: 0,
                ..before
            };
            self.write(session, &closed);
        }
        self.write(session, local);
        before.grant_us != 0 && local.grant_us == 0
    }
}

impl MappedArray<Granted> {
    const TIME: usize = offset_of!(Granted, granted_ns) / 8;
    const COUNT: usize = offset_of!(Granted, grants) / 8;

    /// Notes a grant that is about to leave; as the programs do it.
    pub fn raise(&self, index: u32, at: BootTime) {
        assert!(self.writable, "this array was mapped to be read only");
        self.atomic(index, Self::TIME)
            .fetch_max(at.as_ns(), Ordering::SeqCst);
        self.atomic(index, Self::COUNT)
            .fetch_add(1, Ordering::Relaxed);
    }

    /// The newest grant, once all is in place that this thread wrote before: a program that saw
    /// less has been noted here.
    pub fn newest(&self, index: u32) -> BootTime {
        fence(Ordering::SeqCst);
        BootTime::from_ns(self.atomic(index, Self::TIME).load(Ordering::SeqCst))
    }
}

impl MappedArray<EpochSlot> {
    pub fn epoch(&self, index: u32) -> Epoch {
        Epoch(as_epoch(self.atomic(index, 0).load(Ordering::SeqCst)))
    }

    /// Makes `epoch` the one in place, unless that is higher; what was there before.
    pub fn raise_epoch(&self, index: u32, epoch: Epoch) -> Epoch {
        assert!(self.writable, "this array was mapped to be read only");
        let before = self
            .atomic(index, 0)
            .fetch_max(epoch.0.into(), Ordering::SeqCst);
        Epoch(as_epoch(before))
    }
}

/// Nobody writes a longer one.
fn as_epoch(word: u64) -> u32 {
    u32::try_from(word).unwrap_or(u32::MAX)
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        let bytes = (self.end - self.first) as usize * size_of::<T>();
        // SAFETY: the mapping made in `map`, used by nobody else.
        // A failure leaves the mapping in place, which harms nobody.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), bytes) };
    }
}
