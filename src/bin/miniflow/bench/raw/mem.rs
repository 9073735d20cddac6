//! Memory that two processes share, each side of it written by one of them only.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};

/// Descriptors in a ring; a power of two.
pub(super) const SLOTS: usize = 512;

/// The last word of a descriptor: its sequence number.
pub(super) const SEQUENCE: usize = 7;

/// A word with the cache lines around it to itself: processors fetch lines in pairs.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Line<T>(pub(super) T);

/// One cache line of a ring: seven words of payload, then the sequence number.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Descriptor(pub(super) [AtomicU64; 8]);

/// Everything that one of the two processes writes and the other only reads.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Side {
    /// The line of the ping-pong.
    pub(super) turn: Line<AtomicU64>,
    /// What the other side sleeps on in the futex round trip.
    pub(super) bell: Line<AtomicU32>,
    /// Descriptors that this side has published in `slots`.
    pub(super) tail: Line<AtomicU64>,
    /// Descriptors that this side has taken out of the other side's `slots`.
    pub(super) head: Line<AtomicU64>,
    /// Not 0 while this side sleeps; in the raw ring it never does, but it is asked.
    pub(super) asleep: Line<AtomicU64>,
    pub(super) slots: [Descriptor; SLOTS],
}

/// What may lie in shared memory.
///
/// # Safety
///
/// All-zero bytes are a value of the type, it has no padding that matters and no pointers, and all
/// of it is atomics: the other process may write it at any time.
pub(super) unsafe trait Shareable {}

// SAFETY: atomic integers in `repr(C)` structs throughout; zero is a value of each.
unsafe impl Shareable for Side {}

/// Anonymous memory for one `T`, zeroed, to be mapped by both processes.
#[derive(Debug)]
pub(super) struct Memory<T> {
    file: File,
    content: PhantomData<T>,
}

/// A mapping of a [`Memory`].
#[derive(Debug)]
pub(super) struct Mapping<T> {
    map: MmapRaw,
    content: PhantomData<T>,
}

impl<T: Shareable> Memory<T> {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // Committed now: running out of memory is an error here and not a SIGBUS later.
        fallocate(&fd, FallocateFlags::empty(), 0, size_of::<T>() as u64)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok(Self {
            file: fd.into(),
            content: PhantomData,
        })
    }

    /// The mapping of the side that writes.
    pub(super) fn map_writable(&self) -> io::Result<Mapping<T>> {
        let map = Self::options().map_raw(&self.file)?;
        Ok(Mapping {
            map,
            content: PhantomData,
        })
    }

    /// The mapping of the side that reads.
    ///
    /// # Safety
    ///
    /// Nobody stores through the mapping: the atomics would let them, the processor would not.
    pub(super) unsafe fn map_read_only(&self) -> io::Result<Mapping<T>> {
        let map = Self::options().map_raw_read_only(&self.file)?;
        Ok(Mapping {
            map,
            content: PhantomData,
        })
    }

    fn options() -> MmapOptions {
        let mut options = MmapOptions::new();
        options.len(size_of::<T>()).populate();
        options
    }
}

impl<T: Shareable> Deref for Mapping<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the mapping is page-aligned (no type here asks for more), as long as a `T`, and
        // lives as long as `self`; the file behind it is sealed against shrinking. Any bytes are
        // a valid `T`, and the other process may write them, because `T` is `Shareable`.
        unsafe { &*self.map.as_ptr().cast::<T>() }
    }
}

/// An acquire load that is also valid through a read-only mapping, for which the standard library
/// guarantees relaxed loads only.
#[inline]
pub(super) fn load_acquire(word: &AtomicU64) -> u64 {
    let value = word.load(Ordering::Relaxed);
    // Acquire: makes the load above synchronise with the Release store whose value it read.
    fence(Ordering::Acquire);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_side_writes_and_the_other_reads() {
        let memory = Memory::<Side>::new("miniflow-bench-test").unwrap();
        let writer = memory.map_writable().unwrap();
        // SAFETY: only loads below.
        let reader = unsafe { memory.map_read_only() }.unwrap();
        assert_eq!(load_acquire(&reader.turn.0), 0);
        writer.turn.0.store(7, Ordering::Release);
        assert_eq!(load_acquire(&reader.turn.0), 7);
    }

    #[test]
    fn hot_words_do_not_share_cache_lines() {
        assert_eq!(size_of::<Descriptor>(), 64);
        assert_eq!(size_of::<Line<AtomicU64>>(), 128);
        assert_eq!(size_of::<Side>(), 5 * 128 + SLOTS * 64);
    }
}
