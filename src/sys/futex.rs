//! A 32-bit word in shared memory that a process can sleep on.
//!
//! The futex is the *shared* kind (no `FUTEX_PRIVATE_FLAG`): the sleeper and the waker are
//! different processes, and the sleeper maps the page read-only (guaranteed since Linux commit
//! 9ea71503a8ed; checked at start-up by `selftest`).

#[cfg(not(loom))]
pub(crate) use real::FutexWord;

#[cfg(loom)]
pub(crate) use model::FutexWord;

#[cfg(not(loom))]
mod real {
    use std::time::Duration;

    use crate::sys::sync::{AtomicU32, Ordering, load_acquire_u32};
    use rustix::thread::futex;

    /// A shared futex word. Has the layout of a `u32`.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct FutexWord(AtomicU32);

    impl FutexWord {
        /// Acquire: pairs with the Release in [`FutexWord::publish`].
        #[inline]
        pub(crate) fn load(&self) -> u32 {
            load_acquire_u32(&self.0)
        }

        /// Release: everything stored before is visible to whoever loads this value.
        #[inline]
        pub(crate) fn publish(&self, value: u32) {
            self.0.store(value, Ordering::Release);
        }

        /// Sleeps while the word is `expected`, at most `timeout`. Returns for any reason:
        /// woken, changed before the sleep, interrupted, timed out.
        pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
            let timeout = futex::Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(timeout.subsec_nanos()),
            };
            // Every error means "look again", which every caller does in a loop.
            let _ = futex::wait(&self.0, futex::Flags::empty(), expected, Some(&timeout));
        }

        /// Wakes every sleeper; false if there was none. Works through a read-only mapping too.
        pub(crate) fn wake_all(&self) -> bool {
            futex::wake(&self.0, futex::Flags::empty(), i32::MAX.cast_unsigned())
                .is_ok_and(|woken| woken != 0)
        }
    }
}

#[cfg(loom)]
mod model {
    use std::time::Duration;

    use crate::sys::sync::{AtomicU32, Condvar, Mutex, Ordering, lock};

    /// The kernel's guarantee in loom's terms: compare and enqueue happen under one lock, and a
    /// wake takes that lock after the waker's store. No time-out, so loom reports a lost wake-up
    /// as a deadlock.
    #[derive(Debug)]
    pub(crate) struct FutexWord {
        value: AtomicU32,
        /// How many threads sleep.
        queue: Mutex<u32>,
        wake: Condvar,
    }

    impl FutexWord {
        pub(crate) fn new(value: u32) -> Self {
            Self {
                value: AtomicU32::new(value),
                queue: Mutex::new(0),
                wake: Condvar::new(),
            }
        }

        pub(crate) fn load(&self) -> u32 {
            self.value.load(Ordering::Acquire)
        }

        pub(crate) fn publish(&self, value: u32) {
            self.value.store(value, Ordering::Release);
        }

        pub(crate) fn wait(&self, expected: u32, _timeout: Duration) {
            let mut queue = lock(&self.queue);
            if self.value.load(Ordering::Relaxed) == expected {
                *queue += 1;
                drop(self.wake.wait(queue).expect("loom locks are not poisoned"));
            }
        }

        pub(crate) fn wake_all(&self) -> bool {
            let mut queue = lock(&self.queue);
            self.wake.notify_all();
            std::mem::take(&mut *queue) != 0
        }
    }
}
