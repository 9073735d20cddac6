//! Why the engine's lanes do without `raw_sync`'s locks (and without any lock in shared memory).
//!
//! `raw_sync` puts a `pthread_mutex_t` into shared memory that is shared between processes but not
//! *robust*: a process that is killed while it holds the lock leaves it locked for everybody, for
//! ever. Workers are killed at any instruction, so nothing that must survive a kill may lie behind
//! such a lock. The lanes have none: every word in them has one writing process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod common;

use std::io::{PipeWriter, Read, Write, pipe};
use std::time::Duration;

use common::watchdog;
use raw_sync::Timeout;
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Forks a child that takes the lock, says so and waits to be killed. It uses nothing that another
/// thread of this process may have held: the lock, `prctl`, `write`, `pause`.
fn fork_holder(lock: &dyn LockImpl, mut says: PipeWriter) -> Pid {
    // SAFETY: the child restricts itself to what is said above and never returns.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no preconditions. If the test fails, the child goes with its thread.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            if let Ok(_guard) = lock.lock() {
                let _ = says.write_all(b"!");
                loop {
                    // SAFETY: no preconditions.
                    unsafe { libc::pause() };
                }
            }
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(1) }
        }
        child => Pid::from_raw(child).unwrap(),
    }
}

#[test]
fn a_raw_sync_mutex_stays_locked_when_its_holder_is_killed() {
    let _watchdog = watchdog(30);
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let page =
        unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, access, MapFlags::SHARED) }.unwrap();
    let page: *mut u8 = page.cast();
    // SAFETY: inside the page.
    let data = unsafe { page.add(2048) };
    // SAFETY: the page is valid and writable, large enough, and stays mapped.
    let (lock, size) = unsafe { Mutex::new(page, data) }.unwrap();
    assert!(size <= 2048);

    // Nobody holds it: it can be had, also with a time-out.
    let soon = || Timeout::Val(Duration::from_millis(200));
    drop(lock.try_lock(soon()).unwrap());

    let (mut hears, says) = pipe().unwrap();
    let holder = fork_holder(&*lock, says);
    hears.read_exact(&mut [0]).unwrap();
    kill_process(holder, Signal::KILL).unwrap();
    waitpid(Some(holder), WaitOptions::empty()).unwrap();

    // Its holder does not exist any more, and will never let go.
    assert!(lock.try_lock(soon()).is_err());
    assert!(lock.try_lock(soon()).is_err());
}
