//! The engine's private state, all of it under one lock: task table, central queues, lanes.
//!
//! One lock, not one per lane: a submit then costs one uncontended lock and unlock (about 10 ns)
//! instead of three, and "which task is where" has one truth with one guard. Nothing under the
//! lock waits: payloads beyond [`COPY_UNDER_LOCK`] are copied outside it, and a scan has a budget.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use crate::config::{Config, Policy};
use crate::engine::central::CentralQueue;
use crate::engine::completion::{Completion, Data};
use crate::engine::lane::{Lane, LaneState};
use crate::engine::payload::{self, Payloads};
use crate::engine::task_table::{Entry, Payload, Place, TaskTable};
use crate::error::{Error, Full, Result};
use crate::shm::arena::Block;
use crate::shm::hostbell::Sleepers;
use crate::shm::layout::{CREDITS, INLINE_RESULT, PAYLOAD_WORDS, TaskInfo, Up};
use crate::shm::ring::{Message, Meta};
use crate::shm::segments::{HostInputs, HostLane};
use crate::shm::slot::{Collector, Ending, Kind, Scan, TaskSlot};
use crate::sys::clock::{Calendar, Clock, unix_ms};
use crate::sys::process::{Exit, signal_name};
use crate::sys::sync::Ordering;
use crate::task::{Class, MAX_PRIORITY, Outcome, SubmitOptions, TaskId};

/// Payloads up to this size are copied under the lock.
pub(crate) const COPY_UNDER_LOCK: usize = 4096;
/// Completions taken from one lane before the next lane has its turn.
const SCAN_BUDGET: usize = 512;
/// Why a task fails when its class has no worker and the zygote is gone, and its code
/// (`MF_E_INTERNAL`).
const NO_ZYGOTE: &str = "no worker is left, and the zygote that would start one is dead";
const CODE_NO_WORKER: i32 = -10;
/// Worker number of a completion whose task never reached a worker.
const NO_WORKER: u32 = u32::MAX;

/// Whether the engine takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// Submits are refused; what was accepted goes on.
    Stopping,
    /// What has not ended is being cancelled; deaths are part of it.
    Cancelling,
    /// Every task has ended and every worker is gone.
    Stopped,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) submitted: u64,
    pub(crate) by_outcome: [u64; 5],
    pub(crate) would_block: u64,
    pub(crate) returned: u64,
    pub(crate) redispatched: u64,
    pub(crate) spawned: u64,
    pub(crate) died: u64,
    pub(crate) violations: u64,
}

/// The state of one class.
#[derive(Debug, Default)]
pub(crate) struct ClassState {
    pub(crate) central: CentralQueue,
    /// Worker slots whose lane is `Ready`.
    pub(crate) ready: Vec<u32>,
    /// Where the rotation stands.
    turn: usize,
    /// Workers wanted.
    pub(crate) target: u32,
}

/// Who sleeps, for whoever has to wake them.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    /// A thread watches the workers' eventfds for all blocked threads.
    pub(crate) leader: bool,
    /// It sleeps.
    pub(crate) leader_asleep: bool,
    /// Other blocked threads.
    pub(crate) followers: usize,
    /// Blocked threads, leader or not, that wait for room.
    pub(crate) room_waiters: usize,
    /// Polls and waits so far.
    pub(crate) polls: u64,
    /// The supervisor sleeps without a time-out: nothing was in flight for a while.
    pub(crate) supervisor_idle: bool,
    /// The owner of the event fd counts as asleep since its last poll found nothing more.
    pub(crate) external_armed: bool,
    /// The ready event of the event fd is signalled.
    pub(crate) ready_signalled: bool,
}

