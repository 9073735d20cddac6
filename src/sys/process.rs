//! Processes by pidfd: watching, signalling, reaping.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::error::{Error, Result};
use crate::sys::proc_stat::ProcStat;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody could tell.
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => f.write_str(&signal_name(*signal)),
            Self::Unknown => f.write_str("an unknown signal"),
        }
    }
}

/// A process that is watched through its pidfd, which cannot come to mean another process.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    fd: OwnedFd,
}

impl Process {
    /// A child of this process that has not been waited for (so that the pid is still its own).
    pub(crate) fn of_child(pid: Pid) -> Result<Self> {
        let fd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|e| Error::system("pidfd_open", "cannot watch a process", e))?;
        Ok(Self { pid, fd })
    }

    /// The parent of this process, if it still is `expected`.
    pub(crate) fn of_parent(expected: Pid) -> Result<Self> {
        let process = Self::of_child(expected)?;
        // The pidfd is of `expected` only if the pid was not reused before it was opened; while
        // it still is our parent, it was not.
        if rustix::process::getppid() == Some(expected) {
            Ok(process)
        } else {
            Err(Error::Closed)
        }
    }

    /// A pidfd that another process opened and sent.
    pub(crate) fn from_parts(pid: Pid, fd: OwnedFd) -> Self {
        Self { pid, fd }
    }

    /// The same process, watched through a descriptor of its own.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone();
        let fd = fd.map_err(|e| Error::system("dup", "cannot keep a pidfd", e))?;
        Ok(Self::from_parts(self.pid, fd))
    }

    pub(crate) fn pid_number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal; a process that is gone already is no error.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Asks the process to end (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Lets the process go on if something has stopped it.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until every thread of the process has ended, so that no store of its can follow.
    pub(crate) fn wait_end(&self, timeout: Duration) -> bool {
        wait_readable(self.fd.as_fd(), timeout)
    }

    /// Takes the exit status of an ended child. A host that reaps all children itself
    /// (`wait(-1)`, `SIGCHLD` ignored) leaves nothing for us: [`Exit::Unknown`].
    pub(crate) fn reap(&self) -> Exit {
        let status = retry_on_intr(|| {
            waitid(
                WaitId::PidFd(self.fd.as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            )
        });
        match status {
            Ok(Some(status)) => {
                if let Some(code) = status.exit_status() {
                    Exit::Code(code)
                } else if let Some(signal) = status.terminating_signal() {
                    Exit::Signal(signal)
                } else {
                    Exit::Unknown
                }
            }
            _ => Exit::Unknown,
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until a descriptor is readable; false after `timeout`.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let span = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&span)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Waits until one of several descriptors is readable, for at most `timeout` (`None`: for ever),
/// and says which are.
pub(crate) fn wait_any(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<bool> {
    let span = timeout.map(|t| Timespec {
        tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(t.subsec_nanos()),
    });
    let mut polls: Vec<_> = fds
        .iter()
        .map(|&fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    match poll(&mut polls, span.as_ref()) {
        Ok(_) => polls.iter().map(|p| !p.revents().is_empty()).collect(),
        Err(_) => vec![false; fds.len()],
    }
}

/// Whether this is a child of this process that has not been waited for.
pub(crate) fn is_child(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    retry_on_intr(|| waitid(WaitId::Pid(pid), options)).is_ok()
}

/// How many threads this process has.
pub(crate) fn threads() -> usize {
    // Without /proc: the one that asks.
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// What the kernel says about a process that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    /// By SIGSTOP or the like, or by a debugger.
    pub(crate) stopped: bool,
    /// A debugger is attached.
    pub(crate) traced: bool,
}

/// Asks the kernel for the state of a process (proc(5), `/proc/PID/status`); `None` if it is gone.
/// The caller sees to it that the pid still is the process's: it has not been reaped.
pub(crate) fn health(pid: u32) -> Option<Health> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start())
    };
    Some(Health {
        stopped: field("State:")?.starts_with(['T', 't']),
        traced: field("TracerPid:")? != "0",
    })
}

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// When it was started, in a unit of the kernel's; tells it from another of the same number.
    pub(crate) start_time: u64,
    /// Processor time of all its threads, in ns.
    pub(crate) cpu_ns: u64,
    /// Resident memory, in bytes.
    pub(crate) rss_bytes: u64,
}

/// Asks the kernel what a process uses; `None` if it is gone.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let stat = ProcStat::of(pid).ok()??;
    Some(Usage {
        start_time: stat.start_time,
        cpu_ns: stat.cpu_ticks.saturating_mul(1_000_000_000 / tick_rate()),
        rss_bytes: stat.rss_pages.saturating_mul(page_size() as u64),
    })
}

/// Clock ticks a second, the unit of processor times in `/proc`.
fn tick_rate() -> u64 {
    // SAFETY: no preconditions.
    let rate = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(rate)
        .ok()
        .filter(|&rate| rate > 0)
        .unwrap_or(100)
}

/// The name of a signal, such as `SIGSEGV`.
pub(crate) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// Bytes of a page. From libc, not rustix, which finds the kernel's vDSO by itself and fails under
/// valgrind.
pub(crate) fn page_size() -> usize {
    // SAFETY: no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// CPUs that this process may run on.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
