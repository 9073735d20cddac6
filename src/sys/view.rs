//! Memory of a payload that outlives its task: a mapping of its own, or a copy.

use std::fmt;
use std::ptr::{self, NonNull};

use memmap2::{MmapOptions, MmapRaw};
use rustix::mm::{MremapFlags, mremap_fixed};

use crate::error::{Error, Result};
use crate::sys::process::page_size;
use crate::sys::sync::{Mutex, lock};

/// Bytes that can be read at the same address until this is dropped, in this process and in children
/// that it forks meanwhile.
///
/// They are the payload as long as its task is in hand. Afterwards the host puts other payloads
/// there, unless the view was detached before, or is a copy.
pub(crate) struct View {
    memory: Memory,
    /// Nobody else writes the memory. Locked while that is brought about.
    private: Mutex<bool>,
}

enum Memory {
    /// Shorter than a page, for which a mapping would cost more than the copy.
    Copy {
        lines: Box<[Line]>,
        len: usize,
    },
    Pages(MmapRaw),
}

/// A copy is aligned as a payload in the arena is, and more.
#[derive(Clone, Copy)]
#[repr(align(256))]
struct Line([u8; 256]);

impl View {
    /// A view of a copy.
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        let mut lines = vec![Line([0; 256]); bytes.len().div_ceil(256)].into_boxed_slice();
        for (line, part) in lines.iter_mut().zip(bytes.chunks(256)) {
            line.0[..part.len()].copy_from_slice(part);
        }
        Self {
            memory: Memory::Copy {
                lines,
                len: bytes.len(),
            },
            private: Mutex::new(true),
        }
    }

    /// A view of pages that are mapped for it alone.
    pub(crate) fn pages(map: MmapRaw) -> Self {
        Self {
            memory: Memory::Pages(map),
            private: Mutex::new(false),
        }
    }

    /// Where the bytes are. (No slice: they may change.)
    pub(crate) fn start(&self) -> NonNull<u8> {
        match &self.memory {
            Memory::Copy { lines, .. } => NonNull::from(&**lines).cast(),
            Memory::Pages(map) => NonNull::new(map.as_mut_ptr()).unwrap_or(NonNull::dangling()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.memory {
            Memory::Copy { len, .. } => *len,
            Memory::Pages(map) => map.len(),
        }
    }

    /// Makes the bytes this process's own, as they are now, without moving them: other threads may
    /// read them meanwhile. After an error nothing has changed.
    pub(crate) fn detach(&self) -> Result<()> {
        let mut private = lock(&self.private);
        if let Memory::Pages(map) = &self.memory
            && !*private
        {
            replace(map)?;
            *private = true;
        }
        Ok(())
    }
}

/// Puts a private, read-only copy in the place of mapped pages.
fn replace(map: &MmapRaw) -> Result<()> {
    let (page, len) = (page_size(), map.len());
    let skip = map.as_ptr().addr() % page;
    let span = (skip + len).next_multiple_of(page);
    let failed = |call, e| {
        let what = format!("cannot detach a view of {len} bytes");
        Error::system(call, what, e)
    };
    let mut copy = MmapOptions::new()
        .len(span)
        .map_anon()
        .map_err(|e| failed("mmap", e))?;
    // SAFETY: the mapping has `len` bytes from there on, the copy `skip + len`, and they are apart.
    // The bytes are a payload, which is not written while its task is in hand; if a caller comes
    // too late, other bytes are copied, through no reference that says they do not change.
    unsafe { ptr::copy_nonoverlapping(map.as_ptr(), copy[skip..].as_mut_ptr(), len) };
    let copy = copy.make_read_only().map_err(|e| failed("mprotect", e))?;
    let (from, to) = (copy.as_ptr(), map.as_ptr().wrapping_sub(skip));
    // SAFETY: `from` is a whole mapping of ours, and `to` begins the pages of another, which are
    // only read. To their readers the kernel does this in one step: who meets a page that is not
    // there waits for its lock on the address space, with which it exchanges them. (It checks what it
    // can before it takes the old pages away: after that only an allocation of its own can fail.)
    unsafe {
        mremap_fixed(
            from.cast_mut().cast(),
            span,
            span,
            MremapFlags::MAYMOVE,
            to.cast_mut().cast(),
        )
    }
    .map_err(|e| failed("mremap", e.into()))?;
    #[expect(clippy::mem_forget, reason = "its pages have moved; `map` unmaps them")]
    std::mem::forget(copy);
    Ok(())
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;
    use crate::sys::fork::{Fork, exit, fork};
    use crate::sys::memfd::{self, Access, Segment, SharedLayout};
    use crate::sys::process::{Exit, Process};

    const SIZE: u64 = 1 << 20;
    /// Not at the start of a page, nor are its ends.
    const OFFSET: u64 = 4096 + 256;
    const LEN: usize = 300_001;

    #[repr(C)]
    struct Byte(crate::sys::sync::AtomicU32);
    // SAFETY: one atomic.
    unsafe impl SharedLayout for Byte {}

    /// A sealed segment as an engine has it, the host's end and a worker's, which cannot write.
    fn segment(name: &str) -> (Segment<Byte>, Segment<Byte>) {
        let fd = memfd::create(name, SIZE).unwrap();
        memfd::commit(fd.as_fd(), 0, SIZE).unwrap();
        let other = fd.try_clone().unwrap();
        let host = Segment::map(fd, SIZE, Access::Write).unwrap();
        memfd::seal_writers(host.fd()).unwrap();
        (host, Segment::map(other, SIZE, Access::Read).unwrap())
    }

    fn view(worker: &Segment<Byte>) -> View {
        View::pages(worker.map_range(OFFSET, LEN).unwrap())
    }

    fn fill(host: &Segment<Byte>, byte: u8) {
        let start = host.range(OFFSET, LEN as u64).unwrap();
        // SAFETY: inside the mapping, which only this test writes.
        unsafe { start.write_bytes(byte, LEN) };
    }

    fn at(view: &View, index: usize) -> u8 {
        assert!(index < view.len());
        let place = view.start().as_ptr().wrapping_add(index);
        // SAFETY: inside the view; volatile, as the bytes may change.
        unsafe { place.read_volatile() }
    }

    /// Whether all of them are this byte.
    fn is_all(view: &View, byte: u8) -> bool {
        (0..view.len()).all(|index| at(view, index) == byte)
    }

    /// The permissions of the mappings of the segment with this name, in alphabetical order.
    fn mappings(name: &str) -> Vec<String> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let lines = maps.lines().filter(|line| line.contains(name));
        let mut found: Vec<_> = lines
            .map(|line| line.split(' ').nth(1).unwrap().to_owned())
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_view_outlives_the_mapping_beside_it_and_cannot_be_written() {
        let (host, worker) = segment("view-outlives");
        let view = view(&worker);
        drop(worker);
        assert_eq!(view.start().addr().get() % 4096, 256);
        for value in [1, 2] {
            fill(&host, value);
            assert!(is_all(&view, value));
        }
        assert_eq!(mappings("view-outlives"), ["r--s", "rw-s"]);
        let page = view.start().as_ptr().wrapping_sub(256);
        // SAFETY: allowing more does no harm.
        let writable =
            unsafe { rustix::mm::mprotect(page.cast(), 4096, rustix::mm::MprotectFlags::WRITE) };
        assert_eq!(writable, Err(rustix::io::Errno::ACCESS));
        drop(view);
        assert_eq!(mappings("view-outlives"), ["rw-s"]);
    }

    #[test]
    fn a_detached_view_keeps_its_bytes_and_its_address() {
        let (host, worker) = segment("view-detached");
        let view = view(&worker);
        fill(&host, 3);
        let start = view.start();
        for _ in 0..2 {
            view.detach().unwrap(); // once more changes nothing
            assert_eq!((view.start(), view.len()), (start, LEN));
            fill(&host, 4);
            assert!(is_all(&view, 3));
        }
        drop(worker);
        drop(host);
        assert!(mappings("view-detached").is_empty());
        assert!(is_all(&view, 3));
    }

    #[test]
    fn readers_notice_nothing_of_a_detachment() {
        let (host, worker) = segment("view-readers");
        fill(&host, 5);
        let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        for _ in 0..10 {
            let view = view(&worker);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !stop.load(Relaxed) {
                            assert!(is_all(&view, 5));
                            reads.fetch_add(1, Relaxed);
                        }
                    });
                }
                let read_more = |more| {
                    let now = reads.load(Relaxed);
                    while reads.load(Relaxed) < now + more {
                        std::thread::yield_now();
                    }
                };
                read_more(1);
                view.detach().unwrap();
                read_more(2);
                stop.store(true, Relaxed);
            });
            stop.store(false, Relaxed);
        }
    }

    #[test]
    fn a_forked_child_can_read_a_view() {
        let (host, worker) = segment("view-forked");
        let (shared, detached) = (view(&worker), view(&worker));
        fill(&host, 6);
        detached.detach().unwrap();
        fill(&host, 7);
        // SAFETY: the child reads bytes one by one and exits.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                exit(i32::from(!is_all(&shared, 7) || !is_all(&detached, 6)));
            }
            Fork::Parent(pid) => {
                let child = Process::of_child(pid).unwrap();
                assert!(child.wait_end(Duration::from_secs(10)));
                assert_eq!(child.reap(), Exit::Code(0));
            }
        }
    }

    #[test]
    fn a_short_view_is_an_aligned_copy() {
        for len in [0, 1, 255, 256, 257, 4095] {
            let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
            let view = View::copy(&bytes);
            view.detach().unwrap();
            assert_eq!((view.len(), view.start().addr().get() % 256), (len, 0));
            // SAFETY: a copy does not change.
            let copy = unsafe { std::slice::from_raw_parts(view.start().as_ptr(), len) };
            assert_eq!(copy, bytes);
        }
    }
}
