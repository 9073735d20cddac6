//! What the engine says about itself: counters, one row per worker, all of it as a status.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::config::Policy;
use crate::engine::core::{Core, Phase};
use crate::engine::lane::{Lane, LaneState};
use crate::engine::scaling::log::Decision;
use crate::engine::shared::Shared;
use crate::engine::usage;
use crate::shm::control::ControlSegment;
use crate::shm::layout::CREDITS;
use crate::status::{ClassStatus, DecisionRow, EngineState, SCHEMA, Status, now_ms};
use crate::sys::clock::unix_ms_of;
use crate::task::{Class, Outcome};

/// Counters of an engine. The first group only grows; the second is as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks accepted.
    pub submitted: u64,
    /// Tasks whose handler returned success.
    pub completed: u64,
    /// Tasks whose handler failed.
    pub failed: u64,
    /// Tasks whose worker died.
    pub crashed: u64,
    /// Tasks that ran beyond their deadline.
    pub timed_out: u64,
    /// Tasks that were cancelled.
    pub cancelled: u64,
    /// Submits that were refused because something was full.
    pub would_block: u64,
    /// Tasks that a worker handed back unstarted, because a long task had come up before them.
    pub recalled: u64,
    /// Tasks that were on a dead worker, not started, and went to another.
    pub redispatched: u64,
    /// Starts again: of tasks whose worker died, or that failed or timed out and asked for it.
    pub retried: u64,
    /// Worker processes started.
    pub spawned: u64,
    /// Worker processes that ended although nobody wanted that: killed from outside, crashed, hung
    /// or with memory that could not be trusted.
    pub died: u64,
    /// Worker processes that the engine ended: for a task beyond its deadline or cancelled by force,
    /// or because they were stopped, hung or broke the protocol.
    pub killed: u64,
    /// Worker processes that were replaced because of their number of tasks or their size.
    pub recycled: u64,
    /// Workers killed because their memory could not be trusted.
    pub violations: u64,
    /// Times that a dispatch policy of the host's own panicked or chose a worker that there is not.
    pub policy_failures: u64,

    /// Tasks that wait for a worker.
    pub queued: u64,
    /// Tasks on workers, started or not.
    pub on_workers: u64,
    /// Completions that nobody has taken.
    pub unpolled: u64,
    /// Workers that take tasks.
    pub workers: u64,
    /// Bytes of the payload arena in use.
    pub payload_bytes: u64,
    /// Bytes of the payload arena.
    pub payload_capacity: u64,
    /// Whether the zygote is gone, so that no worker can be started.
    pub degraded: bool,
}

/// One worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerRow {
    /// Its slot.
    pub slot: u32,
    /// Its process; 0 while it is being started.
    pub pid: u32,
    /// New for every process in the slot.
    pub incarnation: u64,
    /// Its class.
    pub class: Class,
    /// What it is about.
    pub state: WorkerState,
    /// Its threads.
    pub threads: u32,
    /// Most tasks that it is given in advance at present, running ones included.
    pub depth: u32,
    /// Tasks on it that are not started.
    pub queued: u32,
    /// Tasks that it runs.
    pub running: u32,
    /// Tasks that it has ended, failed ones included.
    pub completed: u64,
    /// Tasks that failed on it.
    pub failed: u64,
    /// Time that it spent in handlers, in ns, over all threads.
    pub busy_ns: u64,
    /// Average time of a task, in ns.
    pub service_ns: u64,
    /// Tasks that crashed in this slot, on processes before this one.
    pub crashed: u64,
    /// Processor time of the process, in ns; 0 = not measured yet. Measured once a second at most.
    pub cpu_ns: u64,
    /// Processor time that it used lately, in 1/1000 of one processor: between the last two
    /// measurements. Seen from outside, 0 while the engine rests.
    #[serde(default)]
    pub cpu_permille: u32,
    /// Its resident memory, in bytes; 0 = not measured yet.
    pub rss_bytes: u64,
    /// When it was started, in milliseconds since 1970.
    pub started_ms: i64,
}

/// The life of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
#[non_exhaustive]
pub enum WorkerState {
    /// Asked for, not ready.
    Starting = 1,
    /// Takes tasks.
    Ready = 2,
    /// Finishes what it runs, gets nothing new.
    Draining = 3,
    /// Told to leave.
    Leaving = 4,
}

impl WorkerState {
    pub(crate) fn from_wire(value: u32) -> Option<Self> {
        [Self::Starting, Self::Ready, Self::Draining, Self::Leaving]
            .into_iter()
            .find(|&state| state as u32 == value)
    }
}

impl Stats {
    pub(crate) fn of(core: &Core) -> Self {
        let totals = &core.totals;
        let ended = |outcome: Outcome| totals.by_outcome[outcome as usize];
        Self {
            submitted: totals.submitted,
            completed: ended(Outcome::Completed),
            failed: ended(Outcome::Failed),
            crashed: ended(Outcome::Crashed),
            timed_out: ended(Outcome::TimedOut),
            cancelled: ended(Outcome::Cancelled),
            would_block: totals.would_block,
            recalled: totals.returned,
            redispatched: totals.redispatched,
            retried: totals.retried,
            spawned: totals.spawned,
            died: totals.died,
            killed: totals.killed,
            recycled: totals.recycled,
            violations: totals.violations,
            policy_failures: totals.policy_failures,
            queued: (core.classes.iter())
                .map(|class| class.waiting() as u64)
                .sum(),
            on_workers: core.lanes().map(|lane| u64::from(lane.load())).sum(),
            unpolled: (core.table.len() - core.table.unfinished()) as u64,
            workers: core.classes.iter().map(|c| c.ready.len() as u64).sum(),
            payload_bytes: core.payloads.in_use(),
            payload_capacity: core.payloads.capacity(),
            degraded: core.degraded,
        }
    }
}

