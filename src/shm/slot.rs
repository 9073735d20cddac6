//! Task slots and the done bitmap: how a worker says what it started and what it finished.
//!
//! A dispatch holds one *credit* of its lane, which is the index of one task slot. The slot tells
//! the whole story of the dispatch, by its ticket:
//!
//! * `ticket` holds it: the task was **started** (user code may have run).
//! * `done` holds it: the completion beside it is valid. This one Release store is the publication;
//!   there is nothing to claim and nothing that a killed thread can leave half published.
//! * neither: the task was never started, and may go to another worker.
//!
//! The *done bitmap* only tells the host where to look, so that it need not read every slot: a
//! finished task flips the bit of its slot, and one `fetch_xor` publishes several.
//!
//! Each dispatch flips its bit exactly once, and a host that learned of a completion early (from
//! the done word) gives the slot out again only after it has seen the flip. So at most one flip
//! per slot is on its way at any time, and two can never cancel each other out.

use crate::shm::layout::{BITMAP_WORDS, CREDITS, RESULT_WORDS};
use crate::sys::kill_point::kill_point;
use crate::sys::prefetch;
use crate::sys::sync::{AtomicU64, Ordering, load_acquire};

/// One task slot. Written by the worker only.
///
/// The host may spin on `done`, so what a worker stores while a task runs lies on another line.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct TaskSlot {
    ticket: AtomicU64,
    start: AtomicU64,
    progress_done: AtomicU64,
    progress_total: AtomicU64,
    /// The kernel's id of the thread that started the task: for the crash report.
    thread: AtomicU64,
    finished: Finished,
}

/// The part of a task slot that a completion fills.
#[repr(C, align(64))]
#[derive(Debug)]
struct Finished {
    done: AtomicU64,
    kind_and_len: AtomicU64,
    code: AtomicU64,
    start: AtomicU64,
    end: AtomicU64,
    result: [AtomicU64; RESULT_WORDS],
}

/// How a dispatch ended, as the worker puts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The handler returned 0.
    Completed = 0,
    /// The handler failed; the result is UTF-8 text.
    Failed = 1,
    /// The cancel ticket was seen before the handler ran, or the handler says that it gave up.
    Cancelled = 4,
    /// The handler failed; the result is data of its own.
    FailedWithData = 5,
    /// Handed back by a recall: never started.
    Returned = 7,
}

impl Kind {
    fn from_wire(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Completed),
            1 => Some(Self::Failed),
            4 => Some(Self::Cancelled),
            5 => Some(Self::FailedWithData),
            7 => Some(Self::Returned),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::FailedWithData)
    }
}

/// The head of a completion. As read by the host, nothing in it has been validated except that
/// `kind` is known; length and times are the worker's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) kind: Kind,
    /// The result lies in the result arena, at the offset in word 0.
    pub(crate) in_arena: bool,
    pub(crate) len: u32,
    pub(crate) code: i32,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Ending {
    /// How many words of the slot's result are in use, if the length is honest.
    #[inline]
    pub(crate) fn words(&self) -> usize {
        if self.in_arena {
            1
        } else {
            (self.len as usize).div_ceil(8).min(RESULT_WORDS)
        }
    }
}

const IN_ARENA: u64 = 1 << 8;

impl TaskSlot {
    /// Worker: this dispatch is now started, by the thread with this id.
    #[inline]
    pub(crate) fn start(&self, ticket: u64, now: u64, thread: u64) {
        kill_point!("start.before-time");
        // Relaxed: published by the store of `ticket`.
        self.start.store(now, Ordering::Relaxed);
        self.thread.store(thread, Ordering::Relaxed);
        kill_point!("start.before-progress");
        self.progress_done.store(0, Ordering::Relaxed);
        kill_point!("start.mid-progress");
        self.progress_total.store(0, Ordering::Relaxed);
        kill_point!("start.before-ticket");
        // Release: pairs with the acquire load in `started`.
        self.ticket.store(ticket, Ordering::Release);
        kill_point!("start.after-ticket");
    }

