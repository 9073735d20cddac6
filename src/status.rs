//! What an engine is doing, as plain values: by [`Engine::status`](crate::Engine::status) in its host, by
//! [`Monitor::status`](crate::monitor::Monitor::status) in any other process of the same user.
//!
//! One type for both, so that whatever shows it (the JSON of `mf_status_json`, the metrics, the command
//! line's screens) works on either side. The JSON form is that of the types: `docs/status.md`.
#![forbid(unsafe_code)]

mod histogram;
mod json;
mod metrics;
pub(crate) mod wire;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

pub use self::histogram::Histogram;
pub(crate) use self::histogram::{BUCKETS, Counts};
pub use self::metrics::{PROMETHEUS_CONTENT_TYPE, prometheus};
use crate::engine::deaths::signal_counts;
use crate::engine::scaling::log::Action;
pub use crate::engine::stats::{Stats, WorkerRow, WorkerState};
use crate::sys::clock::unix_ms_of;
use crate::task::Class;

/// Goes up when a field changes its name or meaning; new fields do not change it.
pub const SCHEMA: u32 = 1;

/// An engine at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// [`SCHEMA`] of who made this.
    pub schema: u32,
    /// Version of the library that the engine runs.
    pub version: String,
    /// Its name; `None` if it has none.
    pub name: Option<String>,
    /// The host process.
    pub pid: u32,
    /// What it is about.
    pub state: EngineState,
    /// The last moment at which these values are known to have held, in milliseconds since 1970. Seen
    /// from outside that is now for an engine at rest, at most 100 ms ago for a busy one, and for a dead
    /// one its last word.
    pub at_ms: i64,
    /// When the engine was started, in milliseconds since 1970.
    pub started_ms: i64,
    /// Whether the zygote is gone, so that no worker can be started.
    pub degraded: bool,
    /// The dispatch policy: `least_loaded`, `round_robin`, `power_of_two` or `custom`.
    pub policy: String,
    /// The scaling policy: `off`, `by_load`, `compatible`, `adaptive` or `custom`.
    pub scaling: String,
    /// Counters of the whole engine.
    pub tasks: Stats,
    /// The machine, as far as scaling looks at it.
    pub machine: Machine,
    /// Both classes of workers.
    pub classes: Vec<ClassStatus>,
    /// One row per worker process.
    pub workers: Vec<WorkerRow>,
    /// Unasked deaths of workers by signal, in the order of the signals' numbers.
    pub signals: Vec<SignalCount>,
    /// The last unasked deaths of workers, oldest first: at most 64.
    pub crashes: Vec<Crash>,
    /// The last decisions about numbers of workers, oldest first: at most 1000 in the host, 64 from
    /// outside.
    pub decisions: Vec<DecisionRow>,
    /// What could not be done as the settings ask, and what the engine does meanwhile.
    pub notes: Vec<String>,
}

impl Status {
    /// In a forked child, to which no engine belongs.
    pub(crate) fn of_nothing() -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: None,
            pid: 0,
            state: EngineState::Stopped,
            at_ms: now_ms(),
            started_ms: 0,
            degraded: false,
            policy: String::new(),
            scaling: String::new(),
            tasks: Stats::default(),
            machine: Machine::default(),
            classes: Vec::new(),
            workers: Vec::new(),
            signals: Vec::new(),
            crashes: Vec::new(),
            decisions: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The status of one class; `None` if it is of an engine that is not this process's.
    #[must_use]
    pub fn class(&self, class: Class) -> Option<&ClassStatus> {
        self.classes.iter().find(|status| status.class == class)
    }
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    unix_ms_of(SystemTime::now())
}

/// The life of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EngineState {
    /// Takes tasks.
    Running,
    /// Takes no more tasks, finishes those that it has.
    Stopping,
    /// Has ended all tasks.
    Stopped,
    /// Seen from outside: its host process is gone.
    Dead,
}

