//! Sealed anonymous memory files and their mappings.
//!
//! A memfd has no name to leak, is not limited by the size of `/dev/shm`, and can be sealed so
//! that no peer can shrink it under us (which would be SIGBUS) or map it writable (which would
//! break "one writer per page").

use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::sys::fork::ForkGuard;

/// A type that may be laid over memory that another process writes or reads.
///
/// # Safety
/// The type must be `#[repr(C)]`, consist of atomics (or arrays and structs of them) and padding
/// only, and be valid for every bit pattern.
pub(crate) unsafe trait SharedLayout: Sized {}

/// Creates a memory file of `size` bytes. No page is allocated yet; the size can no longer change.
pub(crate) fn create(name: &str, size: u64) -> Result<OwnedFd> {
    let what = || format!("cannot create the shared segment `{name}` of {size} bytes");
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags), // before Linux 6.3
        other => other,
    }
    .map_err(|e| Error::system("memfd_create", what(), e))?;
    rustix::fs::ftruncate(&fd, size).map_err(|e| Error::system("ftruncate", what(), e))?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)
        .map_err(|e| Error::system("fcntl(F_ADD_SEALS)", what(), e))?;
    Ok(fd)
}

/// Allocates the pages of a range, so that no store into it can meet SIGBUS.
pub(crate) fn commit(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    retry_on_intr(|| fallocate(fd, FallocateFlags::empty(), offset, len)).map_err(|e| {
        Error::system(
            "fallocate",
            format!("cannot allocate {len} bytes of shared memory (raise the memory limit)"),
            e,
        )
    })
}

/// Forbids every later writable mapping (existing ones stay) and every later seal.
pub(crate) fn seal_writers(fd: BorrowedFd<'_>) -> Result<()> {
    fcntl_add_seals(fd, SealFlags::FUTURE_WRITE | SealFlags::SEAL)
        .map_err(|e| Error::system("fcntl(F_ADD_SEALS)", "cannot seal a shared segment", e))
}

/// Whether `fd` is a memory file of exactly `size` bytes that nobody can resize.
pub(crate) fn verify(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    let what = "cannot verify a shared segment";
    let seals = rustix::fs::fcntl_get_seals(fd)
        .map_err(|e| Error::system("fcntl(F_GET_SEALS)", what, e))?;
    let stat = rustix::fs::fstat(fd).map_err(|e| Error::system("fstat", what, e))?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW)
        || u64::try_from(stat.st_size) != Ok(size)
    {
        return Err(Error::Internal(format!(
            "a shared segment has the wrong size or seals ({} bytes for {size}, {seals:?})",
            stat.st_size
        )));
    }
    Ok(())
}

/// How a segment is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// For the one process that writes the segment.
    Write,
    /// For everybody else; the kernel enforces it.
    Read,
}

/// A mapped segment that begins with a `T`.
///
/// The mapping is not inherited by forked children (`MADV_DONTFORK`): a child would keep it
/// writable in spite of the seals. So a child that drops its copy of a segment leaves the
/// addresses alone, where by then something else may lie.
pub(crate) struct Segment<T> {
    map: ManuallyDrop<MmapRaw>,
    guard: ForkGuard,
    fd: OwnedFd,
    layout: PhantomData<T>,
}

impl<T> Drop for Segment<T> {
    fn drop(&mut self) {
        if !self.guard.is_child() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.map) };
        }
    }
}

impl<T: SharedLayout> Segment<T> {
    /// Maps `size` bytes of `fd`.
    pub(crate) fn map(fd: OwnedFd, size: u64, access: Access) -> Result<Self> {
        let what = || format!("cannot map {size} bytes of shared memory");
        let size = usize::try_from(size).map_err(|_| Error::invalid(what()))?;
        assert!(size >= size_of::<T>(), "a segment holds its layout");
        let mut options = MmapOptions::new();
        options.len(size);
        let map = match access {
            Access::Write => options.map_raw(&fd),
            Access::Read => options.map_raw_read_only(&fd),
        }
        .map_err(|e| Error::system("mmap", what(), e))?;
        map.advise(memmap2::Advice::DontFork)
            .map_err(|e| Error::system("madvise(MADV_DONTFORK)", what(), e))?;
        Ok(Self {
            map: ManuallyDrop::new(map),
            guard: ForkGuard::new()?,
            fd,
            layout: PhantomData,
        })
    }

