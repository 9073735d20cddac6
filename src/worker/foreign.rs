//! Zygote programs: language runtimes that load what workers need once, then fork them.
#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::sandbox::Sandbox;
use crate::sys::fork::{self, ForkGuard};
use crate::sys::process::{self, Process};
use crate::sys::sandbox::{self, Step};
use crate::sys::sync::lock;
use crate::worker::handover;
use crate::worker::keeper::{Heard, Keeper, Request};
use crate::worker::lane::Inherited;
use crate::worker::link::{FromWorker, FromZygote};

/// A language runtime's end of being the zygote of an engine
/// ([`Builder::zygote_program`](crate::Builder::zygote_program)).
///
/// The runtime loads what its workers need, then loops: [`Zygote::recv`], fork, and in the parent
/// [`Zygote::reply`]. The child calls [`Worker::join`](crate::worker::Worker::join) before anything
/// else and works from then on. All threads may use this; one of them at a time is in a call.
///
/// ```no_run
/// use miniflow::worker::{Worker, Zygote};
///
/// let zygote = Zygote::open()?;
/// // ... load what the workers need ...
/// while let Ok(request) = zygote.recv() {
///     match unsafe { libc::fork() } {
///         0 => {
///             let worker = Worker::join()?;
///             while let Ok(assigned) = worker.next(None) {
///                 assigned.finish(Ok(()));
///             }
///             std::process::exit(0);
///         }
///         -1 => zygote.reply(&request, Err(std::io::Error::last_os_error()))?,
///         child => zygote.reply(&request, Ok(child.unsigned_abs()))?,
///     }
/// }
/// # Ok::<(), miniflow::Error>(())
/// ```
pub struct Zygote {
    opened: &'static Opened,
}

/// The engine wants a worker; see [`Zygote::recv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnRequest {
    pub(crate) worker: u32,
    pub(crate) incarnation: u64,
}

impl SpawnRequest {
    /// The number of the worker to be.
    #[must_use]
    pub fn worker(&self) -> u32 {
        self.worker
    }
}

/// The one zygote that a process can be.
static OPENED: OnceLock<Opened> = OnceLock::new();

struct Opened {
    guard: ForkGuard,
    pid: Pid,
    fd: RawFd,
    /// `None` in a forked child that has claimed its lane.
    ///
    /// The thread that forks does not hold the lock: it is free whenever a call has returned, and
    /// nothing that runs under it calls into the runtime. Another thread may hold it, if the
    /// runtime forks while that is in a call; such a child has no lane, and only tries the lock.
    state: Mutex<Option<State>>,
}

struct State {
    keeper: Keeper,
    sandbox: Sandbox,
    /// What was handed out by `recv` and not answered yet.
    pending: Option<Request>,
    /// The host is gone, or wants no more.
    ended: bool,
}

impl Zygote {
    /// Becomes the zygote of the engine that started this program. Once per process.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the process is not a zygote program that an engine has started, or has
    /// opened its zygote already, [`Error::Unsupported`] if the host has another version of the shared
    /// layout.
    pub fn open() -> Result<Self> {
        let guard = ForkGuard::new()?;
        let (keeper, sandbox) = handover::adopt_zygote()?;
        let pid = rustix::process::getpid();
        if rustix::thread::gettid() == pid {
            fork::set_name(c"mf-zygote"); // an exec has named it after the program
        }
        let fd = keeper.socket.as_fd().as_raw_fd();
        let state = Mutex::new(Some(State {
            keeper,
            sandbox,
            pending: None,
            ended: false,
        }));
        let opened = Opened {
            guard,
            pid,
            fd,
            state,
        };
        OPENED
            .set(opened)
            .map_err(|_| Error::Internal("two zygotes in one process".into()))?;
        Self::opened()
    }

    /// The one that this process has opened.
    pub(crate) fn opened() -> Result<Self> {
        let opened = OPENED
            .get()
            .ok_or_else(|| Error::invalid("this process has not opened its zygote"))?;
        if opened.guard.is_child() {
            return Err(in_child());
        }
        Ok(Self { opened })
    }

    /// Waits until a worker is to be forked. Meanwhile, workers that end are reaped and reported.
    ///
    /// A request that is not answered by [`Zygote::reply`] before the next call counts as refused.
    /// When the host dies, its workers are killed here and its name is removed.
    ///
    /// # Errors
    /// [`Error::Closed`] when the program has to exit.
    pub fn recv(&self) -> Result<SpawnRequest> {
        let mut state = self.lock()?;
        let State {
            keeper,
            pending,
            ended,
            ..
        } = state.get()?;
        if let Some(unanswered) = pending.take() {
            keeper.refuse(unanswered.incarnation, libc::ECANCELED);
        }
        while !*ended && keeper.wait() {
            match keeper.hear() {
                Heard::Spawn(request) => {
                    let asked = SpawnRequest {
                        worker: request.worker,
                        incarnation: request.incarnation,
                    };
                    *pending = Some(request);
                    return Ok(asked);
                }
                Heard::Nothing => {}
                Heard::End => break,
            }
        }
        *ended = true;
        Err(Error::Closed)
    }

