//! One task at a time: submit, and wait for its completion.

#![forbid(unsafe_code)]

use std::time::Duration;

use miniflow::SubmitOptions;

use super::crew::Crew;
use super::handler::{ADD_UP, NOTHING};
use crate::bench::clock::Clock;
use crate::bench::metric::Payload;
use crate::bench::slice::{Outcome, latency};
use crate::error::{Error, Result};

/// The times of round trips with this payload, one after the other for `length`.
pub(super) fn of(
    crew: &Crew,
    payload: Payload,
    clock: &Clock,
    length: Duration,
) -> Result<Outcome> {
    match payload {
        Payload::B16 => copied::<16>(crew, clock, length),
        Payload::B1024 => copied::<1_024>(crew, clock, length),
        Payload::B65536 => copied::<65_536>(crew, clock, length),
        Payload::Loaned65536 => loaned(crew, clock, length),
        Payload::Touched65536 => touched(crew, clock, length),
    }
}

/// The engine copies the payload; the handler reads one word.
fn copied<const N: usize>(crew: &Crew, clock: &Clock, length: Duration) -> Result<Outcome> {
    let mut payload = [0xa5; N];
    set_order(&mut payload, NOTHING);
    latency(clock, length, || {
        let id = crew
            .engine
            .submit(&payload)
            .map_err(Error::engine("submitting a task"))?;
        crew.wait(id).map(drop)
    })
}

/// The payload lies in shared memory and was written once, before; the handler reads one word.
fn loaned(crew: &Crew, clock: &Clock, length: Duration) -> Result<Outcome> {
    // The engine lends the block that came back last.
    write_and_send(crew, |bytes| {
        bytes.fill(0xa5);
        set_order(bytes, NOTHING);
    })?;
    latency(clock, length, || write_and_send(crew, |_| {}).map(drop))
}

/// Every byte is written by the host, and read by the handler, each time.
fn touched(crew: &Crew, clock: &Clock, length: Duration) -> Result<Outcome> {
    let mut filler = 0_u8;
    latency(clock, length, || {
        filler = filler.wrapping_add(1);
        let reply = write_and_send(crew, |bytes| {
            bytes.fill(filler);
            set_order(bytes, ADD_UP);
        })?;
        let word = u64::from_le_bytes([filler; 8]);
        let expected = word.wrapping_mul(LOAN as u64 / 8 - 1).wrapping_add(ADD_UP);
        match reply == Some(expected) {
            true => Ok(()),
            false => Err(Error::Garbled("engine, 64 KiB loaned")),
        }
    })
}

/// Bytes of a loan.
const LOAN: usize = 65_536;

/// Borrows memory, has `write` fill it, sends it off, and returns the word that comes back.
#[inline]
fn write_and_send(crew: &Crew, write: impl FnOnce(&mut [u8])) -> Result<Option<u64>> {
    let mut loan = crew
        .engine
        .loan(LOAN)
        .map_err(Error::engine("borrowing memory"))?;
    write(&mut loan);
    let id = loan
        .submit(&SubmitOptions::default())
        .map_err(Error::engine("submitting a loan"))?;
    let completion = crew.wait(id)?;
    let reply = completion.as_bytes().and_then(<[u8]>::first_chunk);
    Ok(reply.map(|word| u64::from_le_bytes(*word)))
}

/// Writes the first word.
#[inline]
fn set_order(payload: &mut [u8], order: u64) {
    if let Some(word) = payload.first_chunk_mut() {
        *word = order.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::super::handler::sum;
    use super::*;

    #[test]
    fn the_expected_sum_is_that_of_the_handler() {
        let mut payload = [7; LOAN];
        set_order(&mut payload, ADD_UP);
        let word = u64::from_le_bytes([7; 8]);
        assert_eq!(
            sum(&payload),
            word.wrapping_mul(LOAN as u64 / 8 - 1).wrapping_add(ADD_UP)
        );
    }
}
