//! The messages on the sockets between host, zygote and workers. Never on the fast path.
#![forbid(unsafe_code)]

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::sys::placement::{SEAT_WORDS, Seat, Step as SeatStep};
use crate::sys::process::Exit;
use crate::sys::sandbox::Step;
use crate::sys::socket::{MAX_MESSAGE, Received, Socket};

/// Longest text in a message: the name of a control segment with its prefix, or why there are no
/// workers.
const MAX_TEXT: usize = MAX_MESSAGE - 8;

/// Host to zygote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToZygote {
    /// Start a worker; the descriptors of its lane come along, in the order of `LaneFds`, then
    /// its eventfd and its control socket.
    Spawn {
        worker: u32,
        incarnation: u64,
        seat: Seat,
    },
    /// The shared-memory name to remove if the host dies.
    Name(String),
    /// Every worker has ended: end too.
    Quit,
}

/// Zygote to host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromZygote {
    /// A worker process exists; its pidfd comes along.
    Spawned { incarnation: u64, pid: u32 },
    /// No process could be made.
    Refused { incarnation: u64, errno: i32 },
    /// A worker process was reaped.
    Exited { incarnation: u64, exit: Exit },
    /// No worker can be made by this zygote, which is a program. The text is cut if need be.
    Failed(String),
}

/// Host to worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToWorker {
    /// Hand back what is not started.
    Recall,
    /// Take no more tasks and leave.
    Shutdown,
    /// The answer to `NeedResults`: look at the committed size again.
    Grown,
}

/// Worker to host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromWorker {
    /// The lane is mapped and its threads are about to start.
    Hello,
    /// The program could not be executed.
    ExecFailed { errno: i32 },
    /// The sandbox could not be applied, and nothing was run.
    SandboxFailed { step: Step, errno: i32 },
    /// A part of the seat was refused; the worker goes on without it.
    SeatRefused { step: SeatStep, errno: i32 },
    /// The lane could not be mapped, or the threads not started.
    JoinFailed { errno: i32 },
    /// A reply of so many bytes finds no room in the result arena.
    NeedResults { len: u64 },
    /// The program takes no more tasks and is about to end.
    Leaving,
    /// A SIGTERM has come: what is not started is handed back, what runs is finished.
    Terminating,
}

/// A message as it travels: a tag, three numbers, and a name if the tag has one.
fn pack(tag: u64, a: u64, b: u64, c: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip([tag, a, b, c]) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn unpack(bytes: &[u8]) -> Option<[u64; 4]> {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.get(..32)?.chunks_exact(8)) {
        *word = u64::from_ne_bytes(chunk.try_into().ok()?);
    }
    Some(words)
}

/// A request for a worker: a message as all others, then its seat.
fn pack_spawn(worker: u32, incarnation: u64, seat: Seat) -> Vec<u8> {
    let mut bytes = pack(1, u64::from(worker), incarnation, 0).to_vec();
    bytes.extend(seat.to_words().iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

fn unpack_seat(bytes: &[u8]) -> Option<Seat> {
    let (words, rest) = bytes.get(32..)?.as_chunks();
    let words: Vec<u64> = words.iter().map(|&word| u64::from_ne_bytes(word)).collect();
    let words: [u64; SEAT_WORDS] = words.try_into().ok().filter(|_| rest.is_empty())?;
    Seat::from_words(words)
}

/// A message of a tag and a text, which is cut if it is too long.
fn pack_text(tag: u64, text: &str) -> Vec<u8> {
    let mut bytes = tag.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX_TEXT)]);
    bytes
}

fn unpack_text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.get(8..)?.to_vec()).ok()
}

fn int(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

fn back(value: u64) -> Option<i32> {
    u32::try_from(value).ok().map(u32::cast_signed)
}

/// What came in: a message with its descriptors, nothing (yet), or the end.
#[derive(Debug)]
pub(crate) enum Incoming<T> {
    Message(T, Vec<OwnedFd>),
    /// What no honest peer says.
    Nonsense,
    Nothing,
    Closed,
}

fn receive<T>(socket: &Socket, wait: bool, decode: impl FnOnce(&[u8]) -> Option<T>) -> Incoming<T> {
    let mut bytes = [0; MAX_MESSAGE];
    match socket.receive(&mut bytes, wait) {
        Ok(Received::Message(len, fds)) => match decode(&bytes[..len]) {
            Some(message) => Incoming::Message(message, fds),
            None => Incoming::Nonsense,
        },
        Ok(Received::Nothing) => Incoming::Nothing,
        Ok(Received::Closed) | Err(_) => Incoming::Closed,
    }
}

impl ToZygote {
    pub(crate) fn send(&self, socket: &Socket, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        match self {
            Self::Spawn {
                worker,
                incarnation,
                seat,
            } => socket.send(&pack_spawn(*worker, *incarnation, *seat), fds, true),
            Self::Name(name) if name.len() <= MAX_TEXT => {
                socket.send(&pack_text(2, name), fds, true)
            }
            Self::Name(_) => Err(Errno::NAMETOOLONG),
            Self::Quit => socket.send(&pack(3, 0, 0, 0), fds, true),
        }
    }

    pub(crate) fn receive(socket: &Socket) -> Incoming<Self> {
        receive(socket, true, |bytes| {
            let tag = u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?);
            match tag {
                1 => {
                    let [_, worker, incarnation, _] = unpack(bytes)?;
                    Some(Self::Spawn {
                        worker: u32::try_from(worker).ok()?,
                        incarnation,
                        seat: unpack_seat(bytes)?,
                    })
                }
                2 => Some(Self::Name(unpack_text(bytes)?)),
                3 => Some(Self::Quit),
                _ => None,
            }
        })
    }
}

