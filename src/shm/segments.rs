//! The segments of one engine and one lane as each side holds them: the host's ends and the
//! worker's end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::shm::layout::{
    Down, INLINE_RESULT, Inputs, LAYOUT_VERSION, MAGIC, PAYLOADS_OFFSET, RELEASES, RESULTS_OFFSET,
    Up,
};
use crate::shm::ring::Message;
use crate::sys::hugepages::HugePages;
use crate::sys::kill_point::kill_point;
use crate::sys::memfd::{self, Access, Segment};
use crate::sys::numa;
use crate::sys::process::page_size;
use crate::sys::sync::{AtomicU64, Mutex, Ordering, load_acquire, lock};
use crate::sys::view::View;

/// The host's end of `inputs`: the only one that writes it.
#[derive(Debug)]
pub(crate) struct HostInputs {
    segment: Segment<Inputs>,
    size: u64,
    huge_pages: Option<Arc<HugePages>>,
}

impl HostInputs {
    /// Creates, maps and seals a segment with room for `arena` bytes of payloads, none of which is
    /// allocated yet.
    pub(crate) fn create(arena: u64) -> Result<Self> {
        let size = PAYLOADS_OFFSET + arena;
        let fd = memfd::create("miniflow-inputs", size)?;
        memfd::commit(fd.as_fd(), 0, PAYLOADS_OFFSET)?;
        let segment = Segment::map(fd, size, Access::Write)?;
        memfd::seal_writers(segment.fd())?;
        Ok(Self {
            segment,
            size,
            huge_pages: None,
        })
    }

    /// Lets the arena lie in huge pages, where the kernel agrees.
    pub(crate) fn with_huge_pages(mut self, pages: Option<Arc<HugePages>>) -> Self {
        if let Some(pages) = &pages {
            pages.advise(&self.segment);
        }
        self.huge_pages = pages;
        self
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.segment.fd()
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    #[inline]
    pub(crate) fn layout(&self) -> &Inputs {
        self.segment.layout()
    }

    /// Allocates the pages behind a range of the arena.
    pub(crate) fn commit(&self, range: &std::ops::Range<u64>) -> Result<()> {
        let len = range.end - range.start;
        memfd::commit(self.segment.fd(), PAYLOADS_OFFSET + range.start, len)?;
        if let Some(pages) = &self.huge_pages {
            let place = PAYLOADS_OFFSET + range.start..PAYLOADS_OFFSET + range.end;
            pages.gather(&self.segment, &place);
        }
        Ok(())
    }

    /// Address of a block of the arena, for its one owner to write.
    pub(crate) fn block(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        self.segment
            .range(PAYLOADS_OFFSET.checked_add(offset)?, len)
    }
}

/// What is the same for every lane of an engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneShape {
    pub(crate) clock_scale: u64,
    pub(crate) inputs_size: u64,
    pub(crate) result_arena: u64,
    pub(crate) max_result: u64,
    pub(crate) inline_result: u32,
    pub(crate) host_pid: u32,
    pub(crate) spin_ns: u64,
    pub(crate) reply_wait_ns: u64,
}

/// Who works on a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneIdentity {
    pub(crate) worker: u32,
    pub(crate) incarnation: u64,
    pub(crate) threads: u32,
    pub(crate) class: u32,
}

/// The host's end of one lane: writes `down`, reads `up`.
#[derive(Debug)]
pub(crate) struct HostLane {
    down: Segment<Down>,
    up: Segment<Up>,
    up_size: u64,
    /// Bytes of the result arena that are allocated: the host's own number, against which what
    /// the worker says is checked. Grows only.
    committed: AtomicU64,
    max_result: u64,
    /// Result blocks that completions read in place.
    held: AtomicU64,
    /// Held while a block is given back: any thread of the host may drop a completion.
    releasing: Mutex<()>,
    huge_pages: Option<Arc<HugePages>>,
}

