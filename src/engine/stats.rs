//! What the engine says about itself: counters, one row per worker, JSON, the control segment.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::engine::core::{Core, Phase};
use crate::engine::crash::Verdict;
use crate::engine::lane::{Lane, LaneState};
use crate::engine::scaling::log::{Action, Decision};
use crate::shm::control::{ControlSegment, RowWriter};
use crate::shm::layout::CREDITS;
use crate::shm::load_table::{Counter, CrashRecord, DecisionRecord, Load, Row, Text};
use crate::sys::clock::unix_ms;
use crate::sys::process::Exit;
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
    /// Processor time of the process, in ns; 0 = not measured yet.
    pub cpu_ns: u64,
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
            cpu_ns: 0,
            rss_bytes: 0,
            started_ms: 0,
        }
    }
}

#[derive(Serialize)]
struct Status<'a> {
    version: &'a str,
    name: Option<&'a str>,
    pid: u32,
    state: &'a str,
    degraded: bool,
    tasks: Stats,
    classes: Vec<ClassStatus<'a>>,
    workers: Vec<WorkerRow>,
}

#[derive(Serialize)]
struct ClassStatus<'a> {
    class: &'static str,
    workers: usize,
    target: u32,
    min: u32,
    max: u32,
    threads: u32,
    queued: usize,
    /// Why no worker can be started.
    broken: Option<&'a str>,
}

pub(crate) fn status_json(core: &Core, config: &Config) -> String {
    let classes = Class::ALL
        .iter()
        .map(|&class| {
            let (state, config) = (&core.classes[class.index()], config.class(class));
            ClassStatus {
                class: class.name(),
                workers: state.ready.len(),
                target: state.target,
                min: config.min,
                max: config.max,
                threads: config.threads,
                queued: state.waiting(),
                broken: state.broken.as_deref(),
            }
        })
        .collect();
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        name: config.name.as_deref(),
        pid: std::process::id(),
        state: phase_name(core.phase),
        degraded: core.degraded,
        tasks: Stats::of(core),
        classes,
        workers: core.lanes().map(WorkerRow::of).collect(),
    };
    // Numbers and strings only: this cannot fail.
    serde_json::to_string(&status).unwrap_or_default()
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Stopping | Phase::Cancelling => "stopping",
        Phase::Stopped => "stopped",
    }
}

/// Brings the engine's counters in the control segment up to date.
pub(crate) fn publish_counters(core: &Core, control: &ControlSegment) {
    let stats = Stats::of(core);
    for (counter, value) in [
        (Counter::Submitted, stats.submitted),
        (Counter::Completed, stats.completed),
        (Counter::Failed, stats.failed),
        (Counter::Crashed, stats.crashed),
        (Counter::TimedOut, stats.timed_out),
        (Counter::Cancelled, stats.cancelled),
        (Counter::WouldBlock, stats.would_block),
        (Counter::Queued, stats.queued),
        (Counter::Running, stats.on_workers),
        (Counter::Unpolled, stats.unpolled),
        (Counter::Spawned, stats.spawned),
        (Counter::Died, stats.died),
        (Counter::Workers, stats.workers),
        (Counter::State, core.phase as u64),
    ] {
        control.set(counter, value);
    }
}

/// Brings one worker's row in the control segment up to date.
pub(crate) fn publish_worker(
    worker: usize,
    lane: Option<&Lane>,
    row: &mut RowWriter,
    control: &ControlSegment,
) {
    let Ok(worker) = u32::try_from(worker) else {
        return;
    };
    let Some(lane) = lane else {
        control.set_load(worker, Load::default());
        return row.publish(&Row::default());
    };
    let now = WorkerRow::of(lane);
    control.set_load(
        worker,
        Load {
            state: now.state as u8,
            outstanding: lane.load(),
        },
    );
    row.publish(&Row {
        state: now.state as u32,
        pid: now.pid,
        incarnation: now.incarnation,
        class: now.class as u32,
        threads: now.threads,
        credits: now.depth,
        queued: now.queued,
        running: now.running,
        completed: now.completed,
        failed: now.failed,
        busy_ns: now.busy_ns,
        mean_service_ns: now.service_ns,
        crashed: now.crashed,
        ..Row::default()
    });
}

/// Keeps a decision about the size of a class where others can see it.
pub(crate) fn log_decision(decision: &Decision, control: &ControlSegment) {
    let seen = &decision.snapshot;
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let (action, reason) = match decision.action {
        // A change by hand: 1 = grow, 2 = shrink, as by a policy.
        Action::Resize => (u32::from(decision.after < decision.before) + 1, 1),
        Action::Grow => (1, 2),
        Action::Shrink => (2, 2),
        Action::Failure => (3, 3),
    };
    control.log_decision(&DecisionRecord {
        at_ms: unix_ms().cast_signed(),
        class: seen.class as u32,
        action,
        reason,
        before: decision.before,
        after: decision.after,
        starting: seen.starting,
        threads: seen.ready.saturating_mul(seen.threads),
        queued: number(seen.queued),
        running: number(seen.on_workers),
        oldest_us: u64::try_from(seen.oldest.as_micros()).unwrap_or(u64::MAX),
        cpu_permille: permille(seen.cpu.unwrap_or(0.0)),
        memory_permille: permille(seen.memory.unwrap_or(0.0)),
        ..DecisionRecord::default()
    });
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates"
)]
fn permille(share: f32) -> u32 {
    (share * 1000.0) as u32
}

/// The control segment's record of a worker's death; taken before its tasks are settled.
pub(crate) fn crash_record(lane: &Lane, verdict: &Verdict) -> CrashRecord {
    let row = WorkerRow::of(lane);
    let (kind, signal, exit_code) = match verdict.exit {
        Exit::Signal(signal) => (1, signal.unsigned_abs(), 0),
        Exit::Code(code) => (2, 0, code.cast_unsigned()),
        Exit::Unknown => (0, 0, 0),
    };
    let [task_high, task_low] = verdict.convicted.map_or([0; 2], |task| task.id.to_halves());
    CrashRecord {
        at_ms: unix_ms().cast_signed(),
        worker: row.slot,
        pid: row.pid,
        incarnation: row.incarnation,
        class: row.class as u32,
        kind,
        signal,
        exit_code,
        fault_address: verdict.fault_address().unwrap_or_default(),
        started: row.running,
        returned: row.queued,
        uptime_ms: u64::try_from(lane.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
        task_high,
        task_low,
        convicted: u32::from(verdict.convicted.is_some()),
        text: Text::new(verdict.place.as_deref().unwrap_or_default()),
    }
}
