//! A lane whose worker writes anything at all: the harness of the fuzz target and of its tests.
//!
//! No processes: this thread plays the host, an honest worker and one or two hostile ones, each on
//! its own writable mapping of its segment. A program of instructions says who does what. After
//! each of them, and at the end, the harness checks what no worker may break: every accepted task
//! has exactly one completion, the honest lane's results are right to the byte, a worker that broke
//! the protocol gets nothing more, and nothing is left over.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a failure here is what the harness is for"
)]

mod double;
mod lies;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::double::Double;
use crate::config::{ClassConfig, Config, Policy};
use crate::engine::completion::Completion;
use crate::engine::core::{Batch, Core};
use crate::engine::crash::Verdict;
use crate::engine::lane::{Lane, LaneState, NewLane};
use crate::engine::stats::{Stats, WorkerRow};
use crate::engine::task_table::Place;
use crate::placement::Placement;
use crate::shm::arena::{Arena, Block};
use crate::shm::layout::{CREDITS, INLINE_RESULT, RESULT_WORDS, RESULTS_OFFSET};
use crate::shm::ring::{self, Message};
use crate::shm::segments::{
    HostInputs, HostLane, LaneFds, LaneIdentity, LaneShape, WorkerLane, words_as_bytes,
    words_as_bytes_mut,
};
use crate::shm::slot::{Ending, Kind, Pending};
use crate::status::Crash;
use crate::sys::clock::Clock;
use crate::sys::event::Event;
use crate::sys::process::Exit;
use crate::sys::socket::Socket;
use crate::sys::sync::Ordering::{Relaxed, Release};
use crate::task::{Class, Label, Outcome, SubmitOptions, TaskId};

/// Bytes of one instruction: an operation, a lane, four arguments.
pub(crate) const INSTRUCTION: usize = 6;
/// The worker slot of the honest lane.
const HONEST: u32 = 0;
const MAX_TASKS: u32 = 160;
const MAX_RESULT: u64 = 16 << 10;
const RESULT_ARENA: u64 = 128 << 10;
const PAYLOAD_ARENA: u64 = 1 << 20;
const FIRST_COMMITTED: u64 = 64 << 10;
/// Lengths of payloads: each way that a payload or its result travels, with its borders.
const LENGTHS: [usize; 8] = [0, 3, 40, 41, 152, 153, 700, 5000];
const NO_ROOM: &[u8] = b"no room";

/// What an instruction does; its first byte, modulo [`OPS`].
pub(crate) mod op {
    // The host's.
    pub(crate) const SUBMIT: u8 = 0;
    pub(crate) const DRAIN: u8 = 1;
    pub(crate) const THOROUGH: u8 = 2;
    pub(crate) const EARLY: u8 = 3;
    pub(crate) const CANCEL: u8 = 4;
    pub(crate) const AWAIT: u8 = 5;
    pub(crate) const FETCH: u8 = 6;
    pub(crate) const LOOK: u8 = 7;
    pub(crate) const DROP: u8 = 8;
    pub(crate) const BURY: u8 = 9;
    pub(crate) const RECALL: u8 = 10;
    pub(crate) const TO_HEAP: u8 = 11;
    pub(crate) const GROW: u8 = 12;
    // What a worker should do: the honest one, and a hostile one that bides its time.
    pub(crate) const WORK: u8 = 13;
    pub(crate) const PLAY: u8 = 14;
    // What no worker should do.
    pub(crate) const SIGNALS: u8 = 15;
    pub(crate) const WORD: u8 = 16;
    pub(crate) const BURST: u8 = 17;
    pub(crate) const TICKET: u8 = 18;
    pub(crate) const DONE: u8 = 19;
    pub(crate) const KIND: u8 = 20;
    pub(crate) const OFFSET: u8 = 21;
    pub(crate) const TIMES: u8 = 22;
    pub(crate) const FLIP: u8 = 23;
    pub(crate) const FLIPS: u8 = 24;
    pub(crate) const HEAD: u8 = 25;
    pub(crate) const EPOCH: u8 = 26;
    pub(crate) const FORGE: u8 = 27;
    pub(crate) const TWICE: u8 = 28;
    pub(crate) const RETURN: u8 = 29;
}
/// Operations that there are.
pub(crate) const OPS: u8 = 30;

/// Runs one program; what the fuzzer calls.
#[cfg(fuzzing)]
pub fn hostile_lane(data: &[u8]) {
    run(data);
}

/// What a program did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Report {
    /// Instructions that wrote what no worker should.
    pub(crate) mutations: u64,
    pub(crate) tasks: u64,
    pub(crate) completed_by_hostile: u64,
    pub(crate) violations: u64,
}