impl FromZygote {
    pub(crate) fn send(self, socket: &Socket, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let bytes = match self {
            Self::Spawned { incarnation, pid } => pack(1, incarnation, u64::from(pid), 0),
            Self::Refused { incarnation, errno } => pack(2, incarnation, int(errno), 0),
            Self::Exited { incarnation, exit } => match exit {
                Exit::Code(code) => pack(3, incarnation, 0, int(code)),
                Exit::Signal(signal) => pack(3, incarnation, 1, int(signal)),
                Exit::Unknown => pack(3, incarnation, 2, 0),
            },
            Self::Failed(why) => return socket.send(&pack_text(4, &why), fds, true),
        };
        socket.send(&bytes, fds, true)
    }

    pub(crate) fn receive(socket: &Socket, wait: bool) -> Incoming<Self> {
        receive(socket, wait, |bytes| {
            if bytes.starts_with(&4_u64.to_ne_bytes()) {
                return Some(Self::Failed(unpack_text(bytes)?));
            }
            let [tag, incarnation, a, b] = unpack(bytes)?;
            Some(match (tag, a) {
                (1, pid) => Self::Spawned {
                    incarnation,
                    pid: u32::try_from(pid).ok()?,
                },
                (2, errno) => Self::Refused {
                    incarnation,
                    errno: back(errno)?,
                },
                (3, 0) => Self::Exited {
                    incarnation,
                    exit: Exit::Code(back(b)?),
                },
                (3, 1) => Self::Exited {
                    incarnation,
                    exit: Exit::Signal(back(b)?),
                },
                (3, 2) => Self::Exited {
                    incarnation,
                    exit: Exit::Unknown,
                },
                _ => return None,
            })
        })
    }
}

impl ToWorker {
    /// Does not wait: a worker whose socket is full is not reading it.
    pub(crate) fn send(self, socket: &Socket) -> Result<(), Errno> {
        let tag = match self {
            Self::Recall => 1,
            Self::Shutdown => 2,
            Self::Grown => 3,
        };
        socket.send(&pack(tag, 0, 0, 0), &[], false)
    }

    pub(crate) fn receive(socket: &Socket) -> Incoming<Self> {
        receive(socket, true, |bytes| match unpack(bytes)?[0] {
            1 => Some(Self::Recall),
            2 => Some(Self::Shutdown),
            3 => Some(Self::Grown),
            _ => None,
        })
    }
}

impl FromWorker {
    pub(crate) fn send(self, socket: &Socket) -> Result<(), Errno> {
        let bytes = match self {
            Self::Hello => pack(1, 0, 0, 0),
            Self::ExecFailed { errno } => pack(2, int(errno), 0, 0),
            Self::NeedResults { len } => pack(3, len, 0, 0),
            Self::Leaving => pack(4, 0, 0, 0),
            Self::SandboxFailed { step, errno } => pack(5, step as u64, int(errno), 0),
            Self::JoinFailed { errno } => pack(6, int(errno), 0, 0),
            Self::Terminating => pack(7, 0, 0, 0),
            Self::SeatRefused { step, errno } => pack(8, step as u64, int(errno), 0),
        };
        socket.send(&bytes, &[], true)
    }

