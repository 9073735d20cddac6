//! More busy workers than cores: a spinner that does not yield would hold up all others.

#![forbid(unsafe_code)]

use std::time::Duration;

use miniflow::{Completion, SubmitOptions};

use super::MANY;
use super::crew::{Crew, PATIENCE, check};
use crate::bench::clock::Clock;
use crate::bench::slice::{Outcome, WARM_UP};
use crate::bench::stats;
use crate::error::{Error, Result};

/// The times of round trips, one per worker on its way at any time.
pub(super) fn round_trips(crew: &Crew, clock: &Clock, length: Duration) -> Result<Outcome> {
    let mut times = stats::times();
    let mut completions = Vec::new();
    for _ in 0..MANY {
        submit(crew, clock)?;
    }
    let warm_up = length / WARM_UP;
    for length in [warm_up, length - warm_up] {
        times.reset();
        let end = clock.now() + clock.ticks(length);
        loop {
            let now = collect(crew, clock, &mut completions)?;
            for completion in &completions {
                times.saturating_record(clock.between(completion.user_data(), now));
                submit(crew, clock)?;
            }
            if now >= end {
                break;
            }
        }
    }
    let mut left = MANY as usize;
    while left > 0 {
        collect(crew, clock, &mut completions)?;
        left -= completions.len();
    }
    Ok(Outcome::Latency(times))
}

/// Submits a no-op task that carries the time.
fn submit(crew: &Crew, clock: &Clock) -> Result<()> {
    let options = SubmitOptions::new().user_data(clock.now());
    crew.engine
        .submit_with(&[0; 16], &options)
        .map_err(Error::engine("submitting a task"))?;
    Ok(())
}

/// Waits for completions; returns when they came.
fn collect(crew: &Crew, clock: &Clock, completions: &mut Vec<Completion>) -> Result<u64> {
    completions.clear();
    let collected = crew
        .engine
        .poll_into(completions, MANY as usize, PATIENCE)
        .map_err(Error::engine("polling"))?;
    let now = clock.now();
    if collected == 0 {
        return Err(Error::Silent("engine"));
    }
    completions.iter().try_for_each(check)?;
    Ok(now)
}