/// Runs one program. The first byte chooses the shape of the engine, the rest are instructions.
pub(crate) fn run(data: &[u8]) -> Report {
    let (shape, program) = data.split_first().map_or((0, data), |(&s, rest)| (s, rest));
    let mut world = World::new(shape);
    for instruction in program.chunks_exact(INSTRUCTION) {
        world.step(instruction.try_into().unwrap());
        world.check();
    }
    world.finish()
}

/// What the harness expects of a task.
struct Owed {
    number: u64,
    len: usize,
}

fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = (0..len).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    bytes.collect()
}

thread_local! {
    /// Lanes of earlier programs, as new.
    static SPARE: RefCell<Vec<(HostLane, Arc<WorkerLane>)>> = const { RefCell::new(Vec::new()) };
    /// The payload segment of the last program; all lanes of a thread map it.
    static INPUTS: Cell<Option<HostInputs>> = const { Cell::new(None) };
}

/// The host, its lanes and what it is owed.
struct World {
    inputs: HostInputs,
    core: Core,
    clock: Clock,
    shape: LaneShape,
    threads: u32,
    doubles: Vec<Option<Double>>,
    incarnations: u64,
    began: Instant,
    owed: HashMap<TaskId, Owed>,
    /// Ids in the order of their submits, delivered ones too.
    ids: Vec<TaskId>,
    number: u64,
    /// Completions that the host has not dropped yet.
    held: Vec<Completion>,
    /// Where an early take has succeeded or been tried: for stale and early flips.
    last_early: (u32, u16, u64),
    /// By incarnation: how much a worker had been given when it broke the protocol, and for how
    /// many instructions it is left lying.
    doomed: HashMap<u64, (u64, u32)>,
    report: Report,
}

impl World {
    fn new(shape: u8) -> Self {
        let hostile = 1 + u32::from(shape & 1);
        let workers = 1 + hostile;
        let threads = if shape & 2 == 0 { 1 } else { 4 };
        let config = Config {
            classes: [
                ClassConfig {
                    min: workers,
                    max: workers,
                    threads,
                    deadline: None,
                    placement: Placement::default(),
                },
                ClassConfig {
                    min: 0,
                    max: 0,
                    threads,
                    deadline: None,
                    placement: Placement::default(),
                },
            ],
            max_tasks: MAX_TASKS,
            payload_arena: PAYLOAD_ARENA,
            max_payload: 64 << 10,
            max_result: MAX_RESULT,
            in_place_from: if shape & 4 == 0 { 512 } else { 4096 },
            policy: if shape & 8 == 0 {
                Policy::LeastLoaded
            } else {
                Policy::RoundRobin
            },
            ..Config::default()
        };
        let clock = Clock::calibrate();
        let inputs = INPUTS.take();
        let inputs = inputs.unwrap_or_else(|| {
            SPARE.take(); // of a program that did not end well: they map what is lost
            HostInputs::create(PAYLOAD_ARENA).unwrap()
        });
        let shape = LaneShape {
            clock_scale: clock.to_wire(),
            inputs_size: inputs.size(),
            result_arena: RESULT_ARENA,
            max_result: MAX_RESULT,
            inline_result: INLINE_RESULT as u32,
            host_pid: std::process::id(),
            spin_ns: 0,
            reply_wait_ns: 0,
        };
        let mut world = Self {
            core: Core::new(&config, clock, 0x5eed_5eed).unwrap(),
            inputs,
            clock,
            shape,
            threads,
            doubles: (0..workers).map(|_| None).collect(),
            incarnations: 0,
            began: Instant::now(),
            owed: HashMap::new(),
            ids: Vec::new(),
            number: 0,
            held: Vec::new(),
            last_early: (0, 0, 0),
            doomed: HashMap::new(),
            report: Report::default(),
        };
        for worker in 0..workers {
            world.start(worker);
        }
        world
    }

    /// A new incarnation, mapped by its worker, sealed and ready.
    fn start(&mut self, worker: u32) {
        self.incarnations += 1;
        let pooled = SPARE.with_borrow_mut(Vec::pop);
        let (shared, worker_lane) = pooled.unwrap_or_else(|| self.create(worker));
        let (control, theirs) = Socket::pair().unwrap();
        let mut lane = Lane::new(
            NewLane {
                worker,
                incarnation: self.incarnations,
                class: Class::CpuBound,
                threads: self.threads,
                shared,
                event: Event::new().unwrap(),
                control,
            },
            0,
        );
        lane.set_state(LaneState::Ready);
        self.core.lanes[worker as usize] = Some(lane);
        self.core.enlist(worker);
        let double = Double::new(worker_lane, theirs, self.clock);
        self.doubles[worker as usize] = Some(double);
        self.core.pump_all();
    }

