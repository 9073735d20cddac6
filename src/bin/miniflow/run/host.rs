//! The thread that takes completions and writes results.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use miniflow::{Completion, Engine, Outcome, TaskState};

use super::args::Crew;
use super::bell::{Bell, wait_readable};
use super::feed::{Form, Meter};
use super::flight::Flight;
use super::output::Output;
use super::progress::{Figures, Progress, TICK};
use super::row::{self, Ended};
use super::signals::Signals;
use super::tally::Tally;
use crate::error::{Error, Result};

/// How long running tasks may go on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);
/// Programs of which none has answered for so long may never do so.
const SILENCE: Duration = Duration::from_secs(5);
const HINT: &str = "miniflow run: the program has not answered a line for 5 s; one that buffers its \
                    output never does: run it under `stdbuf -oL`, or with its own option for that";
/// Completions taken at a time.
const BATCH: usize = 256;
/// Bytes of results that wait for their turn (--ordered), before no more tasks are submitted.
const WAITING: usize = 64 << 20;

/// What the loop is about.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) flight: &'a Flight,
    pub(crate) meter: &'a Meter,
    pub(crate) signals: &'a Signals,
    pub(crate) form: &'a Form,
    pub(crate) crew: Crew,
    pub(crate) output: &'a mut Output,
    pub(crate) progress: &'a mut Progress,
    pub(crate) tally: &'a mut Tally,
    pub(crate) turn: Turn,
    /// Ends the reading of params.
    pub(crate) stop: &'a Bell,
}

/// Which result is written next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The first that comes.
    Any,
    /// That of the task with the lowest index; the others wait.
    Ordered {
        waiting: BTreeMap<u64, Vec<u8>>,
        bytes: usize,
    },
}

/// Whether the user is told that nothing comes of the tasks.
#[derive(Debug, Clone, Copy)]
enum Hint {
    /// There are none yet.
    None,
    Due(Instant),
    Given,
}

impl Turn {
    pub(crate) fn new(ordered: bool) -> Self {
        match ordered {
            false => Self::Any,
            true => Self::Ordered {
                waiting: BTreeMap::new(),
                bytes: 0,
            },
        }
    }
}

impl Drop for Host<'_> {
    /// However it ends, the other thread must not wait for it.
    fn drop(&mut self) {
        self.flight.close();
        self.stop.ring();
    }
}