/// Everything that the lock guards.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) phase: Phase,
    pub(crate) table: TaskTable,
    pub(crate) classes: [ClassState; 2],
    /// By worker slot.
    pub(crate) lanes: Vec<Option<Lane>>,
    /// Lanes with unannounced descriptors.
    unannounced: Vec<u32>,
    /// The lane that the last drain began with.
    first_lane: usize,
    pub(crate) payloads: Payloads,
    pub(crate) sleepers: Sleepers,
    pub(crate) totals: Totals,
    next_ticket: u64,
    /// Completions kept (not handed out directly) since the last look: somebody may have to be
    /// woken.
    pub(crate) kept: usize,
    pub(crate) blocked: Blocked,
    /// The first workers are not ready yet, and why they will not be.
    pub(crate) starting: bool,
    pub(crate) start_failure: Option<Error>,
    /// Set while the engine stops: when workers that were sent away are killed.
    pub(crate) kill_after: Option<Instant>,
    /// The zygote is gone: no worker can be started any more.
    pub(crate) degraded: bool,
    policy: Policy,
    clock: Clock,
    calendar: Calendar,
    inline_payload: usize,
    in_place_from: u64,
}

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
    pub(crate) fn new(config: &Config, clock: Clock, tag: u32) -> Self {
        Self {
            phase: Phase::Running,
            table: TaskTable::new(config.max_tasks, tag),
            classes: config.classes.map(|c| ClassState {
                target: c.min,
                ..Default::default()
            }),
            lanes: (0..config.max_workers()).map(|_| None).collect(),
            unannounced: Vec::new(),
            first_lane: 0,
            payloads: Payloads::new(config.payload_arena, config.max_payload),
            sleepers: Sleepers::default(),
            totals: Totals::default(),
            next_ticket: 1,
            kept: 0,
            blocked: Blocked::default(),
            starting: true,
            start_failure: None,
            kill_after: None,
            degraded: false,
            policy: config.policy,
            clock,
            calendar: Calendar::default(),
            inline_payload: config.inline_payload as usize,
            in_place_from: config.in_place_from,
        }
    }

    // ---- submit ----

    /// Whether a task with these options can be accepted at all.
    #[inline]
    pub(crate) fn check(&self, options: &SubmitOptions) -> Result<()> {
        if self.phase != Phase::Running {
            return Err(Error::Closed);
        }
        if self.classes[options.class.index()].target == 0 {
            return Err(no_workers(options.class));
        }
        if self.degraded && self.is_deserted(options.class) {
            return Err(Error::Internal(NO_ZYGOTE.into()));
        }
        if !(-MAX_PRIORITY..=MAX_PRIORITY).contains(&options.priority) {
            return Err(Error::invalid(format!(
                "priority {} is not in -{MAX_PRIORITY}..={MAX_PRIORITY}",
                options.priority
            )));
        }
        if options.max_attempts != 1 {
            return Err(match options.max_attempts {
                0 => Error::invalid("max_attempts is 0: a task has at least one start"),
                _ => Error::Unsupported("max_attempts above 1".into()),
            });
        }
        Ok(())
    }

    /// Accepts a task whose payload is copied here. The caller announces it afterwards. `now` is
    /// the time of the submit, if the caller has read the clock (once for a batch).
    ///
    /// Always inlined, like what it calls: an id that is returned through memory is written in
    /// halves and read as a whole, which waits for all stores before it, those to the ring too.
    #[inline(always)]
    pub(crate) fn submit_copy(
        &mut self,
        inputs: &HostInputs,
        payload: &[u8],
        options: &SubmitOptions,
        now: Option<u64>,
    ) -> Result<TaskId> {
        self.check(options)?;
        if self.table.room() == 0 {
            return Err(self.full());
        }
        let payload = if payload.len() <= self.inline_payload {
            Payload::Inline {
                words: pack(payload),
                len: length(payload.len()),
            }
        } else {
            let block = self.allocate(inputs, payload.len())?;
            payload::bytes_mut(inputs, block, payload.len())?.copy_from_slice(payload);
            Payload::Arena {
                block,
                len: length(payload.len()),
            }
        };
        self.accept(options, payload, now)
    }

    /// Accepts a task whose payload lies in a block already.
    pub(crate) fn submit_block(
        &mut self,
        block: Block,
        len: usize,
        options: &SubmitOptions,
    ) -> Result<TaskId> {
        self.check(options)?;
        self.accept(
            options,
            Payload::Arena {
                block,
                len: length(len),
            },
            None,
        )
    }

    /// A payload block; a full arena is counted.
    pub(crate) fn allocate(&mut self, inputs: &HostInputs, len: usize) -> Result<Block> {
        self.payloads.allocate(inputs, len).inspect_err(|e| {
            if matches!(e, Error::WouldBlock(_)) {
                self.totals.would_block += 1;
            }
        })
    }

    #[inline(always)] // see `submit_copy`
    fn accept(
        &mut self,
        options: &SubmitOptions,
        payload: Payload,
        now: Option<u64>,
    ) -> Result<TaskId> {
        let unix_ms = match now {
            Some(now) => self.calendar.unix_ms(self.clock, now),
            None => unix_ms(),
        };
        let Some((index, id)) =
            self.table
                .insert(options, payload, now.unwrap_or_default(), unix_ms)
        else {
            return Err(self.full());
        };
        self.totals.submitted += 1;
        let class = options.class;
        if self.classes[class.index()].central.is_empty()
            && let Some(worker) = self.choose(class)
        {
            self.dispatch(index, worker);
        } else {
            self.enqueue(index);
            if self.degraded {
                self.give_up(class);
            }
        }
        if now.is_none() {
            // Read while the descriptor is on its way; the completion cannot be taken before,
            // because that needs our lock.
            self.table.get_mut(index).submitted = self.clock.now();
        }
        Ok(id)
    }

    #[cold]
    fn full(&mut self) -> Error {
        self.totals.would_block += 1;
        let all_ready = self.table.ready() == self.table.len();
        Error::WouldBlock(if all_ready {
            Full::Unpolled
        } else {
            Full::Tasks
        })
    }

    /// What a thread that waits for room should do about a payload of `len` bytes: try again, or
    /// give up because only its own polling could make room. `None`: keep waiting.
    pub(crate) fn room_for(&mut self, len: usize) -> Option<Result<(), Full>> {
        if self.phase != Phase::Running {
            return Some(Ok(())); // the next try says why not
        }
        if self.table.room() == 0 {
            let all_ready = self.table.ready() == self.table.len();
            return all_ready.then_some(Err(Full::Unpolled));
        }
        let fits = len <= self.inline_payload || self.payloads.has_room(len);
        if !fits && self.unfinished() == 0 {
            return Some(Err(Full::Payloads)); // held by loans only
        }
        fits.then_some(Ok(()))
    }

    #[inline]
    fn enqueue(&mut self, index: u32) {
        let entry = self.table.get_mut(index);
        entry.place = Place::Central;
        self.classes[entry.class.index()]
            .central
            .push(index, entry.priority);
    }

    // ---- dispatch ----

    /// A worker that has room for a task of this class.
    #[inline]
    fn choose(&mut self, class: Class) -> Option<u32> {
        let state = &mut self.classes[class.index()];
        let count = state.ready.len();
        if count == 1 {
            let worker = state.ready[0];
            return Self::has_room(&mut self.lanes, worker).then_some(worker);
        }
        let start = state.turn;
        let mut best: Option<(u32, bool, usize)> = None;
        for step in 0..count {
            let at = (start + step) % count;
            let worker = state.ready[at];
            if !Self::has_room(&mut self.lanes, worker) {
                continue;
            }
            let Some(lane) = &self.lanes[worker as usize] else {
                continue;
            };
            let (load, asleep) = match self.policy {
                Policy::RoundRobin => (0, false),
                Policy::LeastLoaded => (lane.load() / lane.threads.max(1), lane.is_asleep()),
            };
            if best.is_none_or(|(l, a, _)| (load, asleep) < (l, a)) {
                best = Some((load, asleep, at));
                if (load, asleep) == (0, false) {
                    break;
                }
            }
        }
        let (_, _, at) = best?;
        state.turn = at + 1;
        Some(state.ready[at])
    }

    #[inline]
    fn has_room(lanes: &mut [Option<Lane>], worker: u32) -> bool {
        lanes[worker as usize]
            .as_mut()
            .is_some_and(Lane::has_credit)
    }

    /// Hands a task to a worker that has room.
    #[inline]
    fn dispatch(&mut self, index: u32, worker: u32) {
        let ticket = self.next_ticket;
        let Some(lane) = &mut self.lanes[worker as usize] else {
            return self.enqueue(index);
        };
        let Some(slot) = lane.collector.give(ticket) else {
            return self.enqueue(index);
        };
        self.next_ticket += 1;
        let entry = self.table.get_mut(index);
        entry.place = Place::Lane { worker, slot };
        entry.ticket = ticket;
        lane.tasks[usize::from(slot)] = index;
        let attempt = entry.attempt + 1;
        let (meta, payload) = match entry.payload {
            Payload::Inline { words, len } => (Meta::new(slot, attempt, len, false), words),
            Payload::Arena { block, len } => {
                let mut words = [0; PAYLOAD_WORDS];
                words[0] = block.offset;
                (Meta::new(slot, attempt, len, true), words)
            }
        };
        describe(&lane.shared.down().info[usize::from(slot)], entry);
        let first = lane.publish(&Message {
            ticket,
            meta,
            payload,
        });
        if first {
            self.unannounced.push(worker);
        }
    }

    /// Hands out what waits in the central queue, as far as there are credits.
    pub(crate) fn pump(&mut self, class: Class) {
        if self.phase >= Phase::Cancelling {
            while let Some(index) = self.classes[class.index()].central.pop() {
                self.end(index, Outcome::Cancelled, 0, false, String::new());
            }
        } else if self.degraded {
            self.give_up(class);
        }
        while !self.classes[class.index()].central.is_empty() {
            let Some(worker) = self.choose(class) else {
                return;
            };
            let Some(index) = self.classes[class.index()].central.pop() else {
                return;
            };
            if self.table.get(index).cancelled {
                // Asked for while a worker had it, which then handed it back.
                self.end(index, Outcome::Cancelled, 0, false, String::new());
            } else {
                self.dispatch(index, worker);
            }
        }
    }

    /// Without the zygote: if the class has no worker any more, ends what waits for one.
    #[cold]
    fn give_up(&mut self, class: Class) {
        if !self.is_deserted(class) {
            return;
        }
        while let Some(index) = self.classes[class.index()].central.pop() {
            self.end(
                index,
                Outcome::Failed,
                CODE_NO_WORKER,
                false,
                NO_ZYGOTE.into(),
            );
        }
    }

    /// [`Core::pump`] for both classes, and [`Core::announce`].
    #[inline]
    pub(crate) fn pump_all(&mut self) {
        for class in Class::ALL {
            self.pump(class);
        }
        self.announce();
    }

    /// Rings the bell of every lane that got descriptors: once per batch.
    #[inline]
    pub(crate) fn announce(&mut self) {
        while let Some(worker) = self.unannounced.pop() {
            if let Some(lane) = &mut self.lanes[worker as usize] {
                lane.ring_bell();
            }
        }
    }

    // ---- completions ----

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
                self.quarantine(worker);
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
        if lane.load() == 0 {
            return None;
        }
        let mut settle = Settle {
            table: &mut self.table,
            payloads: &mut self.payloads,
            classes: &mut self.classes,
            totals: &mut self.totals,
            kept: &mut self.kept,
            clock: self.clock,
            in_place_from: self.in_place_from,
            shared: &lane.shared,
            worker: lane.worker,
            incarnation: lane.incarnation,
            suspects: &mut lane.suspects,
            returned: Vec::new(),
            sum_ns: 0,
            count: 0,
            failed: 0,
        };
        let answer = take(
            &mut lane.collector,
            lane.shared.up(),
            &lane.tasks,
            &mut settle,
        );
        if !settle.returned.is_empty() {
            settle.send_back();
        }
        let (sum_ns, count, failed) = (settle.sum_ns, settle.count, settle.failed);
        if count > 0 {
            lane.completed += u64::from(count);
            lane.failed += u64::from(failed);
            lane.busy_ns = lane.busy_ns.saturating_add(sum_ns); // the worker's word
            lane.note_service(sum_ns, count);
        }
        if !lane.suspects.is_empty() {
            self.quarantine(worker);
        }
        Some(answer)
    }

    /// A worker whose memory cannot be trusted is killed; its death settles the rest.
    #[cold]
    fn quarantine(&mut self, worker: usize) {
        let Some(lane) = self.lanes[worker].as_mut().filter(|lane| !lane.killed) else {
            return;
        };
        self.totals.violations += 1;
        log::error!(
            "worker {} (pid {}) broke the protocol: killed",
            lane.worker,
            lane.pid()
        );
        lane.kill();
        self.withdraw(worker);
    }

    // ---- death ----

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
            if lane.shared.up().slots[usize::from(slot)]
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
    fn end_started(&mut self, index: u32, lane: &Lane, exit: Exit, collateral: bool) {
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
    fn send_back(&mut self, index: u32) {
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

    fn end_on(
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

    /// Moves the kept results that hold a worker's memory to the heap: the worker needs room, and
    /// nobody has fetched them.
    pub(crate) fn move_kept_to_heap(&mut self, incarnation: u64) {
        for completion in self.table.kept_mut() {
            if completion.is_in_place_of(incarnation) {
                completion.move_to_heap();
            }
        }
    }

    /// Asks every worker to hand back what it has not started.
    pub(crate) fn recall_all(&mut self) {
        for lane in self.lanes_mut().filter(|lane| lane.load() != 0) {
            lane.recall();
        }
    }

    /// Lets a worker go: it gets nothing more, hands back what it has not started, and leaves when
    /// it has finished.
    pub(crate) fn dismiss(&mut self, worker: u32) {
        self.withdraw(worker as usize);
        let Some(lane) = &mut self.lanes[worker as usize] else {
            return;
        };
        if lane.state == LaneState::Starting {
            lane.kill();
            lane.set_state(LaneState::Leaving);
        } else {
            lane.recall();
            lane.set_state(LaneState::Draining);
        }
    }

    /// Gives a worker nothing more and has it leave at once; what it does not finish is settled
    /// with its end.
    pub(crate) fn send_away(&mut self, worker: u32) {
        self.withdraw(worker as usize);
        if let Some(lane) = &mut self.lanes[worker as usize] {
            lane.recall();
            lane.send_away();
        }
    }

    /// No task is handed to this worker any more.
    pub(crate) fn withdraw(&mut self, worker: usize) {
        if let Some(lane) = &self.lanes[worker] {
            self.classes[lane.class.index()]
                .ready
                .retain(|&w| w as usize != worker);
        }
    }

    /// Whether a class has no worker that takes tasks or will.
    fn is_deserted(&self, class: Class) -> bool {
        let able = |lane: &Lane| matches!(lane.state, LaneState::Starting | LaneState::Ready);
        !self.lanes().any(|lane| lane.class == class && able(lane))
    }

    /// Whether a class has fewer workers than it should.
    pub(crate) fn is_short_of_workers(&self) -> bool {
        Class::ALL.iter().any(|&class| {
            let here = self.lanes().filter(|lane| lane.class == class).count();
            here < self.classes[class.index()].target as usize
        })
    }

    /// Whether tasks of this class have not ended.
    pub(crate) fn has_tasks_of(&self, class: Class) -> bool {
        !self.classes[class.index()].central.is_empty()
            || self
                .lanes()
                .any(|lane| lane.class == class && lane.load() != 0)
    }

    /// Tasks that have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.table.unfinished()
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    pub(crate) fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut().flatten()
    }
}

fn no_workers(class: Class) -> Error {
    Error::invalid(format!(
        "class {} has no workers (see workers and resize)",
        class.name()
    ))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "max_payload is below 4 GiB"
)]
fn length(len: usize) -> u32 {
    len as u32
}