impl WorkerRow {
    pub(crate) fn of(lane: &Lane) -> Self {
        let running = (0..CREDITS)
            .filter_map(|slot| lane.collector.outstanding_at(slot))
            .take(lane.load() as usize) // there are no more: an idle worker is not searched
            .filter(|&(slot, ticket)| {
                lane.shared.up().slots[usize::from(slot)]
                    .started(ticket)
                    .is_some()
            })
            .count();
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        Self {
            slot: lane.worker,
            pid: lane.pid(),
            incarnation: lane.incarnation,
            class: lane.class,
            state: match lane.state {
                LaneState::Starting => WorkerState::Starting,
                LaneState::Ready => WorkerState::Ready,
                LaneState::Draining => WorkerState::Draining,
                LaneState::Leaving => WorkerState::Leaving,
            },
            threads: lane.threads,
            depth: lane.bound(),
            queued: lane.load().saturating_sub(running),
            running,
            completed: lane.completed,
            failed: lane.failed,
            busy_ns: lane.busy_ns,
            service_ns: lane.service_ns(),
            crashed: lane.crashed_before,
            cpu_ns: 0, // these three: `UsageMeter::fill`
            cpu_permille: 0,
            rss_bytes: 0,
            started_ms: lane.started_ms,
        }
    }
}

/// An engine as its host sees it. Takes the engine's lock for some microseconds.
pub(crate) fn status(shared: &Shared) -> Status {
    let core = shared.lock();
    let mut status = without_logs(shared, &core);
    status.crashes = core.deaths.crashes();
    let decisions = core.decisions.to_vec();
    drop(core);
    status.decisions = decisions
        .iter()
        .map(|decision| (&**decision).into())
        .collect();
    shared.usage.fill(&mut status.workers, usage::EVERY);
    status
}

/// [`status`] without crashes, decisions, and what the workers use.
pub(crate) fn without_logs(shared: &Shared, core: &Core) -> Status {
    let config = &shared.config;
    let tasks = Stats::of(core);
    Status {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: shared.control.name().map(str::to_owned),
        pid: std::process::id(),
        state: match core.phase {
            Phase::Running => EngineState::Running,
            Phase::Stopping | Phase::Cancelling => EngineState::Stopping,
            Phase::Stopped => EngineState::Stopped,
        },
        at_ms: now_ms(),
        started_ms: shared.started_ms,
        degraded: core.degraded,
        policy: policy_name(core.policy()).to_owned(),
        scaling: config.scaling.kind.name().to_owned(),
        tasks,
        machine: core.machine,
        classes: Class::ALL
            .map(|class| class_status(shared, core, class))
            .into(),
        workers: core.lanes().map(WorkerRow::of).collect(),
        signals: core.deaths.signals(),
        crashes: Vec::new(),
        decisions: Vec::new(),
        notes: core.notes.iter().map(str::to_owned).collect(),
    }
}

fn class_status(shared: &Shared, core: &Core, class: Class) -> ClassStatus {
    let (state, config) = (&core.classes[class.index()], shared.config.class(class));
    let lanes = || core.lanes().filter(|lane| lane.class == class);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let starting = lanes()
        .filter(|lane| lane.state == LaneState::Starting)
        .count();
    let oldest = core
        .waiting_since(class)
        .map_or(0, |since| shared.clock.now().saturating_sub(since));
    ClassStatus {
        class,
        workers: count(state.ready.len()),
        starting: count(starting),
        target: state.target,
        min: config.min,
        max: config.max,
        threads: config.threads,
        queued: state.waiting() as u64,
        on_workers: lanes().map(|lane| u64::from(lane.load())).sum(),
        oldest_ns: shared.clock.ns(oldest),
        placement: shared.seating.text(class).to_owned(),
        broken: state.broken.clone(),
        queue_time: (&state.queue_time).into(),
        run_time: (&state.run_time).into(),
    }
}

fn policy_name(policy: &Policy) -> &'static str {
    match policy {
        Policy::LeastLoaded => "least_loaded",
        Policy::RoundRobin => "round_robin",
        Policy::PowerOfTwo => "power_of_two",
        Policy::Custom(_) => "custom",
    }
}

impl From<&Decision> for DecisionRow {
    fn from(decision: &Decision) -> Self {
        let seen = &decision.snapshot;
        Self {
            at_ms: unix_ms_of(decision.at),
            class: seen.class,
            action: decision.action,
            before: decision.before,
            after: decision.after,
            reason: decision.reason.clone().into_owned(),
            starting: seen.starting,
            threads: seen.ready.saturating_mul(seen.threads),
            queued: seen.queued,
            on_workers: seen.on_workers,
            oldest_ns: u64::try_from(seen.oldest.as_nanos()).unwrap_or(u64::MAX),
            cpu: seen.cpu,
            memory: seen.memory,
        }
    }
}

/// Keeps a decision about the size of a class where others can see it.
pub(crate) fn log_decision(decision: &Decision, control: &ControlSegment) {
    if control.is_named() {
        control.log_decision(&(&DecisionRow::from(decision)).into());
    }
}
