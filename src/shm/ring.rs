//! The descriptor ring: the host publishes task descriptors, the threads of one worker claim them.
//!
//! The descriptors and the tail live in the host's segment, the head (the *consumed index*) in the
//! worker's, so that each page has one writer.
//!
//! * A descriptor at position `p` carries `seq = p + 1`. A consumer that spins reads only that
//!   word: one cache line moves per task. The tail is read only by a consumer that wants to sleep
//!   (see [`super::doorbell`]).
//! * The ring has no "full" state of its own. Positions are claimed in order, so if position `p` is
//!   unclaimed, every later one is unclaimed too; as each position up to the tail belongs to a
//!   distinct outstanding task and at most [`CREDITS`] tasks are outstanding on a lane, the
//!   producer never reaches a position whose predecessor in the same cell is unclaimed.
//! * A claim is a CAS on the head *after* the descriptor was copied out. Whoever loses the race
//!   throws its copy away; a consumer killed before the CAS has done nothing, one killed after it
//!   has claimed a task that it never marks as started (see [`super::slot`]).

use crate::shm::layout::{CREDITS, Line, PAYLOAD_WORDS};
use crate::sys::kill_point::kill_point;
use crate::sys::prefetch;
use crate::sys::sync::{AtomicU64, Ordering, load_acquire};

const MASK: u64 = CREDITS as u64 - 1;
/// How many cells ahead the producer takes back from the consumer's cache.
const AHEAD: u64 = 8;

/// One cell of the ring. Written by the host only.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// Position + 1 once the other words are valid for that position.
    seq: AtomicU64,
    ticket: AtomicU64,
    meta: AtomicU64,
    payload: [AtomicU64; PAYLOAD_WORDS],
}

/// A task descriptor, as a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Message {
    /// New for every dispatch, never reused, never 0.
    pub(crate) ticket: u64,
    pub(crate) meta: Meta,
    /// The payload itself if it is short, else where it lies (word 0) in the `inputs` arena.
    pub(crate) payload: [u64; PAYLOAD_WORDS],
}

/// Slot, attempt, length and kind of a descriptor, packed into one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Meta(pub(crate) u64);

impl Meta {
    const IN_ARENA: u64 = 1 << 12;

    pub(crate) fn new(slot: u16, attempt: u16, len: u32, in_arena: bool) -> Self {
        debug_assert!(usize::from(slot) < CREDITS);
        let kind = if in_arena { Self::IN_ARENA } else { 0 };
        Self(u64::from(slot) | kind | u64::from(attempt) << 16 | u64::from(len) << 32)
    }

    pub(crate) fn slot(self) -> usize {
        (self.0 & 0xfff) as usize
    }

    pub(crate) fn in_arena(self) -> bool {
        self.0 & Self::IN_ARENA != 0
    }

    pub(crate) fn attempt(self) -> u32 {
        ((self.0 >> 16) & 0xffff) as u32
    }

    pub(crate) fn len(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The cells, in the host's segment.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Ring {
    cells: [Descriptor; CREDITS],
}

/// The consumed index, in the worker's segment: positions below it are claimed.
pub(crate) type Head = Line<AtomicU64>;

/// The host's private end of a ring.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    tail: u64,
}

impl Producer {
    /// Writes the next descriptor. Spinning consumers see it at once, sleeping ones only after
    /// [`super::doorbell::Producer::ring`] with [`Producer::tail`].
    ///
    /// The caller holds a credit for the task (at most [`CREDITS`] outstanding): see the module.
    #[inline]
    pub(crate) fn push(&mut self, ring: &Ring, message: &Message) {
        let cell = &ring.cells[index(self.tail)];
        // Relaxed: published by the Release store of `seq` below.
        cell.ticket.store(message.ticket, Ordering::Relaxed);
        cell.meta.store(message.meta.0, Ordering::Relaxed);
        for (word, value) in cell.payload.iter().zip(message.payload) {
            word.store(value, Ordering::Relaxed);
        }
        self.tail += 1;
        prefetch::write(&ring.cells[index(self.tail + AHEAD)]);
        // Release: pairs with the acquire load of `seq` in `pop`; publishes the words above and
        // whatever else the host wrote for this task (payload block, task information).
        cell.seq.store(self.tail, Ordering::Release);
    }

    /// Descriptors published so far.
    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        self.tail
    }
}

/// Claims the oldest unclaimed descriptor. Any thread of the worker may call this.
#[inline]
pub(crate) fn pop(ring: &Ring, head: &Head) -> Option<Message> {
    // Relaxed: only where to look; the CAS below decides.
    let mut at = head.0.load(Ordering::Relaxed);
    loop {
        let cell = &ring.cells[index(at)];
        // Acquire: pairs with the Release store of `seq` in `push`.
        if load_acquire(&cell.seq) != at + 1 {
            // Empty, or another thread has claimed `at` and the host has reused the cell.
            let now = head.0.load(Ordering::Relaxed); // Relaxed: as above.
            if now == at {
                return None;
            }
            at = now;
            continue;
        }
        // Relaxed: ordered after the load of `seq`. If the host overwrites the cell meanwhile,
        // then another thread has claimed `at`, and the CAS below fails.
        let message = Message {
            ticket: cell.ticket.load(Ordering::Relaxed),
            meta: Meta(cell.meta.load(Ordering::Relaxed)),
            payload: std::array::from_fn(|i| cell.payload[i].load(Ordering::Relaxed)),
        };
        kill_point!("claim.before");
        // AcqRel on success: the host overwrites the cell once it has seen completions of *later*
        // positions, although this one is still out. So our loads above must happen before
        // whatever the threads that claim those do: Release pairs with the Acquire half of their
        // CAS, and the done word takes it on to the host. (Loads may pass a relaxed CAS on
        // AArch64; on x86 it is the same instruction.)
        match head
            .0
            .compare_exchange(at, at + 1, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => {
                kill_point!("claim.after");
                return Some(message);
            }
            Err(now) => at = now,
        }
    }
}

/// The slot of the task after next, if there are that many; only a hint, for prefetching. Looks at
/// the second cell only if the first is filled, so as not to take a cell from a producer that is
/// just about to write it.
#[inline]
pub(crate) fn peek_slot(ring: &Ring, head: &Head) -> Option<usize> {
    let at = head.0.load(Ordering::Relaxed); // Relaxed, here and below: a hint.
    if ring.cells[index(at)].seq.load(Ordering::Relaxed) != at + 1 {
        return None;
    }
    let cell = &ring.cells[index(at + 1)];
    if cell.seq.load(Ordering::Relaxed) != at + 2 {
        return None;
    }
    Some(Meta(cell.meta.load(Ordering::Relaxed)).slot())
}

/// Whether [`pop`] would find something; only a hint.
#[inline]
pub(crate) fn has_work(ring: &Ring, head: &Head) -> bool {
    let at = head.0.load(Ordering::Relaxed); // Relaxed: a hint.
    ring.cells[index(at)].seq.load(Ordering::Relaxed) == at + 1 // Relaxed: `pop` looks again.
}

#[inline]
fn index(position: u64) -> usize {
    (position & MASK) as usize
}

#[cfg(loom)]
impl Ring {
    pub(crate) fn new() -> Self {
        Self {
            cells: std::array::from_fn(|_| Descriptor {
                seq: AtomicU64::new(0),
                ticket: AtomicU64::new(0),
                meta: AtomicU64::new(0),
                payload: std::array::from_fn(|_| AtomicU64::new(0)),
            }),
        }
    }
}

#[cfg(all(test, loom))]
mod model;
