//! Where workers write down what they start, past the engine: memory that they share with the host
//! and that the engine knows nothing of.
//!
//! What a worker has stored here is there when the worker is dead, however it died.

use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};

/// Worker processes whose first task is remembered.
const BIRTHS: usize = 1 << 20;
/// Processes that killed themselves, as far back as anybody asks.
const SUICIDES: usize = 256;
/// Words before the lists.
const HEAD: usize = 8;
/// Where the tasks' words begin.
const TASKS: usize = HEAD + SUICIDES + 2 * BIRTHS;
/// Words of [`StartLog::deaths`], [`StartLog::strays`] and the number of births.
const DEATHS: usize = 0;
const STRAYS: usize = 1;
const BORN: usize = 2;
/// Attempts that a task's word tells apart; later ones count as the last.
pub(super) const ATTEMPTS: u32 = 8;

/// The log, in the host and, after the fork, in every worker.
#[derive(Clone, Copy)]
pub(super) struct StartLog {
    words: &'static [AtomicU64],
    tasks: usize,
}

/// The first task of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) slot: u32,
    pub(super) pid: u32,
    /// As [`now_ns`].
    pub(super) at: u64,
}

/// How often each attempt of a task was started: a byte each.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Starts(pub(super) u64);

impl Starts {
    /// Starts of this attempt, counted from 1.
    pub(super) fn of(self, attempt: u32) -> u8 {
        match attempt {
            0 => 0,
            n => self.0.to_le_bytes()[(n.min(ATTEMPTS) - 1) as usize],
        }
    }

    pub(super) fn total(self) -> u32 {
        self.0.to_le_bytes().into_iter().map(u32::from).sum()
    }

    /// The last attempt that was started; 0 if none was.
    pub(super) fn last(self) -> u32 {
        (1..=ATTEMPTS)
            .rev()
            .find(|&n| self.of(n) != 0)
            .unwrap_or_default()
    }

    /// Whether some attempt was started more than once.
    pub(super) fn repeated(self) -> bool {
        self.0.to_le_bytes().into_iter().any(|n| n > 1)
    }
}

impl fmt::Debug for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0.to_le_bytes()[..self.last() as usize])
    }
}

