//! The zygote: the single-threaded process that forks the workers.
//!
//! It is forked before its engine has threads or data segments, holds no mapping of them, and
//! takes no lock of the host's. It outlives the host just long enough to kill the workers and to
//! unlink the engine's name.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::sandbox::Sandbox;
use crate::shm::control;
use crate::shm::segments::LaneFds;
use crate::sys::crash::Dispositions;
use crate::sys::fork::{self, Fork};
use crate::sys::kill_point::kill_point;
use crate::sys::memfd;
use crate::sys::process::{Process, wait_any};
use crate::sys::sandbox;
use crate::sys::socket::Socket;
use crate::worker::lane::{Inherited, Lane};
use crate::worker::link::{FromWorker, FromZygote, Incoming, ToZygote};
use crate::worker::{Handler, crash, pool, watcher};

/// The environment variable that tells a worker program its descriptors: inputs, down, up, event,
/// control, host pidfd; then the host's pid and the program's own, so that a process which merely
/// inherited the variable is told from the one that it was meant for.
const LANE_VARIABLE: &str = "MINIFLOW_LANE";
/// Exit code of a worker that could not join its lane.
const EXIT_JOIN: i32 = 70;
/// Exit code of a worker whose program could not be executed, as in the shell.
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
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Handler(_) => f.write_str("Handler"),
            Self::Program(argv) => f.debug_tuple("Program").field(argv).finish(),
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
    host: Process,
    socket: Socket,
    /// The host's own fault handlers: nothing for the zygote, but a worker's faults go to them too.
    handlers: Dispositions,
    children: Vec<Child>,
    /// Descriptors of the host's that the workers may use.
    inherit: &'a [i32],
    /// What the workers are forbidden; the zygote itself must stay able to kill them.
    sandbox: &'a Sandbox,
    /// The shared-memory name to remove if the host dies.
    name: Option<String>,
}

struct Child {
    incarnation: u64,
    process: Process,
}

