//! The ends that no worker reports: crashes, time-outs, cancellations, tasks that nobody can run;
//! and who is started again.
#![forbid(unsafe_code)]

use super::{Core, NO_WORKER, Phase};
use crate::engine::completion::{Completion, Data, Marks};
use crate::engine::crash::Verdict;
use crate::engine::lane::{Doom, Lane};
use crate::engine::task_table::{Charge, Payload, Place};
use crate::shm::layout::CREDITS;
use crate::sys::process::Exit;
use crate::sys::sync::Ordering;
use crate::task::Outcome;

/// The end of a worker process, as far as its tasks are concerned.
#[derive(Debug)]
struct Death<'a> {
    verdict: &'a Verdict,
    worker: u32,
    code: i32,
    by_signal: bool,
    /// `worker 3 (pid 4711) died of SIGSEGV`
    text: String,
    /// The engine ended it for one of its tasks.
    for_a_task: bool,
    /// How many tasks ran when it died.
    running: usize,
}

/// A task that ran when its worker died.
#[derive(Debug, Clone, Copy)]
struct Victim {
    index: u32,
    /// When it was started, if the worker says so.
    start: Option<u64>,
    /// It may have been the one that killed the worker.
    suspect: bool,
}

/// An end that is not a completion of a worker's.
#[derive(Debug)]
struct End {
    outcome: Outcome,
    worker: u32,
    code: i32,
    marks: Marks,
    /// When the last attempt was started.
    start: Option<u64>,
    text: String,
}

impl<'a> Death<'a> {
    fn of(lane: &Lane, verdict: &'a Verdict, running: usize) -> Self {
        let (code, by_signal) = match verdict.exit {
            Exit::Signal(signal) => (signal, true),
            Exit::Code(code) => (code, false),
            Exit::Unknown => (0, true),
        };
        let how = match lane.doom {
            Some(doom) => format!("{doom} ({})", verdict.how()),
            None => verdict.how(),
        };
        Self {
            verdict,
            worker: lane.worker,
            code,
            by_signal,
            text: format!("worker {} (pid {}) {how}", lane.worker, lane.pid()),
            for_a_task: lane.doom.is_some_and(Doom::is_for_a_task),
            running,
        }
    }
}

impl Core {
    /// Settles everything that was out on a lane whose process has ended (so that no store of its
    /// can follow): finished tasks complete, started ones are started again or end (timed out or
    /// cancelled if that is why the worker died, else crashed), the rest goes back to the front of
    /// the central queue.
    pub(crate) fn bury(&mut self, worker: usize, verdict: &Verdict) {
        self.withdraw(worker); // first: draining hands out what waits
        self.drain_thoroughly(&mut ());
        let Some(mut lane) = self.lanes[worker].take() else {
            return;
        };
        let mut started: Vec<Victim> = std::mem::take(&mut lane.suspects)
            .into_iter()
            .map(|index| Victim {
                index,
                start: None,
                suspect: true,
            })
            .collect();
        let mut unstarted = Vec::new();
        for (slot, ticket) in (0..CREDITS).filter_map(|s| lane.collector.outstanding_at(s)) {
            let index = lane.tasks[usize::from(slot)];
            let started_at = lane.shared.up().slots[usize::from(slot)].started(ticket);
            // A worker that broke the protocol may have lost the ticket of what it has started.
            if started_at.is_some() || lane.violated {
                started.push(Victim {
                    index,
                    start: started_at.filter(|_| !lane.violated),
                    suspect: started_at.is_some(),
                });
            } else {
                unstarted.push(index);
            }
        }
        let death = Death::of(&lane, verdict, started.len());
        for victim in started {
            self.settle_started(victim, &death);
        }
        // In ticket order, so that the front of the queue has the order in which they were handed
        // out.
        unstarted.sort_by_key(|&index| std::cmp::Reverse(self.table.get(index).ticket));
        for index in unstarted {
            self.totals.redispatched += 1;
            self.send_back(index);
        }
        self.pump_all();
    }

