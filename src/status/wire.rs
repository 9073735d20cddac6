//! A status on its way through the control segment: from values to records, and back.
//!
//! A reader takes nothing for granted: what a record says of a kind that there is not, is left out.
#![forbid(unsafe_code)]

use super::{
    BUCKETS, ClassStatus, Crash, DecisionRow, EngineState, Histogram, Machine, MemoryState, Status,
};
use crate::engine::scaling::log::Action;
use crate::engine::stats::{Stats, WorkerRow, WorkerState};
use crate::shm::control::Publisher;
use crate::shm::load_table::{
    ClassRecord, CrashRecord, DecisionRecord, EngineRecord, HISTOGRAM_BUCKETS, HistogramRecord,
    NotesRecord, Row, SIGNALS, Table, Text, Times,
};
use crate::sys::clock::monotonic_ns;
use crate::task::{Class, TaskId};

const _: () = assert!(BUCKETS == HISTOGRAM_BUCKETS);

/// What a publication says beside the status.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// When the status was gathered, by `CLOCK_MONOTONIC`.
    pub(crate) at_ns: u64,
    /// Nothing will change until the supervisor is woken.
    pub(crate) resting: bool,
}

/// Shows a status to other processes; crashes and decisions have their logs.
pub(crate) fn publish(status: &Status, moment: Moment, publisher: &mut Publisher) {
    let mut rows = status.workers.iter().peekable();
    for slot in 0..publisher.max_workers() {
        let row = rows.next_if(|row| row.slot == slot);
        publisher.row(slot, &row.map(Row::from).unwrap_or_default());
    }
    for class in &status.classes {
        let (index, times) = (class.class.index(), [&class.queue_time, &class.run_time]);
        publisher.class(index, &class_record(class, moment.at_ns));
        for (which, histogram) in [Times::Queue, Times::Run].into_iter().zip(times) {
            publisher.histogram(index, which, &histogram.into());
        }
    }
    let mut notes = NotesRecord::default();
    for (place, note) in notes.texts.iter_mut().zip(&status.notes) {
        *place = Text::new(note);
    }
    publisher.notes(&notes);
    let mut deaths = [0; SIGNALS];
    for count in &status.signals {
        deaths[count.signal as usize % SIGNALS] = count.deaths;
    }
    publisher.deaths(&deaths);
    publisher.engine(&engine_record(status, moment));
}

/// What stands in a segment. `alive`: whether its engine lived a moment ago; if not, this is its last
/// word.
pub(crate) fn read(table: &Table, alive: bool) -> Status {
    table.renew_patience();
    let engine = table.engine();
    let mut unread = engine.is_none();
    let engine = engine.unwrap_or_default();
    let workers = rows(table);
    let classes: Vec<_> = Class::ALL
        .into_iter()
        .map(|class| table.class(class.index()))
        .collect();
    unread |= classes.contains(&None);
    let histogram = |class: Class, which| {
        let record = table.histogram(class.index(), which).unwrap_or_default();
        Histogram::from_counts(&record.counts, record.sum_ns)
    };
    let times =
        Class::ALL.map(|class| (histogram(class, Times::Queue), histogram(class, Times::Run)));
    let mut notes: Vec<String> = (table.notes().unwrap_or_default().texts.iter())
        .map(Text::to_string)
        .filter(|note| !note.is_empty())
        .collect();
    let (signals, crashes) = (super::signal_counts(&table.deaths()), table.crashes());
    let decisions = table.decisions();

    let state = match engine_state(engine.state) {
        Some(EngineState::Stopped) => EngineState::Stopped,
        state if alive => state.unwrap_or(EngineState::Running),
        _ => EngineState::Dead,
    };
    if unread {
        notes.push(if alive {
            "the engine has not published all of its status yet".to_owned()
        } else {
            "the engine ended before it had published all of its status".to_owned()
        });
    }
    // What waits grows older as long as there is somebody for whom it waits.
    let now_ns = if alive { monotonic_ns() } else { engine.at_ns };
    let still_holds = alive && engine.resting != 0;
    let classes = Class::ALL.into_iter().zip(classes).zip(times);
    Status {
        schema: super::SCHEMA,
        version: engine.version.to_string(),
        name: Some(table.engine_name()).filter(|name| !name.is_empty()),
        pid: table.pid(),
        state,
        at_ms: if still_holds {
            super::now_ms()
        } else {
            engine.at_ms
        },
        started_ms: table.created_ms(),
        degraded: engine.degraded != 0,
        policy: engine.policy.to_string(),
        scaling: engine.scaling.to_string(),
        tasks: (&engine).into(),
        machine: machine(&engine),
        classes: classes
            .map(|((class, record), times)| {
                class_status(class, &record.unwrap_or_default(), times, now_ns)
            })
            .collect(),
        workers,
        signals,
        crashes: crashes
            .iter()
            .filter_map(|(_, record)| crash(record))
            .collect(),
        decisions: decisions
            .iter()
            .filter_map(|(_, record)| decision(record))
            .collect(),
        notes,
    }
}

