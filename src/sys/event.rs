//! Eventfds and epoll sets.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::error::{Error, Result};

/// A counter that a file descriptor makes readable while it is not 0.
#[derive(Debug)]
pub(crate) struct Event(OwnedFd);

impl Event {
    pub(crate) fn new() -> Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(|e| Error::system("eventfd", "cannot create an event", e))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Makes the event readable. A full counter is readable already.
    pub(crate) fn signal(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes the event unreadable until the next signal; returns how many there were.
    ///
    /// Never waits, also if a process that shares the descriptor has made it blocking and reads it
    /// itself.
    pub(crate) fn drain(&self) -> u64 {
        let mut count = [0; 8];
        let here = u64::MAX; // no offset: as `read`
        let read = preadv2(
            &self.0,
            &mut [IoSliceMut::new(&mut count)],
            here,
            ReadWriteFlags::NOWAIT,
        );
        let read = match read {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => rustix::io::read(&self.0, &mut count), // before Linux 5.8
            other => other,
        };
        read.map_or(0, |_| u64::from_ne_bytes(count))
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A level-triggered epoll set whose members carry a number.
#[derive(Debug)]
pub(crate) struct EpollSet(OwnedFd);

impl EpollSet {
    pub(crate) fn new() -> Result<Self> {
        epoll::create(epoll::CreateFlags::CLOEXEC)
            .map(Self)
            .map_err(|e| Error::system("epoll_create1", "cannot create an epoll set", e))
    }

    pub(crate) fn add(&self, fd: impl AsFd, key: u64) -> Result<()> {
        epoll::add(
            &self.0,
            fd,
            epoll::EventData::new_u64(key),
            epoll::EventFlags::IN,
        )
        .map_err(|e| Error::system("epoll_ctl", "cannot watch a file descriptor", e))
    }

    /// Stops watching `fd`; no effect if it is not watched.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// Fills `keys` with the members that are readable, waiting at most `timeout` for the first.
    pub(crate) fn wait(&self, keys: &mut Vec<u64>, timeout: Duration) -> Result<()> {
        keys.clear();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 64];
        match epoll::wait(&self.0, &mut events, Some(&timeout)) {
            Ok((ready, _)) => keys.extend(ready.iter().map(|e| e.data.u64())),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::system("epoll_wait", "cannot wait for events", e)),
        }
        Ok(())
    }
}

impl AsFd for EpollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_counts_the_signals_and_never_waits() {
        let event = Event::new().unwrap();
        event.signal();
        event.signal();
        assert_eq!((event.drain(), event.drain()), (2, 0));
        let flags = rustix::fs::fcntl_getfl(&event).unwrap();
        rustix::fs::fcntl_setfl(&event, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
        assert_eq!(event.drain(), 0);
    }
}