    /// Worker, in a signal handler: the ticket of the dispatch that this thread started here and has
    /// not finished.
    pub(crate) fn in_hand_of(&self, thread: u64) -> Option<u64> {
        // Relaxed: what the very thread that asks has stored; any other is told apart by its id.
        if self.thread.load(Ordering::Relaxed) != thread {
            return None;
        }
        let ticket = self.ticket.load(Ordering::Relaxed);
        // Tickets only grow, so that of a finished dispatch is not above the done word, also when
        // a later one was handed back through this slot.
        (self.finished.done.load(Ordering::Relaxed) < ticket).then_some(ticket)
    }

    /// Worker: a task with this slot is about to start and to finish.
    ///
    /// The line of the start first. The host does not read it, but its processor may have fetched
    /// it along with its neighbours; and as stores leave in order, the completion would wait for
    /// it, and the host, which spins there, would take back the line of the completion meanwhile.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch::write(self);
        prefetch::write(&self.finished);
    }

    /// Worker: how far the task is.
    pub(crate) fn set_progress(&self, done: u64, total: u64) {
        kill_point!("progress.before-total");
        // Relaxed: each number stands for itself; a reader may see a new one beside an old one.
        self.progress_total.store(total, Ordering::Relaxed);
        kill_point!("progress.before-done");
        self.progress_done.store(done, Ordering::Relaxed);
        kill_point!("progress.after-done");
    }

    /// Worker: this dispatch is finished. `result` holds the bytes, or the arena offset in word 0.
    #[inline]
    pub(crate) fn finish(&self, ticket: u64, ending: &Ending, result: &[u64; RESULT_WORDS]) {
        let f = &self.finished;
        let place = if ending.in_arena { IN_ARENA } else { 0 };
        kill_point!("finish.before-kind");
        // Relaxed: published by the store of `done`.
        f.kind_and_len.store(
            ending.kind as u64 | place | u64::from(ending.len) << 32,
            Ordering::Relaxed,
        );
        kill_point!("finish.before-code");
        f.code
            .store(u64::from(ending.code.cast_unsigned()), Ordering::Relaxed);
        kill_point!("finish.before-start");
        f.start.store(ending.start, Ordering::Relaxed);
        kill_point!("finish.before-end");
        f.end.store(ending.end, Ordering::Relaxed);
        kill_point!("finish.before-result");
        for (word, value) in f.result.iter().zip(result).take(ending.words()) {
            word.store(*value, Ordering::Relaxed);
            kill_point!("finish.mid-result");
        }
        kill_point!("finish.before-done");
        // Release: pairs with the acquire load in `is_done`; publishes the fields above, the
        // bytes in the result arena, and that this worker is done with the payload.
        f.done.store(ticket, Ordering::Release);
        kill_point!("finish.after-done");
    }

    /// Host: whether the completion of this dispatch is there.
    #[inline]
    pub(crate) fn is_done(&self, ticket: u64) -> bool {
        // Acquire: pairs with the Release store in `finish`.
        load_acquire(&self.finished.done) == ticket
    }

    /// Host: the head of the completion, after [`TaskSlot::is_done`]; each field is read once.
    /// `None` if the worker wrote nonsense.
    #[inline]
    pub(crate) fn ending(&self) -> Option<Ending> {
        let f = &self.finished;
        // Relaxed: ordered after the acquire load of `done`.
        let head = f.kind_and_len.load(Ordering::Relaxed);
        Some(Ending {
            kind: Kind::from_wire(head & 0xff)?,
            in_arena: head & IN_ARENA != 0,
            len: (head >> 32) as u32,
            code: truncate(f.code.load(Ordering::Relaxed)).cast_signed(),
            start: f.start.load(Ordering::Relaxed),
            end: f.end.load(Ordering::Relaxed),
        })
    }

    /// Host: copies words of the result out, as many as `words` has room for.
    #[inline]
    pub(crate) fn read_result(&self, words: &mut [u64]) {
        for (value, word) in words.iter_mut().zip(&self.finished.result) {
            *value = word.load(Ordering::Relaxed); // Relaxed: as in `ending`.
        }
    }

    /// Host: when this dispatch was started, if it was.
    pub(crate) fn started(&self, ticket: u64) -> Option<u64> {
        // Acquire: pairs with the Release store in `start`.
        if load_acquire(&self.ticket) != ticket {
            return None;
        }
        let start = load_acquire(&self.start);
        // Relaxed: ordered after the acquire load of `start`. If the slot was started anew
        // meanwhile, the reading is of another dispatch.
        (self.ticket.load(Ordering::Relaxed) == ticket).then_some(start)
    }

    /// Host: the worker's last [`TaskSlot::set_progress`].
    pub(crate) fn progress(&self) -> (u64, u64) {
        // Relaxed: advice.
        let total = self.progress_total.load(Ordering::Relaxed);
        (self.progress_done.load(Ordering::Relaxed), total)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is meant"
)]
fn truncate(word: u64) -> u32 {
    word as u32
}