    /// Answers the last request, in the process that called [`Zygote::recv`]: with the child that was
    /// forked, or with why there is none.
    ///
    /// # Errors
    /// [`Error::Invalid`] if this request does not wait for an answer, or the process is not a child
    /// of this one (the request counts as refused); [`Error::System`] if it cannot be watched: it is
    /// killed then.
    pub fn reply(&self, request: &SpawnRequest, child: std::io::Result<u32>) -> Result<()> {
        let mut state = self.lock()?;
        let State {
            keeper, pending, ..
        } = state.get()?;
        let incarnation = request.incarnation;
        if pending.take_if(|p| p.incarnation == incarnation).is_none() {
            return Err(Error::invalid(
                "this request does not wait for an answer (another came after it, or it has one)",
            ));
        }
        match child.map(watch) {
            Ok(Ok(process)) => keeper.admit(incarnation, process),
            Ok(Err((errno, error))) => {
                keeper.refuse(incarnation, errno);
                return Err(error);
            }
            Err(e) => keeper.refuse(incarnation, e.raw_os_error().unwrap_or(libc::EAGAIN)),
        }
        Ok(())
    }

    /// Tells the host that this runtime cannot start workers, and why (up to about 1000 bytes): the
    /// start of the engine fails with that text. If the engine has started long since and this is
    /// another zygote in the place of one that died, it is tried again later; after several such
    /// failures in a row tasks fail with that text. The host kills this process.
    ///
    /// # Errors
    /// [`Error::Closed`] if the host is gone.
    pub fn fail(&self, why: &str) -> Result<()> {
        let mut state = self.lock()?;
        let state = state.get()?;
        FromZygote::Failed(why.to_owned())
            .send(&state.keeper.socket, &[])
            .map_err(|_| Error::Closed)
    }

    /// The number of the socket to the host, by which C names this.
    pub(crate) fn fd(&self) -> RawFd {
        self.opened.fd
    }

    fn lock(&self) -> Result<Locked> {
        if self.opened.guard.is_child() {
            return Err(in_child());
        }
        Ok(Locked(lock(&self.opened.state)))
    }
}

struct Locked(MutexGuard<'static, Option<State>>);

impl Locked {
    fn get(&mut self) -> Result<&mut State> {
        let missing = || Error::Internal("the zygote has claimed a lane".into());
        self.0.as_mut().ok_or_else(missing)
    }
}

impl fmt::Debug for Zygote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zygote")
            .field("fd", &self.opened.fd)
            .finish_non_exhaustive()
    }
}

fn in_child() -> Error {
    Error::invalid("this belongs to the zygote, not to a process that it has forked")
}

/// Watches a child that the runtime has forked; or the error number for the host, and the error.
fn watch(pid: u32) -> Result<Process, (i32, Error)> {
    let child = Pid::from_raw(pid.cast_signed()).filter(|&pid| process::is_child(pid));
    let Some(child) = child else {
        let error = format!("process {pid} is not a child of this one, or was waited for already");
        return Err((libc::ECHILD, Error::invalid(error)));
    };
    Process::of_child(child)
        .inspect_err(|_| fork::take_back(child))
        .map_err(|e| (libc::EMFILE, e))
}

/// In a process that a zygote program has forked: makes it a worker, but for its lane. `None` if this
/// process has nothing to do with a zygote program.
pub(crate) fn claim() -> Result<Option<(Inherited, Process)>> {
    let Some(opened) = OPENED.get() else {
        return Ok(None);
    };
    if !opened.guard.is_child() {
        return Err(Error::invalid(
            "this process is a zygote: the processes that it forks for the engine join",
        ));
    }
    let state = match opened.state.try_lock() {
        Ok(mut state) => state.take(),
        Err(TryLockError::Poisoned(state)) => state.into_inner().take(),
        Err(TryLockError::WouldBlock) => None, // see `Opened::state`
    };
    let Some((pending, state)) = state.and_then(|mut s| Some((s.pending.take()?, s))) else {
        return Err(Error::invalid(
            "no worker was asked for when this process was forked, or it has joined already",
        ));
    };
    let State {
        keeper, sandbox, ..
    } = state;
    fork::set_name(c"mf-worker");
    fork::heed_hangup();
    // The zygote's socket and the pidfds of the siblings are none of its business.
    let host = keeper.into_host();
    // Until the watcher runs: do not outlive the zygote.
    fork::die_with_parent(opened.pid)?;
    pending.take_seat();
    // The last thing before anybody else's code runs.
    restrict(&sandbox).map_err(|(step, errno)| {
        let _ = FromWorker::SandboxFailed { step, errno }.send(&pending.inherited.control);
        step.error(errno)
    })?;
    Ok(Some((pending.inherited, host)))
}

fn restrict(sandbox: &Sandbox) -> Result<(), (Step, i32)> {
    // Of these, other threads would be exempt for ever.
    if (sandbox.no_new_privs || sandbox.seccomp) && process::threads() > 1 {
        return Err((Step::Threads, libc::EBUSY));
    }
    sandbox::apply(sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Exit;
    use crate::sys::socket::Socket;

    fn end_of_a_claimant() -> Exit {
        fork::end_of_a_child(|| i32::from(!matches!(claim(), Err(Error::Invalid(_)))))
    }

    #[test]
    fn a_child_that_was_forked_for_no_worker_has_no_lane_and_does_not_wait() {
        assert!(claim().unwrap().is_none(), "not a zygote");
        let (socket, _host) = Socket::pair().unwrap();
        let me = rustix::process::getpid();
        let state = State {
            keeper: Keeper::new(Process::of_child(me).unwrap(), socket, None),
            sandbox: Sandbox::new(),
            pending: None,
            ended: false,
        };
        let opened = OPENED.get_or_init(|| Opened {
            guard: ForkGuard::new().unwrap(),
            pid: me,
            fd: -1,
            state: Mutex::new(Some(state)),
        });
        assert!(claim().is_err(), "the zygote itself");
        assert_eq!(end_of_a_claimant(), Exit::Code(0));
        let _call_in_progress = lock(&opened.state);
        assert_eq!(end_of_a_claimant(), Exit::Code(0));
    }
}
