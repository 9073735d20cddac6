//! The process that outlives a killed worker just long enough to end what the worker has started.
//!
//! It knows the process groups of the worker's programs from a socket, and that the worker is gone from
//! the end of that stream.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::{FileType, fstat};
use rustix::net::{SendFlags, send};
use rustix::process::{Pid, Signal, getpid, kill_process_group};

use crate::error::{Error, Result};

/// A word of the stream: the number of a group that is there, or minus the number of one that is gone.
type Word = i32;

/// The worker's end.
#[derive(Debug)]
pub(super) struct Guard(UnixStream);

impl Guard {
    pub(super) fn start() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::system("socketpair"))?;
        Command::new("/proc/self/exe")
            .arg("program-guard")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(Error::system("spawn of the guard"))?;
        Ok(Self(ours))
    }

    pub(super) fn stream(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Tells of the group of the calling process. To be called between fork and exec, so that there
    /// is no moment in which a group is unknown: it does nothing but system calls.
    pub(super) fn enter(stream: BorrowedFd<'_>) {
        tell(stream, number_of(getpid()));
    }

    /// Tells that a group is no more. Before its leader is reaped: then its number may come to mean
    /// another.
    pub(super) fn leave(&self, group: Pid) {
        tell(self.stream(), -number_of(group));
    }
}

fn number_of(pid: Pid) -> Word {
    pid.as_raw_nonzero().get()
}

/// Sends a word. Whoever has killed the guard wants no guard: that is no error, and no SIGPIPE.
fn tell(stream: BorrowedFd<'_>, word: Word) {
    let _ = send(stream, &word.to_ne_bytes(), SendFlags::NOSIGNAL);
}

/// The guard's whole life. Not for people: only from a worker's socket it believes what it reads.
pub(crate) fn guard() {
    let is_socket =
        fstat(io::stdin()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_socket());
    if !is_socket {
        return;
    }
    let _ = rustix::thread::set_name(c"mf-guard");
    let mut groups = BTreeSet::new();
    let mut stream = io::stdin().lock();
    let mut word = [0; size_of::<Word>()];
    while stream.read_exact(&mut word).is_ok() {
        match Word::from_ne_bytes(word) {
            group @ 1.. => groups.insert(group),
            group => groups.remove(&group.saturating_neg()),
        };
    }
    for group in groups {
        if let Some(group) = Pid::from_raw(group) {
            let _ = kill_process_group(group, Signal::KILL); // it may be gone by itself
        }
    }
}