/// One bit per slot; written by the worker only (by all its threads).
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct DoneBitmap([AtomicU64; BITMAP_WORDS]);

/// The bits that one thread of a worker has not flipped yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    words: [u64; BITMAP_WORDS],
    count: u32,
}

impl Pending {
    /// Notes a finished dispatch; returns how many are noted.
    #[inline]
    pub(crate) fn add(&mut self, slot: usize) -> u32 {
        self.words[slot / 64] ^= 1 << (slot % 64);
        self.count += 1;
        self.count
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Flips what was noted.
    #[inline]
    pub(crate) fn flush(&mut self, bitmap: &DoneBitmap) {
        for (word, bits) in bitmap.0.iter().zip(&mut self.words) {
            if *bits != 0 {
                kill_point!("flush.before-flip");
                // Release: pairs with the acquire load in `Collector::scan`; whoever sees the bit
                // sees the done word. A read-modify-write, so that the Release of one thread
                // stays visible when another thread flips its own bits.
                word.fetch_xor(*bits, Ordering::Release);
                kill_point!("flush.after-flip");
                *bits = 0;
            }
        }
        self.count = 0;
    }
}

/// What the host knows of one credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credit {
    Free,
    /// Given out with this ticket; the completion has not been taken.
    Outstanding(u64),
    /// The completion was taken by its done word; the flip is still on its way.
    Taken,
}

/// The host's private end: which credits are out, and which flips were seen.
#[derive(Debug)]
pub(crate) struct Collector {
    credits: Box<[Credit]>,
    free: Vec<u16>,
    outstanding: u32,
    seen: [u64; BITMAP_WORDS],
    /// The slot at which the next scan begins: where the last one ran out of its budget. Slots
    /// that are reused at once would else be served before all others for ever.
    cursor: usize,
}

/// What a scan met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// Everything there was.
    Complete,
    /// As much as the budget allowed; scan again.
    Partial,
    /// A flip that no dispatch accounts for: the worker's memory cannot be trusted.
    Violation,
}

impl Collector {
    pub(crate) fn new() -> Self {
        Self {
            credits: vec![Credit::Free; CREDITS].into(),
            free: (0..CREDITS).rev().map(truncate_slot).collect(),
            outstanding: 0,
            seen: [0; BITMAP_WORDS],
            cursor: 0,
        }
    }

    /// Dispatches whose completion has not been taken.
    #[inline]
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Whether a credit can be given out; looks for the flips of early-taken ones if need be.
    #[inline]
    pub(crate) fn has_free(&mut self, bitmap: &DoneBitmap) -> bool {
        !self.free.is_empty() || self.reclaim(bitmap)
    }

    #[cold]
    fn reclaim(&mut self, bitmap: &DoneBitmap) -> bool {
        for (index, word) in bitmap.0.iter().enumerate() {
            // Relaxed: the completions behind these flips were read by their done words.
            let mut changed = word.load(Ordering::Relaxed) ^ self.seen[index];
            while changed != 0 {
                let bit = changed & changed.wrapping_neg();
                changed ^= bit;
                let slot = index * 64 + bit.trailing_zeros() as usize;
                if self.credits[slot] == Credit::Taken {
                    self.credits[slot] = Credit::Free;
                    self.free.push(truncate_slot(slot));
                    self.seen[index] ^= bit;
                }
            }
        }
        !self.free.is_empty()
    }

