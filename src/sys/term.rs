//! SIGTERM in a worker: noticed by a descriptor, so that the thread that waits for other things too
//! sees it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::error::{Error, Result};
use crate::sys::event::Event;

/// Where the signal handler writes; -1 before there is a place.
static BELL: AtomicI32 = AtomicI32::new(-1);
/// Whose signals it is about: a process that a handler forks inherits all of this.
static OWNER: AtomicI32 = AtomicI32::new(0);

/// Readable once this process got a SIGTERM.
#[derive(Debug)]
pub(crate) struct Termination(Event);

impl Termination {
    /// Catches SIGTERM from now on, unless the program has its own use for it. Once per process.
    pub(crate) fn notice() -> Result<Self> {
        let event = Event::new()?;
        // SAFETY: all zeros is a valid `sigaction`, SIG_DFL.
        let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks for the present action only.
        unsafe { libc::sigaction(libc::SIGTERM, std::ptr::null(), &raw mut old) };
        if old.sa_sigaction != libc::SIG_DFL {
            return Ok(Self(event)); // never readable
        }
        // SAFETY: no preconditions.
        OWNER.store(unsafe { libc::getpid() }, Ordering::Relaxed); // Relaxed: published by `BELL`.
        // Release: pairs with the Acquire load in `on_term`.
        BELL.store(event.as_fd().as_raw_fd(), Ordering::Release);
        // SAFETY: as above.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_term as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: `on_term` has the signature of a handler without SA_SIGINFO and does only what is
        // async-signal-safe; the old action is known.
        let failed =
            unsafe { libc::sigaction(libc::SIGTERM, &raw const action, std::ptr::null_mut()) } != 0;
        if failed {
            let error = std::io::Error::last_os_error();
            return Err(Error::system("sigaction", "cannot catch SIGTERM", error));
        }
        Ok(Self(event))
    }
}

impl AsFd for Termination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Rings the bell, in the process that it belongs to; another ends, as if it had never heard of this.
/// All that is called here is async-signal-safe (signal-safety(7)).
extern "C" fn on_term(_: libc::c_int) {
    // Acquire: pairs with the Release store in `notice`.
    let bell = BELL.load(Ordering::Acquire);
    // SAFETY: no preconditions.
    let process = unsafe { libc::getpid() };
    if OWNER.load(Ordering::Relaxed) != process {
        // Relaxed: ordered after the load of `BELL`.
        // SAFETY: the default action is no handler of anybody's.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_DFL) };
        // SAFETY: this process; the signal is delivered when the handler returns.
        let sent = unsafe { libc::kill(process, libc::SIGTERM) };
        if sent != 0 {
            // A sandboxed worker's child may send no signals. 128 + 15 is what shells say.
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(128 + libc::SIGTERM) };
        }
        return;
    }
    let one = 1_u64;
    // SAFETY: the place of the thread that was interrupted.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { errno.read() };
    // SAFETY: eight bytes that are there; a descriptor that is not open is an error of the call.
    unsafe { libc::write(bell, (&raw const one).cast(), size_of::<u64>()) };
    // SAFETY: as above.
    unsafe { errno.write(before) };
}
