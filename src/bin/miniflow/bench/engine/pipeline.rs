//! Many tasks on their way: completions per second.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::Duration;

use miniflow::{Completion, Submission};

use super::crew::{Crew, PATIENCE, check};
use crate::bench::clock::Clock;
use crate::bench::slice::{Outcome, rate};
use crate::error::{Error, Result};

/// Tasks on their way where nothing else is said: as many as the raw ring has.
pub(super) const IN_FLIGHT: u32 = 512;

/// Completions taken with one poll, at most; and so, tasks submitted with one call.
const BATCH: usize = 64;

/// No-op tasks.
const PAYLOAD: [u8; 16] = [0; 16];

/// Completions per second of `threads` threads together that keep `in_flight` tasks on their way.
pub(super) fn rate_of(
    crew: &Crew,
    in_flight: u32,
    threads: u32,
    clock: &Clock,
    length: Duration,
) -> Result<Outcome> {
    let flow = Flow {
        crew,
        limit: in_flight.into(),
        on_their_way: AtomicU64::new(0),
    };
    // Relaxed, both: neither orders anything.
    let (others, end) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut completions = Vec::with_capacity(BATCH);
                    while !end.load(Relaxed) {
                        others.fetch_add(flow.turn(&mut completions)?, Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let mut completions = Vec::with_capacity(BATCH);
        let outcome = rate("engine", clock, length, || {
            let collected = flow.turn(&mut completions)?;
            Ok(match threads {
                1 => collected,
                _ => collected + others.swap(0, Relaxed),
            })
        });
        end.store(true, Relaxed);
        for helper in helpers {
            helper
                .join()
                .map_err(|_| Error::Unfit("a thread panicked".into()))??;
        }
        flow.finish(&mut completions)?;
        outcome
    })
}

/// A number of tasks that is kept on the way.
#[derive(Debug)]
struct Flow<'a> {
    crew: &'a Crew,
    limit: u64,
    /// Relaxed: it orders nothing, and two threads may overshoot the limit by a batch.
    on_their_way: AtomicU64,
}

impl Flow<'_> {
    /// Collects what has come, and submits as many anew.
    #[inline]
    fn turn(&self, completions: &mut Vec<Completion>) -> Result<u64> {
        let collected = self.collect(completions, Some(Duration::ZERO))?;
        let room = self.limit.saturating_sub(self.on_their_way.load(Relaxed));
        if room == 0 {
            return Ok(collected);
        }
        let mut submitted = 0;
        let tasks = (0..room).map(|_| Submission::from(PAYLOAD.as_slice()));
        let refused = self.crew.engine.submit_each(tasks, |_| submitted += 1);
        self.on_their_way.fetch_add(submitted, Relaxed);
        match refused {
            None => Ok(collected),
            Some(error) => Err(Error::engine("submitting tasks")(error)),
        }
    }

    #[inline]
    fn collect(&self, completions: &mut Vec<Completion>, timeout: Option<Duration>) -> Result<u64> {
        completions.clear();
        self.crew
            .engine
            .poll_into(completions, BATCH, timeout)
            .map_err(Error::engine("polling"))?;
        completions.iter().try_for_each(check)?;
        let collected = completions.len() as u64;
        if collected > 0 {
            self.on_their_way.fetch_sub(collected, Relaxed);
        }
        Ok(collected)
    }

    /// Collects what is still on its way.
    fn finish(&self, completions: &mut Vec<Completion>) -> Result<()> {
        while self.on_their_way.load(Relaxed) > 0 {
            if self.collect(completions, PATIENCE)? == 0 {
                return Err(Error::Silent("engine"));
            }
        }
        Ok(())
    }
}
