//! Atomics, fences and locks: the standard library's, or loom's when a model is checked.
//!
//! Everything in `shm` takes its atomics from here, so that the code that loom explores is the
//! code that runs.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(all(loom, test))]
pub(crate) use crate::sys::model::{AtomicU64, fence};
#[cfg(all(loom, not(test)))]
pub(crate) use loom::sync::atomic::{AtomicU64, fence};
#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};

/// Tells the processor that this is a spin loop; under loom lets another thread run.
#[inline]
pub(crate) fn spin_hint() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// A `SeqCst` fence for a thread that has just done an atomic read-modify-write: on x86-64 that
/// was a full barrier already, and only the compiler must be told.
#[inline]
pub(crate) fn fence_after_rmw() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(any(loom, not(target_arch = "x86_64")))]
    fence(Ordering::SeqCst);
}

/// An acquire load that is also valid through a read-only mapping.
///
/// The standard library guarantees only *relaxed* loads on read-only memory ("Atomic accesses to
/// read-only memory" in `std::sync::atomic`) and advises this fence. On x86-64 it costs nothing.
#[inline]
pub(crate) fn load_acquire(word: &AtomicU64) -> u64 {
    let value = word.load(Ordering::Relaxed);
    // Acquire: makes the load above synchronise with the Release store whose value it read.
    fence(Ordering::Acquire);
    value
}

/// [`load_acquire`] for a 32-bit word.
#[inline]
pub(crate) fn load_acquire_u32(word: &AtomicU32) -> u32 {
    let value = word.load(Ordering::Relaxed);
    // Acquire: as in `load_acquire`.
    fence(Ordering::Acquire);
    value
}

/// Locks, also when a thread panicked while it held the lock: the data behind our locks is kept
/// consistent at every step, and the engine must go on after a caller's panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(not(loom))]
    return mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    #[cfg(loom)]
    return mutex.lock().expect("loom locks are not poisoned");
}
