//! Collecting completions: from the lanes into whoever's hands, or into the table.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::suspicion::Times;
use super::{ClassState, Core, Phase, SCAN_BUDGET, Totals};
use crate::engine::completion::{Completion, Data, Marks};
use crate::engine::payload::Payloads;
use crate::engine::task_table::{Charge, Payload, Place, TaskTable};
use crate::shm::layout::{CREDITS, INLINE_RESULT, Up};
use crate::shm::segments::HostLane;
use crate::shm::slot::{Collector, Ending, Kind, Scan, TaskSlot};
use crate::sys::clock::Clock;
use crate::task::Outcome;

/// Where drained completions go first; what finds no room there is kept in the table.
pub(crate) trait Sink {
    fn has_room(&self) -> bool;

    /// How many completions are worth taking out of one lane now.
    #[inline]
    fn budget(&self) -> usize {
        SCAN_BUDGET
    }

    fn put(&mut self, completion: Completion);
}

/// Up to `max` completions for a poll.
pub(crate) struct Batch<'a> {
    pub(crate) out: &'a mut Vec<Completion>,
    pub(crate) max: usize,
}

impl Sink for Batch<'_> {
    #[inline]
    fn has_room(&self) -> bool {
        self.out.len() < self.max
    }

    /// What finds no room here would be kept, and copied once more; the lane keeps it as well.
    #[inline]
    fn budget(&self) -> usize {
        SCAN_BUDGET.min(self.max - self.out.len())
    }

    #[inline]
    fn put(&mut self, completion: Completion) {
        self.out.push(completion);
    }
}

/// One completion.
impl Sink for Option<Completion> {
    #[inline]
    fn has_room(&self) -> bool {
        self.is_none()
    }

    #[inline]
    fn put(&mut self, completion: Completion) {
        *self = Some(completion);
    }
}

/// Keep everything.
impl Sink for () {
    fn has_room(&self) -> bool {
        false
    }

    fn put(&mut self, _: Completion) {
        unreachable!("there is no room here");
    }
}

impl Core {
    /// Takes what is ready: first from the ready list, then from the lanes, and hands out what
    /// waits in the central queue.
    #[inline]
    pub(crate) fn drain(&mut self, sink: &mut impl Sink) {
        while sink.has_room()
            && let Some(completion) = self.table.pop_ready()
        {
            sink.put(completion);
        }
        // Each time another lane is first: those before it must not use up all room for ever.
        let count = self.lanes.len();
        self.first_lane += 1;
        if self.first_lane >= count {
            self.first_lane = 0;
        }
        for worker in (self.first_lane..count).chain(0..self.first_lane) {
            let budget = sink.budget();
            if budget == 0 {
                break;
            }
            let scan = self.collect(worker, |collector, up, tasks, settle| {
                collector.scan(&up.bitmap, &up.slots, budget, |slot, _, cell| {
                    settle.take(tasks[usize::from(slot)], cell, sink);
                })
            });
            if scan == Some(Scan::Violation) {
                self.quarantine(worker, "a completion is announced that is not there");
            }
        }
        self.pump_all();
    }

    /// [`Core::drain`] by the done words instead of the bitmap: also finds what a worker has
    /// finished but not announced. Costs a look at every outstanding slot.
    pub(crate) fn drain_thoroughly(&mut self, sink: &mut impl Sink) {
        self.drain(sink);
        for worker in 0..self.lanes.len() {
            self.collect(worker, |collector, up, tasks, settle| {
                let mut left = collector.outstanding();
                for slot in 0..CREDITS {
                    if left == 0 {
                        break; // few are out, and these have low numbers
                    }
                    let Some((slot, ticket)) = collector.outstanding_at(slot) else {
                        continue;
                    };
                    left -= 1;
                    let cell = &up.slots[usize::from(slot)];
                    if collector.take_early(slot, ticket, cell) {
                        settle.take(tasks[usize::from(slot)], cell, sink);
                    }
                }
            });
        }
        self.pump_all();
    }

