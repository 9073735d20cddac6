//! Waking a worker that sleeps: the futex on the tail.
//!
//! The tail `T` lies in the host's page and is the futex word; the sleep epoch `Z` lies in the
//! worker's page. It is Dekker's pattern: each side stores its own word, then reads the other's,
//! with a full fence between. In the single order of the two `SeqCst` fences one comes first; the
//! side whose fence comes second sees the other's store. If the host's is second it sees `Z != 0`
//! and wakes; if the worker's is second it sees the new tail and does not sleep. Between the
//! worker's check and its sleep the kernel compares `T` again. Leaving out either fence loses
//! wake-ups on x86 too; the models below show it.
//!
//! One wake per epoch is enough: the sleeper that is woken rereads `T`, and sleeps again only with
//! a new epoch. The host remembers the epoch that it has woken because it cannot clear `Z`, which
//! is not its page. A wake that found no sleeper does not count: a consumer may have claimed the
//! descriptor before `T` says so, so its sleep, which begins just after that wake, may wait for
//! the *next* value of `T` though its epoch is the one that the host has seen.

use std::time::Duration;

use crate::shm::layout::Line;
use crate::sys::futex::FutexWord;
use crate::sys::kill_point::kill_point;
use crate::sys::sync::{AtomicU32, Ordering, fence};

/// `T`: the low 32 bits of the number of descriptors published. Written by the host.
pub(crate) type Tail = Line<FutexWord>;
/// `Z`: 0 = nobody sleeps on `T`. Written by the worker (its leader thread).
pub(crate) type SleepEpoch = Line<AtomicU32>;

/// The host's private end.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    last_woken: u32,
}

impl Producer {
    /// Publishes the tail after a batch of descriptors and wakes the worker if it sleeps. True if
    /// that took a system call.
    #[inline]
    pub(crate) fn ring(&mut self, tail: u64, word: &Tail, epoch: &SleepEpoch) -> bool {
        word.0.publish(truncate(tail));
        // SeqCst: between our store of `T` and our load of `Z`; pairs with the fence in
        // `Sleeper::sleep` between its store of `Z` and its load of `T`.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence above.
        let z = epoch.0.load(Ordering::Relaxed);
        if z == 0 || z == self.last_woken {
            return false;
        }
        // Only a sleeper that was really woken is certain to look again. One that is still on its
        // way to sleep may have taken what we announce here already, and sleeps for the next.
        if word.0.wake_all() {
            self.last_woken = z;
        }
        true
    }
}

/// The worker's private end. Exactly one thread (the leader) may use it at a time.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    epoch: u32,
}

impl Sleeper {
    /// Sleeps until the host publishes beyond `head`, at most for `timeout`. Returns at once if it
    /// has done so already, or if `stay_awake` says so (asked after the epoch is set).
    pub(crate) fn sleep(
        &mut self,
        head: u64,
        word: &Tail,
        epoch: &SleepEpoch,
        timeout: Duration,
        stay_awake: impl FnOnce() -> bool,
    ) {
        self.epoch = self.epoch.wrapping_add(1).max(1); // never 0
        kill_point!("sleep.before-epoch");
        // Relaxed: ordered by the fence below.
        epoch.0.store(self.epoch, Ordering::Relaxed);
        kill_point!("sleep.after-epoch");
        // SeqCst: between our store of `Z` and our load of `T`; pairs with the fence in
        // `Producer::ring` between its store of `T` and its load of `Z`.
        fence(Ordering::SeqCst);
        let head = truncate(head);
        if word.0.load() == head && !stay_awake() {
            word.0.wait(head, timeout);
        }
        kill_point!("sleep.before-clear");
        // Release: whatever this worker did before, a host that sees it awake may rely on. (The
        // next episode's correctness rests on its own fence.)
        epoch.0.store(0, Ordering::Release);
        kill_point!("sleep.after-clear");
    }
}

/// The futex is 32 bits wide. A wrap confuses nobody: the tail would have to go round exactly once
/// (2^32 tasks, run by the other threads) between a leader's look at it and the kernel's.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is meant"
)]
fn truncate(position: u64) -> u32 {
    position as u32
}

#[cfg(all(test, loom))]
mod model;
