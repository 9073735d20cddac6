//! What every zygote does, whether the host's code runs in it or a language runtime: it hears the
//! host, reaps the workers and reports their ends, and leaves nothing behind when the host dies.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::shm::control;
use crate::shm::segments::LaneFds;
use crate::sys::placement::{self, Seat};
use crate::sys::process::{Process, wait_any};
use crate::sys::socket::Socket;
use crate::worker::lane::Inherited;
use crate::worker::link::{FromWorker, FromZygote, Incoming, ToZygote};

/// How long a host that is dying may take to end, and a worker that was killed for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A zygote's side of its engine.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) host: Process,
    pub(crate) socket: Socket,
    children: Vec<Child>,
    /// The shared-memory name to remove if the host dies.
    pub(crate) name: Option<String>,
}

#[derive(Debug)]
struct Child {
    incarnation: u64,
    process: Process,
}

/// A worker that the host wants.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) worker: u32,
    pub(crate) incarnation: u64,
    pub(crate) inherited: Inherited,
    pub(crate) seat: Seat,
}

impl Request {
    /// In the process that becomes this worker, and before its sandbox: takes its seat. What is refused
    /// is no reason not to work; the host is told.
    pub(crate) fn take_seat(&self) {
        for (step, errno) in placement::apply(&self.seat) {
            let refused = FromWorker::SeatRefused { step, errno };
            let _ = refused.send(&self.inherited.control); // a host that is gone needs no word
        }
    }
}

/// What the host has said.
#[derive(Debug)]
pub(crate) enum Heard {
    Spawn(Request),
    /// Nothing that is for the caller.
    Nothing,
    /// The zygote has to end; nothing is left to do.
    End,
}

impl Keeper {
    pub(crate) fn new(host: Process, socket: Socket, name: Option<String>) -> Self {
        Self {
            host,
            socket,
            children: Vec::new(),
            name,
        }
    }

    pub(crate) fn has_children(&self) -> bool {
        !self.children.is_empty()
    }

    /// In a forked child: all that is left of this is the host.
    pub(crate) fn into_host(self) -> Process {
        self.host
    }

    /// Waits until the host has said something. False: it is dead, and what it left is cleared away.
    pub(crate) fn wait(&mut self) -> bool {
        loop {
            let mut fds = vec![self.host.as_fd(), self.socket.as_fd()];
            fds.extend(self.children.iter().map(|c| c.process.as_fd()));
            let ready = wait_any(&fds, None);
            if ready[0] {
                self.bury_host();
                return false;
            }
            self.reap(&ready[2..]);
            if ready[1] {
                return true;
            }
        }
    }

    /// What the host has said; after [`Keeper::wait`].
    pub(crate) fn hear(&mut self) -> Heard {
        match ToZygote::receive(&self.socket) {
            Incoming::Message(
                ToZygote::Spawn {
                    worker,
                    incarnation,
                    seat,
                },
                fds,
            ) => match inherited(fds) {
                Some(inherited) => Heard::Spawn(Request {
                    worker,
                    incarnation,
                    inherited,
                    seat,
                }),
                None => {
                    self.refuse(incarnation, libc::EBADMSG);
                    Heard::Nothing
                }
            },
            Incoming::Message(ToZygote::Name(name), _) => {
                self.name = Some(name);
                Heard::Nothing
            }
            Incoming::Message(ToZygote::Quit, _) => Heard::End,
            Incoming::Nothing => Heard::Nothing,
            Incoming::Closed | Incoming::Nonsense => {
                self.bury_host();
                Heard::End
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

    /// Tells the host of a worker, and looks after it from now on.
    pub(crate) fn admit(&mut self, incarnation: u64, process: Process) {
        let pid = process.pid_number();
        let spawned = FromZygote::Spawned { incarnation, pid };
        let _ = spawned.send(&self.socket, &[process.as_fd()]); // as above
        self.children.push(Child {
            incarnation,
            process,
        });
    }

    /// Tells the host that there is no such worker.
    pub(crate) fn refuse(&self, incarnation: u64, errno: i32) {
        let _ = FromZygote::Refused { incarnation, errno }.send(&self.socket, &[]); // as above
    }

    /// The host is gone: leave nothing behind.
    fn bury_host(&mut self) {
        for child in &self.children {
            child.process.kill();
        }
        // Its socket closes while it is still dying. Only when it has ended is its name free: until
        // then the lock on it is held, and the name looks alive.
        self.host.wait_end(PATIENCE);
        remove_names(&self.socket, self.name.take());
        for child in &self.children {
            child.process.wait_end(PATIENCE);
        }
    }
}

/// Removes the name of a host that is gone: the one that it told, and one that it may have told in
/// a message that nobody has heard yet.
pub(crate) fn remove_names(socket: &Socket, told: Option<String>) {
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

/// The descriptors of a worker to be, in the order in which the host sends them.
fn inherited(fds: Vec<OwnedFd>) -> Option<Inherited> {
    let [inputs, down, up, event, control] = <[OwnedFd; 5]>::try_from(fds).ok()?;
    let lane = LaneFds { inputs, down, up };
    Some(Inherited {
        lane,
        event,
        control: Socket::from_fd(control),
    })
}
