//! What the workers' processes use: processor time and memory, as the kernel says.
//!
//! It takes some 10 to 20 us a process to ask, so it is done seldom, never under the engine's lock, and
//! takes at most 1 % of a processor however many workers there are.
#![forbid(unsafe_code)]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::engine::stats::WorkerRow;
use crate::sys::process;
use crate::sys::sync::lock;

/// How often is often enough.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// So many times as long as a round took, the next one has to wait.
const PAUSE: u32 = 100;
/// A round that took longer was kept from the processor (the host itself was stopped): no reason to wait
/// for hours.
const LONGEST_ROUND: Duration = Duration::from_millis(100);
/// Over less time the kernel's clock ticks (10 ms) say little about a rate.
const SHORTEST_RATE: Duration = Duration::from_millis(500);

/// The last measurements of an engine's workers.
#[derive(Debug, Default)]
pub(crate) struct UsageMeter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the last round was begun.
    at: Option<Instant>,
    /// How long it took.
    took: Duration,
    /// By worker slot.
    samples: Vec<Option<Sample>>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    incarnation: u64,
    usage: process::Usage,
    permille: u32,
    /// Where the rate is counted from.
    base: (Instant, u64),
}

impl UsageMeter {
    /// Fills in what the workers use, measured anew if that is longer ago than `every`, or 100 times
    /// as long as it takes. Not to be called under the engine's lock.
    pub(crate) fn fill(&self, rows: &mut [WorkerRow], every: Duration) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let pause = every.max(state.took * PAUSE);
        let due = state.at.is_none_or(|at| now.duration_since(at) >= pause);
        if due {
            state.at = Some(now); // others who come meanwhile use the old values
        }
        let befores: Vec<_> = rows.iter().map(|row| state.of(row)).collect();
        drop(state);
        // Reads files, without a lock.
        let samples: Vec<_> = (rows.iter().zip(befores))
            .map(|(row, before)| match before {
                Some(before) if !due => (Some(before), false),
                before => (Sample::take(row, before, now), true),
            })
            .collect();
        let mut state = lock(&self.state);
        if due {
            state.took = now.elapsed().min(LONGEST_ROUND);
        }
        for (row, (sample, is_new)) in rows.iter_mut().zip(samples) {
            let Some(sample) = sample else { continue };
            if is_new {
                // Else somebody may have measured meanwhile.
                state.keep(row.slot, sample);
            }
            row.cpu_ns = sample.usage.cpu_ns;
            row.cpu_permille = sample.permille;
            row.rss_bytes = sample.usage.rss_bytes;
        }
    }

    /// The memory of a worker at the last measurement; `None` if there was none.
    pub(crate) fn rss_bytes(&self, worker: usize, incarnation: u64) -> Option<u64> {
        let state = lock(&self.state);
        let sample = state.samples.get(worker).copied().flatten();
        let sample = sample.filter(|sample| sample.incarnation == incarnation);
        sample.map(|sample| sample.usage.rss_bytes)
    }
}

impl State {
    fn of(&self, row: &WorkerRow) -> Option<Sample> {
        let sample = self.samples.get(row.slot as usize).copied().flatten();
        sample.filter(|sample| sample.incarnation == row.incarnation)
    }

    fn keep(&mut self, worker: u32, sample: Sample) {
        let worker = worker as usize;
        if self.samples.len() <= worker {
            self.samples.resize(worker + 1, None);
        }
        self.samples[worker] = Some(sample);
    }
}

impl Sample {
    /// `None` if there is no such process.
    fn take(row: &WorkerRow, before: Option<Self>, now: Instant) -> Option<Self> {
        if row.pid == 0 {
            return None;
        }
        let usage = process::usage(row.pid)?;
        let Some(before) = before else {
            return Some(Self {
                incarnation: row.incarnation,
                usage,
                permille: 0,
                base: (now, usage.cpu_ns),
            });
        };
        if before.usage.start_time != usage.start_time {
            return None; // the number has gone to another process
        }
        let (since, cpu_ns) = before.base;
        let span = now.saturating_duration_since(since);
        let rate = span >= SHORTEST_RATE;
        let used = usage.cpu_ns.saturating_sub(cpu_ns);
        Some(Self {
            usage,
            permille: if rate {
                permille(used, span)
            } else {
                before.permille
            },
            base: if rate {
                (now, usage.cpu_ns)
            } else {
                before.base
            },
            ..before
        })
    }
}

fn permille(used_ns: u64, span: Duration) -> u32 {
    let share = u128::from(used_ns) * 1000 / span.as_nanos().max(1);
    u32::try_from(share).unwrap_or(u32::MAX)
}
