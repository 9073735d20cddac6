//! The process that outlives a killed worker just long enough to end what the worker has started.
//!
//! It knows the process groups of the worker's programs from a pipe, and that the worker is gone from
//! the end of that pipe.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};

/// A word of the pipe: the number of a group that is there, or minus the number of one that is gone.
type Word = i32;

/// The worker's end.
#[derive(Debug)]
pub(super) struct Guard(ChildStdin);

impl Guard {
    pub(super) fn start() -> Result<Self> {
        let mut guard = Command::new("/proc/self/exe")
            .arg("program-guard")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .map_err(Error::system("spawn of the guard"))?;
        guard
            .stdin
            .take()
            .map(Self)
            .ok_or_else(|| Error::Unfit("the guard has no pipe".into()))
    }

    /// Tells of the group of the calling process. To be called between fork and exec, so that there
    /// is no moment in which a group is unknown: it does nothing but a system call.
    pub(super) fn enter(pipe: BorrowedFd<'_>) -> io::Result<()> {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        rustix::io::write(pipe, &me.to_ne_bytes())?;
        Ok(())
    }

    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Tells that a group is no more. Before its leader is reaped: then its number may come to mean
    /// another.
    pub(super) fn leave(&self, group: Pid) {
        let word: Word = -group.as_raw_nonzero().get();
        // Whoever has killed the guard wants no guard.
        let _ = (&self.0).write_all(&word.to_ne_bytes());
    }
}

/// The guard's whole life.
pub(crate) fn guard() {
    let _ = rustix::thread::set_name(c"mf-guard");
    let mut groups = BTreeSet::new();
    let mut pipe = io::stdin().lock();
    let mut word = [0; size_of::<Word>()];
    while pipe.read_exact(&mut word).is_ok() {
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
