//! What C holds by number: completions and loans, at addresses that do not move, behind handles
//! that are never mistaken for one another.
//!
//! A handle is `generation << 32 | index`, never 0. The generation of a cell changes when it is
//! given back, so that a handle which is used twice is noticed. Cells are reused, never freed: a
//! stale handle may be looked up at any time.

use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::ffi::per_process::PerProcess;
use crate::sys::sync::lock;

/// Cells that are allocated at a time.
const CHUNK: u32 = 256;
/// In [`Cell::next`]: the end of the list of free cells.
const NONE: u32 = u32::MAX;
/// In [`Cell::next`]: not in the list, its value is there.
const OCCUPIED: u32 = u32::MAX - 1;

/// What is known of a cell, apart from its value.
struct Cell {
    /// Of the value that is there, or of the next one. Never 0.
    generation: u32,
    /// The next free cell, `NONE` or `OCCUPIED`.
    next: u32,
}

/// Values at fixed addresses, by handle.
pub(crate) struct Slab<T> {
    cells: Vec<Cell>,
    /// The values of `CHUNK` cells each, never freed; initialised where the cell is `OCCUPIED`.
    /// Raw pointers: C reads values while others come and go.
    chunks: Vec<NonNull<MaybeUninit<T>>>,
    free: u32,
    /// The generation that new cells begin with.
    first_generation: u32,
}

// SAFETY: the values belong to the slab alone, so it may go where they may.
unsafe impl<T: Send> Send for Slab<T> {}

impl<T> Slab<T> {
    fn new(first_generation: u32) -> Self {
        Self {
            cells: Vec::new(),
            chunks: Vec::new(),
            free: NONE,
            first_generation: first_generation.max(1),
        }
    }

    /// Keeps a value; its handle and its address, where it stays until it is removed.
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> (u64, NonNull<T>) {
        if self.free == NONE {
            self.grow();
        }
        let index = self.free;
        let cell = &mut self.cells[index as usize];
        self.free = std::mem::replace(&mut cell.next, OCCUPIED);
        let handle = u64::from(cell.generation) << 32 | u64::from(index);
        let place = self.place(index);
        // SAFETY: the cell was free, so no value is overwritten and C has no pointer to it.
        unsafe { place.write(value) };
        (handle, place)
    }

    /// Where the value with this handle is, if there is one.
    pub(crate) fn get(&self, handle: u64) -> Option<NonNull<T>> {
        let index = index_of(handle);
        let cell = self.cells.get(index as usize)?;
        cell.is(handle).then(|| self.place(index))
    }

    /// Takes the value with this handle, which is stale from now on.
    #[inline]
    pub(crate) fn remove(&mut self, handle: u64) -> Option<T> {
        let index = index_of(handle);
        let cell = self.cells.get_mut(index as usize)?;
        if !cell.is(handle) {
            return None;
        }
        cell.generation = cell.generation.checked_add(1).unwrap_or(1);
        cell.next = self.free;
        self.free = index;
        // SAFETY: the cell was occupied, so the value is initialised; it is free from now on, so
        // the value is moved out once.
        Some(unsafe { self.place(index).read() })
    }

    /// The place of an existing cell's value.
    #[inline]
    fn place(&self, index: u32) -> NonNull<T> {
        let chunk = self.chunks[(index / CHUNK) as usize];
        // SAFETY: every chunk has `CHUNK` places.
        unsafe { chunk.add((index % CHUNK) as usize) }.cast()
    }

    #[cold]
    fn grow(&mut self) {
        let first = u32::try_from(self.cells.len())
            .ok()
            .filter(|&first| first < OCCUPIED - CHUNK)
            .unwrap_or_else(|| unreachable!("2^32 completions do not fit in memory"));
        let values = Box::leak(Box::<[T]>::new_uninit_slice(CHUNK as usize));
        self.chunks.push(NonNull::from(values).cast());
        self.cells.extend((1..=CHUNK).map(|step| Cell {
            generation: self.first_generation,
            next: if step < CHUNK { first + step } else { NONE },
        }));
        self.free = first;
    }
}

impl Cell {
    /// Whether this is the cell of a handle with its index.
    #[inline]
    fn is(&self, handle: u64) -> bool {
        u64::from(self.generation) == handle >> 32 && self.next == OCCUPIED
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn index_of(handle: u64) -> u32 {
    handle as u32
}

/// A slab of this process. A forked child has its own, new one.
pub(crate) struct ProcessSlab<T: 'static>(PerProcess<Mutex<Slab<T>>>);

impl<T: Send + 'static> ProcessSlab<T> {
    pub(crate) const fn new() -> Self {
        Self(PerProcess::new())
    }

    /// The slab of this process, locked.
    #[inline]
    pub(crate) fn lock(&self) -> Result<MutexGuard<'static, Slab<T>>> {
        let slab = self.0.get_or_make(|| {
            // A handle of the parent's means nothing here: the generations are far apart.
            let seed = std::process::id().wrapping_mul(0x9E37_79B1);
            Mutex::new(Slab::new(seed))
        })?;
        Ok(lock(slab))
    }

    /// The same, if this process has one.
    #[inline]
    pub(crate) fn lock_existing(&self) -> Option<MutexGuard<'static, Slab<T>>> {
        self.0.get().map(lock)
    }

    /// Removes a value; `what` is its name in the error.
    pub(crate) fn take(&self, handle: u64, what: &str) -> Result<T> {
        self.lock_existing()
            .and_then(|mut slab| slab.remove(handle))
            .ok_or_else(|| stale(what))
    }
}

#[cold]
pub(crate) fn stale(what: &str) -> Error {
    Error::invalid(format!(
        "{what} is not one that this process holds: it was given back already, or is made up"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_where_they_are_and_stale_handles_find_nothing() {
        let mut slab = Slab::new(7);
        let held: Vec<_> = (0..1000_u64).map(|v| slab.insert(Box::new(v))).collect();
        for (value, (handle, place)) in (0_u64..).zip(&held) {
            // SAFETY: the value is there until it is removed.
            assert_eq!(unsafe { **place.as_ref() }, value);
            assert_eq!(slab.get(*handle), Some(*place));
        }
        for (handle, _) in &held {
            assert!(slab.remove(*handle).is_some());
            assert!(slab.remove(*handle).is_none());
        }
        let (again, place) = slab.insert(Box::new(1));
        assert!(held.iter().any(|h| h.1 == place), "cells are reused");
        assert!(held.iter().all(|h| slab.get(h.0).is_none()));
        for made_up in [0, 1, u64::MAX, again + 1, again | 1 << 31, again ^ 1 << 32] {
            assert!(slab.remove(made_up).is_none(), "{made_up:x}");
        }
        assert_eq!(slab.remove(again), Some(Box::new(1)));
    }

    #[test]
    fn a_generation_is_never_zero() {
        let mut slab = Slab::new(u32::MAX);
        let (first, _) = slab.insert(());
        slab.remove(first);
        let (second, _) = slab.insert(());
        assert_eq!((first >> 32, second >> 32), (u64::from(u32::MAX), 1));
    }
}
