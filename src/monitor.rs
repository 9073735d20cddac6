//! Watching engines from outside: other processes of the same user, by the engine's name.
//!
//! A named engine ([`Builder::name`](crate::Builder::name)) keeps its counters and one row per
//! worker in a small segment of POSIX shared memory, brought up to date every 100 ms while it is
//! busy. A monitor maps it read-only: the engine neither knows nor waits.
//!
//! ```no_run
//! for engine in miniflow::monitor::list()?.iter().filter(|e| e.alive) {
//!     let monitor = miniflow::monitor::Monitor::open(&engine.name)?;
//!     println!("{}: {} tasks completed", engine.name, monitor.stats().completed);
//! }
//! # Ok::<(), miniflow::Error>(())
//! ```
#![forbid(unsafe_code)]

use crate::engine::stats::{Stats, WorkerRow, WorkerState};
use crate::error::Result;
use crate::shm::control::{self, ControlReader};
use crate::shm::load_table::{Counter, Row};
use crate::task::Class;

/// A name of an engine of this user, found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The engine's name.
    pub name: String,
    /// Its host process.
    pub pid: u32,
    /// Whether that process still lives. If not, the name is left over: see [`clean`].
    pub alive: bool,
}

/// All names of this user's engines.
///
/// # Errors
/// [`Error::System`](crate::Error::System) if `/dev/shm` cannot be read.
pub fn list() -> Result<Vec<Found>> {
    let found = control::list()?;
    Ok(found
        .into_iter()
        .map(|f| Found {
            name: f.name,
            pid: f.pid,
            alive: f.alive,
        })
        .collect())
}

/// Removes the names of dead engines, and returns them. Names of living ones are left alone.
///
/// # Errors
/// [`Error::System`](crate::Error::System) if `/dev/shm` cannot be read or locked.
pub fn clean() -> Result<Vec<String>> {
    control::clean()
}

/// A read-only view of one named engine.
#[derive(Debug)]
pub struct Monitor {
    reader: ControlReader,
}

impl Monitor {
    /// Attaches to the engine with this name.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) if there is none,
    /// [`Error::Unsupported`](crate::Error::Unsupported) if it uses another layout.
    pub fn open(name: &str) -> Result<Self> {
        Ok(Self {
            reader: ControlReader::open(name)?,
        })
    }

    /// The engine's name, as it stands in the segment.
    #[must_use]
    pub fn name(&self) -> String {
        self.reader.engine_name()
    }

    /// The host process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.reader.pid()
    }

    /// Whether the host process lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.reader.is_alive()
    }

    /// The engine's counters as last published. Those that are not published are 0.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counter = |counter| self.reader.counter(counter);
        Stats {
            submitted: counter(Counter::Submitted),
            completed: counter(Counter::Completed),
            failed: counter(Counter::Failed),
            crashed: counter(Counter::Crashed),
            timed_out: counter(Counter::TimedOut),
            cancelled: counter(Counter::Cancelled),
            would_block: counter(Counter::WouldBlock),
            spawned: counter(Counter::Spawned),
            died: counter(Counter::Died),
            queued: counter(Counter::Queued),
            on_workers: counter(Counter::Running),
            unpolled: counter(Counter::Unpolled),
            workers: counter(Counter::Workers),
            ..Stats::default()
        }
    }

    /// The last 64 unasked deaths of workers, oldest first.
    #[must_use]
    pub fn deaths(&self) -> Vec<Death> {
        let records = self.reader.crashes();
        let deaths = records.into_iter().map(|(_, r)| Death {
            at_ms: r.at_ms,
            worker: r.worker,
            pid: r.pid,
            signal: r.signal,
            exit_code: r.exit_code,
            started: r.started,
            returned: r.returned,
            uptime_ms: r.uptime_ms,
        });
        deaths.collect()
    }

    /// The last 64 changes of size, oldest first.
    #[must_use]
    pub fn resizes(&self) -> Vec<Resize> {
        let records = self.reader.decisions();
        let resizes = records.into_iter().filter_map(|(_, r)| {
            Some(Resize {
                at_ms: r.at_ms,
                class: Class::from_wire(r.class)?,
                before: r.before,
                after: r.after,
            })
        });
        resizes.collect()
    }

    /// One row per worker process as last published.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerRow> {
        (0..self.reader.max_workers())
            .filter_map(|slot| row(slot, &self.reader.read_row(slot)?))
            .collect()
    }
}

/// The death of a worker process, as the engine recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The worker's slot.
    pub worker: u32,
    /// Its process.
    pub pid: u32,
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
}

/// A change of a class's number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resize {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The class.
    pub class: Class,
    /// Workers wanted before.
    pub before: u32,
    /// Workers wanted from then on.
    pub after: u32,
}

/// A published row; `None` if there is no worker in the slot.
fn row(slot: u32, row: &Row) -> Option<WorkerRow> {
    Some(WorkerRow {
        slot,
        pid: row.pid,
        incarnation: row.incarnation,
        class: Class::from_wire(row.class)?,
        state: WorkerState::from_wire(row.state)?,
        threads: row.threads,
        depth: row.credits,
        queued: row.queued,
        running: row.running,
        completed: row.completed,
        failed: row.failed,
        busy_ns: row.busy_ns,
        service_ns: row.mean_service_ns,
        crashed: row.crashed,
        cpu_ns: row.cpu_ns,
        rss_bytes: row.rss_bytes,
        started_ms: row.started_ms,
    })
}