    pub(crate) fn receive(socket: &Socket) -> Incoming<Self> {
        let incoming = receive(socket, false, |bytes| {
            let [tag, a, b, _] = unpack(bytes).filter(|_| bytes.len() == 32)?;
            Some(match tag {
                1 => Self::Hello,
                2 => Self::ExecFailed { errno: back(a)? },
                3 => Self::NeedResults { len: a },
                4 => Self::Leaving,
                5 => Self::SandboxFailed {
                    step: *Step::ALL.get(usize::try_from(a).ok()?)?,
                    errno: back(b)?,
                },
                6 => Self::JoinFailed { errno: back(a)? },
                7 => Self::Terminating,
                8 => Self::SeatRefused {
                    step: *SeatStep::ALL.get(usize::try_from(a).ok()?)?,
                    errno: back(b)?,
                },
                _ => return None,
            })
        });
        match incoming {
            Incoming::Message(_, fds) if !fds.is_empty() => Incoming::Nonsense,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::cpuset::Cpus;

    #[test]
    fn every_message_to_the_zygote_arrives_as_it_was_sent() {
        let (a, b) = Socket::pair().unwrap();
        for message in [
            ToZygote::Spawn {
                worker: 7,
                incarnation: u64::MAX,
                seat: Seat {
                    cpus: Cpus::parse("0,1023"),
                    node: Some(3),
                    nice: -7,
                    ..Seat::default()
                },
            },
            ToZygote::Name("/miniflow.0.test".into()),
            ToZygote::Quit,
        ] {
            message.send(&a, &[]).unwrap();
            match ToZygote::receive(&b) {
                Incoming::Message(got, _) => assert_eq!(got, message),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_request_without_a_whole_seat_is_nonsense() {
        let (a, b) = Socket::pair().unwrap();
        let whole = pack_spawn(0, 1, Seat::default());
        for bytes in [
            &whole[..32],
            &whole[..whole.len() - 1],
            &[&whole[..], &[0; 8]].concat(),
        ] {
            a.send(bytes, &[], true).unwrap();
            assert!(matches!(ToZygote::receive(&b), Incoming::Nonsense));
        }
    }

    #[test]
    fn every_message_from_the_zygote_arrives_as_it_was_sent() {
        let (a, b) = Socket::pair().unwrap();
        for message in [
            FromZygote::Spawned {
                incarnation: 3,
                pid: 4711,
            },
            FromZygote::Refused {
                incarnation: 4,
                errno: 11,
            },
            FromZygote::Exited {
                incarnation: 5,
                exit: Exit::Code(-1),
            },
            FromZygote::Exited {
                incarnation: 6,
                exit: Exit::Signal(9),
            },
            FromZygote::Exited {
                incarnation: 7,
                exit: Exit::Unknown,
            },
            FromZygote::Failed(String::new()),
            FromZygote::Failed("no module named \u{2026}".into()),
        ] {
            message.clone().send(&a, &[]).unwrap();
            match FromZygote::receive(&b, true) {
                Incoming::Message(got, _) => assert_eq!(got, message),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_between_two_characters() {
        let (a, b) = Socket::pair().unwrap();
        let text = format!("{}\u{2026}\u{2026}", "x".repeat(MAX_TEXT - 4));
        FromZygote::Failed(text.clone()).send(&a, &[]).unwrap();
        match FromZygote::receive(&b, true) {
            Incoming::Message(FromZygote::Failed(got), _) => {
                assert_eq!(got, text[..MAX_TEXT - 1]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_message_from_a_worker_arrives_as_it_was_sent() {
        let (a, b) = Socket::pair().unwrap();
        let mut messages = vec![
            FromWorker::Hello,
            FromWorker::ExecFailed { errno: 2 },
            FromWorker::JoinFailed { errno: 12 },
            FromWorker::NeedResults { len: 1 << 40 },
            FromWorker::Leaving,
            FromWorker::Terminating,
        ];
        messages.extend(Step::ALL.map(|step| FromWorker::SandboxFailed { step, errno: 1 }));
        messages.extend(SeatStep::ALL.map(|step| FromWorker::SeatRefused { step, errno: 13 }));
        for message in messages {
            message.send(&a).unwrap();
            match FromWorker::receive(&b) {
                Incoming::Message(got, _) => assert_eq!(got, message),
                other => panic!("{other:?}"),
            }
        }
        for tag in [5, 8] {
            a.send(&pack(tag, 99, 1, 0), &[], true).unwrap(); // no such step
            assert!(matches!(FromWorker::receive(&b), Incoming::Nonsense));
        }
    }

    #[test]
    fn nonsense_is_told_from_the_end_of_the_peer() {
        let (a, b) = Socket::pair().unwrap();
        let longer = [pack(1, 0, 0, 0), [0; 32]].concat();
        for nonsense in [&b"nonsense"[..], &longer, &[0; 300], &pack(99, 0, 0, 0)] {
            a.send(nonsense, &[], true).unwrap();
            assert!(matches!(FromWorker::receive(&b), Incoming::Nonsense));
        }
        // A worker has no descriptors to send; those that came are closed again.
        let (c, d) = Socket::pair().unwrap();
        a.send(&pack(1, 0, 0, 0), &[d.as_fd()], true).unwrap();
        drop(d);
        assert!(matches!(FromWorker::receive(&b), Incoming::Nonsense));
        assert!(matches!(FromWorker::receive(&c), Incoming::Closed));
        assert!(matches!(FromWorker::receive(&b), Incoming::Nothing));
        drop(a);
        assert!(matches!(FromWorker::receive(&b), Incoming::Closed));
    }
}
