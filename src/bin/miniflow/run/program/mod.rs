//! `miniflow run --program`: any program that reads a line and writes a line.
//!
//! The engine's workers are this same executable ([`worker`]); each of their threads has the program
//! as its child ([`child`]) and passes it one line at a time. A third process ([`guard`]) sees to it
//! that the program and its children do not outlive a worker that was killed.

mod child;
mod guard;
mod worker;

use std::ffi::OsString;
use std::time::Duration;

use miniflow::Builder;

pub(crate) use self::guard::guard;
pub(crate) use self::worker::{WorkerArgs, work};
use super::executable;
use super::row::Status;
use crate::error::{Error, Result};

/// How long programs have to end by themselves when there is no more input for them.
const LEAVE: Duration = Duration::from_secs(1);

/// Codes of failed tasks: what became of the program.
const CODE_DIED: i32 = 2;
const CODE_TIMED_OUT: i32 = 3;

/// What the code of a failed task says.
pub(crate) fn status_of(code: i32) -> Status {
    match code {
        CODE_DIED => Status::Crashed,
        CODE_TIMED_OUT => Status::TimedOut,
        _ => Status::Failed,
    }
}

/// A program that there is.
#[derive(Debug)]
pub(crate) struct Command {
    argv: Vec<OsString>,
}

impl Command {
    /// Checks that the program can be executed, before anything is started for it.
    pub(crate) fn find(argv: &[OsString]) -> Result<Self> {
        let name = argv.first().map(OsString::as_os_str).unwrap_or_default();
        executable::find(name)
            .map_err(|why| Error::Usage(format!("cannot run the program {why}")))?;
        Ok(Self {
            argv: argv.to_vec(),
        })
    }

    /// An engine whose workers pass lines to the program.
    pub(crate) fn engine(&self, builder: Builder, timeout: Option<Duration>) -> Builder {
        // Not by its name: that may be another file by now.
        let mut worker: Vec<OsString> = vec!["/proc/self/exe".into(), "program-worker".into()];
        if let Some(timeout) = timeout {
            worker.push("--timeout-ns".into());
            worker.push(timeout.as_nanos().to_string().into());
        }
        worker.push("--".into());
        worker.extend(self.argv.iter().cloned());
        builder.program(worker).stop_grace(LEAVE * 2)
    }
}