/// Processors and memory.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// Processors that the host may use.
    pub cpus: u32,
    /// The share of them in use, 0 to 1; `None` = not measured.
    pub cpu: Option<f32>,
    /// The share of memory in use, 0 to 1: of the machine's, or of what the control group may have if
    /// that is nearer to its end; `None` = not measured.
    pub memory: Option<f32>,
    /// The share of the last 10 s in which some task stood still for lack of memory, 0 to 1 (PSI);
    /// `None` = not measured.
    pub memory_pressure: Option<f32>,
    /// What the engine does about memory.
    pub memory_state: MemoryState,
}

/// What an engine does about the memory that is left.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MemoryState {
    /// Nothing.
    #[default]
    Ample,
    /// Starts no more workers than there are.
    NoGrowth,
    /// Lets idle workers go, down to the minimum.
    Shedding,
    /// Also refuses submits: they would block.
    Refusing,
}

impl MemoryState {
    pub(crate) const ALL: [Self; 4] = [Self::Ample, Self::NoGrowth, Self::Shedding, Self::Refusing];
}

/// The workers of one class and what they have to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClassStatus {
    /// Which.
    pub class: Class,
    /// Workers that take tasks.
    pub workers: u32,
    /// Workers that are being started.
    pub starting: u32,
    /// Workers wanted.
    pub target: u32,
    /// Fewest workers.
    pub min: u32,
    /// Most workers.
    pub max: u32,
    /// Threads of each worker.
    pub threads: u32,
    /// Tasks that no worker has.
    pub queued: u64,
    /// Tasks on workers, started or not.
    pub on_workers: u64,
    /// How long the task waits that has waited longest for a worker, in ns.
    pub oldest_ns: u64,
    /// How the workers of this class were placed: `none`, or what was done, in words.
    pub placement: String,
    /// Why no worker can be started.
    pub broken: Option<String>,
    /// Time from submit to start, of all tasks that ended.
    pub queue_time: Histogram,
    /// Time from start to end.
    pub run_time: Histogram,
}

/// Deaths by one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SignalCount {
    /// The signal's number; 0 stands for all that no signal ended: exits, and ends unknown.
    pub signal: u32,
    /// Worker processes that it ended.
    pub deaths: u64,
}

/// The unasked death of a worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Crash {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The worker's slot.
    pub worker: u32,
    /// Its process.
    pub pid: u32,
    /// Its class.
    pub class: Class,
    /// The signal that ended it; 0 if none did or it is not known.
    pub signal: u32,
    /// Its exit code, if it exited.
    pub exit_code: u32,
    /// Tasks that it had started.
    pub started: u32,
    /// Tasks on it that were not started, and went elsewhere.
    pub returned: u32,
    /// How long it lived, in milliseconds.
    pub uptime_ms: u64,
    /// The task that is held responsible, if one is: its id.
    pub task: Option<String>,
    /// Where it crashed, if that is known: function and line.
    pub place: String,
}

/// The name of a signal, such as `SIGSEGV`, or its number in words if it has none here.
#[must_use]
pub fn signal_name(signal: u32) -> String {
    let number = i32::try_from(signal).unwrap_or(i32::MAX);
    crate::sys::process::signal_name(number)
}

/// One decision about the number of workers of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DecisionRow {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The class.
    pub class: Class,
    /// What.
    pub action: Action,
    /// Workers wanted before.
    pub before: u32,
    /// Workers wanted from then on.
    pub after: u32,
    /// Why.
    pub reason: String,
    /// Workers that were being started.
    pub starting: u32,
    /// Threads of the workers that took tasks.
    pub threads: u32,
    /// Tasks that no worker had.
    pub queued: u64,
    /// Tasks on workers.
    pub on_workers: u64,
    /// How long the oldest task had waited for a worker, in ns.
    pub oldest_ns: u64,
    /// The share of the processors in use, 0 to 1.
    pub cpu: Option<f32>,
    /// The share of memory in use, 0 to 1.
    pub memory: Option<f32>,
}