/// The descriptors of a worker to be, in the order in which the host sends them.
fn inherited(fds: Vec<OwnedFd>) -> Option<Inherited> {
    let [inputs, down, up, event, control] = <[OwnedFd; 5]>::try_from(fds).ok()?;
    let lane = LaneFds { inputs, down, up };
    Some(Inherited {
        lane,
        event,
        control,
    })
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
            host,
            socket,
            handlers,
            children: Vec::new(),
            inherit,
            sandbox,
            name: None,
        }
        .serve();
    }

    fn serve(&mut self) {
        loop {
            let mut fds = vec![self.host.as_fd(), self.socket.as_fd()];
            fds.extend(self.children.iter().map(|c| c.process.as_fd()));
            let ready = wait_any(&fds, None);
            if ready[0] {
                return self.bury_host();
            }
            self.reap(&ready[2..]);
            if !ready[1] {
                continue;
            }
            match ToZygote::receive(&self.socket) {
                Incoming::Message(ToZygote::Spawn { incarnation, .. }, fds) => {
                    self.spawn(incarnation, fds);
                }
                Incoming::Message(ToZygote::Name(name), _) => self.name = Some(name),
                Incoming::Message(ToZygote::Quit, _) => return,
                Incoming::Nothing => {}
                Incoming::Closed | Incoming::Nonsense => return self.bury_host(),
            }
        }
    }

    /// Reports the children that have ended; `ready` is by index.
    fn reap(&mut self, ready: &[bool]) {
        let mut index = 0;
        let socket = &self.socket;
        self.children.retain(|child| {
            let ended = ready.get(index).copied().unwrap_or(false);
            index += 1;
            if ended {
                let exit = child.process.reap();
                let report = FromZygote::Exited {
                    incarnation: child.incarnation,
                    exit,
                };
                let _ = report.send(socket, &[]); // a host that is gone needs no report
            }
            !ended
        });
    }

    fn spawn(&mut self, incarnation: u64, fds: Vec<OwnedFd>) {
        let me = rustix::process::getpid();
        let answer = match inherited(fds) {
            None => Err(libc::EBADMSG),
            Some(inherited) => {
                // SAFETY: this process is single-threaded, so the child may do anything; it never
                // returns from `become_worker`.
                match unsafe { fork::fork() } {
                    Ok(Fork::Child) => self.become_worker(me, inherited),
                    Ok(Fork::Parent(pid)) => Process::of_child(pid)
                        .inspect_err(|_| fork::take_back(pid))
                        .map_err(|_| libc::EMFILE),
                    Err(e) => Err(number_of(&e)),
                }
            }
        };
        let _ = match answer {
            Ok(process) => {
                let pid = process.pid_number();
                let sent =
                    FromZygote::Spawned { incarnation, pid }.send(&self.socket, &[process.as_fd()]);
                self.children.push(Child {
                    incarnation,
                    process,
                });
                sent
            }
            Err(errno) => FromZygote::Refused { incarnation, errno }.send(&self.socket, &[]),
        };
    }

    /// In the forked child: turns into a worker, and never returns.
    fn become_worker(&self, zygote: Pid, inherited: Inherited) -> ! {
        fork::set_name(c"mf-worker");
        fork::ignore_hangup(false);
        // The zygote's socket and the pidfds of the siblings are none of its business.
        let mut keep = lane_fds(&inherited, &self.host).to_vec();
        keep.extend(borrow(self.inherit));
        fork::close_all_but(&keep);
        // Until the watcher runs: do not outlive the zygote.
        if fork::die_with_parent(zygote).is_err() {
            fork::exit(EXIT_JOIN);
        }
        // The last thing before anybody else's code runs.
        if let Err((step, errno)) = sandbox::apply(self.sandbox) {
            let control = Socket::from_fd(inherited.control);
            let _ = FromWorker::SandboxFailed { step, errno }.send(&control);
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
                let errno = execute(argv, &inherited, &self.host, self.inherit);
                let control = Socket::from_fd(inherited.control);
                let _ = FromWorker::ExecFailed { errno }.send(&control);
                fork::exit(EXIT_EXEC);
            }
        }
    }

    fn run_handler(&self, inherited: Inherited, handler: &Arc<dyn Handler>) -> Result<()> {
        // To say why, if the lane takes its own end along. (Under a limit there may be no room.)
        let spare = inherited.control.try_clone();
        let (lane, threads) = self.join(inherited, handler).inspect_err(|e| {
            if let Ok(spare) = spare {
                let errno = number_of(e);
                let _ = FromWorker::JoinFailed { errno }.send(&Socket::from_fd(spare));
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
        let host = self
            .host
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::system("dup", "cannot keep the host's pidfd", e))?;
        let host = Process::from_parts(self.host.pid(), host);
        let lane = Arc::new(Lane::open(inherited)?);
        kill_point!("open.after-up");
        crash::install(&lane, Some(self.handlers));
        watcher::spawn(Arc::clone(&lane), host)?;
        fork::outlive_parent();
        kill_point!("open.watching");
        let threads = pool::start(&lane, handler)?;
        Ok((lane, threads))
    }

    /// The host is gone: leave nothing behind.
    fn bury_host(&mut self) {
        for child in &self.children {
            child.process.kill();
        }
        // Its socket closes while it is still dying. Only when it has ended is its name free: until
        // then the lock on it is held, and the name looks alive.
        self.host.wait_end(5 * PATIENCE);
        remove_names(&self.socket, self.name.take());
        for child in &self.children {
            child.process.wait_end(5 * PATIENCE);
        }
    }
}

/// Removes the name of a host that is gone: the one that it told, and one that it may have told in
/// a message that nobody has heard yet.
fn remove_names(socket: &Socket, told: Option<String>) {
    let mut names: Vec<String> = told.into_iter().collect();
    while wait_any(&[socket.as_fd()], Some(Duration::ZERO))[0] {
        match ToZygote::receive(socket) {
            Incoming::Message(ToZygote::Name(name), _) => names.push(name),
            Incoming::Message(..) => {}
            Incoming::Nothing | Incoming::Nonsense | Incoming::Closed => break,
        }
    }
    for name in names {
        if let Ok(name) = CString::new(name) {
            control::unlink_name(&name);
        }
    }
}

/// The error number that stands for an error in a message.
fn number_of(error: &Error) -> i32 {
    match error {
        Error::System { source, .. } => source.raw_os_error().unwrap_or(0),
        Error::NoMemory(_) => libc::ENOMEM,
        _ => libc::EINVAL,
    }
}

/// What a worker needs, in the order of [`LANE_VARIABLE`].
fn lane_fds<'a>(inherited: &'a Inherited, host: &'a Process) -> [BorrowedFd<'a>; 6] {
    [
        inherited.lane.inputs.as_fd(),
        inherited.lane.down.as_fd(),
        inherited.lane.up.as_fd(),
        inherited.event.as_fd(),
        inherited.control.as_fd(),
        host.as_fd(),
    ]
}