    /// Ends a task whose worker died under it, or has it started again.
    fn settle_started(&mut self, victim: Victim, death: &Death<'_>) {
        let Victim { index, start, .. } = victim;
        let stopping = self.phase >= Phase::Cancelling;
        let entry = self.table.get_mut(index);
        entry.attempt += 1;
        let left = entry.attempt < entry.limits.max_attempts && !stopping;
        let (outcome, again) = match entry.charge {
            _ if stopping => (Outcome::Cancelled, false),
            Charge::Cancelled => (Outcome::Cancelled, false),
            Charge::Late => (Outcome::TimedOut, left && entry.limits.retry_timed_out),
            Charge::None => (Outcome::Crashed, left),
        };
        if again {
            if entry.cancelled {
                return self.end(index, Outcome::Cancelled, 0, String::new());
            }
            // No other shall suffer from it again.
            entry.alone |= outcome == Outcome::Crashed && victim.suspect && !death.for_a_task;
            self.totals.retried += 1;
            let (id, attempt) = (entry.id, entry.attempt);
            log::debug!(
                "task {id} is started again after attempt {attempt}: {}",
                death.text
            );
            return self.send_back(index);
        }
        let text = match (outcome, stopping) {
            (_, true) => "the engine was stopped".to_owned(),
            _ => format!(
                "{} running task {}, attempt {}{}",
                death.text,
                entry.id,
                entry.attempt,
                death.verdict.involvement(index)
            ),
        };
        let crashed = outcome == Outcome::Crashed;
        self.crashed[death.worker as usize] += u64::from(crashed);
        let end = End {
            outcome,
            worker: death.worker,
            code: if crashed { death.code } else { 0 },
            marks: Marks::BY_SIGNAL.if_so(crashed && death.by_signal)
                | Marks::COLLATERAL.if_so(
                    crashed
                        && (death.for_a_task || death.running > 1)
                        && !death.verdict.convicts(index),
                ),
            start,
            text,
        };
        self.end_on(index, end);
    }

    /// Puts a task that is to be started (again) to the front of its queue.
    fn send_back(&mut self, index: u32) {
        let entry = self.table.get_mut(index);
        entry.ticket = 0;
        entry.place = Place::Central;
        entry.charge = Charge::None;
        if entry.cancelled || self.phase >= Phase::Cancelling {
            return self.end(index, Outcome::Cancelled, 0, String::new());
        }
        let (class, alone) = (entry.class.index(), entry.alone);
        let class = &mut self.classes[class];
        if alone {
            self.table.push_front(&mut class.alone, index);
        } else {
            class.central.push_front(&mut self.table, index);
        }
    }

    /// Ends a task that is on no lane.
    pub(crate) fn end(&mut self, index: u32, outcome: Outcome, code: i32, text: String) {
        let end = End {
            outcome,
            worker: NO_WORKER,
            code,
            marks: Marks::NONE,
            start: None,
            text,
        };
        self.end_on(index, end);
    }

    fn end_on(&mut self, index: u32, end: End) {
        let now = self.clock.now();
        let entry = self.table.get(index);
        // The worker's word, as far as it can be true.
        let start = end
            .start
            .map_or(now, |start| start.clamp(entry.submitted.min(now), now));
        let queued_ns = self.clock.ns(start.saturating_sub(entry.submitted));
        let run_ns = self.clock.ns(now - start);
        if end.start.is_some() {
            self.classes[entry.class.index()].note_times(queued_ns, run_ns);
        }
        let completion = Completion {
            id: entry.id,
            user_data: entry.user_data,
            label: entry.label,
            queued_ns,
            run_ns,
            outcome: end.outcome,
            code: end.code,
            worker: end.worker,
            attempt: entry.attempt,
            marks: end.marks,
            data: if end.text.is_empty() {
                Data::EMPTY
            } else {
                Data::text(end.text)
            },
        };
        if let Payload::Arena { block, .. } = entry.payload {
            self.payloads.free(block);
        }
        self.totals.by_outcome[end.outcome as usize] += 1;
        self.kept += 1;
        self.table.keep(index, completion);
    }

    /// Cancels a task that was never started and is on no lane. True if it will never run, also
    /// because of an earlier call.
    pub(crate) fn cancel_unstarted(&mut self, index: u32) -> bool {
        let entry = self.table.get(index);
        match entry.place {
            Place::Central if entry.attempt == 0 => {
                self.cancel(index);
                true
            }
            Place::Ready | Place::Held => self.table.kept(index).is_some_and(|completion| {
                completion.outcome == Outcome::Cancelled && completion.attempt == 0
            }),
            Place::Central | Place::Lane { .. } | Place::Free => false,
        }
    }

    /// Asks for a task to be cancelled: at once if it is queued here, by its ticket if a worker
    /// has it.
    pub(crate) fn cancel(&mut self, index: u32) {
        let entry = self.table.get_mut(index);
        entry.cancelled = true;
        let (class, alone, ticket) = (entry.class.index(), entry.alone, entry.ticket);
        match entry.place {
            Place::Central => {
                let (class, home) = (&mut self.classes[class], entry.home);
                if let Some(worker) = home {
                    class.sticky.remove(&mut self.table, worker, index);
                } else if alone {
                    self.table.unlink(&mut class.alone, index);
                } else {
                    class.central.remove(&mut self.table, index);
                }
                self.end(index, Outcome::Cancelled, 0, String::new());
            }
            Place::Lane { worker, slot } => {
                if let Some(lane) = &self.lanes[worker as usize] {
                    // Relaxed: advice; the worker looks before it starts the task, and whenever
                    // its handler asks.
                    lane.shared.down().cancel[usize::from(slot)].store(ticket, Ordering::Relaxed);
                }
            }
            Place::Ready | Place::Held | Place::Free => {}
        }
    }
}