    fn create(&self, worker: u32) -> (HostLane, Arc<WorkerLane>) {
        let who = LaneIdentity {
            worker,
            incarnation: self.incarnations,
            threads: self.threads,
            class: Class::CpuBound as u32,
        };
        let shared = HostLane::create(&self.shape, who).unwrap();
        let clone = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        let (down, up) = shared.fds();
        let fds = LaneFds {
            inputs: clone(self.inputs.fd()),
            down: clone(down),
            up: clone(up),
        };
        let worker_lane = Arc::new(WorkerLane::map(fds).unwrap());
        shared.seal().unwrap();
        shared.grow_results(FIRST_COMMITTED).unwrap();
        (shared, worker_lane)
    }

    /// Keeps a lane that nobody uses any more for the next start, which costs half a millisecond
    /// otherwise.
    fn recycle(shared: Option<Arc<HostLane>>, double: Option<Double>) {
        let shared = shared.and_then(Arc::into_inner);
        if let (Some(shared), Some(double)) = (shared, double)
            && Arc::strong_count(&double.lane) == 1
        {
            shared.renew();
            for word in &double.lane.words()[..RESULTS_OFFSET as usize / 8] {
                word.store(0, Relaxed);
            }
            SPARE.with_borrow_mut(|spare| spare.push((shared, double.lane)));
        }
    }

    fn shared(&self, worker: u32) -> Option<Arc<HostLane>> {
        let lane = self.core.lanes[worker as usize].as_ref()?;
        Some(Arc::clone(&lane.shared))
    }

    fn bury(&mut self, worker: u32, replace: bool) {
        let shared = self.shared(worker);
        self.core
            .bury(worker as usize, &Verdict::unreported(Exit::Signal(9)));
        Self::recycle(shared, self.doubles[worker as usize].take());
        if replace {
            self.start(worker);
        }
    }

    // ---- the program ----

    fn step(&mut self, instruction: [u8; INSTRUCTION]) {
        let [code, lane, args @ ..] = instruction;
        let code = code % OPS;
        let hostile = 1 + u32::from(lane) % (self.doubles.len() as u32 - 1);
        let any = u32::from(lane) % self.doubles.len() as u32;
        match code {
            op::SUBMIT => self.submit(args),
            op::DRAIN => self.drain(args[0], false),
            op::THOROUGH => self.drain(args[0], true),
            op::EARLY => self.early(args),
            op::CANCEL => {
                if let Some((index, _)) = self.pick(args[0]) {
                    if args[1] & 1 == 0 {
                        self.core.cancel(index);
                    } else if self.core.cancel_unstarted(index) {
                        let kept = self.core.table.kept(index).unwrap();
                        assert_eq!((kept.outcome(), kept.attempt()), (Outcome::Cancelled, 0));
                    }
                }
            }
            op::AWAIT => {
                if let Some((index, _)) = self.pick(args[0])
                    && matches!(
                        self.core.table.get(index).place,
                        Place::Central | Place::Lane { .. }
                    )
                {
                    self.core.table.get_mut(index).awaited = true;
                }
            }
            op::FETCH => self.fetch(args),
            op::LOOK => self.look(),
            op::DROP => {
                if !self.held.is_empty() {
                    let which = usize::from(args[0]) % self.held.len();
                    drop(self.held.swap_remove(which));
                }
            }
            op::BURY => self.bury(hostile, args[0] < 230),
            op::RECALL => {
                if let Some(lane) = &mut self.core.lanes[any as usize] {
                    lane.recall();
                }
                if let Some(double) = &mut self.doubles[any as usize]
                    && (any == HONEST || args[0] & 1 == 0)
                {
                    double.hand_back(CREDITS);
                }
            }
            op::TO_HEAP => {
                if let Some(lane) = &self.core.lanes[any as usize] {
                    let incarnation = lane.incarnation;
                    self.core.move_kept_to_heap(incarnation);
                }
            }
            op::GROW => {
                if let Some(lane) = &self.core.lanes[any as usize] {
                    let more = 1 << (u64::from(args[0]) % 64);
                    lane.shared.grow_results(more).unwrap();
                }
            }
            op::WORK => {
                if let Some(honest) = &mut self.doubles[HONEST as usize] {
                    honest.work(args[0] % 16);
                }
            }
            op::PLAY => {
                if let Some(double) = &mut self.doubles[hostile as usize] {
                    match args[0] % 4 {
                        0 => {
                            for _ in 0..=args[1] % 8 {
                                double.take();
                            }
                        }
                        1 => double.finish(usize::from(args[1])),
                        2 => double.flush(),
                        _ => double.work(args[1] % 8),
                    }
                }
            }
            _ => {
                if self.doubles[hostile as usize].is_some() {
                    self.report.mutations += 1;
                    self.mutate(code, hostile, args);
                }
            }
        }
    }

