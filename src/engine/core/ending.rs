//! The ends that no worker reports: crashes, cancellations, tasks that nobody can run.
#![forbid(unsafe_code)]

use super::{Core, NO_WORKER, Phase};
use crate::engine::completion::{Completion, Data};
use crate::engine::lane::Lane;
use crate::engine::task_table::{Payload, Place};
use crate::shm::layout::CREDITS;
use crate::sys::process::{Exit, signal_name};
use crate::sys::sync::Ordering;
use crate::task::Outcome;

impl Core {
    /// Settles everything that was out on a lane whose process has ended (so that no store of its
    /// can follow): finished tasks complete, started ones are crashed (or cancelled, if that is
    /// why the worker died), the rest goes back to the front of the central queue.
    pub(crate) fn bury(&mut self, worker: usize, exit: Exit) {
        self.withdraw(worker); // first: draining hands out what waits
        self.drain_thoroughly(&mut ());
        let Some(mut lane) = self.lanes[worker].take() else {
            return;
        };
        let mut started = std::mem::take(&mut lane.suspects);
        let mut unstarted = Vec::new();
        for (slot, ticket) in (0..CREDITS).filter_map(|s| lane.collector.outstanding_at(s)) {
            let index = lane.tasks[usize::from(slot)];
            // A worker that broke the protocol may have lost the ticket of what it has started.
            if lane.violated
                || lane.shared.up().slots[usize::from(slot)]
                    .started(ticket)
                    .is_some()
            {
                started.push(index);
            } else {
                unstarted.push(index);
            }
        }
        let collateral = started.len() > 1;
        for index in started {
            self.end_started(index, &lane, exit, collateral);
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

    /// Ends a task whose worker died under it.
    pub(super) fn end_started(&mut self, index: u32, lane: &Lane, exit: Exit, collateral: bool) {
        let entry = self.table.get_mut(index);
        entry.attempt += 1;
        if self.phase >= Phase::Cancelling {
            return self.end(
                index,
                Outcome::Cancelled,
                0,
                false,
                "the engine was stopped".into(),
            );
        }
        let (code, by_signal, how) = match exit {
            Exit::Signal(signal) => (signal, true, format!("died of {}", signal_name(signal))),
            Exit::Code(code) => (code, false, format!("exited with code {code}")),
            Exit::Unknown => (0, true, "died of an unknown signal".to_owned()),
        };
        let text = format!(
            "worker {} (pid {}) {how} running task {}, attempt {}",
            lane.worker,
            lane.pid(),
            entry.id,
            entry.attempt
        );
        self.end_on(
            index,
            lane.worker,
            Outcome::Crashed,
            (code, by_signal),
            collateral,
            text,
        );
    }

    /// Puts a task that was handed out but not started back to the front of its queue.
    pub(super) fn send_back(&mut self, index: u32) {
        let entry = self.table.get_mut(index);
        entry.ticket = 0;
        entry.place = Place::Central;
        if entry.cancelled || self.phase >= Phase::Cancelling {
            return self.end(index, Outcome::Cancelled, 0, false, String::new());
        }
        self.classes[entry.class.index()]
            .central
            .push_front(index, entry.priority);
    }

    /// Ends a task that is on no lane.
    pub(crate) fn end(
        &mut self,
        index: u32,
        outcome: Outcome,
        code: i32,
        by_signal: bool,
        text: String,
    ) {
        self.end_on(index, NO_WORKER, outcome, (code, by_signal), false, text);
    }

    pub(super) fn end_on(
        &mut self,
        index: u32,
        worker: u32,
        outcome: Outcome,
        (code, by_signal): (i32, bool),
        collateral: bool,
        text: String,
    ) {
        let queued = self
            .clock
            .now()
            .saturating_sub(self.table.get(index).submitted);
        let entry = self.table.get(index);
        let completion = Completion {
            id: entry.id,
            user_data: entry.user_data,
            label: entry.label,
            queued_ns: self.clock.ns(queued),
            run_ns: 0,
            outcome,
            code,
            worker,
            attempt: entry.attempt,
            by_signal,
            collateral,
            data: if text.is_empty() {
                Data::EMPTY
            } else {
                Data::text(text)
            },
        };
        if let Payload::Arena { block, .. } = entry.payload {
            self.payloads.free(block);
        }
        self.totals.by_outcome[outcome as usize] += 1;
        self.kept += 1;
        self.table.keep(index, completion);
    }

    /// Asks for a task to be cancelled: at once if it is queued here, by its ticket if a worker
    /// has it.
    pub(crate) fn cancel(&mut self, index: u32) {
        let entry = self.table.get_mut(index);
        entry.cancelled = true;
        let (class, priority, ticket) = (entry.class, entry.priority, entry.ticket);
        match entry.place {
            Place::Central => {
                self.classes[class.index()].central.remove(index, priority);
                self.end(index, Outcome::Cancelled, 0, false, String::new());
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
