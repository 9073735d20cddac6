//! What the host does about a worker whose memory cannot be trusted.
//!
//! Most of what a worker writes is checked where it is read. Here is what can only be judged over
//! time, and the consequence that all violations have.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::Core;
use crate::engine::lane::{Doom, Lane};
use crate::shm::layout::CREDITS;
use crate::shm::slot::Ending;
use crate::sys::clock::Clock;
use crate::sys::sync::load_acquire;

/// What a worker says about times is believed within this much of the submit. Beyond, it is
/// compared with the clock, whose reading is not worth a smaller lie.
pub(super) const SLACK: Duration = Duration::from_millis(1);
/// Flips that one thread of an honest worker holds back at most.
const FLIPS_HELD_BACK: u32 = 16;

impl Core {
    /// A worker whose memory cannot be trusted is killed and nothing of it is read any more; its
    /// death settles what it had.
    #[cold]
    pub(crate) fn quarantine(&mut self, worker: usize, why: &'static str) {
        let Some(lane) = self.lanes[worker].as_mut().filter(|lane| !lane.violated) else {
            return;
        };
        lane.violated = true;
        lane.doom = None; // whatever else was held against it
        self.totals.violations += 1;
        self.condemn(worker, Doom::Violation(why), Duration::ZERO);
    }

    /// Looks at what no single completion shows; called now and then.
    pub(crate) fn inspect(&mut self, worker: usize) {
        let why = self.lanes[worker].as_mut().and_then(Lane::incoherence);
        if let Some(why) = why {
            self.quarantine(worker, why);
        }
    }

    /// A worker's eventfd was drained and had been signalled `count` times.
    pub(crate) fn note_signals(&mut self, worker: usize, count: u64) {
        let Some(lane) = &mut self.lanes[worker] else {
            return;
        };
        lane.signals = lane.signals.saturating_add(count);
        // Each signal announces completions, which are no more than there were descriptors.
        if lane.signals > lane.published() {
            self.quarantine(worker, "more signals than tasks");
        }
    }
}

impl Lane {
    /// What is wrong with the words of this worker that are only hints, if something is.
    fn incoherence(&mut self) -> Option<&'static str> {
        if self.violated {
            return None;
        }
        let hands = self.threads + 2; // and the watcher, and who ends the program
        // Each unclaimed descriptor is an outstanding task. The head is read after the done words
        // of those that are not outstanding any more, so it is beyond their descriptors.
        let up = self.shared.up();
        // Acquire: pairs with the Release half of the CAS in `ring::pop`: who claims a task has
        // started the one before.
        let unclaimed = self.published().wrapping_sub(load_acquire(&up.head.0));
        let load = u64::from(self.load());
        let Some(claimed) = load.checked_sub(unclaimed) else {
            return Some("its consumed index is not where it can be");
        };
        if claimed > u64::from(hands) {
            let out = (0..CREDITS).filter_map(|slot| self.collector.outstanding_at(slot));
            let told = out.filter(|&(slot, ticket)| {
                let cell = &up.slots[usize::from(slot)];
                cell.is_done(ticket) || cell.started(ticket).is_some()
            });
            if claimed.saturating_sub(told.count() as u64) > u64::from(hands) {
                return Some("it claims tasks that it does not start");
            }
        }
        let most = FLIPS_HELD_BACK * hands;
        if self.collector.unflipped(&self.shared.up().bitmap) > most {
            return Some("it does not announce what it has completed");
        }
        if self.collector.has_stray_flip(&self.shared.up().bitmap) {
            return Some("it announces a task that it does not have");
        }
        None
    }
}

/// Keeps the times that a worker tells inside what is possible.
#[derive(Debug)]
pub(super) struct Times {
    clock: Clock,
    slack: u64,
    /// The last reading of the clock; 0 = not read yet.
    now: u64,
}

impl Times {
    pub(super) fn new(clock: Clock, slack: u64) -> Self {
        Self {
            clock,
            slack,
            now: 0,
        }
    }

    /// Start and end of a task as its worker tells them: not long before the submit, not in the
    /// future, and in this order.
    #[inline]
    pub(super) fn plausible(&mut self, submitted: u64, ending: &Ending) -> (u64, u64) {
        let (start, end) = (ending.start, ending.end);
        // A task may start a little before the time of its submit is read.
        let earliest = submitted.saturating_sub(self.slack);
        let soon = submitted.saturating_add(self.slack);
        if earliest <= start && start <= end && end <= soon {
            return (start, end);
        }
        self.fit(earliest, start, end)
    }

    #[inline(never)]
    fn fit(&mut self, earliest: u64, start: u64, end: u64) -> (u64, u64) {
        if end > self.now {
            self.now = self.clock.now();
        }
        let end = end.min(self.now).max(earliest);
        (start.max(earliest).min(end), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::slot::Kind;

    #[test]
    fn no_lie_about_times_makes_a_long_task() {
        let clock = Clock::calibrate();
        let slack = clock.ticks(SLACK);
        let now = clock.now();
        let ms = clock.ticks(Duration::from_millis(1));
        let submitted = now - 100 * ms;
        let edges = [
            0,
            1,
            submitted - 2 * ms,
            submitted,
            submitted + ms,
            now - ms,
        ];
        let edges = edges
            .into_iter()
            .chain([now + 1000 * ms, u64::MAX - 1, u64::MAX]);
        let edges: Vec<u64> = edges.collect();
        for &start in &edges {
            for &end in &edges {
                let mut ending = Ending::new(Kind::Completed);
                (ending.start, ending.end) = (start, end);
                let mut times = Times::new(clock, slack);
                let (s, e) = times.plausible(submitted, &ending);
                assert!(submitted - slack <= s && s <= e, "{start} {end}: {s} {e}");
                assert!(e <= clock.now(), "{start} {end}: {s} {e}");
                let honest = submitted <= start && start <= end && end <= now;
                assert!(!honest || (s, e) == (start, end), "{start} {end}: {s} {e}");
            }
        }
    }
}
