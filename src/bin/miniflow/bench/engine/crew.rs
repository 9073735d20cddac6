//! An engine and its workers, as the measurements use them.

#![forbid(unsafe_code)]

use std::time::Duration;

use miniflow::{Builder, Class, Completion, Engine, TaskId};

use super::handler;
use crate::bench::clock::WATCHDOG;
use crate::bench::pin::CpuSet;
use crate::error::{Error, Result};

/// An engine that runs the bench's handler.
#[derive(Debug)]
pub(super) struct Crew {
    pub(super) engine: Engine,
}

/// Nothing here is waited for longer than this.
pub(super) const PATIENCE: Option<Duration> = Some(WATCHDOG);

impl Crew {
    /// Starts an engine of `workers` workers with one thread each.
    pub(super) fn start(workers: u32, builder: Builder) -> Result<Self> {
        let engine = builder
            .handler(handler::run)
            .workers(Class::CpuBound, workers)
            .workers(Class::IoBound, 0)
            .threads(Class::CpuBound, 1)
            .start()
            .map_err(Error::engine("starting an engine"))?;
        Ok(Self { engine })
    }

    /// The process ids of the workers.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.engine.workers().iter().map(|row| row.pid).collect()
    }

    /// Binds all threads of the workers to `cpus`.
    pub(super) fn bind(&self, cpus: CpuSet) -> Result<()> {
        self.pids()
            .into_iter()
            .try_for_each(|pid| cpus.bind_process(pid))
    }

    /// Waits for one task, which must succeed.
    #[inline]
    pub(super) fn wait(&self, id: TaskId) -> Result<Completion> {
        let completion = self
            .engine
            .wait(id, PATIENCE)
            .map_err(Error::engine("waiting for a task"))?;
        check(&completion)?;
        Ok(completion)
    }
}

/// Fails unless the task has completed.
#[inline]
pub(super) fn check(completion: &Completion) -> Result<()> {
    match completion.is_completed() {
        true => Ok(()),
        false => Err(failed(completion)),
    }
}

#[cold]
fn failed(completion: &Completion) -> Error {
    Error::Unfit(format!(
        "a task ended as {}: {}",
        completion.outcome().name(),
        completion.text()
    ))
}
