//! The watchdog of calls that block: nothing else ends a read from a process that hangs.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bench::clock::WATCHDOG;
use crate::error::{Error, Result};

/// How often the guard looks: seldom enough to disturb nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Nobody is waited for.
const OFF: u64 = u64::MAX;
/// The guard is to end, or has acted and ended.
const END: u64 = 0;

/// A thread that acts once, when what it was set for takes too long.
#[derive(Debug)]
pub(super) struct Guard {
    origin: Instant,
    /// [`OFF`], [`END`], or when to act, in milliseconds since `origin`. Relaxed throughout: the
    /// word orders nothing but itself.
    due: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    /// Starts the thread, which calls `act` if it ever has to.
    pub(super) fn start(act: impl FnOnce() + Send + 'static) -> Result<Self> {
        let origin = Instant::now();
        let due = Arc::new(AtomicU64::new(OFF));
        let watched = Arc::clone(&due);
        let thread = thread::Builder::new()
            .name("bench-guard".into())
            .spawn(move || watch(origin, &watched, act))
            .map_err(Error::system("starting a thread"))?;
        Ok(Self {
            origin,
            due,
            thread: Some(thread),
        })
    }

    /// Sets the guard for something that should take no longer than `length`.
    pub(super) fn set(&self, length: Duration) {
        let due = milliseconds(self.origin.elapsed() + length + WATCHDOG);
        // Not if it has acted already.
        let _ = self
            .due
            .fetch_update(Relaxed, Relaxed, |was| (was != END).then_some(due));
    }

    /// Calls the guard off. Returns whether that was in time.
    pub(super) fn call_off(&self) -> bool {
        self.due
            .fetch_update(Relaxed, Relaxed, |was| (was != END).then_some(OFF))
            .is_ok()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.due.store(END, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// The life of the guard's thread.
fn watch(origin: Instant, due: &AtomicU64, act: impl FnOnce()) {
    loop {
        match due.load(Relaxed) {
            END => return,
            OFF => {}
            at if milliseconds(origin.elapsed()) < at => {}
            at => {
                // Unless it was called off, or set anew, this very moment.
                if due.compare_exchange(at, END, Relaxed, Relaxed).is_ok() {
                    return act();
                }
            }
        }
        thread::park_timeout(LOOK);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(OFF - 1)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn guard() -> (Guard, Arc<AtomicBool>) {
        let acted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&acted);
        let guard = Guard::start(move || flag.store(true, Relaxed)).unwrap();
        (guard, acted)
    }

    #[test]
    fn what_is_overdue_is_acted_on_once_and_for_all() {
        let (guard, acted) = guard();
        guard.due.store(1, Relaxed); // long past
        let end = Instant::now() + WATCHDOG;
        while guard.due.load(Relaxed) != END {
            assert!(Instant::now() < end, "the guard sleeps");
            guard.thread.as_ref().unwrap().thread().unpark();
            thread::yield_now();
        }
        assert!(!guard.call_off());
        guard.set(Duration::ZERO);
        assert!(!guard.call_off(), "it does not come back");
        drop(guard);
        assert!(acted.load(Relaxed));
    }

    #[test]
    fn what_is_in_time_is_left_alone() {
        let (guard, acted) = guard();
        guard.set(Duration::from_secs(3_600));
        guard.thread.as_ref().unwrap().thread().unpark();
        assert!(guard.call_off());
        drop(guard);
        assert!(!acted.load(Relaxed));
    }
}
