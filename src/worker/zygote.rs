//! The zygote: the single-threaded process that forks the workers.
//!
//! It is forked before its engine has threads or data segments, holds no mapping of them, and
//! takes no lock of the host's. It outlives the host just long enough to kill the workers and to
//! unlink the engine's name.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::sandbox::Sandbox;
use crate::sys::crash::Dispositions;
use crate::sys::fork::{self, Fork};
use crate::sys::kill_point::kill_point;
use crate::sys::process::Process;
use crate::sys::sandbox;
use crate::sys::socket::Socket;
use crate::worker::handover::{execute_worker, execute_zygote, lane_fds};
use crate::worker::keeper::{Heard, Keeper, Request, remove_names};
use crate::worker::lane::{Inherited, Lane};
use crate::worker::link::{FromWorker, ToZygote};
use crate::worker::{Handler, crash, pool, watcher};

/// Exit code of a worker that could not join its lane.
const EXIT_JOIN: i32 = 70;
/// Exit code of a worker whose program (or zygote's program) could not be executed, as in the shell.
const EXIT_EXEC: i32 = 127;

/// How long a zygote may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the workers of an engine run.
#[derive(Clone)]
pub(crate) enum Role {
    /// User code of the host, in a forked child.
    Handler(Arc<dyn Handler>),
    /// A program with its arguments.
    Program(Vec<CString>),
    /// A program with its arguments that is the zygote: it forks the workers.
    ZygoteProgram(Vec<CString>),
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Handler(_) => f.write_str("Handler"),
            Self::Program(argv) => f.debug_tuple("Program").field(argv).finish(),
            Self::ZygoteProgram(argv) => f.debug_tuple("ZygoteProgram").field(argv).finish(),
        }
    }
}

/// The host's end of its zygote.
#[derive(Debug)]
pub(crate) struct ZygoteLink {
    pub(crate) socket: Socket,
    pub(crate) process: Process,
}

impl ZygoteLink {
    /// Tells the zygote which shared-memory name it has to remove if the host dies. Before the name
    /// is made, so that it cannot be left behind in between; the zygote removes no name that is not
    /// a dead host's.
    pub(crate) fn entrust(&self, os_name: &CStr) -> Result<()> {
        ToZygote::Name(os_name.to_string_lossy().into_owned())
            .send(&self.socket, &[])
            .map_err(|e| Error::system("sendmsg", "cannot reach the zygote", e))
    }
}

impl Drop for ZygoteLink {
    /// Ends the zygote, which by then has no children that matter, and reaps it.
    fn drop(&mut self) {
        let _ = ToZygote::Quit.send(&self.socket, &[]);
        if !self.process.wait_end(PATIENCE) {
            self.process.kill();
            self.process.wait_end(PATIENCE);
        }
        self.process.reap();
    }
}

/// Forks the zygote of a new engine.
pub(crate) fn start(role: &Role, inherit: &[i32], sandbox: &Sandbox) -> Result<ZygoteLink> {
    let (ours, theirs) = Socket::pair()?;
    let host = rustix::process::getpid();
    let _blocked = fork::SignalsBlocked::new(); // in this process only: the child exits
    // SAFETY: the child runs `Zygote::run`, which allocates (libc's `fork` keeps `malloc` usable)
    // but takes no other lock that a thread of the host may have held, and it never returns. What
    // a *handler* may use in a host that had threads is documented at `Builder::start`.
    match unsafe { fork::fork() }? {
        Fork::Parent(pid) => Ok(ZygoteLink {
            socket: ours,
            process: Process::of_child(pid).inspect_err(|_| fork::take_back(pid))?,
        }),
        Fork::Child => {
            drop(ours);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                Zygote::run(role, host, theirs, inherit, sandbox);
            }));
            fork::exit(i32::from(outcome.is_err()));
        }
    }
}

struct Zygote<'a> {
    role: &'a Role,
    keeper: Keeper,
    /// The host's own fault handlers: nothing for the zygote, but a worker's faults go to them too.
    handlers: Dispositions,
    /// Descriptors of the host's that the workers may use.
    inherit: &'a [i32],
    /// What the workers are forbidden; the zygote itself must stay able to kill them.
    sandbox: &'a Sandbox,
    /// Why the zygote program could not be executed, as an error number.
    exec_failure: i32,
}

/// The descriptors of the host's that the configuration leaves open.
fn borrow(numbers: &[i32]) -> impl Iterator<Item = BorrowedFd<'_>> {
    numbers.iter().map(|&fd| {
        // SAFETY: borrowed only to be named as the ones to leave open.
        unsafe { BorrowedFd::borrow_raw(fd) }
    })
}

impl<'a> Zygote<'a> {
    fn run(role: &'a Role, host: Pid, socket: Socket, inherit: &'a [i32], sandbox: &'a Sandbox) {
        fork::set_name(c"mf-zygote");
        // Its own group: Ctrl-C at a terminal reaches the host alone.
        let _ = rustix::process::setpgid(None, None);
        let handlers = Dispositions::current().handlers_only();
        fork::reset_signals();
        // The host's death orphans this process group, and if a worker in it is stopped just then
        // the kernel hangs up on all of it: the zygote has work left to do.
        fork::ignore_hangup(true);
        let mut keep = vec![socket.as_fd()];
        keep.extend(borrow(inherit));
        fork::close_all_but(&keep);
        let Ok(host) = Process::of_parent(host) else {
            return remove_names(&socket, None); // the host is gone already
        };
        Zygote {
            role,
            keeper: Keeper::new(host, socket, None),
            handlers,
            inherit,
            sandbox,
            exec_failure: 0,
        }
        .serve();
    }