    /// Takes one completion by its done word; false if it is not there.
    #[inline]
    pub(crate) fn take_early(
        &mut self,
        worker: u32,
        slot: u16,
        ticket: u64,
        sink: &mut impl Sink,
    ) -> bool {
        let taken = self.collect(worker as usize, |collector, up, tasks, settle| {
            let cell = &up.slots[usize::from(slot)];
            let taken = collector.take_early(slot, ticket, cell);
            if taken {
                settle.take(tasks[usize::from(slot)], cell, sink);
            }
            taken
        });
        taken == Some(true)
    }

    /// Lets `take` collect completions from one lane, and accounts for them.
    #[inline]
    fn collect<R>(
        &mut self,
        worker: usize,
        take: impl FnOnce(&mut Collector, &Up, &[u32; CREDITS], &mut Settle<'_>) -> R,
    ) -> Option<R> {
        let lane = self.lanes[worker].as_mut()?;
        if lane.load() == 0 || lane.violated {
            return None;
        }
        let mut settle = Settle {
            table: &mut self.table,
            payloads: &mut self.payloads,
            classes: &mut self.classes,
            totals: &mut self.totals,
            kept: &mut self.kept,
            times: Times::new(self.clock, self.slack),
            clock: self.clock,
            in_place_from: self.in_place_from,
            shared: &lane.shared,
            class: lane.class.index(),
            worker: lane.worker,
            incarnation: lane.incarnation,
            suspects: &mut lane.suspects,
            may_retry: self.phase < Phase::Cancelling,
            returned: Vec::new(),
            handed_back: false,
            sum_ns: 0,
            count: 0,
            failed: 0,
            last_end: 0,
        };
        let answer = take(
            &mut lane.collector,
            lane.shared.up(),
            &lane.tasks,
            &mut settle,
        );
        // Unasked: what a program does that is about to leave, so that is how it is treated.
        let leaves = settle.handed_back && !lane.asked_back;
        if !settle.returned.is_empty() {
            settle.send_back();
        }
        let (sum_ns, count, failed) = (settle.sum_ns, settle.count, settle.failed);
        let last_end = settle.last_end;
        if count > 0 {
            lane.completed += u64::from(count);
            lane.failed += u64::from(failed);
            lane.busy_ns = lane.busy_ns.saturating_add(sum_ns); // the worker's word
            lane.note_service(sum_ns, count);
            lane.active_at = lane.active_at.max(last_end);
        }
        if lane.is_apart() && lane.load() == 0 {
            lane.set_apart(self.classes[lane.class.index()].reserved == Some(lane.worker));
        }
        let (slot, rank) = (lane.worker, lane.rank());
        let class = &mut self.classes[lane.class.index()];
        class.ready.note(slot, rank);
        class.ended += u64::from(count);
        if !lane.suspects.is_empty() {
            self.quarantine(worker, "a completion makes no sense");
        } else if leaves {
            self.let_go(worker);
        }
        Some(answer)
    }
}

/// Turns what stands in a task slot into a completion. The parts of [`Core`] that it needs, apart
/// from the lane's collector, which calls it.
struct Settle<'a> {
    table: &'a mut TaskTable,
    payloads: &'a mut Payloads,
    classes: &'a mut [ClassState; 2],
    totals: &'a mut Totals,
    kept: &'a mut usize,
    times: Times,
    clock: Clock,
    in_place_from: u64,
    shared: &'a Arc<HostLane>,
    /// The class of the worker and its tasks.
    class: usize,
    worker: u32,
    incarnation: u64,
    suspects: &'a mut Vec<u32>,
    /// The engine does not stop, so that a failed task may be started again.
    may_retry: bool,
    /// Tasks that were handed back unstarted, or failed and are to be started again.
    returned: Vec<u32>,
    /// There was one of the first kind among them.
    handed_back: bool,
    sum_ns: u64,
    count: u32,
    failed: u32,
    /// In ticks.
    last_end: u64,
}