    /// Bytes of the mapping.
    pub(crate) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether this is a forked child's copy, without a mapping.
    pub(crate) fn is_childs_copy(&self) -> bool {
        self.guard.is_child()
    }

    /// The file behind the mapping.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The structure at the start of the segment.
    #[inline]
    pub(crate) fn layout(&self) -> &T {
        // SAFETY: the mapping is at least `size_of::<T>()` bytes (checked in `map`), page-aligned,
        // and lives as long as `self`. `T: SharedLayout` is atomics only, so that a shared
        // reference is valid while other processes write, and valid for every bit pattern.
        // Whoever maps `Access::Read` never stores through it (the kernel would kill it).
        unsafe { &*self.map.as_ptr().cast::<T>() }
    }

    /// The address of `offset`, if `offset + len` lies inside the mapping and this is not a forked
    /// child's copy, which has none.
    #[inline]
    pub(crate) fn range(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.map.len() as u64 || self.guard.is_child() {
            return None;
        }
        let offset = usize::try_from(offset).ok()?;
        NonNull::new(self.map.as_mut_ptr().wrapping_add(offset))
    }

    /// Another, read-only mapping of a range: it outlives this one, and forked children inherit it.
    ///
    /// By the descriptor. `mremap` with an old size of 0 would copy this mapping as well, but along
    /// with `MADV_DONTFORK`, and valgrind does not know it.
    pub(crate) fn map_range(&self, offset: u64, len: usize) -> Result<MmapRaw> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        options.map_raw_read_only(&self.fd).map_err(|e| {
            let what = format!("cannot map {len} bytes of shared memory once more");
            Error::system("mmap", what, e)
        })
    }
}

impl<T> fmt::Debug for Segment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("len", &self.map.len())
            .finish_non_exhaustive()
    }
}

/// Adopts a file descriptor that this process inherited by number.
///
/// # Safety
/// Nobody else in this process may own `fd`.
pub(crate) unsafe fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: the caller promises that `fd` is not owned by anybody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sync::{AtomicU64, Ordering};

    #[repr(C)]
    struct Word(AtomicU64);
    // SAFETY: one atomic.
    unsafe impl SharedLayout for Word {}

    #[test]
    fn a_sealed_segment_refuses_a_second_writer_and_keeps_the_first() {
        let fd = create("test", 4096).unwrap();
        commit(fd.as_fd(), 0, 4096).unwrap();
        let other = fd.try_clone().unwrap();
        let first = Segment::<Word>::map(fd, 4096, Access::Write).unwrap();
        seal_writers(first.fd()).unwrap();
        let second = Segment::<Word>::map(other.try_clone().unwrap(), 4096, Access::Write);
        assert!(
            matches!(second, Err(Error::System { call: "mmap", .. })),
            "{second:?}"
        );
        let reader = Segment::<Word>::map(other, 4096, Access::Read).unwrap();
        first.layout().0.store(7, Ordering::Release);
        assert_eq!(reader.layout().0.load(Ordering::Relaxed), 7);
        assert!(rustix::fs::ftruncate(first.fd(), 0).is_err());
        verify(first.fd(), 4096).unwrap();
        assert!(verify(first.fd(), 8192).is_err());
    }

    #[test]
    fn a_range_outside_the_mapping_is_refused() {
        let segment =
            Segment::<Word>::map(create("test", 4096).unwrap(), 4096, Access::Write).unwrap();
        assert!(segment.range(4000, 96).is_some());
        assert!(segment.range(4000, 97).is_none());
        assert!(segment.range(u64::MAX, 2).is_none());
    }
}
