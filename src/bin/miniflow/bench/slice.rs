//! One short measurement of one thing: what a round is made of.

#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use super::clock::{Clock, WATCHDOG, as_f64};
use super::metric::Metric;
use super::stats::{self, Times};
use crate::error::{Error, Result};

/// The share of a slice that only warms up: wakes the other side, fills caches and tables.
pub(super) const WARM_UP: u32 = 10; // a tenth

/// Turns of a throughput loop between two looks at the clock.
const TURNS_PER_LOOK: u32 = 64;

/// What one slice found.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The time of each round trip.
    Latency(Times),
    /// Completions per second.
    Rate(f64),
}

/// A measurement that can be run again and again, each time for about the time given.
///
/// Between its slices it leaves the processors to the others: nothing of it may spin.
pub(super) struct Slice<'a> {
    pub(super) metric: Metric,
    run: Box<dyn FnMut(Duration) -> Result<Outcome> + 'a>,
}

impl<'a> Slice<'a> {
    pub(super) fn new(metric: Metric, run: impl FnMut(Duration) -> Result<Outcome> + 'a) -> Self {
        Self {
            metric,
            run: Box::new(run),
        }
    }

    pub(super) fn run(&mut self, length: Duration) -> Result<Outcome> {
        (self.run)(length)
    }
}

impl fmt::Debug for Slice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice")
            .field("metric", &self.metric)
            .finish_non_exhaustive()
    }
}

/// Times `trip`, one at a time, for `length`.
pub(super) fn latency(
    clock: &Clock,
    length: Duration,
    mut trip: impl FnMut() -> Result<()>,
) -> Result<Outcome> {
    let mut times = stats::times();
    let warm_up = length / WARM_UP;
    // The warm-up records as well, so that the pages of the histogram exist.
    for length in [warm_up, length - warm_up] {
        times.reset();
        let end = clock.now() + clock.ticks(length);
        loop {
            let start = clock.now();
            trip()?;
            let stop = clock.now();
            times.saturating_record(clock.between(start, stop));
            if stop >= end {
                break;
            }
        }
    }
    Ok(Outcome::Latency(times))
}

/// Counts what `turn` completes, turn after turn, for `length`.
///
/// A turn submits and collects what it can without waiting, and returns how many it collected.
/// What is still on its way at the end is the caller's to collect.
pub(super) fn rate(
    what: &'static str,
    clock: &Clock,
    length: Duration,
    mut turn: impl FnMut() -> Result<u64>,
) -> Result<Outcome> {
    let warm_up = length / WARM_UP;
    count(what, clock, warm_up, &mut turn)?;
    Ok(Outcome::Rate(count(
        what,
        clock,
        length - warm_up,
        &mut turn,
    )?))
}

/// Completions per second over `length`.
fn count(
    what: &'static str,
    clock: &Clock,
    length: Duration,
    turn: &mut impl FnMut() -> Result<u64>,
) -> Result<f64> {
    let patience = clock.ticks(WATCHDOG);
    let start = clock.now();
    let end = start + clock.ticks(length);
    let mut completed = 0;
    let mut progress = (start, completed);
    loop {
        for _ in 0..TURNS_PER_LOOK {
            completed += turn()?;
        }
        let now = clock.now();
        if now >= end {
            let seconds = as_f64(now - start) * clock.ns_per_tick() * 1e-9;
            return Ok(as_f64(completed) / seconds);
        }
        if completed != progress.1 {
            progress = (now, completed);
        } else if now - progress.0 > patience {
            return Err(Error::Silent(what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::percentile;

    #[test]
    fn latency_is_that_of_the_trip_alone() {
        let clock = Clock::calibrated();
        let outcome = latency(&clock, Duration::from_millis(60), || {
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        });
        let Ok(Outcome::Latency(times)) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(times.len() <= 27, "{} trips of 2 ms in 54 ms", times.len());
        assert!(percentile(&times, 0.5, clock.ns_per_tick()) >= 2e6);
    }

    #[test]
    fn rate_counts_what_turns_complete() {
        let clock = Clock::calibrated();
        let outcome = rate("test", &clock, Duration::from_millis(40), || {
            std::thread::sleep(Duration::from_micros(100));
            Ok(3)
        });
        let Ok(Outcome::Rate(rate)) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(rate > 0.0 && rate <= 30_000.0, "{rate}");
    }
}
