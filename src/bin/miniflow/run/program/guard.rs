//! The process that outlives a killed worker just long enough to end what the worker has started.
//!
//! It knows the process groups of the worker's programs from a socket, and that the worker is gone from
//! the end of that stream.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, fstat};
use rustix::net::{SendFlags, send};
use rustix::process::{Pid, Signal, getpid, kill_process_group};

use crate::error::{Error, Result};

/// A word of the stream: the number of a group that is there, minus the number of one that is gone, or
/// one of the two below.
type Word = i32;
/// A program is about to be started.
const STARTING: Word = Word::MIN;
/// It was not: the group that has entered since then, if any, is none.
const FAILED: Word = 0;

/// The worker's end.
#[derive(Debug)]
pub(super) struct Guard {
    stream: UnixStream,
    /// Held from `STARTING` on: programs are started one after the other.
    starting: Mutex<()>,
}

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
        Ok(Self {
            stream: ours,
            starting: Mutex::new(()),
        })
    }

    /// Starts a program in a process group of its own. There is no moment in which it could start a
    /// child and the guard does not know the group.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let stream = self.stream.try_clone()?;
        let enter = move || {
            tell(&stream, number_of(getpid()));
            Ok(())
        };
        command.process_group(0);
        // SAFETY: the closure runs between fork and exec and does nothing but two system calls; it
        // allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        let _one = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&self.stream, STARTING);
        command.spawn().inspect_err(|_| tell(&self.stream, FAILED))
    }

    /// Tells that a group is no more. Before its leader is reaped: then its number may come to mean
    /// another.
    pub(super) fn leave(&self, group: Pid) {
        tell(&self.stream, -number_of(group));
    }
}

fn number_of(pid: Pid) -> Word {
    pid.as_raw_nonzero().get()
}

/// Sends a word. Whoever has killed the guard wants no guard: that is no error, and no SIGPIPE.
fn tell(stream: &UnixStream, word: Word) {
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
    let (mut groups, mut entered) = (BTreeSet::new(), None);
    let mut stream = io::stdin().lock();
    let mut word = [0; size_of::<Word>()];
    while stream.read_exact(&mut word).is_ok() {
        match Word::from_ne_bytes(word) {
            STARTING => entered = None,
            FAILED => {
                if let Some(group) = entered.take() {
                    groups.remove(&group);
                }
            }
            group @ 1.. => {
                groups.insert(group);
                entered = Some(group);
            }
            group => {
                groups.remove(&-group);
            }
        }
    }
    for group in groups {
        if let Some(group) = Pid::from_raw(group) {
            let _ = kill_process_group(group, Signal::KILL); // it may be gone by itself
        }
    }
}
