//! Round trips through the kernel: a futex, and 16 bytes through file descriptors.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::thread::futex::{self, Flags};

use crate::error::{Error, Result};

/// What travels through a pipe or a socket pair; no task descriptor is smaller.
pub(super) type Message = [u8; 16];

/// Stores `value` in `bell` and wakes who sleeps on it.
#[inline]
pub(super) fn ring_bell(bell: &AtomicU32, value: u32) -> Result<()> {
    // Release: pairs with the Acquire fence in `await_bell`.
    bell.store(value, Release);
    // Not private: the sleeper is another process.
    futex::wake(bell, Flags::empty(), 1).map_err(Error::system("futex (wake)"))?;
    Ok(())
}

/// Sleeps until `bell` is no longer `old`, and returns what it is.
#[inline]
pub(super) fn await_bell(bell: &AtomicU32, old: u32, timeout: Option<&Timespec>) -> Result<u32> {
    loop {
        // Relaxed and a fence: the mapping may be read-only.
        let value = bell.load(Relaxed);
        if value != old {
            // Acquire: pairs with the Release store in `ring_bell`.
            fence(Acquire);
            return Ok(value);
        }
        match futex::wait(bell, Flags::empty(), old, timeout) {
            // Woken, too late to sleep, or for a signal: look again.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::TIMEDOUT) => return Err(Error::Silent("futex")),
            Err(error) => return Err(Error::system("futex (wait)")(error)),
        }
    }
}

/// How long [`await_bell`] sleeps at most.
pub(super) use rustix::thread::Timespec;

/// A descriptor to send to the other process, and one to receive from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Duplex<'a> {
    pub(super) out: BorrowedFd<'a>,
    pub(super) back: BorrowedFd<'a>,
}

impl<'a> Duplex<'a> {
    pub(super) fn new(out: &'a impl AsFd, back: &'a impl AsFd) -> Self {
        Self {
            out: out.as_fd(),
            back: back.as_fd(),
        }
    }

    #[inline]
    pub(super) fn send(self, message: &Message) -> Result<()> {
        let sent = retry_on_intr(|| write(self.out, message)).map_err(Error::system("write"))?;
        whole(sent)
    }

    /// The next message; an end of file is an error, for the other side has died.
    #[inline]
    pub(super) fn receive(self) -> Result<Message> {
        let mut message = Message::default();
        let got = retry_on_intr(|| read(self.back, &mut message)).map_err(Error::system("read"))?;
        whole(got)?;
        Ok(message)
    }
}

/// So few bytes are never split; anything less than all of them is the end of the other side.
#[inline]
fn whole(bytes: usize) -> Result<()> {
    match bytes {
        n if n == size_of::<Message>() => Ok(()),
        _ => Err(Error::Unfit("the other process has gone".into())),
    }
}
