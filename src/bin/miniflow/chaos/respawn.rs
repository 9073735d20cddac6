//! How long a dead worker takes to be replaced: from the kill until the new process runs its first
//! task.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use miniflow::{Class, Engine, WorkerState};
use rustix::process::{Signal, pidfd_send_signal};
use serde::Serialize;

use super::killer::{Kill, open_worker};
use super::starts::{Birth, StartLog, now_ns};
use crate::error::{Error, Result};

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The middle and the slow end, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Times {
    /// `None` if there are no times.
    pub(super) fn of(mut ns: Vec<u64>) -> Option<Self> {
        ns.sort_unstable();
        // The smallest value that so many are not above.
        let at = |percent: usize| {
            let rank = (ns.len() * percent).div_ceil(100).max(1);
            ns.get(rank - 1).map(|&ns| (ns / 1000) as f64 / 1000.0)
        };
        Some(Self {
            p50: at(50)?,
            p99: at(99)?,
        })
    }
}

/// With a quiet engine of one worker: kills it so many times, and submits a task at once.
pub(super) fn measure(kills: u32) -> Result<Option<Times>> {
    let log = StartLog::new(1)?;
    let engine = Engine::builder()
        .handler(move |task| {
            log.note_start(0, 1, task.worker());
            Ok(())
        })
        .workers(Class::CpuBound, 1)
        .workers(Class::IoBound, 0)
        .start()
        .map_err(Error::engine("cannot start the engine for the respawns"))?;
    let times: Result<Vec<u64>> = (0..kills).map(|_| one(&engine, &log)).collect();
    engine
        .stop(Some(Duration::from_secs(1))) // not for ever: a task may be lost
        .map_err(Error::engine("cannot stop the engine for the respawns"))?;
    Ok(Times::of(times?))
}

fn one(engine: &Engine, log: &StartLog) -> Result<u64> {
    let end = Instant::now() + PATIENCE;
    let late = || {
        Error::Unfit(format!(
            "no worker took another's place within {PATIENCE:?}"
        ))
    };
    run_task(engine)?;
    let (process, pid) = loop {
        let rows = engine.workers();
        let ready = rows.iter().find(|row| row.state == WorkerState::Ready);
        if let Some(row) = ready
            && let Some(process) = open_worker(row.pid)
        {
            break (process, row.pid);
        }
        if Instant::now() > end {
            return Err(late());
        }
    };
    let born = log.born();
    let killed = now_ns();
    pidfd_send_signal(&process, Signal::KILL).map_err(Error::system("pidfd_send_signal"))?;
    while Instant::now() < end {
        run_task(engine)?; // the first ones may still find, or die with, the old worker
        if let Some(birth) = log.births_from(born).iter().find(|birth| birth.pid != pid) {
            return Ok(birth.at.saturating_sub(killed));
        }
    }
    Err(late())
}

fn run_task(engine: &Engine) -> Result<()> {
    let id = engine
        .submit(b"")
        .map_err(Error::engine("cannot submit a task"))?;
    engine
        .wait(id, Some(PATIENCE))
        .map(drop)
        .map_err(Error::engine("no completion"))
}

/// The same while work goes on: for each kill, the next first task in its slot. Kills whose slot
/// stayed empty, because its class was made smaller, have none, or a late one.
pub(super) fn under_load(kills: &[Kill], births: &[Birth]) -> Option<Times> {
    let mut births = births.to_vec();
    // Of a very long run, the oldest are forgotten.
    let first = births.iter().map(|birth| birth.at).min()?;
    let kills = kills.iter().filter(|kill| kill.at > first);
    births.sort_unstable_by_key(|birth| (birth.slot, birth.at));
    let next = |kill: &Kill| {
        let later = births.partition_point(|birth| (birth.slot, birth.at) <= (kill.slot, kill.at));
        let of_slot = births[later..]
            .iter()
            .take_while(|birth| birth.slot == kill.slot);
        let mut others = of_slot.filter(|birth| birth.pid != kill.pid);
        others.next().map(|birth| birth.at - kill.at)
    };
    Times::of(kills.filter_map(next).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let ms = |n: u64| n * 1_000_000;
        let times = Times::of((1..=200).map(ms).collect()).unwrap();
        assert_eq!((times.p50, times.p99), (100.0, 198.0));
        let times = Times::of(vec![ms(3)]).unwrap();
        assert_eq!((times.p50, times.p99), (3.0, 3.0));
        assert_eq!(Times::of(Vec::new()), None);
    }

    #[test]
    fn a_kill_belongs_to_the_next_birth_in_its_slot() {
        let birth = |slot, pid, at| Birth { slot, pid, at };
        let births = [
            birth(1, 10, 5_000),
            birth(2, 11, 1_002_000),
            birth(1, 12, 3_000_000),
        ];
        let kill = |slot, pid, at| Kill { slot, pid, at };
        let times = under_load(&[kill(1, 10, 1_000_000), kill(2, 11, 1_000_000)], &births);
        assert_eq!(times.map(|t| t.p99), Some(2.0));
    }
}
