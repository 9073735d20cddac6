//! Which workers died unasked, and of what.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::engine::crash::Verdict;
use crate::engine::lane::Lane;
use crate::engine::stats::WorkerRow;
use crate::shm::load_table::{LOG_RECORDS, SIGNALS};
use crate::status::{Crash, SignalCount, now_ms};
use crate::sys::process::Exit;

/// Counts by signal, and the last [`LOG_RECORDS`] of them.
#[derive(Debug)]
pub(crate) struct Deaths {
    /// 0: by none.
    by_signal: [u64; SIGNALS],
    last: VecDeque<Crash>,
}

impl Default for Deaths {
    fn default() -> Self {
        Self {
            by_signal: [0; SIGNALS],
            last: VecDeque::new(),
        }
    }
}

impl Deaths {
    pub(crate) fn note(&mut self, crash: Crash) {
        let signal = usize::try_from(crash.signal).unwrap_or_default();
        self.by_signal[if signal < SIGNALS { signal } else { 0 }] += 1;
        if self.last.len() == LOG_RECORDS {
            self.last.pop_front();
        }
        self.last.push_back(crash);
    }

    /// Those signals that ended somebody.
    pub(crate) fn signals(&self) -> Vec<SignalCount> {
        signal_counts(&self.by_signal)
    }

    /// The last ones, oldest first.
    pub(crate) fn crashes(&self) -> Vec<Crash> {
        self.last.iter().cloned().collect()
    }
}

/// The counts that are not 0.
pub(crate) fn signal_counts(by_signal: &[u64; SIGNALS]) -> Vec<SignalCount> {
    let counts = (0..).zip(by_signal).filter(|&(_, &deaths)| deaths > 0);
    counts
        .map(|(signal, &deaths)| SignalCount { signal, deaths })
        .collect()
}

impl Crash {
    /// Of a worker whose tasks have not been settled yet.
    pub(crate) fn of(lane: &Lane, verdict: &Verdict) -> Self {
        let row = WorkerRow::of(lane);
        let (signal, exit_code) = match verdict.exit {
            Exit::Signal(signal) => (signal.unsigned_abs(), 0),
            Exit::Code(code) => (0, code.cast_unsigned()),
            Exit::Unknown => (0, 0),
        };
        Self {
            at_ms: now_ms(),
            worker: row.slot,
            pid: row.pid,
            class: row.class,
            signal,
            exit_code,
            started: row.running,
            returned: row.queued,
            uptime_ms: u64::try_from(lane.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
            task: verdict.convicted.map(|task| task.id.to_string()),
            place: verdict.place.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Class;

    fn crash(pid: u32, signal: u32) -> Crash {
        Crash {
            at_ms: 0,
            worker: 0,
            pid,
            class: Class::CpuBound,
            signal,
            exit_code: 0,
            started: 0,
            returned: 0,
            uptime_ms: 0,
            task: None,
            place: String::new(),
        }
    }

    #[test]
    fn every_death_is_counted_and_the_last_ones_are_kept() {
        let mut deaths = Deaths::default();
        for pid in 0..100 {
            deaths.note(crash(pid, 9));
        }
        for signal in [0, 64, 65, u32::MAX] {
            deaths.note(crash(100, signal));
        }
        let counts =
            [(0, 3), (9, 100), (64, 1)].map(|(signal, deaths)| SignalCount { signal, deaths });
        assert_eq!(deaths.signals(), counts);
        let pids: Vec<u32> = deaths.crashes().iter().map(|crash| crash.pid).collect();
        assert_eq!(
            pids,
            [&(40..100).collect::<Vec<_>>()[..], &[100; 4]].concat()
        );
    }
}
