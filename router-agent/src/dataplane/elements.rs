//! Elements of hash maps, which programs read without a lock.
//!
//! A hash map that has its memory from the start gives what an element took to the next one at once:
//! that of a replaced element to the next that is replaced, that of a removed one to the next that is
//! added (`alloc_htab_elem` in the kernel's kernel/bpf/hashtab.c). Since Linux 6.1 maps that ask for memory
//! as they need it do the same. A program that found the first element would read the second, of another
//! key. So after an element was replaced or removed, all programs that were running end before
//! the next is written.

use std::{borrow::BorrowMut, io};

use anyhow::{Context as _, Result};
use aya::{
    maps::{HashMap, MapData, MapError},
    sys::SyscallError,
};

use super::Dataplane;

impl Dataplane {
    /// Sets an element of hash map `name`, if it differs.
    pub(super) fn set_element<K, V>(&mut self, name: &str, key: K, value: V) -> Result<()>
    where
        K: aya::Pod,
        V: aya::Pod + PartialEq,
    {
        self.released |= self.write_element(name, key, value)?;
        Ok(())
    }

    /// As [`Self::set_element`]; whether that released the memory of an element, which is then the
    /// caller's concern.
    pub(super) fn write_element<K, V>(&mut self, name: &str, key: K, value: V) -> Result<bool>
    where
        K: aya::Pod,
        V: aya::Pod + PartialEq,
    {
        let map: HashMap<_, K, V> = self.map_mut(name)?;
        let before = match map.get(&key, 0) {
            Ok(before) if before == value => return Ok(false),
            Ok(_) => true,
            Err(MapError::KeyNotFound) => false,
            Err(error) => return Err(error).with_context(|| format!("cannot read map {name}")),
        };
        self.await_released()?;
        let mut map: HashMap<_, K, V> = self.map_mut(name)?;
        map.insert(key, value, 0)
            .with_context(|| format!("cannot write to map {name}"))?;
        Ok(before)
    }

    /// Removes an element of hash map `name`, if there is one.
    pub(super) fn remove_element<K, V>(&mut self, name: &str, key: &K) -> Result<()>
    where
        K: aya::Pod,
        V: aya::Pod,
    {
        let mut map: HashMap<_, K, V> = self.map_mut(name)?;
        if gone(map.remove(key)).with_context(|| format!("cannot remove from map {name}"))? {
            self.released = true;
        }
        Ok(())
    }

    /// Removes the elements of hash map `name` that are `too_much`.
    pub(super) fn forget<K, V>(
        &mut self,
        name: &str,
        too_much: impl Fn(&K, &V) -> bool,
    ) -> Result<()>
    where
        K: aya::Pod,
        V: aya::Pod,
    {
        let mut map: HashMap<_, K, V> = self.map_mut(name)?;
        let any =
            forget_in(&mut map, too_much).with_context(|| format!("cannot clear map {name}"))?;
        self.released |= any;
        Ok(())
    }

    /// Returns when no program can read an element that was replaced or removed.
    pub(super) fn await_released(&mut self) -> Result<()> {
        if self.released {
            await_programs()?;
            self.released = false;
        }
        Ok(())
    }
}

/// Whether there was an element to be removed.
fn gone(removal: Result<(), MapError>) -> Result<bool, MapError> {
    match removal {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(SyscallError { io_error, .. }))
            if io_error.kind() == io::ErrorKind::NotFound =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether any element was removed.
fn forget_in<T, K, V>(
    map: &mut HashMap<T, K, V>,
    too_much: impl Fn(&K, &V) -> bool,
) -> Result<bool, MapError>
where
    T: BorrowMut<MapData>,
    K: aya::Pod,
    V: aya::Pod,
{
    let mut doomed = Vec::new();
    for element in map.iter() {
        let (key, value) = element?;
        if too_much(&key, &value) {
            doomed.push(key);
        }
    }
    let mut any = false;
    for key in &doomed {
        any |= gone(map.remove(key))?;
    }
    Ok(any)
}

/// Returns when all programs that were running have ended: they run within RCU read-side critical
/// sections, and this waits until there have been none (membarrier(2), `MEMBARRIER_CMD_GLOBAL`).
/// That takes some milliseconds.
pub(super) fn await_programs() -> Result<()> {
    // SAFETY: a system call without memory arguments.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context("cannot wait for the running programs")
    }
}