    /// Credits whose completion was taken early and whose flip is still missing.
    pub(crate) fn unflipped(&mut self, bitmap: &DoneBitmap) -> u32 {
        let out = CREDITS - self.outstanding as usize;
        if out == self.free.len() {
            return 0;
        }
        self.reclaim(bitmap);
        u32::try_from(out - self.free.len()).unwrap_or(u32::MAX)
    }

    /// Whether a slot was flipped that is not out. [`Collector::scan`] sees it too, but nobody scans
    /// a lane without tasks.
    pub(crate) fn has_stray_flip(&self, bitmap: &DoneBitmap) -> bool {
        bitmap.0.iter().enumerate().any(|(index, word)| {
            // Relaxed: nothing is read on the strength of it.
            let mut changed = word.load(Ordering::Relaxed) ^ self.seen[index];
            std::iter::from_fn(|| {
                let bit = changed.checked_ilog2()?;
                changed ^= 1 << bit;
                Some(index * 64 + bit as usize)
            })
            .any(|slot| self.credits[slot] == Credit::Free)
        })
    }

    /// Gives a credit out for `ticket`.
    #[inline]
    pub(crate) fn give(&mut self, ticket: u64) -> Option<u16> {
        let slot = self.free.pop()?;
        self.credits[usize::from(slot)] = Credit::Outstanding(ticket);
        self.outstanding += 1;
        Some(slot)
    }

    /// Takes the completion of one dispatch early, by its done word. The credit stays out until
    /// the flip is seen.
    #[inline]
    pub(crate) fn take_early(&mut self, slot: u16, ticket: u64, cell: &TaskSlot) -> bool {
        if self.credits[usize::from(slot)] != Credit::Outstanding(ticket) || !cell.is_done(ticket) {
            return false;
        }
        self.credits[usize::from(slot)] = Credit::Taken;
        self.outstanding -= 1;
        true
    }

    /// Looks at every slot whose bit changed and calls `take` for each dispatch whose completion
    /// is there, at most `budget` times; its credit is free again.
    #[inline]
    pub(crate) fn scan(
        &mut self,
        bitmap: &DoneBitmap,
        cells: &[TaskSlot; CREDITS],
        budget: usize,
        mut take: impl FnMut(u16, u64, &TaskSlot),
    ) -> Scan {
        let mut left = budget;
        let (first, bit) = (self.cursor / 64, self.cursor % 64);
        // Once around: the first word comes again at the end, for the bits below the cursor.
        for step in 0..BITMAP_WORDS + usize::from(bit != 0) {
            let index = (first + step) % BITMAP_WORDS;
            let mask = match step {
                0 => !0 << bit,
                BITMAP_WORDS => !(!0 << bit),
                _ => !0,
            };
            // Acquire: pairs with the Release `fetch_xor` in `Pending::flush`.
            let mut changed = (load_acquire(&bitmap.0[index]) ^ self.seen[index]) & mask;
            let mut ahead = changed;
            for _ in 0..left {
                if ahead == 0 {
                    break;
                }
                prefetch::read(&cells[index * 64 + ahead.trailing_zeros() as usize].finished);
                ahead &= ahead - 1;
            }
            while changed != 0 {
                let bit = changed & changed.wrapping_neg();
                let slot = index * 64 + bit.trailing_zeros() as usize;
                match self.credits[slot] {
                    Credit::Taken => {}
                    Credit::Outstanding(ticket) => {
                        if left == 0 {
                            self.cursor = slot;
                            return Scan::Partial;
                        }
                        left -= 1;
                        let cell = &cells[slot];
                        if !cell.is_done(ticket) {
                            return Scan::Violation;
                        }
                        self.outstanding -= 1;
                        take(truncate_slot(slot), ticket, cell);
                    }
                    Credit::Free => return Scan::Violation,
                }
                self.credits[slot] = Credit::Free;
                self.free.push(truncate_slot(slot));
                self.seen[index] ^= bit;
                changed ^= bit;
            }
        }
        Scan::Complete
    }