    fn serve(&mut self) {
        self.become_program();
        while self.keeper.wait() {
            self.become_program(); // it may be there by now
            match self.keeper.hear() {
                Heard::Spawn(request) => self.spawn(request),
                Heard::Nothing => {}
                Heard::End => return,
            }
        }
    }

    /// Executes the zygote program, if there is one; what the host says next is for that to hear.
    /// Comes back if that fails. Then this zygote goes on, and its workers say so to the host.
    fn become_program(&mut self) {
        // Children that are still to be reaped would be nobody's.
        if let Role::ZygoteProgram(argv) = self.role
            && !self.keeper.has_children()
        {
            self.exec_failure =
                execute_zygote(argv, &self.keeper, self.sandbox, borrow(self.inherit));
        }
    }

    fn spawn(&mut self, request: Request) {
        let me = rustix::process::getpid();
        let incarnation = request.incarnation;
        // SAFETY: this process is single-threaded, so the child may do anything; it never
        // returns from `become_worker`.
        let answer = match unsafe { fork::fork() } {
            Ok(Fork::Child) => self.become_worker(me, request),
            Ok(Fork::Parent(pid)) => Process::of_child(pid)
                .inspect_err(|_| fork::take_back(pid))
                .map_err(|_| libc::EMFILE),
            Err(e) => Err(number_of(&e)),
        };
        match answer {
            Ok(process) => self.keeper.admit(incarnation, process),
            Err(errno) => self.keeper.refuse(incarnation, errno),
        }
    }

    /// In the forked child: turns into a worker, and never returns.
    fn become_worker(&self, zygote: Pid, request: Request) -> ! {
        fork::set_name(c"mf-worker");
        fork::ignore_hangup(false);
        // The zygote's socket and the pidfds of the siblings are none of its business.
        let mut keep = lane_fds(&request.inherited, &self.keeper.host).to_vec();
        keep.extend(borrow(self.inherit));
        fork::close_all_but(&keep);
        // Until the watcher runs: do not outlive the zygote.
        if fork::die_with_parent(zygote).is_err() {
            fork::exit(EXIT_JOIN);
        }
        request.take_seat();
        let inherited = request.inherited;
        // The last thing before anybody else's code runs.
        if let Err((step, errno)) = sandbox::apply(self.sandbox) {
            let _ = FromWorker::SandboxFailed { step, errno }.send(&inherited.control);
            fork::exit(EXIT_JOIN);
        }
        match self.role {
            Role::Handler(handler) => {
                let handler = Arc::clone(handler);
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    self.run_handler(inherited, &handler)
                }));
                fork::exit(if matches!(outcome, Ok(Ok(()))) {
                    0
                } else {
                    EXIT_JOIN
                });
            }
            Role::Program(argv) => {
                let also = borrow(self.inherit);
                let errno = execute_worker(argv, &inherited, &self.keeper.host, also);
                exec_failed(&inherited, errno);
            }
            Role::ZygoteProgram(_) => exec_failed(&inherited, self.exec_failure),
        }
    }

    fn run_handler(&self, inherited: Inherited, handler: &Arc<dyn Handler>) -> Result<()> {
        // To say why, if the lane takes its own end along. (Under a limit there may be no room.)
        let spare = inherited.control.try_clone();
        let (lane, threads) = self.join(inherited, handler).inspect_err(|e| {
            if let Ok(spare) = spare {
                let errno = number_of(e);
                let _ = FromWorker::JoinFailed { errno }.send(&spare);
            }
        })?;
        pool::run(&lane, &**handler, threads)
    }

    /// Maps the lane and starts all threads of a handler worker.
    fn join(
        &self,
        inherited: Inherited,
        handler: &Arc<dyn Handler>,
    ) -> Result<(Arc<Lane>, Vec<JoinHandle<()>>)> {
        let host = self.keeper.host.try_clone()?;
        let lane = Arc::new(Lane::open(inherited)?);
        kill_point!("open.after-up");
        crash::install(&lane, Some(self.handlers));
        watcher::spawn(Arc::clone(&lane), host)?;
        fork::outlive_parent();
        kill_point!("open.watching");
        let threads = pool::start(&lane, handler)?;
        Ok((lane, threads))
    }
}

/// In a worker to be: says that the program could not be executed, and ends.
fn exec_failed(inherited: &Inherited, errno: i32) -> ! {
    let _ = FromWorker::ExecFailed { errno }.send(&inherited.control);
    fork::exit(EXIT_EXEC);
}

/// The error number that stands for an error in a message.
pub(crate) fn number_of(error: &Error) -> i32 {
    match error {
        Error::System { source, .. } => source.raw_os_error().unwrap_or(0),
        Error::NoMemory(_) => libc::ENOMEM,
        _ => libc::EINVAL,
    }
}
