//! Waking the host when it sleeps: the host's sleep epoch and one eventfd per worker.
//!
//! The mirror image of [`super::doorbell`]: the host stores its epoch `H` in its own page (which
//! all workers map read-only), a worker reads it after it has published completions, and writes
//! its eventfd if `H` is not 0. The kernel keeps the eventfd readable until it is drained, so no
//! compare-and-sleep is needed.
//!
//! Several threads of the host may sleep behind the one word. So `H` returns to 0 only when the
//! last of them is awake; when one wakes while others sleep, it stores a *new* epoch, fences and
//! scans again, because a worker signals once per epoch. The eventfds are drained *before* the new
//! epoch: one that is drained after it may hold the only signal of that epoch.

use crate::shm::layout::Line;
use crate::sys::sync::{AtomicU32, Ordering, fence, fence_after_rmw};

/// `H`: 0 = every host thread that cares is awake. Written by the host.
pub(crate) type HostEpoch = Line<AtomicU32>;

/// The host's private end; lives under the engine's lock.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    asleep: u32,
    epoch: u32,
}

impl Sleepers {
    /// Says that one more thread is about to sleep. The caller must look for completions *after*
    /// this and before it sleeps.
    pub(crate) fn arm(&mut self, word: &HostEpoch) {
        self.asleep += 1;
        self.renew(word);
    }

    /// Says that a thread is awake again and has drained the eventfds. True if others still sleep:
    /// then the caller must look for completions *after* this, because a worker may have taken the
    /// old epoch as served.
    #[must_use]
    pub(crate) fn disarm(&mut self, word: &HostEpoch) -> bool {
        self.asleep -= 1;
        if self.asleep == 0 {
            // Relaxed: a worker that still reads the old epoch signals once too often.
            word.0.store(0, Ordering::Relaxed);
            return false;
        }
        self.renew(word);
        true
    }

    /// Starts a new epoch for those who sleep.
    fn renew(&mut self, word: &HostEpoch) {
        self.epoch = self.epoch.wrapping_add(1).max(1); // never 0
        // Relaxed: ordered by the fence below.
        word.0.store(self.epoch, Ordering::Relaxed);
        // SeqCst: between our store of `H` and our scan of the completions; pairs with the fence
        // in `Signaller::due` between the worker's publication and its load of `H`.
        fence(Ordering::SeqCst);
    }
}

/// Worker: whether the host sleeps or falls asleep just now, so that completions that were held
/// back must be published before a task that may run long. Called after a task was claimed, which
/// is an atomic read-modify-write.
///
/// If this says no, the host sees every done word that this thread has stored before it sleeps.
#[inline]
pub(crate) fn host_sleeps(word: &HostEpoch) -> bool {
    // Between our stores of done words and our load of `H`; pairs with the fence in
    // `Sleepers::renew` between the host's store of `H` and its look at the done words.
    fence_after_rmw();
    // Relaxed: ordered by the fence above.
    word.0.load(Ordering::Relaxed) != 0
}

/// A worker's private end, shared by its threads.
#[derive(Debug)]
pub(crate) struct Signaller {
    served: AtomicU32,
}

impl Signaller {
    pub(crate) fn new() -> Self {
        Self {
            served: AtomicU32::new(0),
        }
    }

    /// Whether the eventfd must be written; called after completions were published.
    #[inline]
    pub(crate) fn due(&self, word: &HostEpoch) -> bool {
        // SeqCst: between our publication and our load of `H`; pairs with the fence in
        // `Sleepers::renew` between the host's store of `H` and its scan.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence above.
        let epoch = word.0.load(Ordering::Relaxed);
        // Relaxed: private to this process; whoever swaps an epoch in first signals for it.
        epoch != 0
            && self.served.load(Ordering::Relaxed) != epoch
            && self.served.swap(epoch, Ordering::Relaxed) != epoch
    }
}

#[cfg(all(test, loom))]
mod model;