/// The rows of a segment that stand for a worker.
pub(crate) fn workers(table: &Table) -> Vec<WorkerRow> {
    table.renew_patience();
    rows(table)
}

fn rows(table: &Table) -> Vec<WorkerRow> {
    (0..table.max_workers())
        .filter_map(|slot| worker(slot, &table.read_row(slot)?))
        .collect()
}

// ---- the engine ----

fn engine_record(status: &Status, moment: Moment) -> EngineRecord {
    let (tasks, machine) = (&status.tasks, &status.machine);
    EngineRecord {
        at_ms: status.at_ms,
        at_ns: moment.at_ns,
        resting: moment.resting.into(),
        state: status.state as u32,
        version: Text::new(&status.version),
        policy: Text::new(&status.policy),
        scaling: Text::new(&status.scaling),
        cpus: machine.cpus,
        cpu: machine.cpu,
        memory: machine.memory,
        memory_pressure: machine.memory_pressure,
        memory_state: machine.memory_state as u32,
        submitted: tasks.submitted,
        completed: tasks.completed,
        failed: tasks.failed,
        crashed: tasks.crashed,
        timed_out: tasks.timed_out,
        cancelled: tasks.cancelled,
        would_block: tasks.would_block,
        recalled: tasks.recalled,
        redispatched: tasks.redispatched,
        retried: tasks.retried,
        spawned: tasks.spawned,
        died: tasks.died,
        killed: tasks.killed,
        recycled: tasks.recycled,
        violations: tasks.violations,
        policy_failures: tasks.policy_failures,
        queued: tasks.queued,
        on_workers: tasks.on_workers,
        unpolled: tasks.unpolled,
        workers: tasks.workers,
        payload_bytes: tasks.payload_bytes,
        payload_capacity: tasks.payload_capacity,
        degraded: tasks.degraded.into(),
    }
}

impl From<&EngineRecord> for Stats {
    fn from(record: &EngineRecord) -> Self {
        Self {
            submitted: record.submitted,
            completed: record.completed,
            failed: record.failed,
            crashed: record.crashed,
            timed_out: record.timed_out,
            cancelled: record.cancelled,
            would_block: record.would_block,
            recalled: record.recalled,
            redispatched: record.redispatched,
            retried: record.retried,
            spawned: record.spawned,
            died: record.died,
            killed: record.killed,
            recycled: record.recycled,
            violations: record.violations,
            policy_failures: record.policy_failures,
            queued: record.queued,
            on_workers: record.on_workers,
            unpolled: record.unpolled,
            workers: record.workers,
            payload_bytes: record.payload_bytes,
            payload_capacity: record.payload_capacity,
            degraded: record.degraded != 0,
        }
    }
}

