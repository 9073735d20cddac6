//! The raw half: what two processes can do on this machine with nothing in between.
//!
//! One echo process, forked before there are threads, is the other side of every raw measurement.
//! It sleeps on its control socket between slices.

mod calls;
mod echo;
mod guard;
mod mem;
mod process;
mod ring;

use std::io;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::{read, retry_on_intr, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use self::calls::{Duplex, Message, Timespec, await_bell, ring_bell};
use self::echo::{DONE, Echo, Job, LAST, LAST_BELL, Order, answer};
use self::guard::Guard;
use self::mem::{Mapping, Memory, Side, load_acquire};
use self::process::Child;
use self::ring::{BATCH, Receiver, Sender, Words};
use super::clock::{Clock, WATCHDOG, spin_until};
use super::metric::{Cores, Metric};
use super::pin::{Cpu, Cpus};
use super::slice::{Outcome, Slice, latency, rate};
use crate::error::{Error, Result};

/// Descriptors on their way at once; the last is that of [`Metric::RING_RATE`].
const IN_FLIGHT: [u32; 3] = [8, 64, 512];

/// The host's side of the raw measurements.
#[derive(Debug)]
pub(super) struct Raw<'a> {
    clock: &'a Clock,
    cpus: Cpus,
    own: Mapping<Side>,
    echo: Mapping<Side>,
    requests: OwnedFd,
    replies: OwnedFd,
    socket: OwnedFd,
    control: OwnedFd,
    /// Kills the child; so it is dropped before the child is.
    guard: Guard,
    _child: Child,
}

impl<'a> Raw<'a> {
    /// Starts the echo process; there must be no other thread yet.
    pub(super) fn start(clock: &'a Clock, cpus: Cpus) -> Result<Self> {
        let down = Memory::new("miniflow-bench-down").map_err(Error::system("memfd"))?;
        let up = Memory::new("miniflow-bench-up").map_err(Error::system("memfd"))?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Error::system("pipe2"));
        let sockets = |kind| {
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .map_err(Error::system("socketpair"))
        };
        let (echo_requests, requests) = pipe()?;
        let (replies, echo_replies) = pipe()?;
        let (socket, echo_socket) = sockets(SocketType::STREAM)?;
        let (control, echo_control) = sockets(SocketType::SEQPACKET)?;