impl HostLane {
    /// Creates both segments of a new incarnation.
    pub(crate) fn create(shape: &LaneShape, who: LaneIdentity) -> Result<Self> {
        let down_size = size_of::<Down>() as u64;
        let fd = memfd::create("miniflow-down", down_size)?;
        memfd::commit(fd.as_fd(), 0, down_size)?;
        let down = Segment::<Down>::map(fd, down_size, Access::Write)?;

        let up_size = RESULTS_OFFSET + shape.result_arena;
        let fd = memfd::create("miniflow-up", up_size)?;
        memfd::commit(fd.as_fd(), 0, RESULTS_OFFSET)?;
        let up = Segment::<Up>::map(fd, up_size, Access::Read)?;

        let c = &down.layout().constants;
        // Relaxed: the worker is created after these stores, by a system call.
        c.layout_version.store(LAYOUT_VERSION, Ordering::Relaxed);
        c.worker.store(who.worker, Ordering::Relaxed);
        c.incarnation.store(who.incarnation, Ordering::Relaxed);
        c.threads.store(who.threads, Ordering::Relaxed);
        c.class.store(who.class, Ordering::Relaxed);
        c.clock_scale.store(shape.clock_scale, Ordering::Relaxed);
        c.inputs_size.store(shape.inputs_size, Ordering::Relaxed);
        c.up_size.store(up_size, Ordering::Relaxed);
        c.max_result.store(shape.max_result, Ordering::Relaxed);
        c.inline_result
            .store(shape.inline_result, Ordering::Relaxed);
        c.host_pid.store(shape.host_pid, Ordering::Relaxed);
        c.spin_ns.store(shape.spin_ns, Ordering::Relaxed);
        c.reply_wait_ns
            .store(shape.reply_wait_ns, Ordering::Relaxed);
        c.magic.store(MAGIC, Ordering::Relaxed);
        memfd::seal_writers(down.fd())?;
        Ok(Self {
            down,
            up,
            up_size,
            committed: AtomicU64::new(0),
            max_result: shape.max_result,
            held: AtomicU64::new(0),
            releasing: Mutex::new(()),
            huge_pages: None,
        })
    }

    /// Lets the result arena lie in huge pages, where the kernel agrees.
    pub(crate) fn with_huge_pages(mut self, pages: Option<Arc<HugePages>>) -> Self {
        if let Some(pages) = &pages {
            pages.advise(&self.up);
        }
        self.huge_pages = pages;
        self
    }

    /// Has the memory of the results come from a NUMA node, whoever allocates it, if there is room.
    pub(crate) fn prefer_node(&self, node: u32) -> Result<(), Errno> {
        match self.up.range(0, self.up.len()) {
            Some(all) => numa::prefer_for(all.as_ptr(), self.up.len(), node),
            None => Ok(()),
        }
    }

    #[inline]
    pub(crate) fn down(&self) -> &Down {
        self.down.layout()
    }

    #[inline]
    pub(crate) fn up(&self) -> &Up {
        self.up.layout()
    }