/// Executes a worker program; returns the error number if that fails.
fn execute(argv: &[CString], inherited: &Inherited, host: &Process, also: &[i32]) -> i32 {
    if borrow(also).any(|fd| fork::keep_across_exec(fd).is_err()) {
        return libc::EBADF;
    }
    let mut list = String::new();
    for fd in lane_fds(inherited, host) {
        if fork::keep_across_exec(fd).is_err() {
            return libc::EBADF;
        }
        list.push_str(&format!("{},", fd.as_raw_fd()));
    }
    let worker = rustix::process::getpid().as_raw_nonzero();
    list.push_str(&format!("{},{worker}", host.pid_number()));
    let (Ok(name), Ok(value)) = (CString::new(LANE_VARIABLE), CString::new(list)) else {
        return libc::EINVAL;
    };
    fork::execute(argv, &[(name, value)])
        .raw_os_error()
        .unwrap_or(libc::EINVAL)
}

/// In a worker program: adopts the descriptors that the zygote left open, once.
pub(crate) fn adopt_lane() -> Result<(Inherited, Process)> {
    static ADOPTED: AtomicBool = AtomicBool::new(false);
    let Ok(list) = std::env::var(LANE_VARIABLE) else {
        return Err(Error::invalid(format!(
            "this process was not started by a miniflow engine ({LANE_VARIABLE} is not set)"
        )));
    };
    let numbers: Vec<i32> = list.split(',').map_while(|n| n.parse().ok()).collect();
    let [inputs, down, up, event, control, host, pid, me] = numbers[..] else {
        return Err(Error::invalid(format!(
            "{LANE_VARIABLE} is malformed: `{list}`"
        )));
    };
    if Pid::from_raw(me) != Some(rustix::process::getpid()) {
        return Err(Error::invalid(
            "the lane belongs to this process's parent, not to it",
        ));
    }
    // Relaxed: the one that swaps first adopts; nothing else is shared.
    if ADOPTED.swap(true, Ordering::Relaxed) {
        return Err(Error::invalid("this process has joined its lane already"));
    }
    let adopt = |fd: i32| {
        // SAFETY: the zygote left these descriptors open for this one purpose, and only the first
        // caller (checked above) adopts them.
        let fd = unsafe { memfd::adopt(fd) };
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
            .map(|()| fd)
            .map_err(|e| Error::system("fcntl(F_SETFD)", "cannot adopt the lane", e))
    };
    let inherited = Inherited {
        lane: LaneFds {
            inputs: adopt(inputs)?,
            down: adopt(down)?,
            up: adopt(up)?,
        },
        event: adopt(event)?,
        control: adopt(control)?,
    };
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::invalid("the host's pid is malformed"))?;
    let host = Process::from_parts(pid, adopt(host)?);
    fork::outlive_parent();
    Ok((inherited, host))
}
