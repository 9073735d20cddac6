//! The other process: it answers whatever the host sends, one kind of message at a time.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::{Relaxed, Release};

use rustix::fd::OwnedFd;
use rustix::io::{read, retry_on_intr, write};

use super::calls::{Duplex, await_bell, ring_bell};
use super::mem::{Mapping, Side, load_acquire};
use super::ring::{BATCH, Receiver, Sender, Words};
use crate::bench::clock::spin_until;
use crate::bench::pin::Cpu;
use crate::error::{Error, Result};

/// Set in a turn, bell value or message that ends the echoing.
pub(super) const LAST: u64 = 1 << 63;
/// The same for the futex's 32-bit word.
pub(super) const LAST_BELL: u32 = 1 << 31;

/// What to echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Job {
    PingPong = 1,
    Ring = 2,
    Futex = 3,
    Pipe = 4,
    Socketpair = 5,
}

impl Job {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PingPong => "ping-pong",
            Self::Ring => "ring",
            Self::Futex => "futex",
            Self::Pipe => "pipe",
            Self::Socketpair => "socketpair",
        }
    }
}

/// An order on the control socket: which job, and on which processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) job: Job,
    pub(super) cpu: Cpu,
}

/// An order as bytes.
pub(super) type OrderBytes = [u8; 3];

/// The answer to an order, once it is carried out.
pub(super) const DONE: [u8; 1] = [1];

impl Order {
    pub(super) fn to_bytes(self) -> OrderBytes {
        let [low, high] = self.cpu.0.to_le_bytes();
        [self.job as u8, low, high]
    }

    fn from_bytes([job, low, high]: OrderBytes) -> Result<Self> {
        let job = [
            Job::PingPong,
            Job::Ring,
            Job::Futex,
            Job::Pipe,
            Job::Socketpair,
        ]
        .into_iter()
        .find(|known| *known as u8 == job)
        .ok_or(Error::Garbled("control socket"))?;
        let cpu = Cpu(u16::from_le_bytes([low, high]));
        Ok(Self { job, cpu })
    }
}

/// All that the echo process holds.
#[derive(Debug)]
pub(super) struct Echo {
    pub(super) control: OwnedFd,
    pub(super) own: Mapping<Side>,
    pub(super) host: Mapping<Side>,
    pub(super) requests: OwnedFd,
    pub(super) replies: OwnedFd,
    pub(super) socket: OwnedFd,
}

impl Echo {
    /// Carries out orders until the control socket is closed.
    ///
    /// Calls here may block for ever: the host has a guard, and its death is ours.
    pub(super) fn serve(&self) -> Result<()> {
        loop {
            let mut bytes = OrderBytes::default();
            let got = retry_on_intr(|| read(&self.control, &mut bytes))
                .map_err(Error::system("read (control)"))?;
            if got == 0 {
                return Ok(());
            }
            let order = Order::from_bytes(bytes)?;
            order.cpu.alone().bind_this_thread()?;
            match order.job {
                Job::PingPong => self.pong(),
                Job::Ring => self.ring(),
                Job::Futex => self.bell(),
                Job::Pipe => messages(Duplex::new(&self.replies, &self.requests)),
                Job::Socketpair => messages(Duplex::new(&self.socket, &self.socket)),
            }?;
            write(&self.control, &DONE).map_err(Error::system("write (control)"))?;
        }
    }

    fn pong(&self) -> Result<()> {
        // Relaxed: only this process writes it. The last turn that was answered.
        let mut turn = self.own.turn.0.load(Relaxed);
        loop {
            let answered = turn;
            spin_until("ping-pong", || {
                // Acquire: pairs with the host's Release store.
                turn = load_acquire(&self.host.turn.0);
                turn != answered
            })?;
            // Release: pairs with the host's Acquire load.
            self.own.turn.0.store(turn, Release);
            if turn & LAST != 0 {
                return Ok(());
            }
        }
    }

    fn ring(&self) -> Result<()> {
        let mut requests = Receiver::new(&self.own, &self.host);
        let mut replies = Sender::new(&self.own, &self.host);
        let mut last = false;
        while !last {
            spin_until("ring", || requests.ready())?;
            let mut batch = 0;
            while batch < BATCH
                && let Some(request) = requests.pop()
            {
                batch += 1;
                let ticket = request.get(0);
                last = ticket & LAST != 0;
                let status = status(request);
                spin_until("ring", || replies.has_room())?;
                replies.push(|index| answer(index, ticket, status));
            }
            requests.release();
            if replies.publish() {
                return Err(Error::Garbled("ring"));
            }
        }
        Ok(())
    }

    fn bell(&self) -> Result<()> {
        // Relaxed: only this process writes it.
        let mut value = self.own.bell.0.load(Relaxed);
        loop {
            value = await_bell(&self.host.bell.0, value, None)?;
            ring_bell(&self.own.bell.0, value)?;
            if value & LAST_BELL != 0 {
                return Ok(());
            }
        }
    }
}

/// 0 if all words of the request but the first are what they should be, and so proof that each of
/// them was read.
#[inline]
fn status(request: Words<'_>) -> u64 {
    (1..Words::COUNT).fold(0, |odd, index| odd | (request.get(index) ^ index as u64))
}

/// The word at `index` of a reply, in which all words are written: those of a no-op task's
/// completion.
#[inline]
pub(super) fn answer(index: usize, ticket: u64, status: u64) -> u64 {
    match index {
        0 => ticket.wrapping_mul(3),
        1 => status,
        _ => 0,
    }
}

fn messages(duplex: Duplex<'_>) -> Result<()> {
    loop {
        let message = duplex.receive()?;
        duplex.send(&message)?;
        if u128::from_le_bytes(message) & u128::from(LAST) != 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_travel() {
        for job in [
            Job::PingPong,
            Job::Ring,
            Job::Futex,
            Job::Pipe,
            Job::Socketpair,
        ] {
            let order = Order { job, cpu: Cpu(300) };
            assert_eq!(Order::from_bytes(order.to_bytes()).unwrap(), order);
        }
        assert!(Order::from_bytes([9, 0, 0]).is_err());
    }
}
