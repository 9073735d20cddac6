//! What each process has of its own: a forked child must not touch its copy of the parent's, which
//! may be locked by a thread that the child does not have.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::error::Result;
use crate::sys::fork::ForkGuard;

/// A value that is made when it is first wanted, once in every process. Never dropped.
pub(crate) struct PerProcess<T: 'static>(AtomicPtr<Guarded<T>>);

struct Guarded<T> {
    guard: ForkGuard,
    value: T,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of this process, if there is one.
    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        let guarded = self.current()?;
        (!guarded.guard.is_child()).then_some(&guarded.value)
    }

    /// The value of this process.
    #[inline]
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> Result<&'static T> {
        match self.get() {
            Some(value) => Ok(value),
            None => self.make(make()),
        }
    }

    #[inline]
    fn current(&self) -> Option<&'static Guarded<T>> {
        // Acquire: pairs with the exchange in `make`; the value comes with its address.
        let current = NonNull::new(self.0.load(Ordering::Acquire))?;
        // SAFETY: made by `make`, never freed.
        Some(unsafe { current.as_ref() })
    }

    #[cold]
    fn make(&self, value: T) -> Result<&'static T> {
        let guard = ForkGuard::new()?;
        let new = Box::leak(Box::new(Guarded { guard, value }));
        let old = self.0.load(Ordering::Acquire); // Acquire: as in `current`.
        if let Some(value) = self.get() {
            return Ok(value);
        }
        // Release: publishes the new value; Acquire: somebody else's, if that was faster.
        match self
            .0
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(&new.value),
            // SAFETY: never null once set, made by `make`, never freed.
            Err(other) => Ok(&unsafe { &*other }.value),
        }
    }
}
