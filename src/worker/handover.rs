//! What an executed program gets from the zygote: descriptors, named by an environment variable.
//!
//! Every list ends with the pid of the process that it is meant for, so that one which merely
//! inherited the variable is told from it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::sandbox::Sandbox;
use crate::shm::layout::LAYOUT_VERSION;
use crate::shm::segments::LaneFds;
use crate::sys::fork;
use crate::sys::memfd;
use crate::sys::process::Process;
use crate::sys::socket::Socket;
use crate::worker::keeper::Keeper;
use crate::worker::lane::Inherited;

/// Of a worker program: inputs, down, up, event, control, host pidfd, the host's pid.
const LANE_VARIABLE: &str = "MINIFLOW_LANE";
/// Of a zygote program: layout version, socket, host pidfd, the host's pid, the sandbox, the name to
/// remove if the host dies.
const ZYGOTE_VARIABLE: &str = "MINIFLOW_ZYGOTE";

/// What a worker needs, in the order of [`LANE_VARIABLE`].
pub(crate) fn lane_fds<'a>(inherited: &'a Inherited, host: &'a Process) -> [BorrowedFd<'a>; 6] {
    [
        inherited.lane.inputs.as_fd(),
        inherited.lane.down.as_fd(),
        inherited.lane.up.as_fd(),
        inherited.event.as_fd(),
        inherited.control.as_fd(),
        host.as_fd(),
    ]
}

/// Executes a worker program in this process, which is a fresh child of the zygote; returns the
/// error number if that fails.
pub(crate) fn execute_worker<'a>(
    argv: &[CString],
    inherited: &'a Inherited,
    host: &'a Process,
    also: impl Iterator<Item = BorrowedFd<'a>>,
) -> i32 {
    let fds = lane_fds(inherited, host);
    let mut list: Vec<String> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    list.push(host.pid_number().to_string());
    execute(argv, also.chain(fds), LANE_VARIABLE, list)
}

/// Executes a zygote program in this process, which is the zygote; returns the error number if that
/// fails.
pub(crate) fn execute_zygote<'a>(
    argv: &[CString],
    keeper: &'a Keeper,
    sandbox: &Sandbox,
    also: impl Iterator<Item = BorrowedFd<'a>>,
) -> i32 {
    let list = vec![
        LAYOUT_VERSION.to_string(),
        keeper.socket.as_fd().as_raw_fd().to_string(),
        keeper.host.as_fd().as_raw_fd().to_string(),
        keeper.host.pid_number().to_string(),
        sandbox.to_wire(),
        keeper.name.clone().unwrap_or_default(), // has no comma
    ];
    let fds = [keeper.socket.as_fd(), keeper.host.as_fd()];
    execute(argv, also.chain(fds), ZYGOTE_VARIABLE, list)
}

fn execute<'a>(
    argv: &[CString],
    fds: impl Iterator<Item = BorrowedFd<'a>>,
    variable: &str,
    mut list: Vec<String>,
) -> i32 {
    for fd in fds {
        if fork::keep_across_exec(fd).is_err() {
            return libc::EBADF;
        }
    }
    let me = rustix::process::getpid().as_raw_nonzero();
    list.push(me.to_string());
    let (Ok(name), Ok(value)) = (CString::new(variable), CString::new(list.join(","))) else {
        return libc::EINVAL;
    };
    fork::execute(argv, &[(name, value)])
        .raw_os_error()
        .unwrap_or(libc::EINVAL)
}

