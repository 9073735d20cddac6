//! The engine's private state, all of it under one lock: task table, central queues, lanes.
//!
//! One lock, not one per lane: a submit then costs one uncontended lock and unlock (15 ns measured)
//! instead of three, and "which task is where" has one truth with one guard. Nothing under the
//! lock waits for another process, payloads beyond [`COPY_UNDER_LOCK`] are copied outside it, and
//! a scan has a budget. What may take longer is rare: the kernel allocating arena pages, and moving
//! unfetched results to the heap.
#![forbid(unsafe_code)]

mod collect;
mod dispatch;
mod ending;
mod limits;
mod ready;
mod sticky;
mod suspicion;

pub(crate) use self::collect::Batch;
use self::ready::Ready;
use self::sticky::Sticky;

use std::time::Instant;

use crate::config::{Config, Policy};
use crate::engine::central::CentralQueue;
use crate::engine::deaths::Deaths;
use crate::engine::lane::{Lane, LaneState};
use crate::engine::notes::Notes;
use crate::engine::payload::{self, Payloads};
use crate::engine::scaling::log::DecisionLog;
use crate::engine::task_table::{Limits, List, Payload, Place, TaskTable};
use crate::error::{Error, Full, Result};
use crate::shm::arena::Block;
use crate::shm::hostbell::Sleepers;
use crate::shm::layout::PAYLOAD_WORDS;
use crate::shm::segments::HostInputs;
use crate::status::{Counts, Machine, MemoryState};
use crate::sys::clock::{Calendar, Clock, unix_ms};
use crate::sys::process;
use crate::task::{Class, MAX_PRIORITY, SubmitOptions, TaskId};

/// Payloads up to this size are copied under the lock.
pub(crate) const COPY_UNDER_LOCK: usize = 4096;
/// Completions taken from one lane before the next lane has its turn.
const SCAN_BUDGET: usize = 512;
/// Why a task fails when its class has no worker and the zygote is gone.
const NO_ZYGOTE: &str = "no worker is left, and the zygote that would start one is dead";
/// The code of a task that no worker can be started for; the same number as `MF_E_INTERNAL`.
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
    pub(crate) retried: u64,
    pub(crate) spawned: u64,
    pub(crate) died: u64,
    pub(crate) killed: u64,
    pub(crate) recycled: u64,
    pub(crate) violations: u64,
    pub(crate) policy_failures: u64,
}

/// The state of one class.
#[derive(Debug, Default)]
pub(crate) struct ClassState {
    pub(crate) central: CentralQueue,
    /// Tasks that ran when a worker died, to be started again with nothing beside them.
    pub(crate) alone: List,
    /// The worker that gets nothing more until it is idle, for the first of `alone`.
    pub(super) reserved: Option<u32>,
    /// Why no worker can be started; tasks fail with it while there is none.
    pub(crate) broken: Option<String>,
    /// Worker slots whose lane is `Ready`.
    pub(crate) ready: Ready,
    /// Sticky tasks that wait for their worker.
    pub(crate) sticky: Sticky,
    /// Workers wanted.
    pub(crate) target: u32,
    /// When that was set by hand last.
    pub(crate) resized: Option<Instant>,
    /// Tasks that workers have ended.
    pub(crate) ended: u64,
    /// Of the tasks that ended and had been started: the time from submit to start.
    pub(crate) queue_time: Counts,
    /// Of the same: the time from start to end.
    pub(crate) run_time: Counts,
}

impl ClassState {
    /// Tasks that no worker has.
    pub(crate) fn waiting(&self) -> usize {
        self.central.len() + self.alone.len() + self.sticky.len()
    }

    /// A task has ended that had been started.
    #[inline]
    pub(crate) fn note_times(&mut self, queued_ns: u64, run_ns: u64) {
        self.queue_time.note(queued_ns);
        self.run_time.note(run_ns);
    }
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
    /// Tasks that crashed, by worker slot.
    pub(crate) crashed: Vec<u64>,
    /// Lanes with unannounced descriptors.
    unannounced: Vec<u32>,
    /// The lane that the last drain began with.
    first_lane: usize,
    pub(crate) payloads: Payloads,
    pub(crate) sleepers: Sleepers,
    pub(crate) totals: Totals,
    /// Of workers, unasked.
    pub(crate) deaths: Deaths,
    /// About numbers of workers.
    pub(crate) decisions: DecisionLog,
    /// What could not be done as the settings ask.
    pub(crate) notes: Notes,
    /// Processors and memory, as the supervisor found them last.
    pub(crate) machine: Machine,
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
    /// The state of a generator of random numbers, never 0.
    random: u64,
    /// Tells this engine from others.
    pub(crate) tag: u32,
    /// What tasks allow that do not say, by class.
    defaults: [Limits; 2],
    recycle_after: u64,
    clock: Clock,
    calendar: Calendar,
    inline_payload: usize,
    in_place_from: u64,
    /// Times that a worker tells are believed within this many ticks.
    slack: u64,
}