    fn submit(&mut self, args: [u8; 4]) {
        for _ in 0..=args[2] % 8 {
            let len = LENGTHS[usize::from(args[0]) % LENGTHS.len()];
            let number = self.number + 1;
            let options = SubmitOptions::new()
                .user_data(number)
                .label((u128::from(number) << 3).to_le_bytes())
                .priority(i32::from(args[1] % 7) - 3)
                .max_attempts(1 + u32::from(args[3] % 4))
                .retry_failed(args[3] & 4 != 0);
            let bytes = payload(number, len);
            let submitted = self.core.submit_copy(&self.inputs, &bytes, &options, None);
            self.core.announce();
            let Ok(id) = submitted else { break }; // full
            self.number = number;
            self.report.tasks += 1;
            assert!(self.owed.insert(id, Owed { number, len }).is_none());
            self.ids.push(id);
            if self.ids.len() > 4 * MAX_TASKS as usize {
                self.ids.retain(|id| self.owed.contains_key(id));
            }
        }
    }

    /// A task that has not been delivered, most often a young one.
    fn pick(&self, which: u8) -> Option<(u32, TaskId)> {
        let back = 1 + usize::from(which) % self.ids.len().max(1);
        let id = *self.ids.get(self.ids.len().checked_sub(back)?)?;
        Some((self.core.table.find(id)?, id))
    }

    fn drain(&mut self, max: u8, thoroughly: bool) {
        let ready = self.core.table.ready();
        if max == 0 {
            if thoroughly {
                self.core.drain_thoroughly(&mut ());
            } else {
                self.core.drain(&mut ());
            }
            let more = self.core.table.ready() - ready;
            assert!(more <= MAX_TASKS as usize);
            self.core.kept = 0;
            return;
        }
        let mut out = Vec::new();
        let max = usize::from(max);
        let mut batch = Batch { out: &mut out, max };
        if thoroughly {
            self.core.drain_thoroughly(&mut batch);
        } else {
            self.core.drain(&mut batch);
        }
        assert!(out.len() <= max);
        for completion in out {
            self.deliver(completion);
        }
    }

    /// What `Engine::wait` does first.
    fn early(&mut self, args: [u8; 4]) {
        if args[1] & 7 == 0 {
            // A waiter that comes too late.
            let (worker, slot, ticket) = self.last_early;
            let mut taken = None;
            self.core.take_early(worker, slot, ticket, &mut taken);
            if let Some(completion) = taken {
                self.core.pump_all();
                self.deliver(completion);
            }
            return;
        }
        let Some((index, _)) = self.pick(args[0]) else {
            return;
        };
        let entry = self.core.table.get(index);
        let (ticket, awaited) = (entry.ticket, entry.awaited);
        if let Place::Lane { worker, slot } = entry.place
            && !awaited
        {
            self.last_early = (worker, slot, ticket);
            if args[1] & 8 == 0 {
                return;
            }
            let mut taken = None;
            self.core.take_early(worker, slot, ticket, &mut taken);
            if let Some(completion) = taken {
                self.core.pump_all();
                self.deliver(completion);
            }
        }
    }

    /// A waiter gets its completion, or gives up.
    fn fetch(&mut self, args: [u8; 4]) {
        let Some((index, _)) = self.pick(args[0]) else {
            return;
        };
        if args[1] & 1 == 0 {
            if let Some(completion) = self.core.table.take(index) {
                self.deliver(completion);
            }
        } else if self.core.table.get(index).awaited {
            self.core.table.stop_awaiting(index);
        }
    }

    /// Everything that looks without taking.
    fn look(&mut self) {
        for worker in 0..self.core.lanes.len() {
            self.core.inspect(worker);
        }
        for lane in self.core.lanes() {
            let row = WorkerRow::of(lane);
            assert!(row.running + row.queued <= CREDITS as u32, "{row:?}");
            assert!(row.depth <= CREDITS as u32, "{row:?}");
            let _ = Crash::of(lane, &Verdict::unreported(Exit::Unknown));
            lane.is_asleep();
            for slot in &lane.shared.up().slots {
                slot.progress();
            }
        }
        let stats = Stats::of(&self.core);
        assert!(
            stats.on_workers + stats.queued <= u64::from(MAX_TASKS),
            "{stats:?}"
        );
    }