        // Each process maps for itself, after the fork: neither inherits the other's right to
        // write. The echo process's ends move into the closure, and so are closed here.
        let (down_file, up_file) = (&down, &up);
        let child = Child::fork(move || {
            Echo {
                control: echo_control,
                own: writable(up_file)?,
                host: read_only(down_file)?,
                requests: echo_requests,
                replies: echo_replies,
                socket: echo_socket,
            }
            .serve()
        })?;
        let guard = Guard::start(child.killer())?;
        Ok(Self {
            clock,
            cpus,
            own: writable(&down)?,
            echo: read_only(&up)?,
            requests,
            replies,
            socket,
            control,
            guard,
            _child: child,
        })
    }

    /// Everything raw that this machine can be asked for.
    pub(super) fn slices(&self) -> Vec<Slice<'_>> {
        let mut slices = vec![
            Slice::new(Metric::Futex(Cores::One), |length| {
                self.bell(self.cpus.host, length)
            }),
            Slice::new(Metric::Pipe(Cores::One), |length| {
                self.pipe(self.cpus.host, length)
            }),
            Slice::new(Metric::Socketpair(Cores::One), |length| {
                self.socketpair(self.cpus.host, length)
            }),
        ];
        // On one processor a spinner only keeps the other side from answering.
        let Some(other) = self.cpus.other else {
            return slices;
        };
        slices.extend([
            Slice::new(Metric::PingPong, move |length| self.ping(other, length)),
            Slice::new(Metric::RingRtt, move |length| self.ring_rtt(other, length)),
            Slice::new(Metric::Futex(Cores::Apart), move |length| {
                self.bell(other, length)
            }),
            Slice::new(Metric::Pipe(Cores::Apart), move |length| {
                self.pipe(other, length)
            }),
            Slice::new(Metric::Socketpair(Cores::Apart), move |length| {
                self.socketpair(other, length)
            }),
        ]);
        slices.extend(IN_FLIGHT.map(|in_flight| {
            Slice::new(Metric::RingRate { in_flight }, move |length| {
                self.ring_rate(other, in_flight, length)
            })
        }));
        slices
    }

    /// Has the echo process do `job` on `cpu` while `measure` runs for `length`; `measure` ends the
    /// job by the mark that belongs to it.
    fn with_echo(
        &self,
        job: Job,
        cpu: Cpu,
        length: Duration,
        measure: impl FnOnce() -> Result<Outcome>,
    ) -> Result<Outcome> {
        self.cpus.host.alone().bind_this_thread()?;
        self.guard.set(length);
        let order = Order { job, cpu }.to_bytes();
        let outcome = write(&self.control, &order)
            .map_err(Error::system("write (control)"))
            .and_then(|_| measure())
            .and_then(|outcome| self.await_done().map(|()| outcome));
        match self.guard.call_off() {
            true => outcome,
            false => Err(Error::Silent(job.name())),
        }
    }

    /// Waits until the echo process sleeps again, or is about to.
    fn await_done(&self) -> Result<()> {
        let mut done = [0; DONE.len()];
        retry_on_intr(|| read(&self.control, &mut done))
            .map_err(Error::system("read (control)"))?;
        match done {
            DONE => Ok(()),
            _ => Err(Error::Unfit("the echo process has gone".into())),
        }
    }

    /// One cache line each way.
    fn ping(&self, cpu: Cpu, length: Duration) -> Result<Outcome> {
        let (own, echo) = (&self.own.turn.0, &self.echo.turn.0);
        // Relaxed: only this process writes it.
        let mut turn = own.load(Relaxed) & !LAST;
        self.with_echo(Job::PingPong, cpu, length, || {
            let outcome = latency(self.clock, length, || {
                turn += 1;
                // Release: pairs with the echo process's Acquire load.
                own.store(turn, Release);
                // Acquire: pairs with the echo process's Release store.
                spin_until("ping-pong", || load_acquire(echo) == turn)
            })?;
            own.store((turn + 1) | LAST, Release);
            Ok(outcome)
        })
    }

    /// The bare ring, one descriptor there and back at a time.
    fn ring_rtt(&self, cpu: Cpu, length: Duration) -> Result<Outcome> {
        self.with_ring(cpu, length, |ring| {
            latency(self.clock, length, || {
                ring.push();
                ring.publish()?;
                spin_until("ring", || ring.replies.ready())?;
                ring.collect()?;
                Ok(())
            })
        })
    }

    /// The bare ring, up to `in_flight` descriptors on their way.
    fn ring_rate(&self, cpu: Cpu, in_flight: u32, length: Duration) -> Result<Outcome> {
        self.with_ring(cpu, length, |ring| {
            rate("ring", self.clock, length, || {
                let collected = ring.collect()?;
                let room = u64::from(in_flight) - ring.on_their_way();
                let mut pushed = 0;
                while pushed < room.min(u64::from(BATCH)) && ring.push() {
                    pushed += 1;
                }
                if pushed > 0 {
                    ring.publish()?;
                } else if collected == 0 {
                    std::hint::spin_loop();
                }
                Ok(collected)
            })
        })
    }

    fn with_ring(
        &self,
        cpu: Cpu,
        length: Duration,
        measure: impl FnOnce(&mut HostRing<'_>) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let mut ring = HostRing {
            requests: Sender::new(&self.own, &self.echo),
            replies: Receiver::new(&self.own, &self.echo),
            sent: 0,
            received: 0,
        };
        self.with_echo(Job::Ring, cpu, length, || {
            let outcome = measure(&mut ring)?;
            ring.finish()?;
            Ok(outcome)
        })
    }

    /// A futex each way.
    fn bell(&self, cpu: Cpu, length: Duration) -> Result<Outcome> {
        let (own, echo) = (&self.own.bell.0, &self.echo.bell.0);
        // Relaxed: only this process writes it.
        let mut value = own.load(Relaxed);
        // The end of the echo process would not end the wait.
        let patience = Timespec::try_from(WATCHDOG).ok();
        let mut trip = |mark: u32| {
            let old = value;
            value = (value.wrapping_add(1) & !LAST_BELL) | mark;
            ring_bell(own, value)?;
            if await_bell(echo, old, patience.as_ref())? != value {
                return Err(Error::Garbled("futex"));
            }
            Ok(())
        };
        self.with_echo(Job::Futex, cpu, length, || {
            let outcome = latency(self.clock, length, || trip(0))?;
            trip(LAST_BELL)?;
            Ok(outcome)
        })
    }

    /// 16 bytes through one pipe and back through another.
    fn pipe(&self, cpu: Cpu, length: Duration) -> Result<Outcome> {
        let duplex = Duplex::new(&self.requests, &self.replies);
        self.messages(Job::Pipe, cpu, length, duplex)
    }

    /// 16 bytes through a stream socket pair and back.
    fn socketpair(&self, cpu: Cpu, length: Duration) -> Result<Outcome> {
        let duplex = Duplex::new(&self.socket, &self.socket);
        self.messages(Job::Socketpair, cpu, length, duplex)
    }

    /// No time-out on the way: the guard kills an echo process that hangs, which ends the read.
    fn messages(
        &self,
        job: Job,
        cpu: Cpu,
        length: Duration,
        duplex: Duplex<'_>,
    ) -> Result<Outcome> {
        let trip = |message: Message| {
            duplex.send(&message)?;
            if duplex.receive()? != message {
                return Err(Error::Garbled("messages"));
            }
            Ok(())
        };
        self.with_echo(job, cpu, length, || {
            let mut number = 0_u128;
            let outcome = latency(self.clock, length, || {
                number += 1;
                trip(number.to_le_bytes())
            })?;
            trip(u128::from(LAST).to_le_bytes())?;
            Ok(outcome)
        })
    }
}