fn machine(record: &EngineRecord) -> Machine {
    Machine {
        cpus: record.cpus,
        cpu: record.cpu,
        memory: record.memory,
        memory_pressure: record.memory_pressure,
        memory_state: one_of(MemoryState::ALL, |state| state as u32, record.memory_state)
            .unwrap_or_default(),
    }
}

fn engine_state(number: u32) -> Option<EngineState> {
    use EngineState::{Dead, Running, Stopped, Stopping};
    one_of(
        [Running, Stopping, Stopped, Dead],
        |state| state as u32,
        number,
    )
}

/// The one of `all` that has this number.
fn one_of<T: Copy, const N: usize>(
    all: [T; N],
    number_of: impl Fn(T) -> u32,
    number: u32,
) -> Option<T> {
    all.into_iter().find(|&one| number_of(one) == number)
}

// ---- classes ----

fn class_record(class: &ClassStatus, at_ns: u64) -> ClassRecord {
    ClassRecord {
        workers: class.workers,
        starting: class.starting,
        target: class.target,
        min: class.min,
        max: class.max,
        threads: class.threads,
        queued: class.queued,
        on_workers: class.on_workers,
        oldest_since_ns: match class.oldest_ns {
            0 => 0,
            age => at_ns.saturating_sub(age).max(1),
        },
        placement: Text::new(&class.placement),
        broken: class.broken.is_some().into(),
        why: Text::new(class.broken.as_deref().unwrap_or_default()),
    }
}

fn class_status(
    class: Class,
    record: &ClassRecord,
    (queue_time, run_time): (Histogram, Histogram),
    now_ns: u64,
) -> ClassStatus {
    ClassStatus {
        class,
        workers: record.workers,
        starting: record.starting,
        target: record.target,
        min: record.min,
        max: record.max,
        threads: record.threads,
        queued: record.queued,
        on_workers: record.on_workers,
        oldest_ns: match record.oldest_since_ns {
            0 => 0,
            since => now_ns.saturating_sub(since),
        },
        placement: record.placement.to_string(),
        broken: (record.broken != 0).then(|| record.why.to_string()),
        queue_time,
        run_time,
    }
}

impl From<&Histogram> for HistogramRecord {
    fn from(histogram: &Histogram) -> Self {
        Self {
            sum_ns: histogram.sum_ns,
            counts: *histogram.counts,
        }
    }
}

// ---- workers ----

impl From<&WorkerRow> for Row {
    fn from(row: &WorkerRow) -> Self {
        Self {
            state: row.state as u32,
            pid: row.pid,
            incarnation: row.incarnation,
            class: row.class as u32,
            threads: row.threads,
            depth: row.depth,
            queued: row.queued,
            running: row.running,
            completed: row.completed,
            failed: row.failed,
            crashed: row.crashed,
            busy_ns: row.busy_ns,
            service_ns: row.service_ns,
            cpu_ns: row.cpu_ns,
            cpu_permille: row.cpu_permille,
            rss_bytes: row.rss_bytes,
            started_ms: row.started_ms,
        }
    }
}

/// `None` if there is no worker in the slot.
fn worker(slot: u32, row: &Row) -> Option<WorkerRow> {
    Some(WorkerRow {
        slot,
        pid: row.pid,
        incarnation: row.incarnation,
        class: Class::from_wire(row.class)?,
        state: WorkerState::from_wire(row.state)?,
        threads: row.threads,
        depth: row.depth,
        queued: row.queued,
        running: row.running,
        completed: row.completed,
        failed: row.failed,
        busy_ns: row.busy_ns,
        service_ns: row.service_ns,
        crashed: row.crashed,
        cpu_ns: row.cpu_ns,
        cpu_permille: row.cpu_permille,
        rss_bytes: row.rss_bytes,
        started_ms: row.started_ms,
    })
}

// ---- logs ----

