//! A child process that cannot outlive or outlast us.

use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::process::{WaitOptions, kill_process, waitpid};

use crate::error::{Error, Result};

/// A running child; dropping it ends it.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
}

impl Child {
    /// Forks; the child runs `body` and ends, and dies with the thread that called this.
    ///
    /// Fails if this process has other threads: their locks would be held for ever in the child.
    pub(super) fn fork(body: impl FnOnce() -> Result<()>) -> Result<Self> {
        let threads = fs::read_dir("/proc/self/task")
            .map_err(Error::system("reading /proc/self/task"))?
            .count();
        if threads != 1 {
            return Err(Error::Unfit(format!("cannot fork with {threads} threads")));
        }
        let parent = getpid();
        // SAFETY: this is the only thread of the process (checked above, and nobody else could
        // start one), so the child may do whatever the parent could.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            exit(status_of(parent, body));
        }
        match Pid::from_raw(pid) {
            Some(pid) if !pid.is_init() => Ok(Self { pid }),
            _ => Err(Error::system("fork")(io::Error::last_os_error())),
        }
    }
}

impl Child {
    /// A function that kills the child, to be called by nobody after the child is dropped: the
    /// process id may be another's then.
    pub(super) fn killer(&self) -> impl FnOnce() + Send + 'static {
        let pid = self.pid;
        move || kill(pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        kill(self.pid);
        let _ = rustix::io::retry_on_intr(|| waitpid(Some(self.pid), WaitOptions::empty()));
    }
}

/// Kills a child that was not reaped yet; if it has ended already, nothing happens.
fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// The life of the child, down to its exit status.
fn status_of(parent: Pid, body: impl FnOnce() -> Result<()>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(Error::system("prctl"))?;
        if getppid() != Some(parent) {
            return Ok(()); // the parent died before the line above
        }
        body()
    }));
    match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            let _ = writeln!(io::stderr(), "miniflow bench, echo process: {error}");
            1
        }
        Err(_) => 101, // the panic has printed itself
    }
}

/// Ends this process without destructors and exit handlers: they belong to the parent.
fn exit(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}
