//! Alternate signal stacks: a thread that has used up its own stack needs another to say so.

use std::ffi::c_void;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// What a handler gets: room for the unwinder, and for a handler of the host's that is chained.
const SIZE: usize = 64 << 10;
/// A stack that the thread has already is kept if it has so much.
const ENOUGH: usize = 32 << 10;

/// The signal stack of one thread, for as long as the thread lives; to be dropped by that thread.
#[derive(Debug)]
pub(crate) struct SignalStack {
    base: *mut c_void,
    len: usize,
    guard: usize,
}

impl SignalStack {
    /// Gives this thread a signal stack. `None` if it has one that is large enough, or if the
    /// system refuses: then a stack overflow goes without a report, and nothing else.
    pub(crate) fn install() -> Option<Self> {
        let current = change(None)?;
        if current.ss_flags & (libc::SS_DISABLE | libc::SS_ONSTACK) == 0
            && current.ss_size >= ENOUGH
        {
            return None;
        }
        let guard = crate::sys::process::page_size();
        let len = SIZE + guard;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, flags) }.ok()?;
        let stack = Self { base, len, guard };
        // SAFETY: the first page of the mapping made above, which nobody uses yet.
        unsafe { mprotect(base, guard, MprotectFlags::empty()) }.ok()?;
        change(Some(&stack.to_kernel()))?;
        Some(stack)
    }

    fn to_kernel(&self) -> libc::stack_t {
        libc::stack_t {
            ss_sp: self.base.wrapping_byte_add(self.guard),
            ss_flags: 0,
            ss_size: self.len - self.guard,
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let Some(current) = change(None) else {
            return;
        };
        if current.ss_flags & libc::SS_ONSTACK != 0 {
            return; // somebody leaves this thread from inside a signal handler: leave it mapped
        }
        if current.ss_sp == self.to_kernel().ss_sp {
            // The one that was there before may be gone by now, so it is not put back.
            change(Some(&libc::stack_t {
                ss_sp: std::ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: SIZE,
            }));
        }
        // SAFETY: the mapping made in `install`, which the kernel does not use any more: the thread
        // has another signal stack or none, and does not run on this one (checked above).
        let _ = unsafe { munmap(self.base, self.len) };
    }
}

/// Sets this thread's signal stack, if one is given; the one before.
fn change(new: Option<&libc::stack_t>) -> Option<libc::stack_t> {
    let mut old = libc::stack_t {
        ss_sp: std::ptr::null_mut(),
        ss_flags: 0,
        ss_size: 0,
    };
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: null or a valid description of memory that only this thread's signal handlers will
    // use (`install`, `drop`), and a valid place for the answer.
    let rc = unsafe { libc::sigaltstack(new, &raw mut old) };
    (rc == 0).then_some(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_a_stack_until_the_guard_is_dropped() {
        std::thread::spawn(|| {
            // Instead of the small one that the standard library has given this thread.
            let Some(stack) = SignalStack::install() else {
                let current = change(None).unwrap();
                assert!(current.ss_size >= ENOUGH, "a sanitizer's is large enough");
                return;
            };
            let current = change(None).unwrap();
            assert_eq!(current.ss_sp, stack.to_kernel().ss_sp);
            assert_eq!((current.ss_flags, current.ss_size), (0, SIZE));
            assert!(SignalStack::install().is_none(), "large enough");
            drop(stack);
            assert_eq!(change(None).unwrap().ss_flags, libc::SS_DISABLE);
        })
        .join()
        .unwrap();
    }
}