impl StartLog {
    /// A log for tasks with numbers below `tasks`, which takes memory only for those that start.
    /// Never unmapped: a worker may outlive its engine.
    pub(super) fn new(tasks: usize) -> Result<Self> {
        let words = TASKS + 2 * tasks;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                words * size_of::<AtomicU64>(),
                access,
                flags,
            )
        }
        .map_err(Error::system("mmap"))?;
        let start = NonNull::new(start).ok_or(Error::Unfit("mmap has mapped page 0".into()))?;
        // SAFETY: page-aligned, that many words long, zeros, which are valid atomics, and never
        // unmapped; other processes reach it by the same atomics only.
        let words = unsafe { slice::from_raw_parts(start.cast().as_ptr(), words) };
        Ok(Self { words, tasks })
    }

    /// How many tasks it has room for.
    pub(super) fn tasks(&self) -> u64 {
        self.tasks as u64
    }

    fn task(&self, number: u64) -> Option<&[AtomicU64]> {
        let number = usize::try_from(number).ok().filter(|&n| n < self.tasks)?;
        let at = TASKS + 2 * number;
        self.words.get(at..at + 2)
    }

    // ---- in a worker ----

    /// The handler has task `number` in hand.
    pub(super) fn note_start(&self, number: u64, attempt: u32, slot: u32) {
        // Written once in each process, which was forked with a copy that says false.
        static BORN_BEFORE: AtomicBool = AtomicBool::new(false);
        let Some(task) = self.task(number) else {
            return self.note_stray();
        };
        let index = attempt.clamp(1, ATTEMPTS) - 1;
        // One instruction: a worker that dies here has counted, or has not.
        task[0].fetch_add(1 << (8 * index), SeqCst);
        let pid = u64::from(std::process::id());
        let ms = (now_ns() / 1_000_000) & 0xffff_ffff;
        task[1].store(pid << 32 | ms, SeqCst);
        // Relaxed: whichever thread is first, it is the process's first task or next to it.
        if !BORN_BEFORE.swap(true, Relaxed) {
            let index = self.words[BORN].fetch_add(1, SeqCst);
            let at = birth(index);
            self.words[at].store(u64::from(slot) << 32 | pid, SeqCst);
            self.words[at + 1].store(now_ns(), SeqCst);
        }
    }

    /// This process will die by what it does next.
    pub(super) fn note_death(&self) {
        static DYING: AtomicBool = AtomicBool::new(false); // as above; a process dies once
        if !DYING.swap(true, SeqCst) {
            let index = self.words[DEATHS].fetch_add(1, SeqCst);
            let pid = u64::from(std::process::id());
            self.words[suicide(index)].store(pid, SeqCst);
        }
    }

    /// A worker was given something that it should not have.
    pub(super) fn note_stray(&self) {
        self.words[STRAYS].fetch_add(1, SeqCst);
    }

    // ---- in the host ----

    /// The starts of a task so far.
    pub(super) fn starts(&self, number: u64) -> Starts {
        self.task(number)
            .map_or(Starts::default(), |task| Starts(task[0].load(SeqCst)))
    }

    /// Process and time (milliseconds, in 32 bits) of the task's last start.
    pub(super) fn last_start(&self, number: u64) -> (u64, u64) {
        let word = self.task(number).map_or(0, |task| task[1].load(SeqCst));
        (word >> 32, word & 0xffff_ffff)
    }

    /// Counts a start that never was, for the tests of the checker.
    pub(super) fn forge_start(&self, number: u64) {
        if let Some(task) = self.task(number) {
            task[0].fetch_add(1, SeqCst);
        }
    }

    /// Processes that have killed themselves.
    pub(super) fn deaths(&self) -> u64 {
        self.words[DEATHS].load(SeqCst)
    }

    /// Whether this process was among the last to do so.
    pub(super) fn killed_itself(&self, pid: u32) -> bool {
        let deaths = self.deaths();
        (deaths.saturating_sub(SUICIDES as u64)..deaths)
            .any(|index| self.words[suicide(index)].load(SeqCst) == u64::from(pid))
    }

    /// Tasks that came to the wrong worker, or with the wrong number.
    pub(super) fn strays(&self) -> u64 {
        self.words[STRAYS].load(SeqCst)
    }

    /// How many worker processes have run a task.
    pub(super) fn born(&self) -> u64 {
        self.words[BORN].load(SeqCst)
    }

    /// The births from the `first` on, as far as they are remembered.
    pub(super) fn births_from(&self, first: u64) -> Vec<Birth> {
        let born = self.born();
        let first = first.max(born.saturating_sub(BIRTHS as u64));
        (first..born)
            .filter_map(|index| {
                let at = birth(index);
                let (who, at) = (self.words[at].load(SeqCst), self.words[at + 1].load(SeqCst));
                let birth = Birth {
                    slot: u32::try_from(who >> 32).ok()?,
                    pid: u32::try_from(who & 0xffff_ffff).ok()?,
                    at,
                };
                (at != 0).then_some(birth) // else it died in between
            })
            .collect()
    }
}

/// Where the `index`-th process that killed itself stands.
fn suicide(index: u64) -> usize {
    HEAD + usize::try_from(index).unwrap_or_default() % SUICIDES
}

/// Where the `index`-th first task of a process stands.
fn birth(index: u64) -> usize {
    HEAD + SUICIDES + 2 * (usize::try_from(index).unwrap_or_default() % BIRTHS)
}

/// `CLOCK_MONOTONIC`, which is the same in all processes.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default() * 1_000_000_000 + ns.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_by_attempt() {
        let log = StartLog::new(10).unwrap();
        assert_eq!(log.starts(3), Starts::default());
        log.note_start(3, 1, 7);
        log.note_start(3, 3, 7);
        let starts = log.starts(3);
        assert_eq!((starts.of(1), starts.of(2), starts.of(3)), (1, 0, 1));
        assert_eq!((starts.total(), starts.last()), (2, 3));
        assert!(!starts.repeated());
        log.forge_start(3);
        assert!(log.starts(3).repeated());
        assert_eq!(log.last_start(3).0, u64::from(std::process::id()));
        assert_eq!(log.starts(2), Starts::default());
    }

    #[test]
    fn a_process_that_kills_itself_is_known() {
        let log = StartLog::new(1).unwrap();
        assert!(!log.killed_itself(std::process::id()));
        log.note_death();
        log.note_death(); // dies once
        assert!(log.killed_itself(std::process::id()));
        assert_eq!(log.deaths(), 1);
    }

    #[test]
    fn a_number_that_was_never_given_out_is_a_stray() {
        let log = StartLog::new(10).unwrap();
        log.note_start(10, 1, 0);
        log.note_start(u64::MAX, 1, 0);
        assert_eq!(log.strays(), 2);
        assert_eq!(log.starts(u64::MAX).total(), 0);
    }
}
