//! What an engine costs that has nothing to do.

#![forbid(unsafe_code)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use miniflow::Engine;

use super::MANY;
use super::crew::Crew;
use crate::bench::process_clock;
use crate::error::{Error, Result};

/// How long the engine is watched.
const WATCHED: Duration = Duration::from_secs(2);
/// How long it may take after its last task to come to rest.
const SETTLE: Duration = Duration::from_millis(500);

/// The share of one processor, in percent, that an engine with [`MANY`] workers uses while nothing
/// is submitted: this process, the zygote and all workers together.
///
/// To be called while this process does nothing else. Stops the engine again.
pub(in crate::bench) fn percent() -> Result<f64> {
    let crew = Crew::start(MANY, Engine::builder())?;
    // It has worked before: it is at rest, not new.
    for _ in 0..1_000 {
        let id = crew
            .engine
            .submit(&[0; 16])
            .map_err(Error::engine("submitting a task"))?;
        crew.wait(id)?;
    }
    thread::sleep(SETTLE);
    let pids = processes(&crew)?;
    let used = || -> Result<Duration> { pids.iter().map(|pid| process_clock::used_by(*pid)).sum() };
    let (before, start) = (used()?, Instant::now());
    thread::sleep(WATCHED);
    let (after, time) = (used()?, start.elapsed());
    Ok(after.saturating_sub(before).as_secs_f64() / time.as_secs_f64() * 100.0)
}

/// This process, the workers, and their parent, the zygote.
fn processes(crew: &Crew) -> Result<Vec<u32>> {
    let mut pids = crew.pids();
    let zygote = pids.first().and_then(|pid| parent(*pid));
    pids.extend(zygote);
    pids.push(std::process::id());
    match zygote {
        Some(_) => Ok(pids),
        None => Err(Error::Unfit("cannot find the zygote".into())),
    }
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_parent() {
        let parent = parent(std::process::id());
        assert_eq!(parent, Some(std::os::unix::process::parent_id()));
    }
}