impl Core {
    pub(crate) fn new(config: &Config, clock: Clock, tag: u32) -> Result<Self> {
        Ok(Self {
            phase: Phase::Running,
            table: TaskTable::new(config.max_tasks, tag)?,
            classes: config.classes.each_ref().map(|c| ClassState {
                target: c.min,
                ..Default::default()
            }),
            lanes: (0..config.max_workers()).map(|_| None).collect(),
            crashed: vec![0; config.max_workers() as usize],
            unannounced: Vec::new(),
            first_lane: 0,
            payloads: Payloads::new(config.payload_arena, config.max_payload),
            sleepers: Sleepers::default(),
            totals: Totals::default(),
            deaths: Deaths::default(),
            decisions: DecisionLog::default(),
            notes: Notes::default(),
            machine: Machine {
                cpus: u32::try_from(process::cpus()).unwrap_or(u32::MAX),
                ..Machine::default()
            },
            next_ticket: 1,
            kept: 0,
            blocked: Blocked::default(),
            starting: true,
            start_failure: None,
            kill_after: None,
            degraded: false,
            policy: config.policy.clone(),
            random: u64::from(tag) | 1 << 32,
            tag,
            defaults: limits::defaults(config, clock),
            recycle_after: config.recycle_after,
            clock,
            calendar: Calendar::default(),
            inline_payload: config.inline_payload as usize,
            in_place_from: config.in_place_from,
            slack: clock.ticks(suspicion::SLACK),
        })
    }

    /// Whether a task with these options can be accepted at all.
    #[inline(always)] // see `submit_copy`
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
            return Err(bad_priority(options.priority));
        }
        limits::check(options)
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
        if self.table.room() == 0 || self.refuses() {
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

    /// Whether nothing is accepted, for lack of memory.
    #[inline(always)] // see `submit_copy`
    fn refuses(&self) -> bool {
        self.machine.memory_state == MemoryState::Refusing
    }

    /// A payload block; a full arena is counted.
    pub(crate) fn allocate(&mut self, inputs: &HostInputs, len: usize) -> Result<Block> {
        if self.refuses() {
            return Err(self.full());
        }
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
        let limits = limits::of(options, &self.defaults[options.class.index()], self.clock);
        let unix_ms = match now {
            Some(now) => self.calendar.unix_ms(self.clock, now),
            None => unix_ms(),
        };
        let Some((index, id)) =
            self.table
                .insert(options, limits, payload, now.unwrap_or_default(), unix_ms)
        else {
            return Err(self.full());
        };
        self.totals.submitted += 1;
        let class = options.class;
        if options.sticky_key != 0 {
            self.place_sticky(index);
            self.give_up(class);
        } else if self.classes[class.index()].central.is_empty()
            && let Some(worker) = self.choose(class)
        {
            self.dispatch(index, worker);
        } else {
            self.enqueue(index);
            self.give_up(class);
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
        Error::WouldBlock(if self.table.room() != 0 {
            Full::Memory
        } else if all_ready {
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
        if self.refuses() {
            return None;
        }
        let fits = len <= self.inline_payload || self.payloads.has_room(len);
        if !fits && self.unfinished() == 0 {
            return Some(Err(Full::Payloads)); // held by loans only
        }
        fits.then_some(Ok(()))
    }

    #[inline]
    pub(super) fn enqueue(&mut self, index: u32) {
        let entry = self.table.get_mut(index);
        entry.place = Place::Central;
        let (class, alone) = (&mut self.classes[entry.class.index()], entry.alone);
        if alone {
            self.table.push_back(&mut class.alone, index);
        } else {
            class.central.push(&mut self.table, index);
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

    /// Gives a worker nothing more; it leaves when it has finished what it has.
    pub(crate) fn let_go(&mut self, worker: usize) {
        self.withdraw(worker);
        if let Some(lane) = &mut self.lanes[worker]
            && lane.state == LaneState::Ready
        {
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
            let (class, slot) = (lane.class, lane.worker);
            let state = &mut self.classes[class.index()];
            state.reserved = state.reserved.filter(|&w| w != slot);
            if state.ready.remove(slot) {
                self.reconsider_sticky_of(class, slot);
            }
        }
    }

    /// Tasks are handed to this worker from now on.
    pub(crate) fn enlist(&mut self, worker: u32) {
        let Some(lane) = &self.lanes[worker as usize] else {
            return;
        };
        let class = lane.class;
        let state = &mut self.classes[class.index()];
        if state.ready.add(worker) {
            for lane in self.lanes.iter().flatten().filter(|l| l.class == class) {
                state.ready.note(lane.worker, lane.rank());
            }
        } else {
            state.ready.note(worker, lane.rank());
        }
        self.reconsider_sticky(class);
    }

    /// When the task was submitted that has waited longest for a worker; one that a worker handed
    /// back may be older than this says.
    pub(crate) fn waiting_since(&self, class: Class) -> Option<u64> {
        let state = &self.classes[class.index()];
        let first = (state.central.firsts())
            .chain(TaskTable::first(&state.alone))
            .chain(state.sticky.firsts());
        first.map(|index| self.table.get(index).submitted).min()
    }

    /// Whether a class has no worker that takes tasks or will.
    pub(super) fn is_deserted(&self, class: Class) -> bool {
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
        self.classes[class.index()].waiting() != 0
            || self
                .lanes()
                .any(|lane| lane.class == class && (lane.load() != 0 || !lane.suspects.is_empty()))
    }

    /// Tasks that have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.table.unfinished()
    }

    /// How workers are chosen.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    pub(crate) fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut().flatten()
    }
}

#[cold]
fn bad_priority(priority: i32) -> Error {
    Error::invalid(format!(
        "priority {priority} is not in -{MAX_PRIORITY}..={MAX_PRIORITY}"
    ))
}

#[cold]
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