/// The bytes of a short payload as words. They go from registers to where they are read as words:
/// a copy by bytes would make those reads wait for the stores.
#[inline]
fn pack(payload: &[u8]) -> [u64; PAYLOAD_WORDS] {
    let (words, rest) = payload.as_chunks();
    std::array::from_fn(|index| match words.get(index) {
        Some(word) => u64::from_ne_bytes(*word),
        None if index == words.len() => rest
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
            .to_le(),
        None => 0,
    })
}

/// Writes what a worker may want to know about the task.
#[inline]
fn describe(info: &TaskInfo, entry: &Entry) {
    // Relaxed: published by the Release store of the descriptor's sequence number.
    let [a, b] = entry.id.to_words();
    info.id[0].store(a, Ordering::Relaxed);
    info.id[1].store(b, Ordering::Relaxed);
    let [a, b] = entry.label.to_words();
    info.label[0].store(a, Ordering::Relaxed);
    info.label[1].store(b, Ordering::Relaxed);
    info.user_data.store(entry.user_data, Ordering::Relaxed);
}

/// Turns what stands in a task slot into a completion. The parts of [`Core`] that it needs, apart
/// from the lane's collector, which calls it.
struct Settle<'a> {
    table: &'a mut TaskTable,
    payloads: &'a mut Payloads,
    classes: &'a mut [ClassState; 2],
    totals: &'a mut Totals,
    kept: &'a mut usize,
    clock: Clock,
    in_place_from: u64,
    shared: &'a Arc<HostLane>,
    worker: u32,
    incarnation: u64,
    suspects: &'a mut Vec<u32>,
    /// Tasks that were handed back unstarted.
    returned: Vec<u32>,
    sum_ns: u64,
    count: u32,
    failed: u32,
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
            return self.returned.push(index);
        }
        let Some(data) = self.data(cell, &ending) else {
            return self.suspects.push(index);
        };
        let entry = self.table.get_mut(index);
        let run_ns = self.clock.ns(ending.end.saturating_sub(ending.start));
        let outcome = match ending.kind {
            Kind::Completed | Kind::Returned => Outcome::Completed,
            Kind::Failed => Outcome::Failed,
            Kind::Cancelled => Outcome::Cancelled,
        };
        let completion = Completion {
            id: entry.id,
            user_data: entry.user_data,
            label: entry.label,
            queued_ns: self.clock.ns(ending.start.saturating_sub(entry.submitted)),
            run_ns,
            outcome,
            code: ending.code,
            worker: self.worker,
            attempt: entry.attempt + 1,
            by_signal: false,
            collateral: false,
            data,
        };
        if let Payload::Arena { block, .. } = entry.payload {
            self.payloads.free(block);
        }
        self.sum_ns = self.sum_ns.saturating_add(run_ns);
        self.count += 1;
        self.failed += u32::from(outcome == Outcome::Failed);
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
        if u64::from(len) >= self.in_place_from {
            return Data::in_place(self.shared, self.incarnation, offset, len);
        }
        let bytes = self.shared.copy_result(offset, u64::from(len))?;
        self.shared.release(offset);
        Some(Data::Heap(bytes))
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
            self.totals.returned += 1;
            self.classes[entry.class.index()]
                .central
                .push_front(index, entry.priority);
        }
    }
}
