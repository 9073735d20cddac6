//! What tasks allow: how many starts, and for how long each; and what becomes of those that take
//! longer.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::Core;
use crate::config::Config;
use crate::engine::crash::running_tasks;
use crate::engine::lane::{Doom, LaneState};
use crate::engine::task_table::{Charge, Limits, Place};
use crate::error::{Error, Result};
use crate::shm::layout::CREDITS;
use crate::sys::clock::Clock;
use crate::sys::sync::Ordering;
use crate::task::{Class, MAX_ATTEMPTS, SubmitOptions};

/// A start that lies further in the future than this is a lie: both sides read one clock.
const CLOCK_SKEW: Duration = Duration::from_secs(1);

/// What tasks allow that do not say, by class.
pub(super) fn defaults(config: &Config, clock: Clock) -> [Limits; 2] {
    Class::ALL.map(|class| Limits {
        max_attempts: u16::try_from(config.attempts).unwrap_or(u16::MAX), // validated
        retry_failed: false,
        retry_timed_out: false,
        deadline: (config.class(class).deadline).map_or(0, |span| ticks(span, clock)),
    })
}

/// What a task with these options allows; they were checked.
#[inline(always)] // see `Core::submit_copy`
pub(super) fn of(options: &SubmitOptions, defaults: &Limits, clock: Clock) -> Limits {
    Limits {
        max_attempts: match options.max_attempts {
            0 => defaults.max_attempts,
            attempts => u16::try_from(attempts).unwrap_or(u16::MAX),
        },
        retry_failed: options.retry_failed,
        retry_timed_out: options.retry_timed_out,
        deadline: match options.deadline {
            None => defaults.deadline,
            Some(deadline) => ticks(deadline, clock),
        },
    }
}

/// Refuses limits that make no sense.
#[inline(always)]
pub(super) fn check(options: &SubmitOptions) -> Result<()> {
    if options.max_attempts > MAX_ATTEMPTS || options.deadline == Some(Duration::ZERO) {
        return Err(refusal(options));
    }
    Ok(())
}

#[cold]
fn refusal(options: &SubmitOptions) -> Error {
    if options.max_attempts > MAX_ATTEMPTS {
        return Error::invalid(format!(
            "max_attempts is {}, more than {MAX_ATTEMPTS}",
            options.max_attempts
        ));
    }
    Error::invalid("the deadline is 0: no task can meet it")
}

/// A deadline in ticks; 0 = none.
#[cold]
fn ticks(deadline: Duration, clock: Clock) -> u64 {
    match deadline {
        Duration::MAX => 0,
        deadline => clock.ticks(deadline).max(1),
    }
}

/// What a look at the limits of one lane's tasks has found.
#[derive(Debug, Default)]
pub(crate) struct Overrun {
    /// Tasks that run and should not any more.
    pub(crate) tasks: Vec<u32>,
    /// When the next one may be late, from now.
    pub(crate) next: Option<Duration>,
}

impl Core {
    /// Looks for tasks on this lane that run beyond their deadline or are cancelled by force.
    pub(crate) fn find_overrun(&mut self, worker: usize) -> Overrun {
        let mut found = Overrun::default();
        let now = self.clock.now();
        let Some(lane) = self.lanes[worker]
            .as_mut()
            .filter(|lane| lane.watched && !lane.violated)
        else {
            return found;
        };
        let latest = now.saturating_add(self.clock.ticks(CLOCK_SKEW));
        let mut next = u64::MAX;
        let mut watched = false;
        let mut lied = false;
        for (slot, ticket) in (0..CREDITS).filter_map(|s| lane.collector.outstanding_at(s)) {
            let index = lane.tasks[usize::from(slot)];
            let entry = self.table.get(index);
            let limit = match entry.charge {
                Charge::Cancelled => 0,
                Charge::Late => continue, // noted before
                Charge::None if entry.limits.deadline == 0 => continue,
                Charge::None => entry.limits.deadline,
            };
            watched = true;
            let cell = &lane.shared.up().slots[usize::from(slot)];
            if cell.is_done(ticket) {
                continue; // in time, or nearly: what a worker has finished counts
            }
            let elapsed = match cell.started(ticket) {
                None if limit == 0 => continue, // told not to start: it ends when its turn comes
                None => 0,                      // it may start at once
                Some(start) => {
                    lied |= start > latest;
                    now.saturating_sub(start)
                }
            };
            if elapsed >= limit {
                found.tasks.push(index);
            } else {
                next = next.min(limit - elapsed);
            }
        }
        lane.watched = watched;
        if lied {
            self.quarantine(worker, "a task starts in the future");
        }
        if next != u64::MAX {
            found.next = Some(Duration::from_nanos(self.clock.ns(next)));
        }
        found
    }

    /// Ends what [`Core::find_overrun`] has found: each task is asked to stop, and its worker gets
    /// `grace` to finish what it runs.
    pub(crate) fn end_overrun(&mut self, worker: usize, tasks: &[u32], grace: Duration) {
        for &index in tasks {
            let entry = self.table.get_mut(index);
            if entry.charge == Charge::None {
                entry.charge = Charge::Late;
            }
            if let Place::Lane { worker, slot } = entry.place
                && let Some(lane) = &self.lanes[worker as usize]
            {
                // Relaxed: advice, as every cancellation is.
                let word = &lane.shared.down().cancel[usize::from(slot)];
                word.store(entry.ticket, Ordering::Relaxed);
            }
        }
        if let Some(&first) = tasks.first() {
            let entry = self.table.get(first);
            let doom = match entry.charge {
                Charge::Cancelled => Doom::Cancelled(entry.id),
                Charge::Late | Charge::None => Doom::Late(entry.id),
            };
            self.condemn(worker, doom, grace);
        }
    }

    /// A task that was cancelled and still runs costs its worker's life.
    pub(crate) fn cancel_by_force(&mut self, index: u32) {
        let entry = self.table.get_mut(index);
        if let Place::Lane { worker, .. } = entry.place {
            if entry.charge == Charge::None {
                entry.charge = Charge::Cancelled;
            }
            if let Some(lane) = &mut self.lanes[worker as usize] {
                lane.watched = true;
            }
        }
    }

    /// Ends a worker: it gets no more tasks, hands back what it has not started, is asked to leave
    /// (SIGTERM), and killed after `grace`. Its tasks are settled when it has ended.
    pub(crate) fn condemn(&mut self, worker: usize, doom: Doom, grace: Duration) {
        self.withdraw(worker);
        let Some(lane) = &mut self.lanes[worker] else {
            return;
        };
        if lane.doom.is_some() {
            return; // its time runs already
        }
        let running = match doom {
            // They name the one that is to blame.
            Doom::Late(_) | Doom::Cancelled(_) => String::new(),
            _ => running_tasks(&self.table, lane, None),
        };
        log::warn!(
            "worker {} (pid {}) {doom}{running}",
            lane.worker,
            lane.pid()
        );
        lane.doom = Some(doom);
        self.totals.killed += 1;
        if grace.is_zero() {
            return lane.kill();
        }
        lane.kill_at = Instant::now().checked_add(grace);
        lane.recall();
        lane.terminate();
        if lane.state == LaneState::Ready {
            lane.set_state(LaneState::Draining);
        }
    }
}
