//! A descriptor by which one thread wakes another that waits in `poll`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::{Error, Result};

/// Readable from the first [`ring`](Bell::ring) until [`hush`](Bell::hush).
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> Result<Self> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(Error::system("eventfd"))
    }

    pub(crate) fn ring(&self) {
        // It can only fail because it rings already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub(crate) fn hush(&self) {
        // It can only fail because it does not ring.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl Bell {
    pub(crate) fn rings(&self) -> bool {
        let mut polls = [PollFd::new(&self.0, PollFlags::IN)];
        wait(&mut polls, Some(Duration::ZERO));
        !polls[0].revents().is_empty()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of the descriptors is ready for what is asked of it, for at most `timeout`.
/// Returning early, for instance after a signal, is no error.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let span = timeout.map(|t| Timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(t.subsec_nanos()),
    });
    let _ = poll(fds, span.as_ref());
}

/// [`wait`] for input on any of the descriptors.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) {
    let mut polls: Vec<_> = fds
        .iter()
        .map(|&fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    wait(&mut polls, timeout);
}