    pub(crate) fn fds(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.down.fd(), self.up.fd())
    }

    /// After the worker has mapped its segment: no writable mapping can follow.
    pub(crate) fn seal(&self) -> Result<()> {
        memfd::seal_writers(self.up.fd())?;
        memfd::verify(self.up.fd(), self.up_size)?;
        // Until now the worker could punch holes.
        memfd::commit(self.up.fd(), 0, RESULTS_OFFSET)
    }

    /// Size of the result arena, allocated or not.
    pub(crate) fn result_capacity(&self) -> u64 {
        self.up_size - RESULTS_OFFSET
    }

    /// Allocates the result arena up to at least `end` (clamped to its size) and tells the worker.
    /// False if it is that large already or cannot grow.
    pub(crate) fn grow_results(&self, end: u64) -> Result<bool> {
        let capacity = self.result_capacity();
        // Relaxed: only written here, under the engine's lock.
        let now = self.committed.load(Ordering::Relaxed);
        let end = end.min(capacity);
        if end <= now {
            return Ok(false);
        }
        memfd::commit(self.up.fd(), RESULTS_OFFSET + now, end - now)?;
        if let Some(pages) = &self.huge_pages {
            pages.gather(&self.up, &(RESULTS_OFFSET + now..RESULTS_OFFSET + end));
        }
        self.committed.store(end, Ordering::Relaxed); // Relaxed: as above.
        // Release: pairs with the acquire load in `WorkerLane::committed`.
        self.down().committed.0.store(end, Ordering::Release);
        Ok(true)
    }

    /// The result bytes that a worker says lie at `offset`: inside what is allocated, or `None`.
    pub(crate) fn result(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // Relaxed: a grow-only number; a completion can only point into what its worker was told.
        if end > self.committed.load(Ordering::Relaxed)
            || len > self.max_result
            || !offset.is_multiple_of(8)
        {
            return None;
        }
        self.up.range(RESULTS_OFFSET + offset, len)
    }

    /// Copies result bytes out. `None` if they do not lie where a worker may write, or if there is no
    /// memory for the copy.
    pub(crate) fn copy_result(&self, offset: u64, len: u64) -> Option<Box<[u8]>> {
        self.result(offset, len)?;
        let len = usize::try_from(len).ok()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        self.read_result(offset, &mut bytes)?;
        Some(bytes.into_boxed_slice())
    }

    /// Fills `buffer` with result bytes from `offset` on (any alignment), each word read once.
    /// `None`, and the buffer as it was, if they do not lie in the mapping.
    pub(crate) fn read_result(&self, offset: u64, buffer: &mut [u8]) -> Option<()> {
        let aligned = offset & !7;
        let mut skip = usize::from(offset.to_le_bytes()[0] & 7);
        let span = (skip + buffer.len()).next_multiple_of(8);
        let start = self.up.range(RESULTS_OFFSET + aligned, span as u64)?;
        let start = start.cast::<AtomicU64>();
        let mut rest = buffer;
        for index in 0..span / 8 {
            // SAFETY: the words from `start` on lie in the mapping (checked above).
            let word = unsafe { start.add(index) };
            // SAFETY: inside the mapping, a multiple of 8 bytes from a page boundary, an atomic,
            // and the mapping lives as long as `self`.
            let word = unsafe { word.as_ref() };
            // Relaxed: a worker that writes after publication harms only what it said itself.
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            let bytes = &bytes[skip..];
            skip = 0;
            let take = bytes.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(take);
            head.copy_from_slice(&bytes[..take]);
            rest = tail;
        }
        Some(())
    }

    /// Notes that a completion reads a block in place, until [`HostLane::release_held`]. False if
    /// more blocks are out than an honest worker has.
    pub(crate) fn hold(&self) -> bool {
        // Relaxed: goes up under the engine's lock only, and a worker that uses a block again has
        // seen its release, which comes after the count went down.
        if self.held.load(Ordering::Relaxed) >= RELEASES as u64 {
            return false;
        }
        self.held.fetch_add(1, Ordering::Relaxed); // Relaxed: as above.
        true
    }

    /// Gives a block back that was held.
    pub(crate) fn release_held(&self, offset: u64) {
        self.held.fetch_sub(1, Ordering::Relaxed); // Relaxed: see `hold`.
        self.release(offset);
    }

    /// Makes `down` as it was when it was new, for a harness that uses lanes again. (An engine never
    /// does: a dead worker's children may still write.)
    #[cfg(any(test, fuzzing))]
    pub(crate) fn renew(&self) {
        let words = all_words(&self.down, size_of::<Down>() as u64);
        let constants = size_of::<crate::shm::layout::LaneConstants>() / 8;
        for word in &words[constants..] {
            word.store(0, Ordering::Relaxed); // Relaxed: nobody else has the lane.
        }
        let committed = self.committed.load(Ordering::Relaxed); // Relaxed: as above.
        self.down().committed.0.store(committed, Ordering::Relaxed); // Relaxed: as above.
    }

    /// Gives a result block back to the worker. At most [`RELEASES`] blocks are held at a time, so
    /// the worker has read the entry that is overwritten.
    pub(crate) fn release(&self, offset: u64) {
        if self.down.is_childs_copy() {
            return;
        }
        let down = self.down();
        let _guard = lock(&self.releasing);
        // Relaxed: only written here, under the lock.
        let tail = down.released_tail.0.load(Ordering::Relaxed);
        let cell = &down.released[release_index(tail)];
        cell.store(offset, Ordering::Relaxed); // Relaxed: published by the tail.
        // Release: pairs with the acquire load in `WorkerLane::released`; also orders our reads
        // of the block before the worker's reuse of it.
        down.released_tail.0.store(tail + 1, Ordering::Release);
    }
}

/// The descriptors that a worker inherits.
#[derive(Debug)]
pub(crate) struct LaneFds {
    pub(crate) inputs: OwnedFd,
    pub(crate) down: OwnedFd,
    pub(crate) up: OwnedFd,
}

/// The worker's end of its lane: reads `inputs` and `down`, writes `up`.
#[derive(Debug)]
pub(crate) struct WorkerLane {
    inputs: Segment<Inputs>,
    down: Segment<Down>,
    up: Segment<Up>,
    #[cfg(any(test, fuzzing))]
    up_size: u64,
}

