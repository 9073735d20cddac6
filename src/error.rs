//! What can go wrong, as values.

use std::fmt;
use std::io;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which bounded resource had no room; the `Display` text says what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Full {
    /// Every slot of the task table is taken by a task that is queued, running or not yet polled.
    Tasks,
    /// The same, and all of them are results that wait for the caller to poll them.
    Unpolled,
    /// The arena of task payloads has no free block that is large enough.
    Payloads,
    /// A worker program holds as many tasks as its configured concurrency.
    Concurrency,
    /// The memory of the machine or of the control group comes to its end
    /// ([`Scaling::memory_refuse`](crate::Scaling::memory_refuse)).
    Memory,
}

/// Everything that a call can fail with.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An argument or a configuration value is not acceptable; the text names it.
    Invalid(String),
    /// A bounded resource is full now. Nothing was accepted; poll results or try again later.
    WouldBlock(Full),
    /// The time given for the call has passed.
    Timeout,
    /// The payload or result is larger than the engine was configured for.
    TooLarge {
        /// Bytes asked for.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// No such task, or its completion has already been handed out.
    NotFound,
    /// The engine (or the worker's lane) is stopped.
    Closed,
    /// The kernel has no memory for what the text names.
    NoMemory(String),
    /// A system call failed.
    System {
        /// The call, such as `memfd_create`.
        call: &'static str,
        /// What it was needed for.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The feature that the text names is not available on this kernel or in this version.
    Unsupported(String),
    /// A worker or the zygote broke the protocol, or a bug was met; the text says where.
    Internal(String),
}

impl Error {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// Wraps the answer of a system call; out of memory keeps its own kind.
    pub(crate) fn system(
        call: &'static str,
        what: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        let (what, source) = (what.into(), source.into());
        match source.raw_os_error() {
            Some(libc::ENOMEM | libc::ENOSPC) => {
                let remedy = remedy(call, &source);
                Self::NoMemory(format!("{what} ({call}: {source}{remedy})"))
            }
            _ => Self::System { call, what, source },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => f.write_str(text),
            Self::WouldBlock(full) => write!(f, "would block: {full}"),
            Self::Timeout => f.write_str("timed out"),
            Self::TooLarge { len, max } => {
                write!(
                    f,
                    "{len} bytes are more than the configured maximum of {max}"
                )
            }
            Self::NotFound => f.write_str("no such task, or its completion was already handed out"),
            Self::Closed => f.write_str("the engine is stopped"),
            Self::NoMemory(what) => write!(f, "out of memory: {what}"),
            Self::System { call, what, source } => {
                write!(f, "{what}: {call}: {source}{}", remedy(call, source))
            }
            Self::Unsupported(what) => write!(f, "not supported: {what}"),
            Self::Internal(what) => write!(f, "internal error: {what}"),
        }
    }
}

/// Which limit an error of the kernel stands for, and what to raise.
fn remedy(call: &str, source: &io::Error) -> &'static str {
    match (source.raw_os_error(), call) {
        (Some(libc::EMFILE), _) => "; raise RLIMIT_NOFILE (ulimit -n)",
        (Some(libc::ENFILE), _) => "; raise fs.file-max (sysctl)",
        (Some(libc::EAGAIN), "fork") => "; raise RLIMIT_NPROC (ulimit -u) or the cgroup's pids.max",
        (Some(libc::EAGAIN), "pthread_create" | "mmap or pthread_create") => {
            "; raise RLIMIT_NPROC (ulimit -u), the cgroup's pids.max, or RLIMIT_AS (ulimit -v)"
        }
        (Some(libc::ENOMEM), "mremap") => {
            "; raise vm.max_map_count (sysctl) or RLIMIT_AS (ulimit -v)"
        }
        (Some(libc::ENOMEM), "mmap") => "; raise RLIMIT_AS (ulimit -v) or lower the arenas",
        (Some(libc::ENOMEM), _) => "; raise RLIMIT_AS or the cgroup's memory.max",
        (Some(libc::ENOSPC), "posix_fallocate") => {
            "; enlarge /dev/shm (mount -o remount,size=; --shm-size for a container)"
        }
        _ => "",
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tasks => "the task table is full (poll results, or raise max_tasks)",
            Self::Unpolled => "the task table is full of unpolled results (poll them)",
            Self::Payloads => {
                "the payload arena is full (wait for tasks to finish, or raise payload_arena)"
            }
            Self::Concurrency => "the worker holds as many tasks as its concurrency allows",
            Self::Memory => {
                "memory comes to its end (try again later; the engine's log and status say whose)"
            }
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}
