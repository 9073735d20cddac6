//! The crash report: what a worker that dies of a fault leaves in its own page.
//!
//! The words are filled in a signal handler, so storing them is all that happens there. The host
//! reads them only after the worker's death, and as advice: a worker with corrupted memory may have
//! written anything here. Nothing but texts and the choice of whom to blame rests on it.

use crate::shm::layout::FRAMES;
use crate::sys::sync::{AtomicU64, Ordering, load_acquire};

/// The facts are valid, and so are the first `count` frames; the rest of the backtrace is missing.
const FACTS: u64 = 1;
/// The backtrace is complete.
const COMPLETE: u64 = 2;

/// In the place of a ticket: the thread had several tasks in hand, and it is not known which of them
/// it was busy with.
pub(crate) const SEVERAL: u64 = u64::MAX;

/// The signals that a report can be about, as numbered by every Linux that we build for.
#[cfg(not(loom))]
const REPORTED: [i32; 5] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
];

/// One report. Written by the worker only, at most once.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct CrashReport {
    /// 0 = nothing was reported.
    state: AtomicU64,
    signal: AtomicU64,
    /// `si_code`, sign-extended.
    code: AtomicU64,
    address: AtomicU64,
    /// The kernel's id of the thread.
    thread: AtomicU64,
    /// The dispatch that the thread had in hand; 0 = none, [`SEVERAL`].
    ticket: AtomicU64,
    /// The program counter.
    pc: AtomicU64,
    count: AtomicU64,
    frames: [AtomicU64; FRAMES],
}

/// A report as the host has read it: checked as far as that is possible, and believed no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrashFacts {
    /// One of SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT.
    pub(crate) signal: i32,
    /// `si_code`: above 0 if the kernel sent the signal, because of what the thread did.
    pub(crate) code: i32,
    pub(crate) address: u64,
    pub(crate) thread: u32,
    /// The dispatch that the thread had in hand; 0 = none, [`SEVERAL`].
    pub(crate) ticket: u64,
    pub(crate) pc: u64,
    /// Addresses inside the instructions that were being executed, innermost first.
    pub(crate) frames: Vec<u64>,
}

impl CrashReport {
    /// Worker, in a signal handler: the facts, without a backtrace.
    pub(crate) fn begin(&self, facts: [i32; 2], address: u64, thread: u32, ticket: u64, pc: u64) {
        let [signal, code] = facts.map(|word| i64::from(word).cast_unsigned());
        // Relaxed: published by the store of `state`.
        self.signal.store(signal, Ordering::Relaxed);
        self.code.store(code, Ordering::Relaxed);
        self.address.store(address, Ordering::Relaxed);
        self.thread.store(u64::from(thread), Ordering::Relaxed);
        self.ticket.store(ticket, Ordering::Relaxed);
        self.pc.store(pc, Ordering::Relaxed);
        self.count.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire load of `state` in `read`.
        self.state.store(FACTS, Ordering::Release);
    }

    /// Worker, in a signal handler: one more frame. False if there is room for no more.
    pub(crate) fn push(&self, address: u64) -> bool {
        // Relaxed: only the one thread that reports writes it.
        let count = self.count.load(Ordering::Relaxed);
        let Some(frame) = usize::try_from(count)
            .ok()
            .and_then(|index| self.frames.get(index))
        else {
            return false;
        };
        frame.store(address, Ordering::Relaxed); // Relaxed: published by `count`.
        // Release: pairs with the acquire load of `count` in `read`. What was found before the
        // unwinder itself crashed is thus kept.
        self.count.store(count + 1, Ordering::Release);
        true
    }

    /// Worker, in a signal handler: there are no more frames.
    pub(crate) fn complete(&self) {
        // Release: pairs with the acquire load of `state` in `read`.
        self.state.store(COMPLETE, Ordering::Release);
    }