impl Settle<'_> {
    #[inline]
    fn take(&mut self, index: u32, cell: &TaskSlot, sink: &mut impl Sink) {
        let Some(ending) = cell.ending() else {
            return self.suspects.push(index);
        };
        if ending.kind == Kind::Returned {
            if cell.started(self.table.get(index).ticket).is_some() {
                return self.suspects.push(index); // user code may have run
            }
            self.totals.returned += 1;
            self.handed_back = true;
            return self.returned.push(index);
        }
        let Some(data) = self.data(cell, &ending) else {
            return self.suspects.push(index);
        };
        let entry = self.table.get_mut(index);
        let (start, end) = self.times.plausible(entry.submitted, &ending);
        let run_ns = self.clock.ns(end.saturating_sub(start));
        self.sum_ns = self.sum_ns.saturating_add(run_ns);
        self.last_end = self.last_end.max(end);
        self.count += 1;
        self.failed += u32::from(ending.kind.is_failure());
        if ending.kind.is_failure() && entry.limits.retry_failed && self.is_retried(index) {
            // What it replied is let go here; the payload stays.
            return self.returned.push(index);
        }
        let entry = self.table.get_mut(index);
        let outcome = match ending.kind {
            Kind::Completed | Kind::Returned => Outcome::Completed,
            Kind::Failed | Kind::FailedWithData => Outcome::Failed,
            Kind::Cancelled => Outcome::Cancelled,
        };
        let queued_ns = self.clock.ns(start.saturating_sub(entry.submitted));
        if outcome != Outcome::Cancelled {
            self.classes[self.class].note_times(queued_ns, run_ns);
        }
        let completion = Completion {
            id: entry.id,
            user_data: entry.user_data,
            label: entry.label,
            queued_ns,
            run_ns,
            outcome,
            code: ending.code,
            worker: self.worker,
            // A worker says so of tasks only that it has not begun to run.
            attempt: entry.attempt + u16::from(outcome != Outcome::Cancelled),
            marks: Marks::DATA.if_so(ending.kind == Kind::FailedWithData),
            data,
        };
        if let Payload::Arena { block, .. } = entry.payload {
            self.payloads.free(block);
        }
        self.totals.by_outcome[outcome as usize] += 1;
        if !entry.awaited && sink.has_room() {
            self.table.remove(index);
            sink.put(completion);
        } else {
            *self.kept += 1;
            self.table.keep(index, completion);
        }
    }

    /// The result, if what the worker says about it holds.
    #[inline(always)] // see `Core::submit_copy`
    fn data(&self, cell: &TaskSlot, ending: &Ending) -> Option<Data> {
        let len = ending.len;
        if !ending.in_arena {
            return (len as usize <= INLINE_RESULT).then(|| Data::from_slot(cell, len));
        }
        let mut offset = [0];
        cell.read_result(&mut offset);
        let [offset] = offset;
        if u64::from(len) < self.in_place_from
            && let Some(bytes) = self.shared.copy_result(offset, u64::from(len))
        {
            self.shared.release(offset);
            return Some(Data::Heap(bytes));
        }
        // Also a short one, if there is no memory for a copy.
        Data::in_place(self.shared, self.incarnation, offset, len)
    }

    /// Uses up an attempt of a failed task; true if it is started again.
    #[cold]
    fn is_retried(&mut self, index: u32) -> bool {
        let entry = self.table.get_mut(index);
        let retried =
            self.may_retry && !entry.cancelled && entry.attempt + 1 < entry.limits.max_attempts;
        if retried {
            entry.attempt += 1;
            // It may have failed because it was late; the next attempt has all its time.
            entry.charge = Charge::None;
            self.totals.retried += 1;
        }
        retried
    }

    /// Puts the tasks that were handed back to the front of their queues, in the order in which they
    /// were handed out.
    #[cold]
    fn send_back(&mut self) {
        let table = &mut *self.table;
        self.returned
            .sort_unstable_by_key(|&index| std::cmp::Reverse(table.get(index).ticket));
        for index in self.returned.drain(..) {
            let entry = table.get_mut(index);
            entry.ticket = 0;
            entry.place = Place::Central;
            let (class, alone) = (&mut self.classes[entry.class.index()], entry.alone);
            if alone {
                table.push_front(&mut class.alone, index);
            } else {
                class.central.push_front(table, index);
            }
        }
    }
}