impl Host<'_> {
    /// Writes the results of all tasks, or, after a signal, of those that end in time.
    pub(crate) fn run(mut self) -> Result<()> {
        let outcome = self.collect();
        self.flight.close();
        // What still runs gets the engine's grace.
        let stopped = self.engine.stop(Some(Duration::ZERO));
        let outcome = outcome.and_then(|()| self.settle_rest());
        let figures = self.figures();
        self.progress.finish(figures);
        outcome?;
        self.output.finish()?;
        stopped.map_err(Error::engine("cannot stop the engine"))
    }

    fn collect(&mut self) -> Result<()> {
        let event = self.engine.event_fd();
        let event = event.map_err(Error::engine("cannot watch the engine"))?;
        let mut batch = Vec::with_capacity(BATCH);
        let (mut deadline, mut hint) = (None, Hint::None);
        loop {
            self.flight.bell().hush(); // before looking at what it rings for
            if self.flight.is_over() {
                return Ok(());
            }
            if self.signals.seen().is_some() {
                let deadline = *deadline.get_or_insert_with(|| self.interrupt());
                if Instant::now() >= deadline {
                    return Ok(());
                }
            }
            let rejected = self.settle_rejected()?;
            let polled = self
                .engine
                .poll_into(&mut batch, BATCH, Some(Duration::ZERO))
                .map_err(Error::engine("cannot take completions"))?;
            self.settle(&mut batch)?;
            let figures = self.figures();
            self.progress.show(figures);
            self.hint(&mut hint);
            if rejected == 0 && polled == 0 {
                wait_readable(&[event, self.flight.bell().as_fd()], Some(TICK));
            }
        }
    }

    /// Tells what a silent program may lack.
    fn hint(&self, hint: &mut Hint) {
        let waits = matches!(self.form, Form::Line) && self.tally.tasks() == 0;
        match *hint {
            // Relaxed, as in `figures`.
            Hint::None if waits && self.meter.found.load(Relaxed) > 0 => {
                *hint = Hint::Due(Instant::now() + SILENCE);
            }
            Hint::Due(due) if waits && Instant::now() >= due => {
                self.progress.note(HINT);
                *hint = Hint::Given;
            }
            _ => {}
        }
    }

    /// Ends the feeding and takes back what no worker has started; returns when the patience ends.
    fn interrupt(&mut self) -> Instant {
        self.flight.close();
        let mut running = 0;
        for id in self.flight.ids() {
            // What runs is not told: a task that stops half-way would look complete. What is done
            // has its result, unless a worker has only handed it back: that is not started again.
            match self.engine.task_state(id) {
                Ok(TaskState::Running { .. }) => running += 1,
                Ok(_) => {
                    let _ = self.engine.cancel(id); // gone meanwhile: it has ended
                }
                Err(_) => {}
            }
        }
        self.progress.note(&format!(
            "miniflow run: interrupted; running tasks ({running}) have {} s to end; once more: at once",
            GRACE.as_secs()
        ));
        Instant::now() + GRACE
    }

    /// What has ended when the engine was stopped.
    fn settle_rest(&mut self) -> Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        self.settle_rejected()?;
        while let Ok(1..) = self
            .engine
            .poll_into(&mut batch, BATCH, Some(Duration::ZERO))
        {
            // The end of the engine is the end of these: a later run starts them again.
            batch.retain(Completion::is_completed);
            self.settle(&mut batch)?;
        }
        // Without those that have no result, the others need not wait for their turn.
        if let Turn::Ordered { waiting, .. } = &mut self.turn {
            for line in std::mem::take(waiting).into_values() {
                self.output.push(&line)?;
            }
        }
        self.output.flush()
    }

    fn settle_rejected(&mut self) -> Result<usize> {
        let rejected = self.flight.take_rejected();
        let mut left = Vec::new();
        for task in &rejected {
            self.write(row::of_rejected(task.index, &task.why), &mut left)?;
        }
        self.let_go(left)?;
        Ok(rejected.len())
    }

    fn settle(&mut self, batch: &mut Vec<Completion>) -> Result<()> {
        let mut left = Vec::with_capacity(batch.len());
        let interrupted = self.signals.seen().is_some();
        for completion in batch.drain(..) {
            if interrupted && completion.outcome() == Outcome::Cancelled {
                left.push(completion.user_data()); // as if it had never been submitted
                continue;
            }
            let ended = row::of_completion(&completion, self.crew.class, self.form);
            drop(completion); // gives the worker its memory back
            self.write(ended, &mut left)?;
        }
        self.let_go(left)
    }

    /// Writes a result, or keeps it until it is its turn. Those that are written go to `left`.
    fn write(&mut self, ended: Ended, left: &mut Vec<u64>) -> Result<()> {
        self.tally.count(&ended);
        match &mut self.turn {
            Turn::Any => {
                self.output.push(&ended.line)?;
                left.push(ended.index);
            }
            Turn::Ordered { waiting, bytes } => {
                *bytes += ended.line.len();
                waiting.insert(ended.index, ended.line);
            }
        }
        Ok(())
    }

    /// Takes those from the flight that need no more room, and writes what had to wait for them.
    fn let_go(&mut self, mut left: Vec<u64>) -> Result<()> {
        if let Turn::Ordered { waiting, bytes } = &mut self.turn {
            self.flight.leave(&left);
            left.clear();
            while let Some(first) = self.flight.first()
                && let Some(line) = waiting.remove(&first)
            {
                *bytes -= line.len();
                self.output.push(&line)?;
                self.flight.leave(&[first]);
            }
            self.flight.hold(*bytes > WAITING);
        }
        self.output.flush()?;
        if !left.is_empty() {
            self.flight.leave(&left);
        }
        Ok(())
    }

    fn figures(&self) -> Figures {
        // Relaxed: figures for people.
        let skipped = self.meter.skipped.load(Relaxed);
        Figures {
            ended: self.tally.tasks(),
            failed: self.tally.failed(),
            total: self.meter.total().map(|n| n.saturating_sub(skipped)),
        }
    }
}
