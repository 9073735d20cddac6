//! Watching engines from outside: other processes of the same user, by the engine's name.
//!
//! An engine with a name, an automatic one or that of [`Builder::name`](crate::Builder::name), keeps its
//! [status](crate::status::Status) in a small segment of POSIX shared memory, brought up to date every
//! 100 ms while it is busy. A monitor maps it read-only: the engine neither knows nor waits.
//!
//! ```no_run
//! for engine in miniflow::monitor::list()?.iter().filter(|e| e.alive) {
//!     let monitor = miniflow::monitor::Monitor::open(&engine.name)?;
//!     println!("{}: {} tasks completed", engine.name, monitor.status().tasks.completed);
//! }
//! # Ok::<(), miniflow::Error>(())
//! ```
#![forbid(unsafe_code)]

use crate::engine::stats::{Stats, WorkerRow};
use crate::error::Result;
use crate::shm::control::{self, ControlReader};
use crate::status::{Status, wire};

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

    /// All that the engine says about itself, as last published: at most 100 ms ago while it is busy,
    /// and what still holds while it rests. What waits is as old as it is now. Of its decisions there
    /// are the last 64.
    ///
    /// Each record is whole; two of them may be of different moments. One whose writer was stopped or
    /// killed in the middle is given up after some milliseconds and missing.
    #[must_use]
    pub fn status(&self) -> Status {
        wire::read(&self.reader, self.is_alive())
    }

    /// The engine's counters as last published.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.reader.renew_patience();
        (&self.reader.engine().unwrap_or_default()).into()
    }

    /// One row per worker process as last published.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerRow> {
        wire::workers(&self.reader)
    }
}