impl WorkerLane {
    /// Maps what the host has prepared.
    pub(crate) fn map(fds: LaneFds) -> Result<Self> {
        let down_size = size_of::<Down>() as u64;
        kill_point!("open.before-down");
        memfd::verify(fds.down.as_fd(), down_size)?;
        let down = Segment::<Down>::map(fds.down, down_size, Access::Read)?;
        kill_point!("open.after-down");
        let c = &down.layout().constants;
        // Relaxed: written before this process existed.
        if c.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Error::invalid(
                "the inherited segment is not a miniflow lane",
            ));
        }
        let version = c.layout_version.load(Ordering::Relaxed);
        if version != LAYOUT_VERSION {
            return Err(Error::Unsupported(format!(
                "the host has layout version {version}, this worker {LAYOUT_VERSION}: use the \
                 same libminiflow on both sides"
            )));
        }
        let inputs_size = c.inputs_size.load(Ordering::Relaxed);
        let up_size = c.up_size.load(Ordering::Relaxed);
        memfd::verify(fds.inputs.as_fd(), inputs_size)?;
        memfd::verify(fds.up.as_fd(), up_size)?;
        kill_point!("open.before-up");
        Ok(Self {
            inputs: Segment::map(fds.inputs, inputs_size, Access::Read)?,
            up: Segment::map(fds.up, up_size, Access::Write)?,
            down,
            #[cfg(any(test, fuzzing))]
            up_size,
        })
    }

    /// Whether this is a forked child's copy, without mappings.
    pub(crate) fn is_childs_copy(&self) -> bool {
        self.up.is_childs_copy()
    }

    #[inline]
    pub(crate) fn inputs(&self) -> &Inputs {
        self.inputs.layout()
    }

    #[inline]
    pub(crate) fn down(&self) -> &Down {
        self.down.layout()
    }

    #[inline]
    pub(crate) fn up(&self) -> &Up {
        self.up.layout()
    }

    /// Every word of the worker's segment, for a test double that writes what no worker should.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        all_words(&self.up, self.up_size)
    }

    /// A task's payload where it lies in the arena.
    #[inline]
    pub(crate) fn payload(&self, message: &Message) -> &[u8] {
        let len = message.meta.len() as usize;
        let offset = PAYLOADS_OFFSET.saturating_add(message.payload[0]);
        match self.inputs.range(offset, len as u64) {
            // SAFETY: inside the mapping (checked by `range`). The host, which this side trusts,
            // does not write a payload while its task is outstanding, so the bytes do not change
            // while the reference lives: it is bound to the task in hand by its callers.
            Some(start) => unsafe { std::slice::from_raw_parts(start.as_ptr(), len) },
            None => &[],
        }
    }

    /// A view of a task's payload that outlives the task.
    pub(crate) fn payload_view(&self, message: &Message) -> Result<View> {
        let payload = self.payload(message);
        if payload.len() < page_size() {
            return Ok(View::copy(payload));
        }
        let offset = PAYLOADS_OFFSET + message.payload[0]; // `payload` found bytes there
        let map = self.inputs.map_range(offset, payload.len())?;
        Ok(View::pages(map))
    }

    /// A block of the result arena, for its one owner to write.
    ///
    /// The caller owns the block: it got it from the arena's allocator and has neither published
    /// nor freed it.
    #[expect(
        clippy::mut_from_ref,
        reason = "the block's ownership is the allocator's to give"
    )]
    pub(crate) fn result_mut(&self, offset: u64, len: usize) -> Result<&mut [u8]> {
        let start = RESULTS_OFFSET
            .checked_add(offset)
            .and_then(|offset| self.up.range(offset, len as u64))
            .ok_or_else(|| Error::Internal("a result block lies outside its arena".into()))?;
        // SAFETY: inside the mapping (checked above), bytes of any value, written by this process
        // only, and within it by the block's one owner only: the allocator gives a block out once.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) })
    }

    /// Bytes of the result arena that may be used.
    pub(crate) fn committed(&self) -> u64 {
        // Acquire: pairs with the Release store in `HostLane::grow_results`.
        load_acquire(&self.down().committed.0)
    }

    /// The next block that the host has given back, counting from `head`.
    pub(crate) fn released(&self, head: u64) -> Option<u64> {
        // Acquire: pairs with the Release store in `HostLane::release`.
        if load_acquire(&self.down().released_tail.0) == head {
            return None;
        }
        let cell = &self.down().released[release_index(head)];
        Some(cell.load(Ordering::Relaxed)) // Relaxed: ordered after the load of the tail.
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a remainder of RELEASES")]
fn release_index(position: u64) -> usize {
    (position % RELEASES as u64) as usize
}

/// Every word of a segment of `size` bytes.
#[cfg(any(test, fuzzing))]
fn all_words<T: memfd::SharedLayout>(segment: &Segment<T>, size: u64) -> &[AtomicU64] {
    let start = segment.range(0, size).map(NonNull::cast::<AtomicU64>);
    let count = start.map_or(0, |_| usize::try_from(size / 8).unwrap_or(0));
    let start = start.unwrap_or(NonNull::dangling());
    // SAFETY: inside the mapping (checked above), which begins at a page boundary and lives as long
    // as the segment; atomics are valid for every bit pattern.
    unsafe { std::slice::from_raw_parts(start.as_ptr(), count) }
}

/// The words of a short payload or result as bytes, in memory order.
#[inline]
pub(crate) fn words_as_bytes<const N: usize>(words: &[u64; N]) -> &[u8] {
    // SAFETY: `N` words are `8 * N` initialised bytes, and `u8` has no alignment.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), N * 8) }
}

/// [`words_as_bytes`] for writing.
#[inline]
pub(crate) fn words_as_bytes_mut<const N: usize>(words: &mut [u64; N]) -> &mut [u8] {
    // SAFETY: as in `words_as_bytes`; every byte pattern is a valid word, and the borrow is
    // exclusive.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), N * 8) }
}

const _: () = assert!(INLINE_RESULT <= u32::MAX as usize);