impl From<&Crash> for CrashRecord {
    fn from(crash: &Crash) -> Self {
        let task = crash.task.as_ref().and_then(|id| id.parse::<TaskId>().ok());
        let [task_high, task_low] = task.map_or([0; 2], TaskId::to_halves);
        Self {
            at_ms: crash.at_ms,
            worker: crash.worker,
            pid: crash.pid,
            class: crash.class as u32,
            signal: crash.signal,
            exit_code: crash.exit_code,
            started: crash.started,
            returned: crash.returned,
            uptime_ms: crash.uptime_ms,
            convicted: task.is_some().into(),
            task_high,
            task_low,
            place: Text::new(&crash.place),
        }
    }
}

fn crash(record: &CrashRecord) -> Option<Crash> {
    let task = || TaskId::from_halves(record.task_high, record.task_low).to_string();
    Some(Crash {
        at_ms: record.at_ms,
        worker: record.worker,
        pid: record.pid,
        class: Class::from_wire(record.class)?,
        signal: record.signal,
        exit_code: record.exit_code,
        started: record.started,
        returned: record.returned,
        uptime_ms: record.uptime_ms,
        task: (record.convicted != 0).then(task),
        place: record.place.to_string(),
    })
}

impl From<&DecisionRow> for DecisionRecord {
    fn from(row: &DecisionRow) -> Self {
        Self {
            at_ms: row.at_ms,
            class: row.class as u32,
            action: action_number(row.action),
            before: row.before,
            after: row.after,
            starting: row.starting,
            threads: row.threads,
            queued: row.queued,
            on_workers: row.on_workers,
            oldest_ns: row.oldest_ns,
            cpu: row.cpu,
            memory: row.memory,
            reason: Text::new(&row.reason),
        }
    }
}

fn decision(record: &DecisionRecord) -> Option<DecisionRow> {
    Some(DecisionRow {
        at_ms: record.at_ms,
        class: Class::from_wire(record.class)?,
        action: one_of(ACTIONS, action_number, record.action)?,
        before: record.before,
        after: record.after,
        reason: record.reason.to_string(),
        starting: record.starting,
        threads: record.threads,
        queued: record.queued,
        on_workers: record.on_workers,
        oldest_ns: record.oldest_ns,
        cpu: record.cpu,
        memory: record.memory,
    })
}

const ACTIONS: [Action; 4] = [
    Action::Grow,
    Action::Shrink,
    Action::Resize,
    Action::Failure,
];

/// 0 is none. A new action goes into `ACTIONS` too.
fn action_number(action: Action) -> u32 {
    match action {
        Action::Grow => 1,
        Action::Shrink => 2,
        Action::Resize => 3,
        Action::Failure => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::control::ControlSegment;

    #[test]
    fn whatever_stands_in_a_segment_can_be_told() {
        for word in [
            1,
            2,
            3,
            4,
            1 << 31,
            1 << 63,
            u64::MAX,
            0x8080_8080_8080_8080,
        ] {
            let segment = ControlSegment::private(2).unwrap();
            let mut publisher = segment.publisher().unwrap();
            publisher.engine(&EngineRecord::filled(word));
            publisher.notes(&NotesRecord::filled(word));
            publisher.deaths(&[word; SIGNALS]);
            for class in Class::ALL.map(Class::index) {
                publisher.class(class, &ClassRecord::filled(word));
                for times in [Times::Queue, Times::Run] {
                    publisher.histogram(class, times, &HistogramRecord::filled(word));
                }
            }
            publisher.row(1, &Row::filled(word));
            segment.log_crash(&CrashRecord::filled(word));
            segment.log_decision(&DecisionRecord::filled(word));
            for alive in [false, true] {
                let status = read(&segment, alive);
                assert_eq!(status.tasks.submitted, word);
                assert!(status.to_prometheus().contains(&word.to_string()));
                let json = status.to_json();
                assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
            }
        }
    }
}