fn writable(memory: &Memory<Side>) -> Result<Mapping<Side>> {
    memory.map_writable().map_err(Error::system("mmap"))
}

/// A mapping of the side that belongs to the other process.
fn read_only(memory: &Memory<Side>) -> Result<Mapping<Side>> {
    // SAFETY: `Raw` and `Echo` only load from their `echo` and `host`, and `Sender` and `Receiver`
    // only from their `peer`.
    let map = unsafe { memory.map_read_only() };
    map.map_err(Error::system::<io::Error>("mmap"))
}

/// Both rings, as the host sees them, and the number of what is on its way.
#[derive(Debug)]
struct HostRing<'a> {
    requests: Sender<'a>,
    replies: Receiver<'a>,
    sent: u64,
    received: u64,
}

impl HostRing<'_> {
    fn on_their_way(&self) -> u64 {
        self.sent - self.received
    }

    /// Puts the next request into the ring, if it has room.
    #[inline]
    fn push(&mut self) -> bool {
        let number = self.sent;
        let pushed = self.requests.push(|index| request(index, number));
        self.sent += u64::from(pushed);
        pushed
    }

    #[inline]
    fn publish(&mut self) -> Result<()> {
        match self.requests.publish() {
            false => Ok(()),
            true => Err(Error::Garbled("ring")),
        }
    }

    /// Takes out up to a batch of replies, each of them checked.
    #[inline]
    fn collect(&mut self) -> Result<u64> {
        let mut batch = 0;
        while batch < u64::from(BATCH)
            && let Some(reply) = self.replies.pop()
        {
            let number = self.received;
            let wrong = |index| reply.get(index) != answer(index, request(0, number), 0);
            if (0..Words::COUNT).any(wrong) {
                return Err(Error::Garbled("ring"));
            }
            self.received += 1;
            batch += 1;
        }
        if batch > 0 {
            self.replies.release();
        }
        Ok(batch)
    }

    /// Collects what is still on its way, and ends the echoing.
    fn finish(&mut self) -> Result<()> {
        while self.on_their_way() > 0 {
            spin_until("ring", || self.replies.ready())?;
            self.collect()?;
        }
        spin_until("ring", || self.requests.push(|_| LAST))?;
        self.publish()?;
        spin_until("ring", || self.replies.pop().is_some())?;
        self.replies.release();
        Ok(())
    }
}

/// The word at `index` of the request with this number. All words are written and read, like those
/// of a task.
#[inline]
fn request(index: usize, number: u64) -> u64 {
    match index {
        0 => number,
        _ => index as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_never_carry_the_last_mark() {
        assert_eq!(request(0, u64::MAX >> 1) & LAST, 0);
        assert_eq!(answer(0, request(0, 5), 0), 15);
        assert_eq!(answer(1, request(0, 5), 7), 7);
    }
}