    /// Host, after the worker's death: the report, if there is one that can be one. Each word is
    /// read once.
    #[cfg(not(loom))]
    pub(crate) fn read(&self) -> Option<CrashFacts> {
        // Acquire: pairs with the Release stores in `begin` and `complete`.
        match load_acquire(&self.state) {
            FACTS | COMPLETE => {}
            _ => return None, // no report, or nonsense
        }
        // Relaxed, here and below: ordered after the acquire load of `state`.
        let signal = int(self.signal.load(Ordering::Relaxed))?;
        if !REPORTED.contains(&signal) {
            return None;
        }
        // Acquire: pairs with the Release store in `push`.
        let count = usize::try_from(load_acquire(&self.count)).ok()?;
        let frames = self.frames.get(..count)?;
        Some(CrashFacts {
            signal,
            code: int(self.code.load(Ordering::Relaxed))?,
            address: self.address.load(Ordering::Relaxed),
            thread: u32::try_from(self.thread.load(Ordering::Relaxed)).ok()?,
            ticket: self.ticket.load(Ordering::Relaxed),
            pc: self.pc.load(Ordering::Relaxed),
            frames: frames.iter().map(|f| f.load(Ordering::Relaxed)).collect(),
        })
    }
}

#[cfg(not(loom))]
fn int(word: u64) -> Option<i32> {
    i32::try_from(word.cast_signed()).ok()
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::layout::Up;
    use crate::sys::memfd::{self, Access, Segment};

    fn page() -> Segment<Up> {
        let size = size_of::<Up>() as u64;
        Segment::map(memfd::create("test", size).unwrap(), size, Access::Write).unwrap()
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let page = page();
        let report = &page.layout().crash;
        assert_eq!(report.read(), None);
        report.begin([libc::SIGABRT, -6], 1, 4711, u64::MAX, 2);
        let mut facts = CrashFacts {
            signal: libc::SIGABRT,
            code: -6,
            address: 1,
            thread: 4711,
            ticket: u64::MAX,
            pc: 2,
            frames: Vec::new(),
        };
        assert_eq!(report.read().as_ref(), Some(&facts));
        assert!((1..).take(FRAMES).all(|frame| report.push(frame)));
        assert!(!report.push(7), "it is full");
        facts.frames = (1..=FRAMES as u64).collect();
        assert_eq!(report.read().as_ref(), Some(&facts));
        report.complete();
        assert_eq!(report.read(), Some(facts));
    }

    /// A way to spoil a report, and what it spoils.
    type Damage = (&'static str, fn(&CrashReport) -> &AtomicU64, u64);

    #[test]
    fn a_report_that_cannot_be_one_is_not_read() {
        let page = page();
        let report = &page.layout().crash;
        let damages: [Damage; 9] = [
            ("state", |r| &r.state, 3),
            ("state", |r| &r.state, u64::MAX),
            ("signal", |r| &r.signal, 9),
            ("signal", |r| &r.signal, 1 << 32 | 11),
            ("signal", |r| &r.signal, u64::MAX),
            ("code", |r| &r.code, 1 << 31),
            ("thread", |r| &r.thread, 1 << 32),
            ("count", |r| &r.count, FRAMES as u64 + 1),
            ("count", |r| &r.count, u64::MAX),
        ];
        for (what, word, nonsense) in damages {
            report.begin([libc::SIGSEGV, 1], 0, 1, 1, 1);
            assert!(report.read().is_some());
            word(report).store(nonsense, Ordering::Relaxed);
            assert_eq!(report.read(), None, "{what} {nonsense}");
        }
        // Numbers that mean nothing by themselves are passed on, whatever they are.
        report.begin([libc::SIGSEGV, 1], u64::MAX, 0, u64::MAX, u64::MAX);
        assert!(report.push(u64::MAX));
        assert_eq!(
            report.read().map(|facts| facts.frames),
            Some(vec![u64::MAX])
        );
    }
}
