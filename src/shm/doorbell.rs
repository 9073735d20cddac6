//! Waking a worker that sleeps: the futex on the tail.
//!
//! The tail `T` lies in the host's page and is the futex word; `Z`, where the worker says that it
//! sleeps, lies in the worker's page. It is Dekker's pattern: each side stores its own word, then
//! reads the other's, with a full fence between. In the single order of the two `SeqCst` fences one
//! comes first; the side whose fence comes second sees the other's store. If the host's is second
//! it sees `Z != 0` and wakes; if the worker's is second it sees the new tail and does not sleep.
//! Between the worker's check and its sleep the kernel compares `T` again. Leaving out either fence
//! loses wake-ups on x86 too; the models below show it.
//!
//! One wake per sleep is enough, and the host remembers the sleep that it has woken because it
//! cannot clear `Z`, which is not its page. But only a wake that comes with another tail than the
//! one that the sleeper has seen is sure to end the sleep, and a wake may well come with the same:
//! a descriptor can be taken before it is announced (consumers look at the descriptors, not at
//! `T`), so that the worker is through with it, and about to sleep, when the host rings for it. So
//! `Z` tells the head at which the worker sleeps. A ring with that tail announces nothing new to
//! the sleeper: no wake, and none is remembered. Any other is beyond it, for what the worker has
//! taken was published, and the tail of a ring counts everything published.

use std::time::Duration;

use crate::shm::layout::Line;
use crate::sys::futex::FutexWord;
use crate::sys::sync::{AtomicU64, Ordering, fence};

/// `T`: the low 32 bits of the number of descriptors published. Written by the host.
pub(crate) type Tail = Line<FutexWord>;
/// `Z`: 0 = nobody sleeps on `T`; else 1 + the head at which the worker sleeps. A sleep that was
/// woken is followed by one at a higher head, so no two of them have the same number. Written by
/// the worker (its leader thread).
pub(crate) type SleepEpoch = Line<AtomicU64>;

/// The host's private end.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    last_woken: u64,
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
        if z == 0 || z == self.last_woken || z == tail + 1 {
            return false;
        }
        self.last_woken = z;
        word.0.wake_all();
        true
    }
}

/// The worker's private end. Exactly one thread (the leader) may use it at a time.
#[derive(Debug, Default)]
pub(crate) struct Sleeper(());

impl Sleeper {
    /// Sleeps until the host publishes beyond `head`, at most for `timeout`. Returns at once if it
    /// has done so already, or if `stay_awake` says so (asked after `Z` is set).
    pub(crate) fn sleep(
        &mut self,
        head: u64,
        word: &Tail,
        epoch: &SleepEpoch,
        timeout: Duration,
        stay_awake: impl FnOnce() -> bool,
    ) {
        // Relaxed: ordered by the fence below.
        epoch.0.store(head + 1, Ordering::Relaxed);
        // SeqCst: between our store of `Z` and our load of `T`; pairs with the fence in
        // `Producer::ring` between its store of `T` and its load of `Z`.
        fence(Ordering::SeqCst);
        let head = truncate(head);
        if word.0.load() == head && !stay_awake() {
            word.0.wait(head, timeout);
        }
        // Release: whatever this worker did before, a host that sees it awake may rely on. (The
        // next episode's correctness rests on its own fence.)
        epoch.0.store(0, Ordering::Release);
    }
}

/// The futex is 32 bits wide. There is no confusion after a wrap: the tail is at most a ring's
/// length ahead of the head.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is meant"
)]
fn truncate(position: u64) -> u32 {
    position as u32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_not_spent_on_a_sleeper_that_has_seen_everything() {
        let (mut host, word) = (Producer::default(), Line(FutexWord::new(0)));
        let z = Line(AtomicU64::new(0));
        assert!(!host.ring(1, &word, &z), "nobody sleeps");
        // The worker has taken the second descriptor before it is announced, and goes to sleep.
        z.0.store(2 + 1, Ordering::Relaxed);
        assert!(!host.ring(2, &word, &z), "nothing new to it");
        assert!(host.ring(3, &word, &z));
        assert!(!host.ring(4, &word, &z), "it is awake, or about to be");
        z.0.store(4 + 1, Ordering::Relaxed);
        assert!(host.ring(5, &word, &z));
    }
}