    // ---- what must hold ----

    fn deliver(&mut self, completion: Completion) {
        let owed = self.owed.remove(&completion.id());
        let Some(Owed { number, len }) = owed else {
            panic!("a completion that nobody is owed: {completion:?}");
        };
        assert_eq!(completion.user_data(), number);
        assert_eq!(
            completion.label(),
            Label((u128::from(number) << 3).to_le_bytes())
        );
        let elapsed = self.began.elapsed() + Duration::from_millis(5);
        assert!(completion.queued() <= elapsed, "{:?}", completion.queued());
        assert!(completion.ran() <= elapsed, "{:?}", completion.ran());
        let bytes = completion.to_vec();
        assert_eq!(bytes.len(), completion.len());
        assert!(!completion.failed_with_data() || completion.outcome() == Outcome::Failed);
        let mut some = [0; 100];
        assert_eq!(completion.copy_to(&mut some), bytes.len().min(100));
        match completion.worker() {
            HONEST => match completion.outcome() {
                Outcome::Failed if !completion.failed_with_data() => assert_eq!(bytes, NO_ROOM),
                Outcome::Completed | Outcome::Failed => {
                    let mut right = payload(number, len);
                    right.iter_mut().for_each(|byte| *byte ^= 0x5a);
                    assert!(
                        bytes == right,
                        "task {number}: not the honest worker's result"
                    );
                }
                other => assert_eq!(other, Outcome::Cancelled),
            },
            u32::MAX => assert_eq!(completion.outcome(), Outcome::Cancelled),
            _ if completion.outcome() == Outcome::Crashed => {
                assert_eq!((completion.code(), completion.by_signal()), (9, true));
            }
            _ => {
                self.report.completed_by_hostile += 1;
                assert!(bytes.len() as u64 <= MAX_RESULT);
            }
        }
        if bytes.len() > INLINE_RESULT && self.held.len() < 128 {
            self.held.push(completion);
        }
    }

    fn check(&mut self) {
        let mut dead = None;
        let ready = &self.core.classes[Class::CpuBound.index()].ready;
        for lane in self.core.lanes() {
            if !lane.violated {
                continue;
            }
            assert_ne!(lane.worker, HONEST, "the honest worker was found guilty");
            assert!(lane.killed);
            assert!(!ready.workers().contains(&lane.worker));
            let given = lane.published();
            let doomed = self.doomed.entry(lane.incarnation);
            let (before, left) = doomed.or_insert((given, 16));
            assert_eq!(
                given, *before,
                "a worker that broke the protocol got a task"
            );
            *left = left.saturating_sub(1);
            if *left == 0 {
                dead = Some(lane.worker);
            }
        }
        assert_eq!(self.core.table.len(), self.owed.len());
        if let Some(worker) = dead {
            self.bury(worker, true);
        }
    }

    /// The hostile workers die; the honest one does what is left.
    fn finish(mut self) -> Report {
        for worker in 1..self.doubles.len() as u32 {
            self.bury(worker, false);
            self.check();
        }
        let mut rounds = 0;
        while self.core.unfinished() != 0 {
            self.doubles[HONEST as usize].as_mut().unwrap().work(16);
            self.drain(64, false);
            self.look();
            self.check();
            rounds += 1;
            assert!(rounds < 10 * MAX_TASKS, "{:?}", Stats::of(&self.core));
        }
        for id in std::mem::take(&mut self.ids) {
            if let Some(index) = self.core.table.find(id)
                && self.core.table.get(index).awaited
            {
                self.core.table.stop_awaiting(index);
            }
        }
        self.drain(255, false);
        assert!(self.owed.is_empty(), "{} tasks are lost", self.owed.len());
        let stats = Stats::of(&self.core);
        assert_eq!(
            (stats.payload_bytes, self.core.table.len()),
            (0, 0),
            "{stats:?}"
        );
        assert_eq!((stats.queued, stats.on_workers, stats.unpolled), (0, 0, 0));
        let ended = stats.completed + stats.failed + stats.crashed + stats.cancelled;
        assert_eq!((stats.submitted, stats.timed_out), (ended, 0), "{stats:?}");
        assert!(stats.violations >= self.doomed.len() as u64, "{stats:?}");
        self.report.violations = stats.violations;
        self.held.clear();
        let shared = self.shared(HONEST);
        self.core.lanes.clear();
        Self::recycle(shared, self.doubles[HONEST as usize].take());
        INPUTS.set(Some(self.inputs));
        self.report
    }
}

#[cfg(test)]
mod tests;