    /// The dispatch that is out with this slot, if one is.
    #[inline]
    pub(crate) fn outstanding_at(&self, slot: usize) -> Option<(u16, u64)> {
        match self.credits[slot] {
            Credit::Outstanding(ticket) => Some((truncate_slot(slot), ticket)),
            _ => None,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "CREDITS is far below 65 536"
)]
fn truncate_slot(slot: usize) -> u16 {
    slot as u16
}

#[cfg(loom)]
impl TaskSlot {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            ticket: zero(),
            start: zero(),
            progress_done: zero(),
            progress_total: zero(),
            thread: zero(),
            finished: Finished {
                done: zero(),
                kind_and_len: zero(),
                code: zero(),
                start: zero(),
                end: zero(),
                result: std::array::from_fn(|_| zero()),
            },
        }
    }
}

#[cfg(loom)]
impl DoneBitmap {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Ending {
    /// An ending without a result; the times are filled in by whoever publishes it.
    #[inline]
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            in_arena: false,
            len: 0,
            code: 0,
            start: 0,
            end: 0,
        }
    }
}

#[cfg(all(test, loom))]
mod model;

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::layout::Up;
    use crate::sys::memfd::{self, Access, Segment};

    /// Scans a fresh lane on which one dispatch is out, after `corrupt` had its way with it.
    fn scan_after(corrupt: impl FnOnce(&Up, usize)) -> (Scan, u32) {
        let size = size_of::<Up>() as u64;
        let fd = memfd::create("test", size).unwrap();
        let segment = Segment::<Up>::map(fd, size, Access::Write).unwrap();
        let up = segment.layout();
        let mut collector = Collector::new();
        let slot = usize::from(collector.give(7).unwrap());
        corrupt(up, slot);
        let mut taken = 0;
        let scan = collector.scan(&up.bitmap, &up.slots, CREDITS, |_, _, _| taken += 1);
        (scan, taken)
    }

    fn flip(up: &Up, slot: usize) {
        let mut pending = Pending::default();
        pending.add(slot);
        pending.flush(&up.bitmap);
    }

    #[test]
    fn a_thread_has_in_hand_what_it_started_and_did_not_finish() {
        let size = size_of::<Up>() as u64;
        let fd = memfd::create("test", size).unwrap();
        let segment = Segment::<Up>::map(fd, size, Access::Write).unwrap();
        let cell = &segment.layout().slots[0];
        let finish = |ticket, kind| cell.finish(ticket, &Ending::new(kind), &[0; RESULT_WORDS]);
        assert_eq!(cell.in_hand_of(1), None);
        cell.start(5, 100, 1);
        assert_eq!(cell.in_hand_of(1), Some(5));
        assert_eq!(cell.in_hand_of(2), None);
        finish(5, Kind::Completed);
        assert_eq!(cell.in_hand_of(1), None);
        finish(6, Kind::Returned);
        assert_eq!(cell.in_hand_of(1), None, "the slot's next use was recalled");
    }

    #[test]
    fn a_flip_that_no_honest_worker_makes_is_a_violation() {
        assert_eq!(scan_after(|_, _| {}), (Scan::Complete, 0));
        let honest = scan_after(|up, slot| {
            up.slots[slot].finish(7, &Ending::new(Kind::Completed), &[0; RESULT_WORDS]);
            flip(up, slot);
        });
        assert_eq!(honest, (Scan::Complete, 1));
        // A bit without a done word, one with another dispatch's, one for a credit that is free.
        assert_eq!(scan_after(flip), (Scan::Violation, 0));
        let stale = scan_after(|up, slot| {
            up.slots[slot].finish(6, &Ending::new(Kind::Completed), &[0; RESULT_WORDS]);
            flip(up, slot);
        });
        assert_eq!(stale, (Scan::Violation, 0));
        let free = scan_after(|up, slot| flip(up, (slot + 1) % CREDITS));
        assert_eq!(free, (Scan::Violation, 0));
    }
}
