//! Looking again and again.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use miniflow::monitor::Monitor;
use rustix::event::{PollFd, PollFlags};

use super::Page;
use crate::error::{Error, Result};
use crate::run::bell::{Bell, wait};
use crate::run::signals::Signals;

/// An engine's end is noticed within this, however rarely it is looked at.
const NOTICE: Duration = Duration::from_millis(250);

/// What ended the watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The engine, whose last report has been shown.
    ByItself,
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

/// Shows a report every `interval`. [`Error::ReaderGone`] if nobody reads them any more.
pub(super) fn watch(monitor: &Monitor, interval: Duration, page: &mut Page) -> Result<Ended> {
    let bell = Arc::new(Bell::new()?);
    let signals = Signals::block()?;
    signals.watch(Arc::clone(&bell))?;
    signals.working();
    let mut next = Instant::now();
    loop {
        // In this order, so that the last report is of after the end.
        let alive = monitor.is_alive();
        if !alive || Instant::now() >= next {
            page.show(&monitor.status())?;
            next += interval;
        }
        if !alive {
            return Ok(Ended::ByItself);
        }
        next = next.max(Instant::now()); // reports that were missed are not made up for
        if pause(&bell, next)? {
            return Ok(Ended::Interrupted);
        }
    }
}

/// Waits for the next report, or for a look at whether the engine lives; true if it is to be the end.
fn pause(bell: &Bell, next: Instant) -> Result<bool> {
    let stdout = io::stdout();
    let mut fds = [
        PollFd::new(bell, PollFlags::IN),
        // Nothing is asked for: the end of a pipe is told unasked.
        PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty()),
    ];
    let left = next.saturating_duration_since(Instant::now());
    wait(&mut fds, Some(left.min(NOTICE)));
    let is_unread = fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP);
    match is_unread {
        true => Err(Error::ReaderGone),
        false => Ok(bell.rings()),
    }
}