/// In a worker program: adopts the descriptors that the zygote left open, once.
pub(crate) fn adopt_lane() -> Result<(Inherited, Process)> {
    static ADOPTED: AtomicBool = AtomicBool::new(false);
    let list = Handed::of(LANE_VARIABLE)?;
    let [inputs, down, up, event, control, host, pid] = list.numbers()?;
    // Relaxed: the one that swaps first adopts; nothing else is shared.
    if ADOPTED.swap(true, Ordering::Relaxed) {
        return Err(Error::invalid("this process has joined its lane already"));
    }
    let inherited = Inherited {
        lane: LaneFds {
            inputs: list.adopt(inputs)?,
            down: list.adopt(down)?,
            up: list.adopt(up)?,
        },
        event: list.adopt(event)?,
        control: Socket::from_fd(list.adopt(control)?),
    };
    let host = list.adopt_host(pid, host)?;
    fork::outlive_parent();
    Ok((inherited, host))
}

/// In a zygote program: adopts what the zygote left open, once; and what its workers are forbidden.
pub(crate) fn adopt_zygote() -> Result<(Keeper, Sandbox)> {
    static ADOPTED: AtomicBool = AtomicBool::new(false);
    let list = Handed::of(ZYGOTE_VARIABLE)?;
    let [version, rest @ ..] = &list.fields[..] else {
        return Err(list.malformed());
    };
    if *version != LAYOUT_VERSION.to_string() {
        return Err(Error::Unsupported(format!(
            "the host's layout version {version}: this library has {LAYOUT_VERSION}"
        )));
    }
    let [socket, host, pid, sandbox, name] = rest else {
        return Err(list.malformed());
    };
    let sandbox = Sandbox::from_wire(sandbox).ok_or_else(|| list.malformed())?;
    let [socket, host, pid] = [list.number(socket)?, list.number(host)?, list.number(pid)?];
    // Relaxed: as above.
    if ADOPTED.swap(true, Ordering::Relaxed) {
        return Err(Error::invalid("this process has opened its zygote already"));
    }
    let name = (!name.is_empty()).then(|| name.clone());
    let socket = Socket::from_fd(list.adopt(socket)?);
    let host = list.adopt_host(pid, host)?;
    Ok((Keeper::new(host, socket, name), sandbox))
}

/// The content of a variable, without the pid at its end, which is this process's.
struct Handed {
    variable: &'static str,
    fields: Vec<String>,
}

impl Handed {
    fn of(variable: &'static str) -> Result<Self> {
        let Ok(list) = std::env::var(variable) else {
            return Err(Error::invalid(format!(
                "this process was not started by a miniflow engine ({variable} is not set)"
            )));
        };
        let mut handed = Self {
            variable,
            fields: list.split(',').map(str::to_owned).collect(),
        };
        let me = handed.fields.pop().unwrap_or_default();
        if Pid::from_raw(handed.number(&me)?) != Some(rustix::process::getpid()) {
            return Err(Error::invalid(format!(
                "{variable} is meant for this process's parent, not for it"
            )));
        }
        Ok(handed)
    }

    fn malformed(&self) -> Error {
        let list = self.fields.join(",");
        Error::invalid(format!("{} is malformed: `{list}`", self.variable))
    }

    fn number(&self, field: &str) -> Result<i32> {
        field.parse().map_err(|_| self.malformed())
    }

    fn numbers<const N: usize>(&self) -> Result<[i32; N]> {
        let numbers: Vec<i32> = self
            .fields
            .iter()
            .map(|field| self.number(field))
            .collect::<Result<_>>()?;
        numbers.try_into().map_err(|_| self.malformed())
    }

    fn adopt(&self, fd: i32) -> Result<OwnedFd> {
        // SAFETY: the zygote left these descriptors open for this one purpose, and only the first
        // caller (checked by our callers) adopts them.
        let fd = unsafe { memfd::adopt(fd) };
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
            .map(|()| fd)
            .map_err(|e| Error::system("fcntl(F_SETFD)", "cannot adopt a descriptor", e))
    }

    fn adopt_host(&self, pid: i32, fd: i32) -> Result<Process> {
        let pid = Pid::from_raw(pid).ok_or_else(|| self.malformed())?;
        Ok(Process::from_parts(pid, self.adopt(fd)?))
    }
}
